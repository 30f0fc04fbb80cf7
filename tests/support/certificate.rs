//! The certificate of test servers, which the clients of [`super::driver`] trust.

use std::sync::OnceLock;

use rcgen::{CertificateParams, DnType, KeyPair};

/// The name that it is for, besides the loopback addresses.
pub const NAME: &str = "localhost";

/// A certificate that signed itself, and its key.
pub struct Certificate {
    /// The certificate in PEM.
    pub chain: String,
    /// Its private key in PEM.
    pub key: String,
    /// The certificate in DER.
    pub der: Vec<u8>,
}

impl Certificate {
    /// The one of this test run.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Certificate> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(&[NAME, "127.0.0.1", "::1"], |_| ()))
    }

    /// One for these host names and addresses, with whatever else is changed.
    pub fn new(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let texts: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(texts).unwrap();
        // Issuers are found by subject: no two may have the same.
        params.distinguished_name.push(DnType::CommonName, names[0]);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }
}
