//! The PROXY protocol, versions 1 and 2: a load balancer in front of the server
//! says whom a connection comes from.
//!
//! The header is to be believed only from addresses that the configuration names;
//! anybody else could claim any address with it. In front of a backend the server is
//! the load balancer, and writes one.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Reader;

/// First bytes of version 1, which is text.
pub(super) const V1_SIGNATURE: &[u8] = b"PROXY ";

/// First bytes of version 2, which is binary.
pub(super) const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of version 1 in bytes, with its line end, as the protocol sets it.
pub const V1_LONGEST: usize = 107;

/// Longest header of version 2 in bytes that is accepted, extensions included. A
/// sender may count on 536; certificates in extensions can need more.
pub const V2_LONGEST: usize = 4096;

const V2_FIXED: usize = 16;

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the header in bytes: where the proxied protocol begins.
    pub len: usize,
    /// The addresses of the proxied connection. `None` keeps the real ones: a
    /// health check of the load balancer itself, or one it cannot name.
    pub addresses: Option<Addresses>,
}

/// The two ends of the connection that is proxied. Both have the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where the client is.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// Why a header is refused; the connection is of no use then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// It begins with neither signature.
    NotProxy,
    /// Longer than [`V1_LONGEST`] or [`V2_LONGEST`].
    TooLong,
    /// A version other than 1 and 2.
    Version,
    /// A command other than LOCAL and PROXY.
    Command,
    /// A protocol or address family that nobody has defined.
    Family,
    /// The addresses are not what the header says they are.
    Addresses,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotProxy => "not a PROXY protocol header",
            Self::TooLong => "PROXY protocol header too long",
            Self::Version => "unknown version of the PROXY protocol",
            Self::Command => "unknown command in a PROXY protocol header",
            Self::Family => "unknown address family in a PROXY protocol header",
            Self::Addresses => "malformed addresses in a PROXY protocol header",
        })
    }
}

impl Error for ProxyError {}

/// Appends the header of a connection over TCP to `header`. Two ends of different
/// families, which no connection has, are told as unknown.
pub fn write(addresses: &Addresses, version: Version, header: &mut Vec<u8>) {
    match version {
        Version::V1 => write_v1(addresses, header),
        Version::V2 => write_v2(addresses, header),
    }
}

/// Reads the header, of either version, at the front of `bytes`. `None` when it
/// is not complete yet, which it is or is refused within [`V2_LONGEST`] bytes.
///
/// # Errors
///
/// A [`ProxyError`] as soon as the bytes cannot become a header that is accepted.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let begins = |signature: &[u8]| {
        let len = bytes.len().min(signature.len());
        bytes[..len] == signature[..len]
    };
    if begins(V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins(V1_SIGNATURE) {
        parse_v1(bytes)
    } else {
        Err(ProxyError::NotProxy)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let window = &bytes[..bytes.len().min(V1_LONGEST)];
    let Some(end) = window.windows(2).position(|two| two == b"\r\n") else {
        let more = bytes.len() < V1_LONGEST;
        return if more { Ok(None) } else { Err(ProxyError::TooLong) };
    };
    let line = std::str::from_utf8(&bytes[V1_SIGNATURE.len()..end]);
    let line = line.map_err(|_| ProxyError::Addresses)?;
    Ok(Some(Header { len: end + 2, addresses: v1_addresses(line)? }))
}

fn v1_addresses(line: &str) -> Result<Option<Addresses>, ProxyError> {
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    let ip = match family {
        "TCP4" => |word: &str| word.parse().ok().map(IpAddr::V4),
        "TCP6" => |word: &str| word.parse().ok().map(IpAddr::V6),
        // Whatever follows is for the receiver to ignore.
        "UNKNOWN" => return Ok(None),
        _ => return Err(ProxyError::Family),
    };
    let mut address = || words.next().and_then(ip).ok_or(ProxyError::Addresses);
    let (source, destination) = (address()?, address()?);
    let mut port = || words.next().and_then(v1_port).ok_or(ProxyError::Addresses);
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(ProxyError::Addresses);
    }
    Ok(Some(Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }))
}

/// A port without sign or leading zeros.
fn v1_port(word: &str) -> Option<u16> {
    let plain = word == "0" || word.starts_with(|c: char| matches!(c, '1'..='9'));
    word.parse().ok().filter(|_| plain)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else { return Ok(None) };
    let [.., version_command, family_protocol, high, low] = *fixed;
    if version_command >> 4 != 2 {
        return Err(ProxyError::Version);
    }
    let proxied = match version_command & 0x0f {
        0 => false,
        1 => true,
        _ => return Err(ProxyError::Command),
    };
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > V2_LONGEST {
        return Err(ProxyError::TooLong);
    }
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    let addresses = if proxied {
        v2_addresses(family_protocol, Reader::new(&header[V2_FIXED..]))?
    } else {
        None
    };
    Ok(Some(Header { len, addresses }))
}

/// The addresses; extensions may follow them.
fn v2_addresses(
    family_protocol: u8,
    mut body: Reader<'_>,
) -> Result<Option<Addresses>, ProxyError> {
    let (family, protocol) = (family_protocol >> 4, family_protocol & 0x0f);
    if protocol > 2 {
        return Err(ProxyError::Family);
    }
    let ips = match family {
        1 => two(|| body.array().map(|octets: [u8; 4]| IpAddr::from(octets))),
        2 => two(|| body.array().map(|octets: [u8; 16]| IpAddr::from(octets))),
        // Unspecified, and sockets with a path.
        0 | 3 => return Ok(None),
        _ => return Err(ProxyError::Family),
    };
    let ports = two(|| body.u16());
    let ((source, destination), (source_port, destination_port)) =
        ips.zip(ports).ok_or(ProxyError::Addresses)?;
    Ok((protocol != 0).then_some(Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }))
}

fn two<T>(mut next: impl FnMut() -> Option<T>) -> Option<(T, T)> {
    Some((next()?, next()?))
}

fn write_v1(addresses: &Addresses, header: &mut Vec<u8>) {
    let Addresses { source, destination } = addresses;
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
        _ => return header.extend_from_slice(b"PROXY UNKNOWN\r\n"),
    };
    let line = format!(
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    header.extend_from_slice(line.as_bytes());
}

fn write_v2(addresses: &Addresses, header: &mut Vec<u8>) {
    /// Version 2 and the command PROXY.
    const PROXY: u8 = 0x21;
    let Addresses { source, destination } = addresses;
    let mut body = Vec::new();
    let family_protocol = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            body.extend_from_slice(&from.octets());
            body.extend_from_slice(&to.octets());
            0x11
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            body.extend_from_slice(&from.octets());
            body.extend_from_slice(&to.octets());
            0x21
        }
        _ => 0,
    };
    if family_protocol != 0 {
        body.extend_from_slice(&source.port().to_be_bytes());
        body.extend_from_slice(&destination.port().to_be_bytes());
    }
    header.extend_from_slice(V2_SIGNATURE);
    header.extend_from_slice(&[PROXY, family_protocol, 0, body.len() as u8]);
    header.extend_from_slice(&body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses(source: &str, destination: &str) -> Option<Addresses> {
        Some(Addresses {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        })
    }

    fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[version_command, family], &len, body].concat()
    }

    const V4_BODY: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 0x0d, 0x96];

    /// Headers that are accepted, with the addresses in them.
    fn accepted() -> Vec<(Vec<u8>, Option<Addresses>)> {
        let mut v6_body = [0; 36];
        v6_body[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        v6_body[15] = 1;
        v6_body[16..20].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        v6_body[31] = 2;
        v6_body[32..].copy_from_slice(&[0, 1, 0, 2]);
        let v4 = addresses("192.0.2.1:5000", "198.51.100.1:3478");
        let v6 = addresses("[2001:db8::1]:1", "[2001:db8::2]:2");
        let with_extensions = [V4_BODY.as_slice(), &[4, 0, 3, 0, 0, 0]].concat();
        let long = [V4_BODY.as_slice(), &[0; V2_LONGEST - V2_FIXED - 12]].concat();
        let text = |line: &str| line.as_bytes().to_vec();
        let mut longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_LONGEST - 16));
        assert_eq!(longest.len(), V1_LONGEST);
        longest.make_ascii_lowercase();
        let longest = longest.replace("proxy unknown", "PROXY UNKNOWN");
        vec![
            (text("PROXY TCP4 192.0.2.1 198.51.100.1 5000 3478\r\n"), v4),
            (text("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"), v6),
            (text("PROXY UNKNOWN\r\n"), None),
            (text("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"), None),
            (text(&longest), None),
            (v2(0x21, 0x11, &V4_BODY), v4),
            (v2(0x21, 0x12, &V4_BODY), v4),
            (v2(0x21, 0x11, &with_extensions), v4),
            (v2(0x21, 0x11, &long), v4),
            (v2(0x21, 0x21, &v6_body), v6),
            (v2(0x20, 0x11, &V4_BODY), None),
            (v2(0x20, 0, &[]), None),
            (v2(0x21, 0, &[1, 2, 3]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ]
    }

    #[test]
    fn headers_end_where_they_say_and_come_in_pieces() {
        for (header, addresses) in accepted() {
            for len in 0..header.len() {
                assert_eq!(parse(&header[..len]), Ok(None), "{len} of {header:?}");
            }
            let expected = Ok(Some(Header { len: header.len(), addresses }));
            assert_eq!(parse(&header), expected);
            let followed = [header.as_slice(), &[0, 1, 0, 0, 0x21]].concat();
            assert_eq!(parse(&followed), expected);
        }
    }

    #[test]
    fn refused_headers_name_the_reason() {
        let text = |line: &str| parse(line.as_bytes());
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 3478 \r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.1 5000 3478\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 5000 03478\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +5000 3478\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 5000 3478\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 5000 3478\r\n",
            "PROXY TCP4 \r\n",
        ] {
            assert_eq!(text(line), Err(ProxyError::Addresses), "{line}");
        }
        assert_eq!(text("PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n"), Err(ProxyError::Family));
        assert_eq!(text("PROXY \r\n"), Err(ProxyError::Family));
        assert_eq!(text("PROXX"), Err(ProxyError::NotProxy));
        assert_eq!(text("proxy TCP4"), Err(ProxyError::NotProxy));
        assert_eq!(parse(&[V1_SIGNATURE, &[b'a'; 101]].concat()), Err(ProxyError::TooLong));
        assert_eq!(parse(&v2(0x11, 0x11, &V4_BODY)), Err(ProxyError::Version));
        assert_eq!(parse(&v2(0x22, 0x11, &V4_BODY)), Err(ProxyError::Command));
        assert_eq!(parse(&v2(0x21, 0x41, &V4_BODY)), Err(ProxyError::Family));
        assert_eq!(parse(&v2(0x21, 0x13, &V4_BODY)), Err(ProxyError::Family));
        assert_eq!(parse(&v2(0x21, 0x11, &V4_BODY[..11])), Err(ProxyError::Addresses));
        let long = v2(0x21, 0x11, &[0; V2_LONGEST - V2_FIXED + 1]);
        assert_eq!(parse(&long[..V2_FIXED]), Err(ProxyError::TooLong));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let ends = [
            ("192.0.2.1:5000", "198.51.100.1:443"),
            ("[2001:db8::1]:65535", "[2001:db8::2]:1"),
            ("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[::ffff:192.0.2.1]:65535"),
        ];
        for version in [Version::V1, Version::V2] {
            for (source, destination) in ends {
                let addresses = addresses(source, destination);
                let mut header = Vec::new();
                write(&addresses.unwrap(), version, &mut header);
                let expected = Header { len: header.len(), addresses };
                assert_eq!(parse(&header), Ok(Some(expected)), "{header:?}");
            }
            let mut header = Vec::new();
            write(&addresses("192.0.2.1:1", "[::1]:2").unwrap(), version, &mut header);
            let expected = Header { len: header.len(), addresses: None };
            assert_eq!(parse(&header), Ok(Some(expected)), "{header:?}");
        }
        let mut text = Vec::new();
        write(&addresses("192.0.2.1:5000", "198.51.100.1:443").unwrap(), Version::V1, &mut text);
        assert_eq!(text, b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n");
    }

    proptest! {
        /// What is decided stays decided when more bytes come.
        #[test]
        fn more_bytes_change_nothing(
            version in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let signature = if version { V1_SIGNATURE } else { V2_SIGNATURE };
            let bytes = [signature, &bytes].concat();
            let mut decided = None;
            for len in 0..=bytes.len() {
                let now = parse(&bytes[..len]);
                if let Some(before) = decided {
                    prop_assert_eq!(now, before);
                } else if now != Ok(None) {
                    decided = Some(now);
                }
                if let Ok(Some(header)) = now {
                    prop_assert!(header.len <= len);
                }
            }
        }
    }
}
