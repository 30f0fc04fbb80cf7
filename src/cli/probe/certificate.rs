//! What a person wants to know of a certificate: whose it is, who says so, and
//! for how long.
//!
//! This only reads for display. Whether a certificate is trusted is decided by
//! rustls, never by what is read here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::calendar;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` around the version.
const VERSION: u8 = 0xA0;
/// `[3]` around the extensions.
const EXTENSIONS: u8 = 0xA3;
/// `[2]` of GeneralName.
const DNS_NAME: u8 = 0x82;
/// `[7]` of GeneralName.
const IP_ADDRESS: u8 = 0x87;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.4.10
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0A];
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];

/// The readable part of a certificate (RFC 5280 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Common name, or else organization, of the subject; empty if it has neither.
    pub(super) subject: String,
    /// The same of the issuer.
    pub(super) issuer: String,
    /// Whether subject and issuer are the same.
    pub(super) self_issued: bool,
    /// DNS names and addresses it is for.
    pub(super) names: Vec<String>,
    /// Seconds since the Unix epoch.
    pub(super) not_before: u64,
    /// Seconds since the Unix epoch.
    pub(super) not_after: u64,
}

/// The longest text that is worth showing: a name of the DNS.
const LONGEST: usize = 253;
/// Names that are shown; certificates of large sites have hundreds.
const SHOWN: usize = 8;

/// Names for people, the first ones if there are many.
pub(super) fn list(names: &[String]) -> String {
    match names.split_at_checked(SHOWN) {
        Some((first, rest)) if !rest.is_empty() => {
            format!("{} and {} more", first.join(", "), rest.len())
        }
        _ => names.join(", "),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(LONGEST).collect()
}

impl Certificate {
    /// Reads a certificate in DER; `None` if it is none.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let mut tbs = Der(Der(Der(der).expect(SEQUENCE)?).expect(SEQUENCE)?);
        tbs.skip_tag(VERSION);
        tbs.expect(INTEGER)?; // serial number
        tbs.expect(SEQUENCE)?; // signature algorithm
        let issuer = tbs.expect(SEQUENCE)?;
        let mut validity = Der(tbs.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        let subject = tbs.expect(SEQUENCE)?;
        tbs.expect(SEQUENCE)?; // public key
        Some(Self {
            subject: name(subject),
            issuer: name(issuer),
            self_issued: subject == issuer,
            names: extensions(tbs).map(alternative_names).unwrap_or_default(),
            not_before,
            not_after,
        })
    }
}

/// A sequence of DER values (X.690 section 8.1).
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The contents of the next value, which has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, contents)| contents)
    }

    /// Passes over the next value if it has this tag.
    fn skip_tag(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

impl<'a> Iterator for Der<'a> {
    /// Tag and contents.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81 => (usize::from(*rest.first()?), &rest[1..]),
            0x82 => {
                let (&bytes, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(bytes)), rest)
            }
            // No certificate that a handshake carries needs more.
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, contents))
    }
}

/// The common name, or else the organization, of a distinguished name.
fn name(dn: &[u8]) -> String {
    let attributes = || {
        Der(dn).filter(|(tag, _)| *tag == SET).flat_map(|(_, set)| Der(set)).filter_map(
            |(_, pair)| {
                let mut pair = Der(pair);
                let kind = pair.expect(OBJECT_IDENTIFIER)?;
                let (_, value) = pair.next()?;
                Some((kind, text(value)))
            },
        )
    };
    let find = |wanted: &[u8]| attributes().find(|(kind, _)| *kind == wanted).map(|(_, text)| text);
    find(COMMON_NAME).or_else(|| find(ORGANIZATION)).unwrap_or_default()
}

/// UTCTime up to 2049, GeneralizedTime from then on, both to the second and in UTC
/// (RFC 5280 section 4.1.2.5).
fn time(validity: &mut Der<'_>) -> Option<u64> {
    let (tag, text) = validity.next()?;
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |at: usize, length: usize| -> Option<u64> {
        std::str::from_utf8(digits.get(at..at + length)?).ok()?.parse().ok()
    };
    let (year, rest) = match tag {
        UTC_TIME => {
            (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2)
        }
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let pair = |index: usize| number(rest + 2 * index, 2);
    calendar::unix((year, pair(0)?, pair(1)?), (pair(2)?, pair(3)?, pair(4)?))
}

/// The extensions, behind the optional unique identifiers.
fn extensions(tbs: Der<'_>) -> Option<&[u8]> {
    let (_, list) = tbs.into_iter().find(|(tag, _)| *tag == EXTENSIONS)?;
    Der(list).expect(SEQUENCE)
}

fn alternative_names(extensions: &[u8]) -> Vec<String> {
    let value = Der(extensions).find_map(|(_, extension)| {
        let mut extension = Der(extension);
        (extension.expect(OBJECT_IDENTIFIER)? == SUBJECT_ALT_NAME).then_some(())?;
        // Between the two there may be a BOOLEAN: critical.
        let (_, value) = extension.find(|(tag, _)| *tag == OCTET_STRING)?;
        Der(value).expect(SEQUENCE)
    });
    Der(value.unwrap_or_default()).filter_map(|(tag, name)| general_name(tag, name)).collect()
}

fn general_name(tag: u8, name: &[u8]) -> Option<String> {
    match tag {
        DNS_NAME => Some(text(name)),
        IP_ADDRESS => {
            let v4 = <[u8; 4]>::try_from(name).map(|ip| IpAddr::V4(Ipv4Addr::from(ip)));
            let v6 = <[u8; 16]>::try_from(name).map(|ip| IpAddr::V6(Ipv6Addr::from(ip)));
            v4.or(v6).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let names = ["turn.example.org", "*.example.net", "192.0.2.1", "2001:db8::1"];
        let mut params = CertificateParams::new(names.map(str::to_owned)).unwrap();
        edit(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_times() {
        let der = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "turn.example.org");
            params.distinguished_name.push(DnType::OrganizationName, "Example");
            params.not_before = date_time_ymd(2023, 11, 14);
            params.not_after = date_time_ymd(2055, 2, 28);
        });
        let read = Certificate::read(&der).unwrap();
        assert_eq!(read.subject, "turn.example.org");
        assert_eq!((read.issuer.as_str(), read.self_issued), ("turn.example.org", true));
        assert_eq!(read.names, ["turn.example.org", "*.example.net", "192.0.2.1", "2001:db8::1"]);
        // date -u -d 2023-11-14 +%s; date -u -d 2055-02-28 +%s
        assert_eq!((read.not_before, read.not_after), (1_699_920_000, 2_687_385_600));
    }

    #[test]
    fn an_organization_stands_in_for_a_common_name() {
        let der = certificate(|params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "Example");
        });
        assert_eq!(Certificate::read(&der).unwrap().subject, "Example");
    }

    #[test]
    fn a_certificate_cut_short_is_none() {
        let der = certificate(|_| ());
        for length in 0..der.len() {
            assert_eq!(Certificate::read(&der[..length]), None, "{length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(at in 0_usize..400, byte: u8, noise: Vec<u8>) {
            let mut der = certificate(|_| ());
            let at = at % der.len();
            der[at] = byte;
            Certificate::read(&der);
            Certificate::read(&noise);
        }
    }
}
