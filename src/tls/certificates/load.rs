//! One chain and its key, from PEM to what both libraries take.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::x509::{X509, X509Ref};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::names::normalised;
use super::rsa::RsaKey;
use super::{Certificate, CertificateProblem, KeyPair, Pem};
use crate::net::Now;

/// A key pair that was checked.
pub(super) struct Loaded {
    pub(super) certificate: Certificate,
    /// For rustls.
    pub(super) key: Arc<CertifiedKey>,
    /// For OpenSSL; never empty, the server's own certificate first.
    pub(super) chain: Vec<X509>,
    /// For OpenSSL.
    pub(super) private_key: PKey<Private>,
}

impl Loaded {
    /// OpenSSL knows Ed25519 in TLS, but not in DTLS 1.2.
    pub(super) fn serves_datagrams(&self) -> bool {
        self.private_key.id() != Id::ED25519
    }
}

pub(super) fn load(now: Now, pair: &KeyPair<'_>) -> Result<Loaded, CertificateProblem> {
    let file = || pair.chain.name.to_owned();
    let unreadable = |_: ErrorStack| CertificateProblem::Unreadable { file: file() };
    let chain = X509::stack_from_pem(pair.chain.bytes).map_err(unreadable)?;
    let own = chain.first().ok_or_else(|| CertificateProblem::NoCertificate { file: file() })?;
    let der = chain.iter().map(|one| one.to_der().map(CertificateDer::from));
    let der: Vec<_> = der.collect::<Result<_, _>>().map_err(unreadable)?;
    let not_after = since_epoch(own.not_after()).map_err(unreadable)?;
    check_validity(now, own, not_after, pair.chain.name)?;

    let (private_key, signing_key) = load_key(&pair.key)?;
    let public_key = own.public_key().map_err(unreadable)?;
    if !public_key.public_eq(&private_key) {
        let (key, chain) = (pair.key.name.to_owned(), file());
        return Err(CertificateProblem::Mismatch { key, chain });
    }
    let fingerprint = fingerprint(&der[0]);
    let certificate = Certificate { file: file(), names: names_of(own), not_after, fingerprint };
    let key = Arc::new(CertifiedKey::new(der, signing_key));
    Ok(Loaded { certificate, key, chain, private_key })
}

fn check_validity(
    now: Now,
    own: &X509Ref,
    not_after: Duration,
    file: &str,
) -> Result<(), CertificateProblem> {
    let file = file.to_owned();
    let Ok(not_before) = since_epoch(own.not_before()) else {
        return Err(CertificateProblem::Unreadable { file });
    };
    if now.unix > not_after {
        return Err(CertificateProblem::Expired { file, not_after });
    }
    if now.unix < not_before {
        return Err(CertificateProblem::NotYetValid { file, not_before });
    }
    Ok(())
}

type SigningKey = Arc<dyn rustls::sign::SigningKey>;

fn load_key(pem: &Pem<'_>) -> Result<(PKey<Private>, SigningKey), CertificateProblem> {
    let file = || pem.name.to_owned();
    let text = String::from_utf8_lossy(pem.bytes);
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(CertificateProblem::EncryptedKey { file: file() });
    }
    let der = match PrivateKeyDer::from_pem_slice(pem.bytes) {
        Ok(der) => der,
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            return Err(CertificateProblem::NoKey { file: file() });
        }
        Err(_) => return Err(CertificateProblem::UnsupportedKey { file: file() }),
    };
    let unsupported = || CertificateProblem::UnsupportedKey { file: file() };
    let private_key = PKey::private_key_from_der(der.secret_der()).map_err(|_| unsupported())?;
    // Also decides which keys there are at all.
    let signing_key = any_supported_type(&der).map_err(|_| unsupported())?;
    let signing_key = match private_key.id() {
        Id::RSA => Arc::new(RsaKey::new(private_key.clone())),
        _ => signing_key,
    };
    Ok((private_key, signing_key))
}

/// The DNS names a certificate is for. The common name counts where there is
/// nothing else, as old certificates of one's own have it.
fn names_of(certificate: &X509Ref) -> Vec<String> {
    let mut names = Vec::new();
    match certificate.subject_alt_names() {
        Some(all) => names.extend(all.iter().filter_map(|name| name.dnsname().map(normalised))),
        None => {
            let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
            let texts = common.filter_map(|entry| entry.data().to_string().ok());
            names.extend(texts.map(|text| normalised(&text)));
        }
    }
    names
}

/// Times before 1970 count as its beginning.
fn since_epoch(time: &Asn1TimeRef) -> Result<Duration, ErrorStack> {
    let difference = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(difference.days) * 86_400 + i64::from(difference.secs);
    Ok(Duration::from_secs(seconds.try_into().unwrap_or_default()))
}

fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let mut text = String::new();
    for byte in digest.as_ref() {
        let colon = if text.is_empty() { "" } else { ":" };
        write!(text, "{colon}{byte:02X}").expect("a String takes all that is written to it");
    }
    text
}
