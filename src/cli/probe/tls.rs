//! TLS handshakes that are looked at: what was agreed on, which certificate was
//! shown, and why it would be refused. Certificates of DTLS are judged here, too.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::authorities::{self, ALPN_TURN};
use super::certificate::Certificate;
use super::dtls::Dtls;
use super::finding::Finding;
use super::link::LinkError;
use crate::client::Host;

/// A certificate with less left than this should have been renewed.
const SOON: u64 = 14 * 86_400;

/// What handshakes need: the authorities that are trusted.
#[derive(Clone)]
pub(super) struct Trust {
    verifier: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

/// What a handshake has shown.
pub(super) struct Handshake {
    /// The connection, if there is one.
    pub(super) stream: Result<Secure, Broken>,
    /// The server's certificate and whether it came without its issuer's.
    pub(super) certificate: Option<Certificate>,
    /// Why the certificate is refused.
    pub(super) problem: Option<Finding>,
}

/// What came of a handshake.
pub(super) enum Secure {
    Tls(Box<TlsStream<TcpStream>>),
    Dtls(Box<Dtls>),
}

/// Why a handshake was not completed.
#[derive(Debug)]
pub(super) enum Broken {
    /// The server does not want the ALPN that was offered.
    Alpn,
    /// TLS said no; in words.
    Tls(String),
    /// What came is not TLS.
    NotTls,
    /// The connection failed.
    Link(LinkError),
}

impl Trust {
    /// The system's authorities, and those in a PEM file.
    ///
    /// # Errors
    /// When the file cannot be read or has no certificate in it.
    pub(super) fn load(file: Option<&Path>) -> Result<Self, String> {
        let more = authorities::in_file(file)?;
        let roots = authorities::of_system_and(more)
            .map_err(|error| format!("{}: {error}", file.unwrap_or(Path::new("")).display()))?;
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        // It fails only without any authority.
        Ok(Self { verifier: verifier.build().ok(), provider })
    }

    /// Shakes hands over a connection. With `insecure` a certificate that is refused
    /// does not end it.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        host: &Host,
        alpn: bool,
        insecure: bool,
        deadline: Instant,
    ) -> Handshake {
        let recorder =
            Arc::new(Recorder { trust: self.clone(), insecure, seen: Mutex::new(Seen::default()) });
        let stream = match self.config(&recorder, alpn).and_then(|config| {
            let name =
                authorities::name_of(host).map_err(|error| Error::General(error.to_string()))?;
            Ok(TlsConnector::from(Arc::new(config)).connect(name, stream))
        }) {
            Ok(connecting) => match timeout_at(deadline, connecting).await {
                Ok(Ok(connected)) => Ok(Secure::Tls(Box::new(connected))),
                Ok(Err(error)) => Err(broken(error)),
                Err(_) => Err(Broken::Link(LinkError::Silent)),
            },
            Err(error) => Err(Broken::Tls(error.to_string())),
        };
        let seen = recorder.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (certificate, problem) = describe(&seen, host);
        Handshake::of(stream, certificate, problem)
    }

    /// A chain for people, and why it is refused if it is. One without certificates is
    /// none.
    pub(super) fn judge(
        &self,
        chain: &[CertificateDer<'static>],
        host: &Host,
    ) -> (Option<Certificate>, Option<Finding>) {
        let Some((leaf, intermediates)) = chain.split_first() else { return (None, None) };
        let verified = authorities::name_of(host)
            .map_err(|error| Error::General(error.to_string()))
            .and_then(|name| self.verify(leaf, intermediates, &name, &[], UnixTime::now()));
        describe(&Seen { chain: chain.to_vec(), problem: verified.err() }, host)
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        match &self.verifier {
            Some(verifier) => {
                verifier.verify_server_cert(leaf, intermediates, name, ocsp, now).map(|_| ())
            }
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn config(&self, recorder: &Arc<Recorder>, alpn: bool) -> Result<ClientConfig, Error> {
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(recorder) as _;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        if alpn {
            config.alpn_protocols = vec![ALPN_TURN.to_vec()];
        }
        Ok(config)
    }
}

impl Handshake {
    pub(super) fn of(
        stream: Result<Secure, Broken>,
        certificate: Option<Certificate>,
        problem: Option<Finding>,
    ) -> Self {
        Self { stream, certificate, problem }
    }

    /// A certificate that is about to end, as long as nothing worse is the matter.
    pub(super) fn expires_soon(&self) -> Option<Finding> {
        let left = self.certificate.as_ref()?.not_after.saturating_sub(UnixTime::now().as_secs());
        (self.problem.is_none() && left < SOON)
            .then_some(Finding::ExpiresSoon { days: left / 86_400 })
    }
}

impl Secure {
    /// What was agreed on: version, cipher suite, ALPN.
    pub(super) fn agreement(&self) -> String {
        match self {
            Self::Tls(stream) => agreement(stream),
            Self::Dtls(dtls) => dtls.agreement(),
        }
    }
}

fn agreement(stream: &TlsStream<TcpStream>) -> String {
    let (_, session) = stream.get_ref();
    let version = session.protocol_version().map_or_else(String::new, |v| format!("{v:?}"));
    let suite =
        session.negotiated_cipher_suite().map_or_else(String::new, |s| format!("{:?}", s.suite()));
    let alpn = session.alpn_protocol().map(String::from_utf8_lossy);
    let alpn = alpn.map_or_else(|| "no ALPN".to_owned(), |alpn| format!("ALPN {alpn}"));
    format!("{}, {suite}, {alpn}", version.replace("TLSv1_", "TLS 1."))
}

/// A chain for people, and what its refusal means for them.
fn describe(seen: &Seen, host: &Host) -> (Option<Certificate>, Option<Finding>) {
    let certificate = seen.chain.first().and_then(|leaf| Certificate::read(leaf));
    let now = UnixTime::now().as_secs();
    let problem = seen.problem.as_ref();
    let problem = problem.map(|error| finding(error, certificate.as_ref(), &seen.chain, host, now));
    (certificate, problem)
}

fn broken(error: io::Error) -> Broken {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => Broken::Alpn,
        Some(Error::InvalidMessage(_)) => Broken::NotTls,
        Some(error) => Broken::Tls(error.to_string()),
        None => Broken::Link(error.into()),
    }
}

/// What the refusal of a certificate means for a person.
fn finding(
    error: &Error,
    certificate: Option<&Certificate>,
    chain: &[CertificateDer<'_>],
    host: &Host,
    now: u64,
) -> Finding {
    use CertificateError as Reason;
    let (Error::InvalidCertificate(reason), Some(certificate)) = (error, certificate) else {
        return Finding::BadCertificate;
    };
    let host = match host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    };
    match reason {
        Reason::Expired | Reason::ExpiredContext { .. } => {
            Finding::Expired { ago: now.saturating_sub(certificate.not_after) }
        }
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            Finding::NotYetValid { ahead: certificate.not_before.saturating_sub(now) }
        }
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => {
            Finding::WrongName { host, names: certificate.names.clone() }
        }
        // A certificate that is its own authority may also be refused for being one.
        _ if certificate.self_issued => Finding::SelfSigned,
        Reason::UnknownIssuer => {
            Finding::UnknownIssuer { issuer: certificate.issuer.clone(), alone: chain.len() == 1 }
        }
        _ => Finding::BadCertificate,
    }
}

/// Judges as a browser would, and remembers what it saw.
#[derive(Debug)]
struct Recorder {
    trust: Trust,
    insecure: bool,
    seen: Mutex<Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    chain: Vec<CertificateDer<'static>>,
    problem: Option<Error>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.trust.verify(leaf, intermediates, name, ocsp, now);
        let all = std::iter::once(leaf).chain(intermediates);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen {
            chain: all.map(|certificate| certificate.clone().into_owned()).collect(),
            problem: verified.as_ref().err().cloned(),
        };
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        verified.map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.provider.signature_verification_algorithms.supported_schemes()
    }
}
