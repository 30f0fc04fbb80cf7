//! Whose certificates commands trust, and what clients of TLS and DTLS say first.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};

use crate::client::Host;

/// RFC 7443.
pub(super) const ALPN_TURN: &[u8] = b"stun.turn";

/// The authorities in a PEM file, if there is one.
///
/// # Errors
/// In words: the file cannot be read, or has no certificate in it.
pub(super) fn in_file(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let of_file = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| of_file(&error))?;
    let certificates: Vec<_> =
        certificates.collect::<Result<_, _>>().map_err(|error| of_file(&error))?;
    if certificates.is_empty() {
        return Err(of_file(&"no certificate in PEM form in it"));
    }
    Ok(certificates)
}

/// The system's authorities and some more.
///
/// # Errors
/// One of those is no certificate.
pub(super) fn of_system_and(
    more: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    // A system without any, or with a broken one, is no reason to stop: what it does
    // not know is reported as unknown.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    more.into_iter().try_for_each(|certificate| roots.add(certificate))?;
    Ok(roots)
}

/// What the certificate of a server has to be for.
///
/// # Errors
/// No certificate can be for that name.
pub(super) fn name_of(host: &Host) -> Result<ServerName<'static>, InvalidDnsNameError> {
    match host {
        Host::Ip(ip) => Ok(ServerName::IpAddress((*ip).into())),
        Host::Name(name) => ServerName::try_from(name.clone()),
    }
}
