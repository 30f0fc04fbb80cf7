//! Certificates from their files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Failure;
use super::exit::Exit;
use crate::config::{CertificateFiles, Config};
use crate::net::Now;
use crate::tls::{Certificates, KeyPair, Pem};

/// How long before its end a certificate is worth a warning.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// The certificates of the configuration; `None` when TLS is not served.
pub(super) fn load(config: &Config) -> Result<Option<Arc<Certificates>>, Failure> {
    let now = Now { mono: Instant::now(), unix: unix_time() };
    let files = &config.tls.certificates;
    let certificates = match files.as_slice() {
        [] if !config.tls.self_signed => return Ok(None),
        [] => Certificates::self_signed(now, &["localhost".to_owned()]),
        files => {
            let files = files.iter().map(Files::read).collect::<Result<Vec<_>, _>>()?;
            let pairs: Vec<_> = files.iter().map(Files::pair).collect();
            Certificates::load(now, &pairs)
        }
    };
    certificates.map(|certificates| Some(Arc::new(certificates))).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|p| format!("tls.certificates: {p}")).collect();
        Failure::new(Exit::Config, lines.join("\n"))
    })
}

/// Names each certificate and its fingerprint, and warns of an end that is near.
pub(super) fn announce(certificates: &Certificates) {
    for certificate in certificates.list() {
        let left = certificate.not_after.saturating_sub(unix_time());
        let days = left.as_secs() / 86_400;
        tracing::info!(
            file = %certificate.file,
            names = %certificate.names.join(","),
            days,
            sha256 = %certificate.fingerprint,
            "certificate"
        );
        if left < SOON {
            tracing::warn!(file = %certificate.file, days, "the certificate ends soon");
        }
    }
}

/// Notices that files of certificates have changed.
pub(super) struct Watch {
    files: Vec<CertificateFiles>,
    seen: Vec<Option<Stamp>>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
}

impl Watch {
    /// Begins with the files as they are now.
    pub(super) fn new(config: &Config) -> Self {
        let files = config.tls.certificates.clone();
        let seen = stamps(&files);
        Self { files, seen }
    }

    /// Whether a file is another than at the last call. One that is missing is
    /// about to be replaced: that counts once it is there.
    pub(super) fn has_changed(&mut self) -> bool {
        let now = stamps(&self.files);
        if now.contains(&None) || now == self.seen {
            return false;
        }
        self.seen = now;
        true
    }
}

fn stamps(files: &[CertificateFiles]) -> Vec<Option<Stamp>> {
    let stamp = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        let modified = metadata.modified().ok();
        Some(Stamp { inode: metadata.ino(), len: metadata.len(), modified })
    };
    files.iter().flat_map(|files| [stamp(&files.chain), stamp(&files.key)]).collect()
}

/// What is in the files of one certificate, and their paths.
struct Files {
    chain: (String, Vec<u8>),
    key: (String, Vec<u8>),
}

impl Files {
    fn read(files: &CertificateFiles) -> Result<Self, Failure> {
        let read = |path: &Path| {
            let name = path.display().to_string();
            match fs::read(path) {
                Ok(bytes) => Ok((name, bytes)),
                Err(error) => {
                    let why = format!("tls.certificates: {name}: {error}");
                    Err(Failure::new(Exit::Config, why))
                }
            }
        };
        Ok(Self { chain: read(&files.chain)?, key: read(&files.key)? })
    }

    fn pair(&self) -> KeyPair<'_> {
        KeyPair { chain: pem(&self.chain), key: pem(&self.key) }
    }
}

fn pem((name, bytes): &(String, Vec<u8>)) -> Pem<'_> {
    Pem { name, bytes }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
