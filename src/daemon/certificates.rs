//! Certificates from their files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Failure;
use super::exit::Exit;
use crate::config::{CertificateFiles, Config};
use crate::net::Now;
use crate::tls::{Certificate, CertificateProblem, Certificates, KeyPair, Pem};

/// Days before its end from which on a certificate is worth a warning.
const SOON: u64 = 14;

/// The certificates of the configuration; `None` when TLS is not served.
pub(super) fn load(config: &Config) -> Result<Option<Arc<Certificates>>, Failure> {
    let certificates = match config.tls.certificates.as_slice() {
        [] if !config.tls.self_signed => return Ok(None),
        [] => {
            let made = Certificates::self_signed(now(), &["localhost".to_owned()]);
            made.map_err(|problems| texts(&problems))
        }
        files => load_files(files),
    };
    certificates.map(|certificates| Some(Arc::new(certificates))).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|p| format!("tls.certificates: {p}")).collect();
        Failure::new(Exit::Config, lines.join("\n"))
    })
}

/// Fails with every problem; files that cannot be read come first.
fn load_files(files: &[CertificateFiles]) -> Result<Certificates, Vec<String>> {
    let (mut read, mut problems) = (Vec::new(), Vec::new());
    for files in files {
        match Files::read(files) {
            Ok(files) => read.push(files),
            Err(why) => problems.push(why),
        }
    }
    if read.is_empty() {
        return Err(problems);
    }
    let pairs: Vec<_> = read.iter().map(Files::pair).collect();
    match Certificates::load(now(), &pairs) {
        Ok(certificates) if problems.is_empty() => Ok(certificates),
        Ok(_) => Err(problems),
        Err(found) => {
            problems.extend(texts(&found));
            Err(problems)
        }
    }
}

fn texts(problems: &[CertificateProblem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Each certificate in a line: its names and how long it will last.
pub(super) fn summary(certificates: &Certificates) -> Vec<String> {
    let line = |certificate: &Certificate| {
        let names = match certificate.names.as_slice() {
            [] => "no name".to_owned(),
            names => names.join(", "),
        };
        format!("{} for {names}, {} days left", certificate.file, days_left(certificate))
    };
    certificates.list().iter().map(line).collect()
}

/// Names each certificate and its fingerprint, and warns of an end that is near.
pub(super) fn announce(certificates: &Certificates) {
    for certificate in certificates.list() {
        let days = days_left(certificate);
        tracing::info!(
            file = %certificate.file,
            names = %certificate.names.join(","),
            days,
            sha256 = %certificate.fingerprint,
            "certificate"
        );
        if days < SOON {
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
    fn read(files: &CertificateFiles) -> Result<Self, String> {
        let read = |path: &Path| {
            let name = path.display().to_string();
            match fs::read(path) {
                Ok(bytes) => Ok((name, bytes)),
                Err(error) => Err(format!("{name}: {error}")),
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

fn days_left(certificate: &Certificate) -> u64 {
    certificate.not_after.saturating_sub(now().unix).as_secs() / 86_400
}

fn now() -> Now {
    // A clock before 1970 is as good as none.
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), unix }
}
