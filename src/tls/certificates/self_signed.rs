//! A certificate of the server's own making.

use std::net::IpAddr;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};

use crate::net::Now;

const DAY: u64 = 86_400;

/// Chain and key in PEM.
pub(super) fn generate(now: Now, names: &[String]) -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;

    let mut subject = X509Name::builder()?;
    subject.append_entry_by_nid(Nid::COMMONNAME, "sturn")?;
    let subject = subject.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;

    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(&subject)?;
    builder.set_issuer_name(&subject)?;
    builder.set_pubkey(&key)?;
    // Clients' clocks may be behind.
    builder.set_not_before(&*time(now.unix_secs().saturating_sub(DAY))?)?;
    builder.set_not_after(&*time(now.unix_secs() + 365 * DAY)?)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    if !names.is_empty() {
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            match name.parse::<IpAddr>() {
                Ok(ip) => alternatives.ip(&ip.to_string()),
                Err(_) => alternatives.dns(name),
            };
        }
        let context = builder.x509v3_context(None, None);
        let extension = alternatives.build(&context)?;
        builder.append_extension(extension)?;
    }
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((builder.build().to_pem()?, key.private_key_to_pem_pkcs8()?))
}

fn time(unix: u64) -> Result<Asn1Time, ErrorStack> {
    Asn1Time::from_unix(unix.try_into().unwrap_or(i64::MAX))
}
