//! Bytes to messages and back, through `stun-rs`, and the little that it cannot do:
//! attributes it has no type for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ring::hmac;
use stun_rs::attributes::stun::{Fingerprint, MessageIntegrity, MessageIntegritySha256, Software};
use stun_rs::{
    HMACKey, MAGIC_COOKIE, MESSAGE_HEADER_SIZE, MessageClass, MessageDecoderBuilder,
    MessageEncoderBuilder, MessageMethod, MessageType, StunAttribute, StunAttributeType,
    StunMessage, StunMessageBuilder, TransactionId, get_input_text,
};

use super::challenge::{Challenge, Integrity, Signature};
use super::event::{Problem, RawAttribute};
use super::request::{Attribute, Request};

const ATTRIBUTE_HEADER_SIZE: usize = 4;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const FINGERPRINT: u16 = 0x8028;
/// What FINGERPRINT is combined with (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;
/// No attribute but DATA is longer than this on the wire when a client sends it;
/// the longest texts have 763 bytes (RFC 8489 section 14).
const ATTRIBUTE_ROOM: usize = 1024;

/// A transaction id on the wire.
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

impl fmt::Debug for WireIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireIds").field("counter", &self.counter).finish_non_exhaustive()
    }
}

/// Encodes a request with SOFTWARE, credentials and FINGERPRINT.
pub(super) fn encode_request(
    request: &Request,
    id: WireId,
    software: Option<&str>,
    challenge: Option<&Challenge>,
) -> Result<Vec<u8>, Problem> {
    let mut attributes = request.attributes();
    if let Some(software) = software {
        let software = Software::new(software).map_err(unencodable)?;
        attributes.push(software.into());
    }
    attributes.extend(challenge.into_iter().flat_map(Challenge::attributes));
    let signature = challenge.map(Challenge::signature);
    encode(MessageClass::Request, request.method()?, id, &attributes, signature.as_ref(), true)
}

/// Encodes any message. `stun-rs` does all of it, unless there are attributes it
/// cannot encode.
pub(super) fn encode(
    class: MessageClass,
    method: MessageMethod,
    id: WireId,
    attributes: &[Attribute],
    signature: Option<&Signature>,
    fingerprint: bool,
) -> Result<Vec<u8>, Problem> {
    let typed: Option<Vec<&StunAttribute>> = attributes
        .iter()
        .map(|attribute| match attribute {
            Attribute::Typed(attribute) => Some(&**attribute),
            Attribute::Raw(..) => None,
        })
        .collect();
    // Above 64 KiB `stun-rs` would overflow its length; the other way checks it.
    match typed.filter(|typed| room_for(typed) <= usize::from(u16::MAX)) {
        Some(typed) => {
            let mut list: Vec<StunAttribute> = typed.into_iter().cloned().collect();
            list.extend(signature.map(integrity_attribute));
            list.extend(fingerprint.then(|| Fingerprint::default().into()));
            encode_typed(class, method, id, list)
        }
        None => splice(class, method, id, attributes, signature, fingerprint),
    }
}

fn room_for(attributes: &[&StunAttribute]) -> usize {
    attributes
        .iter()
        .map(|attribute| match attribute {
            StunAttribute::Data(data) => data.len() + ATTRIBUTE_HEADER_SIZE + 3,
            _ => ATTRIBUTE_ROOM,
        })
        .sum()
}

fn integrity_attribute(signature: &Signature) -> StunAttribute {
    match signature.integrity {
        Integrity::Sha1 => MessageIntegrity::new(signature.key.clone()).into(),
        Integrity::Sha256 => MessageIntegritySha256::new(signature.key.clone()).into(),
    }
}

fn encode_typed(
    class: MessageClass,
    method: MessageMethod,
    id: WireId,
    attributes: Vec<StunAttribute>,
) -> Result<Vec<u8>, Problem> {
    let room = room_for(&attributes.iter().collect::<Vec<_>>());
    let message = attributes
        .into_iter()
        .fold(
            StunMessageBuilder::new(method, class).with_transaction_id(TransactionId::from(id)),
            StunMessageBuilder::with_attribute,
        )
        .build();
    let mut bytes = vec![0; MESSAGE_HEADER_SIZE + room];
    let length = MessageEncoderBuilder::default()
        .build()
        .encode(&mut bytes, &message)
        .map_err(unencodable)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Encodes attribute by attribute and signs the sum, since `stun-rs` signs only
/// messages that it has encoded as a whole.
fn splice(
    class: MessageClass,
    method: MessageMethod,
    id: WireId,
    attributes: &[Attribute],
    signature: Option<&Signature>,
    fingerprint: bool,
) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(&MessageType::new(method, class).as_u16().to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&MAGIC_COOKIE.as_u32().to_be_bytes());
    bytes.extend_from_slice(&id);
    for attribute in attributes {
        match attribute {
            Attribute::Raw(kind, value) => append(&mut bytes, *kind, value)?,
            Attribute::Typed(attribute) => {
                let alone = encode_typed(class, method, id, vec![(**attribute).clone()])?;
                bytes.extend_from_slice(&alone[MESSAGE_HEADER_SIZE..]);
            }
        }
    }
    if let Some(Signature { key, integrity }) = signature {
        let (kind, algorithm) = match integrity {
            Integrity::Sha1 => (MESSAGE_INTEGRITY, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Integrity::Sha256 => (MESSAGE_INTEGRITY_SHA256, hmac::HMAC_SHA256),
        };
        let length = algorithm.digest_algorithm().output_len();
        set_length(&mut bytes, ATTRIBUTE_HEADER_SIZE + length)?;
        let tag = hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), &bytes);
        append(&mut bytes, kind, tag.as_ref())?;
    }
    if fingerprint {
        set_length(&mut bytes, ATTRIBUTE_HEADER_SIZE + 4)?;
        let value = crc32(&bytes) ^ FINGERPRINT_XOR;
        append(&mut bytes, FINGERPRINT, &value.to_be_bytes())?;
    }
    set_length(&mut bytes, 0)?;
    Ok(bytes)
}

fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) -> Result<(), Problem> {
    let length = u16::try_from(value.len()).map_err(|_| Problem::TooLong(value.len()))?;
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(())
}

/// Writes the message length as if `more` bytes followed.
fn set_length(bytes: &mut [u8], more: usize) -> Result<(), Problem> {
    let length = bytes.len() - MESSAGE_HEADER_SIZE + more;
    let length = u16::try_from(length).map_err(|_| Problem::TooLong(length))?;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// CRC-32 as in ITU V.42, bit by bit: only for the rare message that is spliced.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn unencodable(error: impl fmt::Display) -> Problem {
    Problem::Unencodable(error.to_string())
}

/// A decoded message together with its bytes.
pub(super) struct Message<'a> {
    pub(super) stun: StunMessage,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Decodes a message and checks its FINGERPRINT, if it has one.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Problem> {
        let (stun, length) = MessageDecoderBuilder::default()
            .build()
            .decode(bytes)
            .map_err(|error| Problem::Malformed(error.to_string()))?;
        let message = Self { stun, bytes: &bytes[..length] };
        match message.stun.get::<Fingerprint>() {
            Some(StunAttribute::Fingerprint(attribute))
                if !message.signed::<Fingerprint>(|input| attribute.validate(input)) =>
            {
                Err(Problem::Fingerprint)
            }
            _ => Ok(message),
        }
    }

    pub(super) fn id(&self) -> WireId {
        *self.stun.transaction_id().as_bytes()
    }

    /// Whether the message carries the integrity attribute that an answer to a
    /// request signed like this must carry, and whether it is right. `None` if
    /// it is not there.
    pub(super) fn verify(&self, signature: &Signature) -> Option<bool> {
        let key: &HMACKey = &signature.key;
        match signature.integrity {
            Integrity::Sha1 => self
                .stun
                .get::<MessageIntegrity>()
                .and_then(|attribute| attribute.as_message_integrity().ok())
                .map(|mac| self.signed::<MessageIntegrity>(|input| mac.validate(input, key))),
            Integrity::Sha256 => self
                .stun
                .get::<MessageIntegritySha256>()
                .and_then(|attribute| attribute.as_message_integrity_sha256().ok())
                .map(|mac| self.signed::<MessageIntegritySha256>(|input| mac.validate(input, key))),
        }
    }

    /// Applies a check to the part of the message that attribute `A` signs.
    fn signed<A: StunAttributeType>(&self, check: impl FnOnce(&[u8]) -> bool) -> bool {
        get_input_text::<A>(self.bytes).is_some_and(|input| check(&input))
    }

    /// Type and value of the attributes that the integrity attributes cover.
    pub(super) fn raw(&self) -> Vec<RawAttribute> {
        let mut list = Vec::new();
        let mut rest = &self.bytes[MESSAGE_HEADER_SIZE..];
        while let Some((&[a, b, c, d], tail)) = rest.split_first_chunk::<ATTRIBUTE_HEADER_SIZE>() {
            let kind = u16::from_be_bytes([a, b]);
            let length = usize::from(u16::from_be_bytes([c, d]));
            let Some(value) = tail.get(..length) else { break };
            if [MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, FINGERPRINT].contains(&kind) {
                break;
            }
            list.push((kind, value.to_vec()));
            rest = tail.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        list
    }

    /// The address in an attribute of the form of MAPPED-ADDRESS (RFC 8489
    /// section 14.1) for which `stun-rs` has no type as it is built here.
    pub(super) fn plain_address(&self, kind: u16) -> Option<SocketAddr> {
        let (_, value) = self.raw().into_iter().find(|(found, _)| *found == kind)?;
        let (&[_, family, high, low], ip) = value.split_first_chunk()?;
        let ip = match family {
            1 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
            2 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
    }
}
