//! Certificates with their keys: loaded, checked, and chosen by the name that a
//! client asks for.

mod load;
mod names;
mod problem;
mod rsa;
mod self_signed;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::SslContext;
use rustls::crypto::ring;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

use self::load::Loaded;
use self::names::Names;
use super::{APPLICATION_PROTOCOLS, dtls};
use crate::net::Now;

pub(super) use names::Names as CertificateNames;
pub use problem::CertificateProblem;

/// A file in PEM, or what stands for one.
#[derive(Clone, Copy, Debug)]
pub struct Pem<'a> {
    /// What problems call it: its path.
    pub name: &'a str,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// A certificate chain, the server's own certificate first, and the private key
/// of that one: RSA from 2048 bits, ECDSA on P-256 or P-384, or Ed25519, in
/// PKCS #8, PKCS #1 or SEC 1, unencrypted. Both may be in the same file.
#[derive(Clone, Copy)]
pub struct KeyPair<'a> {
    /// The certificates.
    pub chain: Pem<'a>,
    /// The private key.
    pub key: Pem<'a>,
}

/// What is told about a certificate, for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The file it is from.
    pub file: String,
    /// The host names it is for, in lower case; `*.` stands for one label.
    pub names: Vec<String>,
    /// When it ceases to be valid, since the Unix epoch.
    pub not_after: Duration,
    /// SHA-256 over its DER form, as upper-case hexadecimal with colons.
    pub fingerprint: String,
}

/// A set of certificates, ready for sessions. Immutable: a reload makes another.
pub struct Certificates {
    list: Vec<Certificate>,
    /// For clients that offer one of our application protocols.
    with_protocols: Arc<ServerConfig>,
    /// For the others: rustls refuses a client with which it has none in common.
    without_protocols: Arc<ServerConfig>,
    datagrams: SslContext,
    serve_datagrams: bool,
}

impl Certificates {
    /// Loads and checks certificates. A client gets the first one for the name it
    /// asks for, exact names before wildcards, and the very first when no name
    /// fits; of those, over TLS one with a key that it can verify, and over DTLS
    /// one that is not Ed25519 if there is any (see [`Self::serve_datagrams`]).
    ///
    /// # Errors
    ///
    /// Every problem found, one per key pair.
    pub fn load(now: Now, pairs: &[KeyPair<'_>]) -> Result<Self, Vec<CertificateProblem>> {
        let (loaded, problems): (Vec<_>, Vec<_>) =
            pairs.iter().map(|pair| load::load(now, pair)).partition(Result::is_ok);
        let mut problems: Vec<_> = problems.into_iter().filter_map(Result::err).collect();
        let loaded: Vec<_> = loaded.into_iter().filter_map(Result::ok).collect();
        if problems.is_empty() && loaded.is_empty() {
            problems.push(CertificateProblem::None);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Self::build(loaded).map_err(|why| vec![CertificateProblem::Library(why)])
    }

    /// A new certificate that only clients who know its fingerprint can trust, for
    /// host names or IP addresses. Valid for a year; its key, ECDSA on P-256, is
    /// kept nowhere else.
    ///
    /// # Errors
    ///
    /// [`CertificateProblem::Library`], when a name cannot be put into a certificate.
    pub fn self_signed(now: Now, names: &[String]) -> Result<Self, Vec<CertificateProblem>> {
        let pems = self_signed::generate(now, names);
        let (chain, key) =
            pems.map_err(|why| vec![CertificateProblem::Library(why.to_string())])?;
        let pem = |bytes| Pem { name: "self-signed certificate", bytes };
        Self::load(now, &[KeyPair { chain: pem(&chain), key: pem(&key) }])
    }

    /// The certificates, in the order in which they were given. Never empty.
    pub fn list(&self) -> &[Certificate] {
        &self.list
    }

    fn build(loaded: Vec<Loaded>) -> Result<Self, String> {
        let names: Names = loaded.iter().map(|one| one.certificate.names.as_slice()).collect();
        let datagrams = build_datagrams(&loaded, &names).map_err(|why| why.to_string())?;
        let serve_datagrams = loaded.iter().any(Loaded::serves_datagrams);
        let keys = loaded.iter().map(|one| Arc::clone(&one.key)).collect();
        let resolver = Arc::new(Resolver { names, keys });
        let mut config = build_streams(resolver).map_err(|why| why.to_string())?;
        let without_protocols = Arc::new(config.clone());
        config.alpn_protocols = APPLICATION_PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Self {
            list: loaded.into_iter().map(|one| one.certificate).collect(),
            with_protocols: Arc::new(config),
            without_protocols,
            datagrams,
            serve_datagrams,
        })
    }

    /// Whether any of them can serve DTLS clients: OpenSSL takes an Ed25519 key for
    /// TLS only.
    pub fn serve_datagrams(&self) -> bool {
        self.serve_datagrams
    }

    /// What serves a TLS client that says this in its ClientHello.
    pub(super) fn stream_config(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let ours = |name: &[u8]| APPLICATION_PROTOCOLS.contains(&name);
        let offers_ours = hello.alpn().is_some_and(|mut names| names.any(ours));
        Arc::clone(if offers_ours { &self.with_protocols } else { &self.without_protocols })
    }

    /// What serves DTLS clients.
    pub(super) fn datagram_context(&self) -> &SslContext {
        &self.datagrams
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.list).finish()
    }
}

fn build_streams(resolver: Arc<Resolver>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    // Resumption keeps nothing here: what is needed goes to the client, sealed
    // with keys that change by themselves.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// A context per certificate; the one for clients that ask for no name leads, and
/// hands over by name.
fn build_datagrams(loaded: &[Loaded], names: &Names) -> Result<SslContext, ErrorStack> {
    let build = |one: &Loaded| dtls::context(&one.chain, &one.private_key);
    let contexts: Vec<_> = loaded
        .iter()
        .map(|one| one.serves_datagrams().then(|| Ok(build(one)?.build())).transpose())
        .collect::<Result<_, ErrorStack>>()?;
    let first = names.choose(None, |index| contexts[index].is_some());
    let mut leading = build(&loaded[first])?;
    dtls::choose_by_name(&mut leading, names.clone(), contexts);
    Ok(leading.build())
}

#[derive(Debug)]
struct Resolver {
    names: Names,
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let usable = |index: usize| self.keys[index].key.choose_scheme(schemes).is_some();
        let index = self.names.choose(hello.server_name(), usable);
        self.keys.get(index).cloned()
    }
}

#[cfg(test)]
pub(super) mod tests;
