//! Requests to bytes and bytes to responses.
//!
//! Requests are encoded by `stun-rs`. Responses are read attribute by attribute,
//! because `stun-rs` refuses a whole message for one attribute that it cannot
//! decode, such as PADDING that is not UTF-8: here that would turn a good answer
//! into silence, and silence into a wrong class.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ring::hmac;
use stun_rs::attributes::discovery::{ChangeRequest, ChangeRequestFlags, Padding, ResponsePort};
use stun_rs::{
    MAGIC_COOKIE, MESSAGE_HEADER_SIZE, MessageClass, MessageEncoderBuilder, StunAttribute,
    StunMessageBuilder, TransactionId, methods,
};

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const MAPPED_ADDRESS: u16 = 0x0001;
/// What RFC 3489 called OTHER-ADDRESS.
const CHANGED_ADDRESS: u16 = 0x0005;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const SOFTWARE: u16 = 0x8022;
const RESPONSE_ORIGIN: u16 = 0x802B;
const OTHER_ADDRESS: u16 = 0x802C;

/// The transaction id of a message.
pub(super) type WireId = [u8; 12];

/// Transaction ids out of a seed: unguessable without it, the same ones each run.
pub(super) struct WireIds {
    key: hmac::Key,
    counter: u64,
}

impl WireIds {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, seed), counter: 0 }
    }

    pub(super) fn next_id(&mut self) -> WireId {
        let tag = hmac::sign(&self.key, &self.counter.to_be_bytes());
        self.counter += 1;
        *tag.as_ref().first_chunk().expect("a SHA-256 tag has 32 bytes")
    }
}

/// What a Binding request asks for beyond a mapped address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ask {
    /// Nothing.
    #[default]
    Plain,
    /// An answer from the alternate port.
    ChangePort,
    /// An answer from the alternate address and port.
    ChangeBoth,
    /// A padded answer to a request that carries so many bytes of PADDING.
    Padded(usize),
    /// An answer to another port.
    ResponsePort(u16, ResponsePortForm),
}

/// The RFC draws a 16-bit port and two bytes of padding; some servers count the
/// padding in the attribute's length and accept nothing else, others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponsePortForm {
    /// Length 2.
    Short,
    /// Length 4.
    Long,
}

/// Encodes a Binding request.
pub(super) fn encode(ask: Ask, id: WireId) -> Vec<u8> {
    let builder = StunMessageBuilder::new(methods::BINDING, MessageClass::Request)
        .with_transaction_id(TransactionId::from(id));
    let message = match attribute(ask) {
        Some(attribute) => builder.with_attribute(attribute).build(),
        None => builder.build(),
    };
    let room = match ask {
        Ask::Padded(length) => length + 64,
        _ => 64,
    };
    let mut bytes = vec![0; MESSAGE_HEADER_SIZE + room];
    let length = MessageEncoderBuilder::default()
        .build()
        .encode(&mut bytes, &message)
        .expect("there is room for one attribute of known length");
    bytes.truncate(length);
    if let Ask::ResponsePort(_, ResponsePortForm::Long) = ask {
        // The only attribute; its padding becomes part of the value.
        bytes[MESSAGE_HEADER_SIZE + 3] = 4;
    }
    bytes
}

fn attribute(ask: Ask) -> Option<StunAttribute> {
    use ChangeRequestFlags::{ChangeIp, ChangePort};
    match ask {
        Ask::Plain => None,
        Ask::ChangePort => Some(ChangeRequest::new(Some(ChangePort.into())).into()),
        Ask::ChangeBoth => Some(ChangeRequest::new(Some(ChangeIp | ChangePort)).into()),
        Ask::Padded(length) => {
            let text = "0".repeat(length);
            Some(Padding::new(text).expect("digits, far below 64 KiB").into())
        }
        Ask::ResponsePort(port, _) => Some(ResponsePort::from(port).into()),
    }
}

/// A Binding message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// One of our own requests that came back.
    Request,
    /// A success response.
    Success(Answer),
    /// An error response.
    Error {
        /// ERROR-CODE.
        code: u16,
        /// The reason phrase.
        reason: String,
    },
}

/// What a success response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS of an older server.
    pub(super) mapped: SocketAddr,
    /// OTHER-ADDRESS, or CHANGED-ADDRESS of an older server.
    pub(super) other: Option<SocketAddr>,
    /// RESPONSE-ORIGIN.
    pub(super) origin: Option<SocketAddr>,
    /// SOFTWARE.
    pub(super) software: Option<String>,
    /// Bytes of the message.
    pub(super) length: usize,
}

/// Why bytes are no Binding message of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Garbage {
    #[error("bytes that are no STUN message")]
    NotStun,
    #[error("a STUN message that is no answer to a Binding request")]
    NotBinding,
    #[error("a Binding response without a usable mapped address")]
    NoMappedAddress,
    #[error("an error response without ERROR-CODE")]
    NoErrorCode,
    #[error("a Binding response to another transaction")]
    OtherTransaction,
}

/// Decodes one whole message.
pub(super) fn decode(bytes: &[u8]) -> Result<(WireId, Incoming), Garbage> {
    let (header, body) =
        bytes.split_first_chunk::<MESSAGE_HEADER_SIZE>().ok_or(Garbage::NotStun)?;
    let [t0, t1, l0, l1, c0, c1, c2, c3, id @ ..] = *header;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let cookie = [c0, c1, c2, c3] == MAGIC_COOKIE.as_u32().to_be_bytes();
    if !cookie || length != body.len() || length % 4 != 0 {
        return Err(Garbage::NotStun);
    }
    let incoming = match u16::from_be_bytes([t0, t1]) {
        BINDING_REQUEST => Incoming::Request,
        BINDING_SUCCESS => Incoming::Success(answer(body, id, bytes.len())?),
        BINDING_ERROR => error(body)?,
        _ => return Err(Garbage::NotBinding),
    };
    Ok((id, incoming))
}

/// The length of the message that a stream begins with: `None` while it cannot be
/// told.
pub(super) fn message_length(stream: &[u8]) -> Result<Option<usize>, Garbage> {
    let Some(&[first, _, l0, l1, c0, c1, c2, c3]) = stream.first_chunk::<8>() else {
        return Ok(None);
    };
    if first > 0x3F || [c0, c1, c2, c3] != MAGIC_COOKIE.as_u32().to_be_bytes() {
        return Err(Garbage::NotStun);
    }
    Ok(Some(MESSAGE_HEADER_SIZE + usize::from(u16::from_be_bytes([l0, l1]))))
}

fn answer(body: &[u8], id: WireId, length: usize) -> Result<Answer, Garbage> {
    let find = |kind| attributes(body).find(|(found, _)| *found == kind).map(|(_, value)| value);
    let plain = |kind| find(kind).and_then(address);
    let mapped = find(XOR_MAPPED_ADDRESS)
        .and_then(address)
        .map(|masked| unmask(masked, id))
        .or_else(|| plain(MAPPED_ADDRESS))
        .filter(|mapped| mapped.port() != 0 && !mapped.ip().is_unspecified())
        .ok_or(Garbage::NoMappedAddress)?;
    Ok(Answer {
        mapped,
        other: plain(OTHER_ADDRESS).or_else(|| plain(CHANGED_ADDRESS)),
        origin: plain(RESPONSE_ORIGIN),
        software: find(SOFTWARE).and_then(printable),
        length,
    })
}

fn error(body: &[u8]) -> Result<Incoming, Garbage> {
    let (_, value) =
        attributes(body).find(|(kind, _)| *kind == ERROR_CODE).ok_or(Garbage::NoErrorCode)?;
    let (&[_, _, class, number], reason) =
        value.split_first_chunk::<4>().ok_or(Garbage::NoErrorCode)?;
    let code = u16::from(class & 0x07) * 100 + u16::from(number);
    Ok(Incoming::Error { code, reason: printable(reason).unwrap_or_default() })
}

/// Type and value of each attribute; ends early where a length points outside.
fn attributes(body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (&[t0, t1, l0, l1], tail) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let value = tail.get(..length)?;
        rest = tail.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([t0, t1]), value))
    })
}

/// The form of MAPPED-ADDRESS (RFC 8489 section 14.1).
fn address(value: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, high, low], ip) = value.split_first_chunk()?;
    let ip = match family {
        1 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        2 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

/// RFC 8489 section 14.2.
fn unmask(masked: SocketAddr, id: WireId) -> SocketAddr {
    let cookie = MAGIC_COOKIE.as_u32();
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&cookie.to_be_bytes());
    mask[4..].copy_from_slice(&id);
    let ip = match masked.ip() {
        IpAddr::V4(ip) => IpAddr::from((u32::from(ip) ^ cookie).to_be_bytes()),
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) ^ u128::from_be_bytes(mask)).to_be_bytes()),
    };
    SocketAddr::new(ip, masked.port() ^ (cookie >> 16) as u16)
}

/// Text from the network, fit for a terminal.
fn printable(bytes: &[u8]) -> Option<String> {
    const MOST: usize = 80;
    let text = String::from_utf8_lossy(bytes);
    let text: String = text.chars().filter(|c| !c.is_control()).take(MOST).collect();
    Some(text).filter(|text| !text.is_empty())
}

impl fmt::Debug for WireIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireIds").field("counter", &self.counter).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: WireId = [7; 12];

    fn response(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend([0x21, 0x12, 0xA4, 0x42]);
        bytes.extend(ID);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn requests_on_the_wire() {
        assert_eq!(encode(Ask::Plain, ID).len(), 20);
        let tail = |ask| encode(ask, ID)[20..].to_vec();
        assert_eq!(tail(Ask::ChangePort), [0, 3, 0, 4, 0, 0, 0, 2]);
        assert_eq!(tail(Ask::ChangeBoth), [0, 3, 0, 4, 0, 0, 0, 6]);
        let port = |form| tail(Ask::ResponsePort(0x1234, form));
        assert_eq!(port(ResponsePortForm::Short), [0, 0x27, 0, 2, 0x12, 0x34, 0, 0]);
        assert_eq!(port(ResponsePortForm::Long), [0, 0x27, 0, 4, 0x12, 0x34, 0, 0]);
        assert_eq!(encode(Ask::Padded(1600), ID).len(), 20 + 4 + 1600);
        assert_eq!(tail(Ask::Padded(4))[..4], [0, 0x26, 0, 4]);
    }

    #[test]
    fn an_answer_of_both_families() {
        let xored: &[u8] = &[0, 1, 0x21 ^ 0x12, 0x12 ^ 0x34, 0x21 ^ 192, 0x12, 0xA4 ^ 2, 0x42 ^ 1];
        let other: &[u8] = &[0, 1, 0, 80, 192, 0, 2, 9];
        let bytes = response(
            BINDING_SUCCESS,
            &[
                (0x0026, &[0xFF; 5]),
                (XOR_MAPPED_ADDRESS, xored),
                (OTHER_ADDRESS, other),
                (SOFTWARE, b"a\x1b[2Jb"),
            ],
        );
        let (id, incoming) = decode(&bytes).unwrap();
        let Incoming::Success(answer) = incoming else { panic!("{incoming:?}") };
        assert_eq!((id, answer.mapped), (ID, "192.0.2.1:4660".parse().unwrap()));
        assert_eq!(answer.other, Some("192.0.2.9:80".parse().unwrap()));
        assert_eq!(answer.software.as_deref(), Some("a[2Jb"));

        let v6: SocketAddr = "[2001:db8::7]:5000".parse().unwrap();
        let masked = unmask(v6, ID);
        assert_ne!(masked, v6);
        assert_eq!(unmask(masked, ID), v6);
    }

    #[test]
    fn what_is_no_answer() {
        assert_eq!(decode(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Err(Garbage::NotStun));
        assert_eq!(decode(&[]), Err(Garbage::NotStun));
        let empty = response(BINDING_SUCCESS, &[]);
        assert_eq!(decode(&empty), Err(Garbage::NoMappedAddress));
        assert_eq!(decode(&empty[..19]), Err(Garbage::NotStun));
        let nowhere = response(BINDING_SUCCESS, &[(MAPPED_ADDRESS, &[0, 1, 0, 0, 1, 2, 3, 4])]);
        assert_eq!(decode(&nowhere), Err(Garbage::NoMappedAddress));
        assert_eq!(decode(&response(BINDING_ERROR, &[])), Err(Garbage::NoErrorCode));
        assert_eq!(decode(&response(0x0103, &[])), Err(Garbage::NotBinding));
        let too_far = [&[0, 1, 0xFF, 0xFF][..]].concat();
        let mut cut = response(BINDING_SUCCESS, &[]);
        cut.extend(too_far);
        cut[3] = 4;
        assert_eq!(decode(&cut), Err(Garbage::NoMappedAddress));
    }

    #[test]
    fn an_error_response() {
        let bytes = response(BINDING_ERROR, &[(ERROR_CODE, b"\0\0\x04\x01Unauthorized")]);
        let expected = Incoming::Error { code: 401, reason: "Unauthorized".into() };
        assert_eq!(decode(&bytes), Ok((ID, expected)));
    }

    #[test]
    fn messages_in_a_stream() {
        assert_eq!(message_length(&[1, 1, 0]), Ok(None));
        let bytes = response(BINDING_SUCCESS, &[(MAPPED_ADDRESS, &[0, 1, 0, 1, 1, 2, 3, 4])]);
        assert_eq!(message_length(&bytes), Ok(Some(bytes.len())));
        assert_eq!(message_length(b"HTTP/1.1"), Err(Garbage::NotStun));
    }
}
