//! A DTLS session of a client that the front has verified.

use std::time::{Duration, Instant};

use openssl::ssl::{self, ErrorCode, NameType, Ssl, SslStream};

use super::super::{Certificates, Error, MAX_PLAINTEXT, State};
use super::hello::Hello;
use super::link::Link;

/// When a flight is sent again for the first time; each time after takes twice as
/// long (RFC 6347 section 4.2.4.1). OpenSSL has the same rule.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// When to ask again, should the clock beneath be behind the owner's.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Bounds of a session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest datagram of the handshake in bytes, without IP and UDP headers; at
    /// least 256. Data is never split.
    pub datagram: u16,
    /// How long the handshake may take.
    pub handshake: Duration,
}

impl Default for Limits {
    /// 1200 bytes, which every path takes, and 30 seconds.
    fn default() -> Self {
        Self { datagram: 1200, handshake: Duration::from_secs(30) }
    }
}

/// The server's side of a DTLS connection.
///
/// After each call that takes `&mut self`, send [`Self::datagrams`], then
/// [`Self::clear_datagrams`]; also after an error: the alert tells the client.
pub struct Session {
    stream: SslStream<Link>,
    state: State,
    random: [u8; 32],
    retransmission: Retransmission,
}

struct Retransmission {
    /// When the handshake has to be done.
    deadline: Instant,
    /// When the last flight is sent again.
    at: Instant,
    timeout: Duration,
}

impl Session {
    /// Begins a session; the server's first flight is to be sent. When the hello
    /// comes again later, the session takes it like any other datagram.
    ///
    /// # Errors
    ///
    /// Why there can be no session, with the alert that tells the client, empty
    /// when there is none.
    pub fn accept(
        certificates: &Certificates,
        limits: Limits,
        hello: &Hello<'_>,
        now: Instant,
    ) -> Result<Self, (Error, Vec<u8>)> {
        let internal = |_| (Error::Internal, Vec::new());
        let mut ssl = Ssl::new(certificates.datagram_context()).map_err(internal)?;
        ssl.set_accept_state();
        ssl.set_mtu(limits.datagram.into()).map_err(internal)?;
        let stream = SslStream::new(ssl, Link::default()).map_err(internal)?;
        let retransmission = Retransmission {
            deadline: now + limits.handshake,
            at: now + FIRST_TIMEOUT,
            timeout: FIRST_TIMEOUT,
        };
        let mut session =
            Self { stream, state: State::Handshaking, random: hello.random, retransmission };
        match session.begin(hello, now) {
            Ok(()) => Ok(session),
            Err(why) => Err((why, session.datagrams().next().unwrap_or_default().to_vec())),
        }
    }

    /// OpenSSL counts messages from the first hello on, which the front answered in
    /// its place: it is shown each hello that came before, and its answer to it is
    /// thrown away. None of them is part of what both sides sign.
    fn begin(&mut self, hello: &Hello<'_>, now: Instant) -> Result<(), Error> {
        for before in (1..=hello.message_sequence).rev() {
            self.receive(now, &hello.without_cookie(before))?;
            self.clear_datagrams();
        }
        // The first record that goes out has the number of the hello that it
        // answers (RFC 6347 section 4.2.1), not the number of answers so far.
        let answered = u64::from(hello.message_sequence);
        let offset = hello.record_sequence.wrapping_sub(answered);
        self.stream.get_mut().set_record_offset(offset);
        self.receive(now, hello.record)
    }

    /// Takes a datagram from the client. Then call [`Self::read`] until there is
    /// nothing more; what is not read is lost with the next datagram.
    ///
    /// Forged, repeated and reordered datagrams change nothing.
    ///
    /// # Errors
    ///
    /// Why the session is over.
    pub fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Error> {
        if self.state == State::Closed {
            return Ok(());
        }
        self.stream.get_mut().put(datagram);
        if self.state == State::Handshaking && self.shake_hands()? {
            self.retransmission.restart(now);
        }
        Ok(())
    }

    /// One plaintext of the datagram that was received last, into `plain`, which
    /// has room for [`MAX_PLAINTEXT`] bytes; its length, or `None` when there are
    /// no more.
    ///
    /// # Errors
    ///
    /// Why the session is over.
    pub fn read(&mut self, plain: &mut [u8]) -> Result<Option<usize>, Error> {
        if self.state != State::Connected {
            return Ok(None);
        }
        match self.stream.ssl_read(plain) {
            Ok(len) => Ok((len > 0).then_some(len)),
            Err(why) if why.code() == ErrorCode::WANT_READ => Ok(None),
            Err(why) if why.code() == ErrorCode::ZERO_RETURN => {
                self.close();
                Ok(None)
            }
            Err(why) => Err(self.fail(&why)),
        }
    }

    /// Encrypts the pieces as one record, which is one datagram. `scratch` is only
    /// room to put several pieces together, for the caller to reuse.
    ///
    /// # Errors
    ///
    /// [`Error::NotConnected`] before the handshake is done and after the end,
    /// [`Error::TooLong`] for more than [`MAX_PLAINTEXT`] bytes; neither ends the
    /// session.
    pub fn send<'a>(
        &mut self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if self.state != State::Connected {
            return Err(Error::NotConnected);
        }
        let mut pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        let Some(mut plain) = pieces.next() else { return Ok(()) };
        if let Some(second) = pieces.next() {
            scratch.clear();
            scratch.extend_from_slice(plain);
            scratch.extend_from_slice(second);
            pieces.for_each(|piece| scratch.extend_from_slice(piece));
            plain = scratch;
        }
        if plain.len() > MAX_PLAINTEXT {
            return Err(Error::TooLong);
        }
        match self.stream.ssl_write(plain) {
            Ok(_) => Ok(()),
            Err(why) => Err(self.fail(&why)),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called; never once connected.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.retransmission.at.min(self.retransmission.deadline);
        (self.state == State::Handshaking).then_some(due)
    }

    /// Sends the last flight again, if it is time.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when the handshake is not done in time.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Ok(());
        }
        if self.retransmission.deadline <= now {
            self.state = State::Closed;
            return Err(Error::TimedOut);
        }
        if self.shake_hands()? {
            self.retransmission.back_off(now);
        } else {
            self.retransmission.at = now + ASK_AGAIN;
        }
        Ok(())
    }

    /// Ends the session: a close_notify is to be sent, once there are keys.
    pub fn close(&mut self) {
        if self.state == State::Connected {
            // The alert is written; the client's own need not be waited for.
            let _ = self.stream.shutdown();
        }
        self.state = State::Closed;
    }

    /// What has to be sent to the client, each in a UDP datagram of its own.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.stream.get_ref().datagrams()
    }

    /// Whether there are such datagrams.
    pub fn wants_write(&self) -> bool {
        self.stream.get_ref().has_output()
    }

    /// Forgets them once they are sent.
    pub fn clear_datagrams(&mut self) {
        self.stream.get_mut().clear();
    }

    /// How far the session has come.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the session began with this hello, or another one of the same
    /// handshake. If not, the client has begun anew.
    pub fn began_with(&self, hello: &Hello<'_>) -> bool {
        self.random == hello.random
    }

    /// The host name that the client asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.stream.ssl().servername(NameType::HOST_NAME)
    }

    /// The application protocol that was agreed, if any.
    pub fn application_protocol(&self) -> Option<&[u8]> {
        self.stream.ssl().selected_alpn_protocol()
    }

    /// Goes on with the handshake; whether that gave something to send.
    fn shake_hands(&mut self) -> Result<bool, Error> {
        let before = self.datagrams().count();
        match self.stream.do_handshake() {
            Ok(()) => self.state = State::Connected,
            Err(why) if why.code() == ErrorCode::WANT_READ => {}
            Err(why) => return Err(self.fail(&why)),
        }
        Ok(self.datagrams().count() > before)
    }

    fn fail(&mut self, why: &ssl::Error) -> Error {
        let error = error_of(why, self.state);
        self.state = State::Closed;
        error
    }
}

impl Retransmission {
    fn restart(&mut self, now: Instant) {
        self.timeout = FIRST_TIMEOUT;
        self.at = now + self.timeout;
    }

    fn back_off(&mut self, now: Instant) {
        self.timeout *= 2;
        self.at = now + self.timeout;
    }
}

/// What a failure counts as. The alerts of the other side are the reasons from
/// 1000 on; the others are those of OpenSSL's `sslerr.h`.
fn error_of(why: &ssl::Error, state: State) -> Error {
    const INCOMPATIBLE: [i32; 7] = [
        101, // no suitable key share
        118, // no suitable signature algorithm
        193, // no shared cipher
        258, // unsupported protocol
        376, // no shared signature algorithms
        396, // version too low
        410, // no shared groups
    ];
    let reason = why.ssl_error().and_then(|stack| stack.errors().first());
    match reason.map(openssl::error::Error::reason_code) {
        Some(alert) if alert >= 1000 => Error::Refused,
        Some(reason) if INCOMPATIBLE.contains(&reason) => Error::Incompatible,
        Some(_) if state == State::Handshaking => Error::Misbehaved,
        Some(_) => Error::BadRecord,
        None => Error::Internal,
    }
}
