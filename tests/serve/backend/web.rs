//! A server behind the server under test: connections it gets, and TLS on them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::setup::{DEADLINE, wait_until};
use crate::support::certificate::Certificate;

/// What listens there.
pub(crate) struct Web {
    listener: TcpListener,
}

impl Web {
    pub(crate) fn v4() -> Self {
        Self::at("127.0.0.1:0")
    }

    pub(crate) fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// The next connection.
    #[track_caller]
    pub(crate) fn accept(&self) -> TcpStream {
        let mut accepted = None;
        wait_until("a connection comes to the backend", || {
            accepted = self.try_accept();
            accepted.is_some()
        });
        accepted.unwrap()
    }

    /// Whether nobody has connected.
    pub(crate) fn is_unused(&self) -> bool {
        self.try_accept().is_none()
    }

    fn try_accept(&self) -> Option<TcpStream> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.set_write_timeout(Some(DEADLINE)).unwrap();
                Some(stream)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The server's side of TLS, with a certificate.
pub(crate) fn secure(
    stream: TcpStream,
    certificate: &Certificate,
) -> StreamOwned<ServerConnection, TcpStream> {
    let chain = vec![CertificateDer::from_pem_slice(certificate.chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream)
}

/// Reads that many bytes.
#[track_caller]
pub(crate) fn read_exactly(stream: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A request and its answer, to see that a passage works.
#[track_caller]
pub(crate) fn exchange(near: &mut (impl Read + Write), far: &mut (impl Read + Write)) {
    near.write_all(b"to the backend").unwrap();
    near.flush().unwrap();
    assert_eq!(read_exactly(far, 14), b"to the backend");
    far.write_all(b"and back").unwrap();
    far.flush().unwrap();
    assert_eq!(read_exactly(near, 8), b"and back");
}
