//! TLS on rustls and DTLS on OpenSSL, the client's side, over blocking sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::ssl::{
    ErrorCode, ShutdownState, Ssl, SslContext, SslMethod, SslOptions, SslStream, SslVerifyMode,
};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::certificate::{Certificate, NAME};

/// How long a handshake may take before the test has failed.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a DTLS handshake waits for a datagram before OpenSSL looks at its clock.
const TICK: Duration = Duration::from_millis(50);

/// Longest datagram of a handshake in bytes.
const MTU: u32 = 1200;

/// What a client asks for, and whom it trusts.
pub struct Wanted<'a> {
    /// The host name it asks for and checks.
    pub name: &'a str,
    /// Application protocols, the preferred one first.
    pub protocols: &'a [&'a str],
    /// Certificates that it trusts, in DER.
    pub trusted: Vec<&'a [u8]>,
    /// The version of TLS; both when `None`.
    pub version: Option<&'static SupportedProtocolVersion>,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        let trusted = vec![&Certificate::shared().der[..]];
        Self { name: NAME, protocols: &["stun.turn"], trusted, version: None }
    }
}

/// TLS over a stream of bytes.
pub struct Tls<S: Read + Write = TcpStream>(StreamOwned<ClientConnection, S>);

impl<S: Read + Write> Tls<S> {
    /// Shakes hands; fails when the server refuses or its certificate is not trusted.
    pub fn connect(stream: S, wanted: &Wanted<'_>) -> io::Result<Self> {
        let mut tls = StreamOwned::new(Self::client(wanted), stream);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self(tls))
    }

    /// The client alone, which has its hello to write.
    pub fn client(wanted: &Wanted<'_>) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        for der in &wanted.trusted {
            roots.add(CertificateDer::from(der.to_vec())).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let versions = wanted.version.map(|version| vec![version]);
        let versions = versions.as_deref().unwrap_or(rustls::ALL_VERSIONS);
        let builder = builder.with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols =
            wanted.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(wanted.name.to_owned()).unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }

    /// What lies beneath.
    pub fn stream(&mut self) -> &mut S {
        &mut self.0.sock
    }

    /// The same, to look at.
    pub fn stream_ref(&self) -> &S {
        &self.0.sock
    }

    /// Tells the server that this is the end; the connection stays.
    pub fn close(&mut self) -> io::Result<()> {
        self.0.conn.send_close_notify();
        while self.0.conn.wants_write() {
            self.0.conn.write_tls(&mut self.0.sock)?;
        }
        Ok(())
    }

    /// The application protocol that was agreed.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.0.conn.alpn_protocol()
    }

    /// The version that was agreed.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.0.conn.protocol_version()
    }

    /// The server's certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        self.0.conn.peer_certificates().expect("every server has one")[0].as_ref()
    }
}

impl<S: Read + Write> Read for Tls<S> {
    /// Zero bytes are the server's close_notify; an end without it is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<S: Read + Write> Write for Tls<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// DTLS over a connected socket.
pub struct Dtls(SslStream<Datagrams>);

/// A connected UDP socket, whose datagrams are read and written one at a time.
pub struct Datagrams {
    /// The socket.
    pub socket: UdpSocket,
    /// What was written, the oldest datagram first.
    pub written: Vec<Vec<u8>>,
    /// How many datagrams may be written before the socket goes deaf.
    pub patience: usize,
}

impl Dtls {
    /// Shakes hands; fails when the server refuses or its certificate is not trusted.
    pub fn connect(socket: UdpSocket, wanted: &Wanted<'_>) -> io::Result<Self> {
        let mut dtls = Self::begin(socket, wanted);
        let deadline = Instant::now() + HANDSHAKE_DEADLINE;
        loop {
            match dtls.0.do_handshake() {
                Ok(()) => break,
                Err(error) if error.code() == ErrorCode::WANT_READ => {
                    if Instant::now() >= deadline {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(dtls)
    }

    /// Sends `hellos` and then hears nothing any more.
    pub fn abandon(socket: UdpSocket, hellos: usize) -> Self {
        let mut dtls = Self::begin(socket, &Wanted::default());
        dtls.0.get_mut().patience = hellos;
        let deadline = Instant::now() + HANDSHAKE_DEADLINE;
        while dtls.0.get_ref().written.len() < hellos {
            assert!(Instant::now() < deadline, "{hellos} hellos are not asked for");
            assert!(dtls.0.do_handshake().is_err());
        }
        dtls
    }

    fn begin(socket: UdpSocket, wanted: &Wanted<'_>) -> Self {
        socket.set_read_timeout(Some(TICK)).unwrap();
        let mut context = SslContext::builder(SslMethod::dtls_client()).unwrap();
        context.set_options(SslOptions::NO_QUERY_MTU);
        context.set_verify(SslVerifyMode::PEER);
        let mut store = X509StoreBuilder::new().unwrap();
        for der in &wanted.trusted {
            store.add_cert(X509::from_der(der).unwrap()).unwrap();
        }
        context.set_cert_store(store.build());
        if !wanted.protocols.is_empty() {
            let entry = |name: &&str| [&[name.len() as u8], name.as_bytes()].concat();
            let list: Vec<u8> = wanted.protocols.iter().flat_map(entry).collect();
            context.set_alpn_protos(&list).unwrap();
        }
        let mut ssl = Ssl::new(&context.build()).unwrap();
        ssl.set_connect_state();
        ssl.set_mtu(MTU).unwrap();
        ssl.set_hostname(wanted.name).unwrap();
        ssl.param_mut().set_host(wanted.name).unwrap();
        let datagrams = Datagrams { socket, written: Vec::new(), patience: usize::MAX };
        Self(SslStream::new(ssl, datagrams).unwrap())
    }

    /// What lies beneath.
    pub fn datagrams(&self) -> &Datagrams {
        self.0.get_ref()
    }

    /// Sends one record.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.ssl_write(data).map(|_| ()).map_err(io::Error::other)
    }

    /// The data of the next record. Zero bytes are the server's close_notify.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.ssl_read(buffer) {
            Ok(length) => Ok(length),
            Err(error) => match error.code() {
                ErrorCode::ZERO_RETURN => Ok(0),
                ErrorCode::WANT_READ => Err(ErrorKind::WouldBlock.into()),
                _ => Err(io::Error::other(error)),
            },
        }
    }

    /// Tells the server that this is the end.
    pub fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().map(|_| ()).map_err(io::Error::other)
    }

    /// Whether the server has said that this is the end.
    pub fn is_closed(&mut self) -> bool {
        self.0.get_shutdown().contains(ShutdownState::RECEIVED)
    }

    /// The application protocol that was agreed.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.0.ssl().selected_alpn_protocol()
    }

    /// The version that was agreed.
    pub fn version(&self) -> &str {
        self.0.ssl().version_str()
    }

    /// The server's certificate in DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.0.ssl().peer_certificate().expect("every server has one").to_der().unwrap()
    }
}

impl Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.patience == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let received = self.socket.recv(buffer);
        received.map_err(|error| match error.kind() {
            // A time-out, or a server that is not there yet.
            ErrorKind::TimedOut | ErrorKind::ConnectionRefused => ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }
}

impl Write for Datagrams {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.patience = self.patience.saturating_sub(1);
        if self.written.len() < KEPT {
            self.written.push(datagram.to_vec());
        }
        match self.socket.send(datagram) {
            // The error of an earlier datagram.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.socket.send(datagram)
            }
            sent => sent,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Datagrams that are kept: those of a handshake.
const KEPT: usize = 16;

/// A connection of its own, for [`Tls::connect`].
pub fn stream(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&server, HANDSHAKE_DEADLINE).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(HANDSHAKE_DEADLINE)).unwrap();
    stream
}
