//! Certificates made for the tests, and what is said of bad ones.

use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::symm::Cipher;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name};

use super::*;

/// When the tests take place: 2023-11-14.
const T: u64 = 1_700_000_000;

const DAY: u64 = 86_400;

#[expect(clippy::disallowed_methods, reason = "a test starts its own clock")]
pub(in crate::tls) fn now() -> Now {
    Now { mono: Instant::now(), unix: Duration::from_secs(T) }
}

#[derive(Clone, Copy, Debug)]
pub(in crate::tls) enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

pub(in crate::tls) const KINDS: [Kind; 4] = [Kind::Rsa, Kind::P256, Kind::P384, Kind::Ed25519];

pub(in crate::tls) fn new_key(kind: Kind) -> PKey<Private> {
    let ec = |nid| {
        let group = EcGroup::from_curve_name(nid).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    };
    match kind {
        Kind::Rsa => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        Kind::P256 => ec(Nid::X9_62_PRIME256V1),
        Kind::P384 => ec(Nid::SECP384R1),
        Kind::Ed25519 => PKey::generate_ed25519().unwrap(),
    }
}

/// A certificate in PEM, signed with its own key.
pub(in crate::tls) fn issue(key: &PKey<Private>, names: &[&str], valid: (u64, u64)) -> Vec<u8> {
    let mut subject = X509Name::builder().unwrap();
    subject.append_entry_by_nid(Nid::COMMONNAME, "Common.Example").unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_pubkey(key).unwrap();
    let time = |unix: u64| Asn1Time::from_unix(unix.try_into().unwrap()).unwrap();
    builder.set_not_before(&time(valid.0)).unwrap();
    builder.set_not_after(&time(valid.1)).unwrap();
    if !names.is_empty() {
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            alternatives.dns(name);
        }
        let extension = alternatives.build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(extension).unwrap();
    }
    let digest = match key.id() {
        Id::ED25519 => MessageDigest::null(),
        _ => MessageDigest::sha256(),
    };
    builder.sign(key, digest).unwrap();
    builder.build().to_pem().unwrap()
}

/// A set with one certificate for each of the lists of names.
pub(in crate::tls) fn certificates(all: &[(Kind, &[&str])]) -> Arc<Certificates> {
    let pems: Vec<_> = all
        .iter()
        .map(|(kind, names)| {
            let key = new_key(*kind);
            (issue(&key, names, (T - DAY, T + DAY)), key.private_key_to_pem_pkcs8().unwrap())
        })
        .collect();
    let pairs: Vec<_> = pems.iter().map(|(chain, key)| pair(chain, key)).collect();
    Arc::new(Certificates::load(now(), &pairs).unwrap())
}

fn pair<'a>(chain: &'a [u8], key: &'a [u8]) -> KeyPair<'a> {
    let chain = Pem { name: "cert.pem", bytes: chain };
    KeyPair { chain, key: Pem { name: "key.pem", bytes: key } }
}

fn problem(chain: &[u8], key: &[u8]) -> String {
    let problems = Certificates::load(now(), &[pair(chain, key)]).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].to_string()
}

const VALID: (u64, u64) = (T - DAY, T + DAY);

#[test]
fn every_kind_of_key_in_every_form() {
    for kind in KINDS {
        let key = new_key(kind);
        let chain = issue(&key, &["turn.example.org"], VALID);
        let mut forms = vec![key.private_key_to_pem_pkcs8().unwrap()];
        match kind {
            Kind::Rsa => forms.push(key.rsa().unwrap().private_key_to_pem().unwrap()),
            Kind::P256 | Kind::P384 => {
                let sec1 = key.ec_key().unwrap().private_key_to_pem().unwrap();
                // What `openssl ecparam -genkey` puts in front.
                let parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n\
                                   -----END EC PARAMETERS-----\n";
                forms.push([parameters.as_slice(), &sec1].concat());
                forms.push(sec1);
            }
            Kind::Ed25519 => {}
        }
        // Key and chain in one file.
        forms.push([forms[0].as_slice(), &chain].concat());
        for form in forms {
            let loaded = Certificates::load(now(), &[pair(&chain, &form)]).unwrap();
            let expected = &["turn.example.org"];
            assert_eq!(loaded.list()[0].names, expected, "{kind:?}");
            assert_eq!(loaded.list()[0].not_after, Duration::from_secs(T + DAY));
        }
    }
}

#[test]
fn what_is_wrong_is_said_in_a_line() {
    let key = new_key(Kind::P256);
    let pem = key.private_key_to_pem_pkcs8().unwrap();
    let good = issue(&key, &["turn.example.org"], VALID);
    let expired = issue(&key, &[], (T - 9 * DAY, T - DAY));
    assert_eq!(problem(&expired, &pem), "cert.pem: expired on 2023-11-13");
    let early = issue(&key, &[], (T + DAY, T + 9 * DAY));
    assert_eq!(problem(&early, &pem), "cert.pem: not valid before 2023-11-15");
    let other = new_key(Kind::P256).private_key_to_pem_pkcs8().unwrap();
    assert_eq!(problem(&good, &other), "key.pem does not belong to cert.pem");
    let rsa = new_key(Kind::Rsa).private_key_to_pem_pkcs8().unwrap();
    assert_eq!(problem(&good, &rsa), "key.pem does not belong to cert.pem");
    assert_eq!(problem(&good, &good), "key.pem: no private key in it");
    assert_eq!(problem(&good, b""), "key.pem: no private key in it");
    assert_eq!(problem(&pem, &pem), "cert.pem: no certificate in it");
    assert_eq!(problem(b"", &pem), "cert.pem: no certificate in it");
    let text = String::from_utf8(good.clone()).unwrap();
    let broken = text.replace("\nMII", "\nAAA");
    assert_ne!(broken, text);
    assert_eq!(problem(broken.as_bytes(), &pem), "cert.pem: a certificate in it is malformed");
    let sealed = |cipher| key.private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
    let expected = "key.pem: the private key is encrypted; store it without a passphrase";
    assert_eq!(problem(&good, &sealed(Cipher::aes_256_cbc())), expected);
    let old = key.ec_key().unwrap();
    let old = old.private_key_to_pem_passphrase(Cipher::aes_256_cbc(), b"secret").unwrap();
    assert_eq!(problem(&good, &old), expected);
    for bits in [1024, 2048] {
        let weak = PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap();
        let chain = issue(&weak, &[], VALID);
        let loaded =
            Certificates::load(now(), &[pair(&chain, &weak.private_key_to_pem_pkcs8().unwrap())]);
        assert_eq!(loaded.is_ok(), bits == 2048);
    }
    let group = EcGroup::from_curve_name(Nid::SECP256K1).unwrap();
    let odd = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let said = problem(&issue(&odd, &[], VALID), &odd.private_key_to_pem_pkcs8().unwrap());
    assert!(said.starts_with("key.pem: the private key is malformed, or neither RSA"), "{said}");
    assert!(!said.contains('\n'));
}

#[test]
fn all_problems_are_reported_at_once() {
    let key = new_key(Kind::P256);
    let pem = key.private_key_to_pem_pkcs8().unwrap();
    let good = issue(&key, &[], VALID);
    let pairs = [pair(&good, b""), pair(&good, &pem), pair(b"", &pem)];
    assert_eq!(Certificates::load(now(), &pairs).unwrap_err().len(), 2);
    let none = Certificates::load(now(), &[]).unwrap_err();
    assert_eq!(none, [CertificateProblem::None]);
}

#[test]
fn the_common_name_counts_where_there_is_no_other() {
    let key = new_key(Kind::P256);
    let pem = key.private_key_to_pem_pkcs8().unwrap();
    let load = |chain: &[u8]| Certificates::load(now(), &[pair(chain, &pem)]).unwrap();
    assert_eq!(load(&issue(&key, &[], VALID)).list()[0].names, ["common.example"]);
    let named = issue(&key, &["*.Example.org"], VALID);
    assert_eq!(load(&named).list()[0].names, ["*.example.org"]);
}

#[test]
fn self_signed_certificates() {
    let names = ["localhost".to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
    let made = Certificates::self_signed(now(), &names).unwrap();
    let [certificate] = made.list() else { panic!("{made:?}") };
    assert_eq!(certificate.names, ["localhost"]);
    assert_eq!(certificate.not_after, Duration::from_secs(T + 365 * DAY));
    let bytes: Vec<_> = certificate.fingerprint.split(':').collect();
    assert_eq!(bytes.len(), 32);
    assert!(bytes.iter().all(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok()));
    let other = Certificates::self_signed(now(), &names).unwrap();
    assert_ne!(other.list()[0].fingerprint, certificate.fingerprint);
    assert!(Certificates::self_signed(now(), &[]).is_ok());
    // A name that would end the list of names, or begin another kind of entry.
    for bad in ["a,b", "DNS:a\nb", "\0"] {
        if let Ok(made) = Certificates::self_signed(now(), &[bad.to_owned()]) {
            assert!(made.list()[0].names.len() <= 1, "{bad:?}");
        }
    }
}
