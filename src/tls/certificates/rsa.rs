//! RSA signatures of TLS handshakes, on OpenSSL.
//!
//! The signature is most of what a handshake with an RSA certificate costs, and
//! with 2048 bits OpenSSL needs two thirds of ring's time for it.
//! Both check a signature before they let go of it, so that an error of the
//! processor does not give the key away.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Padding;
use openssl::sign::RsaPssSaltlen;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

/// The schemes of an RSA key (RFC 8446 section 4.2.3), in the order in which rustls
/// prefers them. The last three are for TLS 1.2.
const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

/// The private key of an RSA certificate.
#[derive(Debug)]
pub(super) struct RsaKey(PKey<Private>);

impl RsaKey {
    /// Takes a key that is known to be RSA.
    pub(super) fn new(key: PKey<Private>) -> Self {
        Self(key)
    }
}

impl SigningKey for RsaKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = *SCHEMES.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(RsaSigner { key: self.0.clone(), scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

#[derive(Debug)]
struct RsaSigner {
    key: PKey<Private>,
    scheme: SignatureScheme,
}

impl Signer for RsaSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signed = sign(&self.key, self.scheme, message);
        signed.map_err(|why| rustls::Error::General(why.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

fn sign(
    key: &PKey<Private>,
    scheme: SignatureScheme,
    message: &[u8],
) -> Result<Vec<u8>, ErrorStack> {
    let digest = match scheme {
        SignatureScheme::RSA_PSS_SHA512 | SignatureScheme::RSA_PKCS1_SHA512 => {
            MessageDigest::sha512()
        }
        SignatureScheme::RSA_PSS_SHA384 | SignatureScheme::RSA_PKCS1_SHA384 => {
            MessageDigest::sha384()
        }
        _ => MessageDigest::sha256(),
    };
    let pss = SCHEMES[..3].contains(&scheme);
    let mut signer = openssl::sign::Signer::new(digest, key)?;
    if pss {
        signer.set_rsa_padding(Padding::PKCS1_PSS)?;
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
    } else {
        signer.set_rsa_padding(Padding::PKCS1)?;
    }
    signer.sign_oneshot_to_vec(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::rsa::Rsa;
    use ring::signature::{self, RsaParameters, UnparsedPublicKey};

    #[test]
    fn another_library_verifies_every_scheme() {
        const VERIFIED_BY: [&RsaParameters; 6] = [
            &signature::RSA_PSS_2048_8192_SHA512,
            &signature::RSA_PSS_2048_8192_SHA384,
            &signature::RSA_PSS_2048_8192_SHA256,
            &signature::RSA_PKCS1_2048_8192_SHA512,
            &signature::RSA_PKCS1_2048_8192_SHA384,
            &signature::RSA_PKCS1_2048_8192_SHA256,
        ];
        let rsa = Rsa::generate(2048).unwrap();
        let public = rsa.public_key_to_der_pkcs1().unwrap();
        let key = RsaKey::new(PKey::from_rsa(rsa).unwrap());
        for (scheme, parameters) in SCHEMES.into_iter().zip(VERIFIED_BY) {
            let signer = key.choose_scheme(&[scheme]).unwrap();
            assert_eq!(signer.scheme(), scheme);
            let mut signed = signer.sign(b"handshake").unwrap();
            let verifier = UnparsedPublicKey::new(parameters, &public);
            verifier.verify(b"handshake", &signed).unwrap();
            signed[7] ^= 1;
            verifier.verify(b"handshake", &signed).unwrap_err();
        }
    }

    #[test]
    fn the_strongest_offered_scheme_is_chosen() {
        let key = RsaKey::new(PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap());
        let chosen =
            |offered: &[SignatureScheme]| key.choose_scheme(offered).map(|signer| signer.scheme());
        let offered = [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::RSA_PSS_SHA256];
        assert_eq!(chosen(&offered), Some(SignatureScheme::RSA_PSS_SHA256));
        assert_eq!(chosen(&[SignatureScheme::ECDSA_NISTP256_SHA256]), None);
    }
}
