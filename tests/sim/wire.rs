//! The simulation's own reader of STUN and ChannelData: it shares nothing with the
//! server's codec or the client's, and knows only what the model needs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

pub const ALLOCATE: u16 = 0x003;
pub const REFRESH: u16 = 0x004;
pub const SEND: u16 = 0x006;
pub const DATA_METHOD: u16 = 0x007;
pub const CREATE_PERMISSION: u16 = 0x008;
pub const CHANNEL_BIND: u16 = 0x009;
pub const BINDING: u16 = 0x001;
pub const CONNECT: u16 = 0x00A;
pub const CONNECTION_BIND: u16 = 0x00B;
pub const CONNECTION_ATTEMPT: u16 = 0x00C;

pub const USERNAME: u16 = 0x0006;
pub const INTEGRITY: u16 = 0x0008;
pub const ERROR_CODE: u16 = 0x0009;
pub const CHANNEL_NUMBER: u16 = 0x000C;
pub const LIFETIME: u16 = 0x000D;
pub const PEER: u16 = 0x0012;
pub const DATA: u16 = 0x0013;
pub const ACCESS_TOKEN: u16 = 0x001B;
pub const PASSWORD_ALGORITHM: u16 = 0x001D;
pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
pub const NONCE: u16 = 0x0015;
pub const RELAYED: u16 = 0x0016;
pub const FAMILY: u16 = 0x0017;
pub const EVEN_PORT: u16 = 0x0018;
pub const TRANSPORT: u16 = 0x0019;
pub const DONT_FRAGMENT: u16 = 0x001A;
pub const INTEGRITY_256: u16 = 0x001C;
pub const USERHASH: u16 = 0x001E;
pub const MAPPED: u16 = 0x0020;
pub const TOKEN: u16 = 0x0022;
pub const CONNECTION_ID: u16 = 0x002A;
pub const ADDITIONAL: u16 = 0x8000;
pub const ICMP: u16 = 0x8004;
pub const ALTERNATE_SERVER: u16 = 0x8023;
pub const FINGERPRINT: u16 = 0x8028;
pub const TICKET: u16 = 0x8030;

/// Protocol numbers in REQUESTED-TRANSPORT.
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// What a TURN server has to understand (RFC 8489 section 14, RFC 8656 section 18).
const KNOWN: [u16; 22] = [
    0x0001, 0x0006, 0x0008, 0x0009, 0x000A, 0x000C, 0x000D, 0x0012, 0x0013, 0x0014, 0x0015, 0x0016,
    0x0017, 0x0018, 0x0019, 0x001A, 0x001B, 0x001C, 0x001D, 0x001E, 0x0020, 0x0022,
];

pub const HEADER_LEN: usize = 20;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// Class bits of a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// A STUN message, its attributes up to the first integrity attribute.
#[derive(Clone)]
pub struct Stun {
    pub method: u16,
    pub class: Class,
    pub id: [u8; 12],
    pub attributes: Vec<(u16, Vec<u8>)>,
    /// Where the first integrity attribute begins.
    pub integrity_at: Option<usize>,
}

impl Stun {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; 20] = bytes.first_chunk()?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if kind >= 0x4000 || length % 4 != 0 || length + 20 != bytes.len() || head[4..8] != COOKIE {
            return None;
        }
        let class = match (kind >> 7 & 2) | (kind >> 4 & 1) {
            0 => Class::Request,
            1 => Class::Indication,
            2 => Class::Success,
            _ => Class::Error,
        };
        let method = kind & 0xf | (kind >> 1 & 0x70) | (kind >> 2 & 0xf80);
        let id = head[8..].try_into().ok()?;
        let mut message = Self { method, class, id, attributes: Vec::new(), integrity_at: None };
        let mut at = 20;
        while at < bytes.len() {
            let head: &[u8; 4] = bytes[at..].first_chunk()?;
            let kind = u16::from_be_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let value = bytes.get(at + 4..at + 4 + length)?;
            if matches!(kind, INTEGRITY | INTEGRITY_256) {
                message.integrity_at.get_or_insert(at);
            } else if message.integrity_at.is_none() {
                message.attributes.push((kind, value.to_vec()));
            }
            at += 4 + length.next_multiple_of(4);
        }
        Some(message)
    }

    pub fn get(&self, kind: u16) -> Option<&[u8]> {
        self.all(kind).next()
    }

    pub fn all(&self, kind: u16) -> impl Iterator<Item = &[u8]> {
        self.attributes.iter().filter(move |(k, _)| *k == kind).map(|(_, value)| &value[..])
    }

    pub fn u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub fn addresses(&self, kind: u16) -> Vec<SocketAddr> {
        self.all(kind).filter_map(|value| self.xor_address(value)).collect()
    }

    /// The type of the first integrity attribute of a message with these bytes.
    pub fn integrity_kind(&self, bytes: &[u8]) -> Option<u16> {
        self.integrity_at.map(|at| u16::from_be_bytes([bytes[at], bytes[at + 1]]))
    }

    /// Whether this is a request to take an allocation along (RFC 8016).
    pub fn is_moving_refresh(&self) -> bool {
        self.method == REFRESH && self.get(TICKET).is_some()
    }

    /// Whether there is an attribute that must be understood, and that no TURN
    /// server understands.
    pub fn has_unknown_required(&self) -> bool {
        self.attributes.iter().any(|(kind, _)| *kind < 0x8000 && !KNOWN.contains(kind))
    }

    /// Where the application data of a Send indication lies.
    pub fn data_range(bytes: &[u8]) -> Option<Range<usize>> {
        let data = Self::parse(bytes)?.get(DATA)?.len();
        let mut at = 20;
        while u16::from_be_bytes([bytes[at], bytes[at + 1]]) != DATA {
            let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
            at += 4 + length.next_multiple_of(4);
        }
        Some(at + 4..at + 4 + data)
    }

    pub fn error(&self) -> Option<u16> {
        let &[_, _, class, number, ..] = self.get(ERROR_CODE)? else { return None };
        Some(u16::from(class) * 100 + u16::from(number))
    }

    pub fn xor_address(&self, value: &[u8]) -> Option<SocketAddr> {
        let mask: Vec<u8> = COOKIE.iter().chain(&self.id).copied().collect();
        let plain: Vec<u8> = value.get(4..)?.iter().zip(&mask).map(|(a, b)| a ^ b).collect();
        let port = u16::from_be_bytes([value[2] ^ mask[0], value[3] ^ mask[1]]);
        let ip = match (value[1], plain.len()) {
            (1, 4) => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(plain).ok()?)),
            (2, 16) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(plain).ok()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }
}

/// One line for the trace and for failures.
impl fmt::Debug for Stun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<u16> = self.attributes.iter().map(|(kind, _)| *kind).collect();
        write!(f, "{:?} {:#x} with {kinds:x?}", self.class, self.method)?;
        if let Some(code) = self.error() {
            write!(f, ", error {code}")?;
        }
        let peers = self.addresses(PEER);
        if !peers.is_empty() {
            write!(f, ", peers {peers:?}")?;
        }
        self.integrity_at.map_or(Ok(()), |_| f.write_str(", signed"))
    }
}

/// An address that is not obfuscated, such as ALTERNATE-SERVER.
pub fn plain_address(value: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([*value.get(2)?, *value.get(3)?]);
    let ip = match (value[1], value.len()) {
        (1, 8) => IpAddr::from(<[u8; 4]>::try_from(&value[4..]).ok()?),
        (2, 20) => IpAddr::from(<[u8; 16]>::try_from(&value[4..]).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// ChannelData: number and data. Padding of up to three bytes may follow.
pub fn channel_data(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (&[a, b, c, d], rest) = bytes.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([c, d]));
    let fits = (0x40..=0x7f).contains(&a) && rest.len() >= length && rest.len() - length <= 3;
    fits.then(|| (u16::from_be_bytes([a, b]), &rest[..length]))
}

/// The application data of a client's packet, or of a peer's.
pub fn payload(packet: &[u8]) -> &[u8] {
    if let Some((_, data)) = channel_data(packet) {
        return data;
    }
    let at = Stun::data_range(packet).expect("only ChannelData and Send carry data");
    &packet[at]
}

/// The peer that an indication with ICMP is about.
pub fn icmp_peer(message: &[u8]) -> Option<SocketAddr> {
    let message = Stun::parse(message)?;
    message.get(ICMP)?;
    message.addresses(PEER).first().copied()
}

/// Appends an attribute to a message, and says in its header how long it is.
pub fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    set_length(bytes, 0);
}

/// Writes the length of a message as if so many bytes more followed.
pub fn set_length(bytes: &mut [u8], more: usize) {
    let length = (bytes.len() - HEADER_LEN + more) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}

/// Appends FINGERPRINT (RFC 8489 section 14.7).
pub fn add_fingerprint(bytes: &mut Vec<u8>) {
    set_length(bytes, 8);
    let crc = !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    });
    append(bytes, FINGERPRINT, &(crc ^ 0x5354_554E).to_be_bytes());
}

/// A packet in a few words, for the trace.
pub fn describe(bytes: &[u8]) -> String {
    match (Stun::parse(bytes), channel_data(bytes)) {
        (Some(message), _) => format!("{message:?}"),
        (None, Some((number, data))) => format!("channel {number:#x}, {} bytes", data.len()),
        (None, None) => format!("{} bytes of nothing", bytes.len()),
    }
}
