//! DTLS sessions with servers (RFC 7350): the handshake, which is looked at like one
//! of TLS, and then a record for each message.

use std::io::{self, ErrorKind, Read, Write};

use openssl::error::ErrorStack;
use openssl::ssl::{
    Error, ErrorCode, Ssl, SslContext, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion,
};
use rustls::pki_types::CertificateDer;
use tokio::net::UdpSocket;
use tokio::time::{Duration, Instant, timeout_at};

use super::super::authorities::ALPN_TURN;
use super::link::LinkError;
use super::tls::{Broken, Handshake, Secure, Trust};
use crate::client::Host;

/// Longest datagram of the handshake in bytes: every path takes it.
const DATAGRAM: u32 = 1200;
/// Largest datagram.
const BUFFER: usize = 65_536;
/// How often OpenSSL is asked whether a flight is to be sent again.
const TICK: Duration = Duration::from_millis(100);
/// First bytes of DTLS records (RFC 7983 section 7).
const RECORDS: std::ops::RangeInclusive<u8> = 20..=63;
/// The alert no_application_protocol (RFC 7301 section 3.2), among OpenSSL's reasons.
const NO_APPLICATION_PROTOCOL: i32 = 1120;

/// A session with a server.
pub(super) struct Dtls {
    session: SslStream<Wire>,
    socket: UdpSocket,
    room: Vec<u8>,
    /// Whether something came that is no record.
    strange: bool,
}

/// Where OpenSSL finds the datagram that came, and leaves those that are to go.
#[derive(Default)]
struct Wire {
    received: Option<Vec<u8>>,
    to_send: Vec<Vec<u8>>,
}

impl Trust {
    /// Shakes hands over a socket that is connected to the server. With `insecure` a
    /// certificate that is refused does not end it.
    pub(super) async fn datagram_handshake(
        &self,
        socket: UdpSocket,
        host: &Host,
        alpn: bool,
        insecure: bool,
        deadline: Instant,
    ) -> Handshake {
        let mut dtls = match Dtls::new(socket, host, alpn) {
            Ok(dtls) => dtls,
            Err(error) => return Handshake::of(Err(Broken::Tls(error.to_string())), None, None),
        };
        let shaken = dtls.shake_hands(deadline).await;
        let chain = dtls.chain();
        let (certificate, problem) = self.judge(&chain, host);
        let stream = match (shaken, &problem) {
            (Ok(()), Some(_)) if !insecure => {
                Err(Broken::Tls("the certificate is refused".to_owned()))
            }
            (Ok(()), _) => Ok(Secure::Dtls(Box::new(dtls))),
            (Err(broken), _) => Err(broken),
        };
        Handshake::of(stream, certificate, problem)
    }
}

impl Dtls {
    /// The certificate is not looked at here: [`Trust`] judges it as that of TLS.
    fn new(socket: UdpSocket, host: &Host, alpn: bool) -> Result<Self, ErrorStack> {
        let mut context = SslContext::builder(SslMethod::dtls_client())?;
        context.set_options(SslOptions::NO_QUERY_MTU);
        context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
        context.set_verify(SslVerifyMode::NONE);
        if alpn {
            let name = [&[ALPN_TURN.len() as u8], ALPN_TURN].concat();
            context.set_alpn_protos(&name)?;
        }
        let mut ssl = Ssl::new(&context.build())?;
        ssl.set_connect_state();
        ssl.set_mtu(DATAGRAM)?;
        if let Host::Name(name) = host {
            ssl.set_hostname(name)?;
        }
        let session = SslStream::new(ssl, Wire::default())?;
        Ok(Self { session, socket, room: vec![0; BUFFER], strange: false })
    }

    async fn shake_hands(&mut self, deadline: Instant) -> Result<(), Broken> {
        loop {
            let done = match self.session.do_handshake() {
                Ok(()) => true,
                Err(error) if error.code() == ErrorCode::WANT_READ => false,
                Err(error) => {
                    // The alert, as far as it can go.
                    let _ = self.send().await;
                    return Err(broken(&error));
                }
            };
            self.send().await.map_err(link)?;
            if done {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(if self.strange {
                    Broken::NotTls
                } else {
                    Broken::Link(LinkError::Silent)
                });
            }
            let wake = deadline.min(now + TICK);
            if let Ok(received) = timeout_at(wake, self.socket.recv(&mut self.room)).await {
                self.take(received.map_err(link)?);
            }
        }
    }

    /// The next message. Zero bytes are the server's close_notify. It may be given up
    /// at any await.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.ssl_read(buffer) {
                Ok(len) => return Ok(len),
                Err(error) => match error.code() {
                    ErrorCode::ZERO_RETURN => return Ok(0),
                    ErrorCode::WANT_READ => {}
                    _ => return Err(io::Error::other(error)),
                },
            }
            self.try_send();
            let len = self.socket.recv(&mut self.room).await?;
            self.take(len);
        }
    }

    /// Sends a message as one record.
    pub(super) async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        self.session.ssl_write(message).map_err(io::Error::other)?;
        self.send().await
    }

    /// What was agreed on: version, cipher suite, ALPN.
    pub(super) fn agreement(&self) -> String {
        let ssl = self.session.ssl();
        let suite = ssl.current_cipher().map_or("", |cipher| cipher.name());
        let alpn = ssl.selected_alpn_protocol().map(String::from_utf8_lossy);
        let alpn = alpn.map_or_else(|| "no ALPN".to_owned(), |alpn| format!("ALPN {alpn}"));
        format!("{}, {suite}, {alpn}", ssl.version_str().replace("DTLSv", "DTLS "))
    }

    /// The server's certificate and those it came with; none before it has come.
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let chain = self.session.ssl().peer_cert_chain();
        let der = chain.into_iter().flatten().filter_map(|certificate| certificate.to_der().ok());
        der.map(CertificateDer::from).collect()
    }

    fn take(&mut self, len: usize) {
        let datagram = &self.room[..len];
        self.strange |= datagram.first().is_some_and(|first| !RECORDS.contains(first));
        self.session.get_mut().received = Some(datagram.to_vec());
    }

    async fn send(&mut self) -> io::Result<()> {
        for datagram in std::mem::take(&mut self.session.get_mut().to_send) {
            self.socket.send(&datagram).await?;
        }
        Ok(())
    }

    /// Sends what can go at once. The rest is as good as lost on the way, which DTLS
    /// knows how to deal with.
    fn try_send(&mut self) {
        for datagram in self.session.get_mut().to_send.drain(..) {
            let _ = self.socket.try_send(&datagram);
        }
    }
}

impl Drop for Dtls {
    /// A server that is not told keeps the session for a while.
    fn drop(&mut self) {
        // Without keys there is nothing to say.
        let _ = self.session.shutdown();
        self.try_send();
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.received.take().ok_or(ErrorKind::WouldBlock)?;
        let len = datagram.len().min(buffer.len());
        buffer[..len].copy_from_slice(&datagram[..len]);
        Ok(len)
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.to_send.push(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn link(error: io::Error) -> Broken {
    Broken::Link(error.into())
}

fn broken(error: &Error) -> Broken {
    let first = error.ssl_error().and_then(|stack| stack.errors().first());
    match first {
        Some(first) if first.reason_code() == NO_APPLICATION_PROTOCOL => Broken::Alpn,
        Some(first) => Broken::Tls(first.reason().unwrap_or("a failure without a name").to_owned()),
        None => Broken::Tls(error.to_string()),
    }
}
