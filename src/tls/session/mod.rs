//! A TLS session of a client, versions 1.2 and 1.3.
//!
//! 1. The ClientHello is collected, and decides on the certificate and on the
//!    application protocol.
//! 2. The handshake: what the client sends goes to [`Session::receive`], what the
//!    session has to say comes from [`Session::write`].
//! 3. Plaintext comes out of `receive`, and goes out by [`Session::send`].
//! 4. Either side closes; what is left to write goes before the connection does.

mod records;

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::server::Acceptor;
use rustls::{ProtocolVersion, ServerConnection};

use super::{Certificates, Error, State};
use records::Records;

/// Most bytes from a client before its ClientHello has ended.
const MAX_HELLO: usize = 16 * 1024;

/// The version that was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// The server's side of a TLS connection. Keeps at most a record that is not
/// complete, and what has to be written; the owner takes that away each time.
pub struct Session {
    stage: Stage,
    state: State,
    records: Records,
}

enum Stage {
    Hello {
        acceptor: Box<Acceptor>,
        seen: usize,
        certificates: Arc<Certificates>,
    },
    Live(Box<ServerConnection>),
    /// Over before it began; an alert may be left to write.
    Failed {
        alert: Vec<u8>,
    },
}

impl Session {
    /// A session that waits for the first bytes.
    pub fn new(certificates: Arc<Certificates>) -> Self {
        let acceptor = Box::new(Acceptor::default());
        Self {
            stage: Stage::Hello { acceptor, seen: 0, certificates },
            state: State::Handshaking,
            records: Records::default(),
        }
    }

    /// Takes what came from the client, all of it, and appends the plaintext in it
    /// to `plain`: no more than `bytes` and one record hold. [`Self::write`] may
    /// have something afterwards, also after an error: the alert that tells the
    /// client. Bytes behind the client's close_notify are ignored.
    ///
    /// # Errors
    ///
    /// Why the session is over. What was appended before is genuine.
    pub fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<State, Error> {
        self.records.take(bytes);
        let taken = self.take(bytes, plain);
        if taken.is_err() {
            self.state = State::Closed;
        }
        taken.map(|()| self.state)
    }

    fn take(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        let mut rest = bytes;
        while !rest.is_empty() && self.state < State::Closed {
            match &mut self.stage {
                Stage::Hello { acceptor, seen, .. } => {
                    // Bounds what is kept; what follows the hello waits in `rest`.
                    let room = (MAX_HELLO - *seen).min(rest.len());
                    let mut part = &rest[..room];
                    let taken = acceptor.read_tls(&mut part).map_err(|_| Error::HelloTooLong)?;
                    *seen += taken;
                    rest = &rest[taken..];
                    if taken == 0 {
                        return Err(Error::HelloTooLong);
                    }
                    self.accept()?;
                }
                Stage::Live(connection) => {
                    connection.read_tls(&mut rest).map_err(|_| Error::Internal)?;
                }
                Stage::Failed { .. } => return Ok(()),
            }
            self.process(plain)?;
        }
        Ok(())
    }

    /// Goes on to the handshake when the ClientHello is complete.
    fn accept(&mut self) -> Result<(), Error> {
        let Stage::Hello { acceptor, certificates, .. } = &mut self.stage else { return Ok(()) };
        let connection = match acceptor.accept() {
            Ok(None) => return Ok(()),
            Ok(Some(accepted)) => {
                let config = certificates.stream_config(&accepted.client_hello());
                accepted.into_connection(config)
            }
            Err(refused) => Err(refused),
        };
        match connection {
            Ok(mut connection) => {
                // What is sent is fetched at once. At a bound, a message would be
                // split into records.
                connection.set_buffer_limit(None);
                self.stage = Stage::Live(Box::new(connection));
                Ok(())
            }
            Err((why, mut refusal)) => {
                let mut alert = Vec::new();
                refusal.write_all(&mut alert).expect("a Vec takes all that is written to it");
                self.stage = Stage::Failed { alert };
                Err(error_of(&why, State::Handshaking))
            }
        }
    }

    /// Works through the records that are complete.
    fn process(&mut self, plain: &mut Vec<u8>) -> Result<(), Error> {
        let Stage::Live(connection) = &mut self.stage else { return Ok(()) };
        let processed = connection.process_new_packets();
        // What came before a bad record is genuine.
        read_plaintext(connection, plain)?;
        let processed = processed.map_err(|why| error_of(&why, self.state))?;
        if processed.peer_has_closed() {
            connection.send_close_notify();
            self.state = State::Closed;
        } else if !connection.is_handshaking() {
            self.state = State::Connected;
        }
        Ok(())
    }

    /// Encrypts the pieces as one run of bytes and appends the result to `cipher`,
    /// behind whatever had to be written before. The pieces are used up.
    ///
    /// # Errors
    ///
    /// [`Error::NotConnected`] before the handshake is done and after the end.
    pub fn send(&mut self, pieces: &mut [IoSlice<'_>], cipher: &mut Vec<u8>) -> Result<(), Error> {
        let connection = self.connected()?;
        encrypt(connection, pieces)?;
        drain(connection, cipher);
        Ok(())
    }

    /// The same for several messages, each of which begins a record. Together they
    /// cost less than one by one.
    ///
    /// # Errors
    ///
    /// Those of [`Self::send`].
    pub fn send_each<'a, const N: usize>(
        &mut self,
        messages: impl Iterator<Item = [IoSlice<'a>; N]>,
        cipher: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let connection = self.connected()?;
        for mut message in messages {
            encrypt(connection, &mut message)?;
        }
        drain(connection, cipher);
        Ok(())
    }

    fn connected(&mut self) -> Result<&mut ServerConnection, Error> {
        match &mut self.stage {
            Stage::Live(connection) if self.state == State::Connected => Ok(connection),
            _ => Err(Error::NotConnected),
        }
    }

    /// Whether [`Self::write`] has something.
    pub fn wants_write(&self) -> bool {
        match &self.stage {
            Stage::Hello { .. } => false,
            Stage::Live(connection) => connection.wants_write(),
            Stage::Failed { alert } => !alert.is_empty(),
        }
    }

    /// Appends what the client has to be sent to `cipher`.
    pub fn write(&mut self, cipher: &mut Vec<u8>) {
        match &mut self.stage {
            Stage::Hello { .. } => {}
            Stage::Live(connection) => drain(connection, cipher),
            Stage::Failed { alert } => cipher.append(alert),
        }
    }

    /// Ends the session: a close_notify is left to write, once there are keys.
    pub fn close(&mut self) {
        if let Stage::Live(connection) = &mut self.stage {
            connection.send_close_notify();
        }
        self.state = State::Closed;
    }

    /// How far the session has come.
    pub fn state(&self) -> State {
        self.state
    }

    /// The number of the record of which the client has sent a part and not the rest;
    /// none of it can be read before.
    pub fn unfinished_record(&self) -> Option<u64> {
        self.records.unfinished()
    }

    /// The host name that the client asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.connection()?.server_name()
    }

    /// The application protocol that was agreed, if any.
    pub fn application_protocol(&self) -> Option<&[u8]> {
        self.connection()?.alpn_protocol()
    }

    /// The version that was agreed, as soon as it is.
    pub fn version(&self) -> Option<Version> {
        match self.connection()?.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some(Version::Tls12),
            ProtocolVersion::TLSv1_3 => Some(Version::Tls13),
            _ => None,
        }
    }

    fn connection(&self) -> Option<&ServerConnection> {
        match &self.stage {
            Stage::Live(connection) => Some(connection),
            Stage::Hello { .. } | Stage::Failed { .. } => None,
        }
    }
}

fn read_plaintext(connection: &mut ServerConnection, plain: &mut Vec<u8>) -> Result<(), Error> {
    match connection.reader().read_to_end(plain) {
        Ok(_) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(_) => Err(Error::Internal),
    }
}

/// Encrypts the pieces; the records stay with the connection.
fn encrypt(connection: &mut ServerConnection, mut pieces: &mut [IoSlice<'_>]) -> Result<(), Error> {
    // Drops empty pieces in front, which would be taken for no progress.
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        match connection.writer().write_vectored(pieces) {
            Ok(taken) if taken > 0 => IoSlice::advance_slices(&mut pieces, taken),
            Ok(_) | Err(_) => return Err(Error::Internal),
        }
    }
    Ok(())
}

fn drain(connection: &mut ServerConnection, cipher: &mut Vec<u8>) {
    while connection.wants_write() {
        connection.write_tls(cipher).expect("a Vec takes all that is written to it");
    }
}

/// What a failure counts as; `state` tells a stranger from a client.
fn error_of(why: &rustls::Error, state: State) -> Error {
    use rustls::Error as E;
    match why {
        E::InvalidMessage(_) if state == State::Handshaking => Error::NotTls,
        E::PeerIncompatible(_) | E::NoApplicationProtocol => Error::Incompatible,
        E::DecryptError | E::PeerSentOversizedRecord => Error::BadRecord,
        E::AlertReceived(_) => Error::Refused,
        E::InvalidMessage(_)
        | E::InappropriateMessage { .. }
        | E::InappropriateHandshakeMessage { .. }
        | E::PeerMisbehaved(_) => Error::Misbehaved,
        _ => Error::Internal,
    }
}

#[cfg(test)]
mod tests;
