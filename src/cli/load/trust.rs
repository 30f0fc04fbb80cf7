//! Which certificates are good enough, for TLS and for DTLS.

use std::path::Path;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslOptions, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use super::super::authorities::{self, ALPN_TURN};
use crate::client::Host;
use crate::net::Transport;

/// Longest datagram of a DTLS handshake in bytes: every path takes it.
const DATAGRAM: u32 = 1200;

/// Makes the sessions of clients.
pub(super) struct Trust {
    how: How,
    host: Host,
    insecure: bool,
}

/// What the transport needs: a system has more than a hundred authorities to read.
enum How {
    Plain,
    Tls(Arc<ClientConfig>),
    Dtls(SslContext),
}

impl Trust {
    /// For sessions with `host` by a transport. Trusts the system's authorities and
    /// those in a PEM file, or anybody.
    ///
    /// # Errors
    /// When the file cannot be read or has no certificate in it.
    pub(super) fn new(
        transport: Transport,
        host: &Host,
        ca: Option<&Path>,
        insecure: bool,
    ) -> Result<Self, String> {
        let more = authorities::in_file(ca)?;
        let of_file = |error: &dyn std::fmt::Display| {
            format!("{}: {error}", ca.unwrap_or(Path::new("")).display())
        };
        let how = match transport {
            Transport::Udp | Transport::Tcp => How::Plain,
            Transport::Tls => {
                How::Tls(Arc::new(tls(more, insecure).map_err(|error| of_file(&error))?))
            }
            Transport::Dtls => How::Dtls(dtls(&more, insecure).map_err(|error| of_file(&error))?),
        };
        Ok(Self { how, host: host.clone(), insecure })
    }

    /// A TLS session that has yet to begin.
    ///
    /// # Errors
    /// In words, when the name is none that a certificate can have.
    ///
    /// # Panics
    /// When the transport is another one.
    pub(super) fn tls_session(&self) -> Result<ClientConnection, String> {
        let How::Tls(config) = &self.how else { panic!("made for another transport") };
        let name = authorities::name_of(&self.host).map_err(|error| error.to_string())?;
        let mut session =
            ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())?;
        // What is under way is bounded by the load, not by the session.
        session.set_buffer_limit(None);
        Ok(session)
    }

    /// A DTLS session that has yet to begin.
    ///
    /// # Errors
    /// What OpenSSL reports.
    ///
    /// # Panics
    /// When the transport is another one.
    pub(super) fn dtls_session(&self) -> Result<Ssl, ErrorStack> {
        let How::Dtls(context) = &self.how else { panic!("made for another transport") };
        let mut ssl = Ssl::new(context)?;
        ssl.set_connect_state();
        ssl.set_mtu(DATAGRAM)?;
        match &self.host {
            Host::Name(name) => {
                ssl.set_hostname(name)?;
                if !self.insecure {
                    ssl.param_mut().set_host(name)?;
                }
            }
            Host::Ip(ip) if !self.insecure => ssl.param_mut().set_ip(*ip)?,
            Host::Ip(_) => {}
        }
        Ok(ssl)
    }
}

fn tls(more: Vec<CertificateDer<'static>>, insecure: bool) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut config = if insecure {
        let verifier = Arc::new(Anybody(provider));
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    } else {
        let roots = authorities::of_system_and(more)?;
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    config.alpn_protocols = vec![ALPN_TURN.to_vec()];
    Ok(config)
}

fn dtls(more: &[CertificateDer<'_>], insecure: bool) -> Result<SslContext, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::dtls_client())?;
    context.set_options(SslOptions::NO_QUERY_MTU);
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_alpn_protos(&[&[ALPN_TURN.len() as u8], ALPN_TURN].concat())?;
    if insecure {
        context.set_verify(SslVerifyMode::NONE);
    } else {
        context.set_verify(SslVerifyMode::PEER);
        context.set_default_verify_paths()?;
        for authority in more {
            context.cert_store_mut().add_cert(X509::from_der(authority)?)?;
        }
    }
    Ok(context.build())
}

/// Takes any certificate whose owner has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
