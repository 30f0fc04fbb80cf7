//! What the load consists of: a stamp and filling, as peers see it, and the same
//! within ChannelData or an indication, as clients do.

use std::net::{Ipv4Addr, SocketAddrV4};

use clap::ValueEnum;

use crate::fleet::CHANNEL_HEADER;

/// A payload begins with run (4 bytes), flow (4), sequence number (8) and time (8).
const STAMP: usize = 24;
/// Smallest payload that holds a stamp.
pub(crate) const PAYLOAD_MIN: usize = STAMP;
/// Largest payload, so that a frame fits an Ethernet's UDP datagram.
pub(crate) const PAYLOAD_MAX: usize = 1400;
/// Bytes of a Send indication before the data: header, XOR-PEER-ADDRESS, head of
/// DATA (RFC 8656 section 11.1).
const SEND_HEADER: usize = HEADER + 12 + 4;
/// Where a payload lies in a slot: the longest header fits in front of it.
pub(crate) const HEADROOM: usize = SEND_HEADER;

const HEADER: usize = 20;
const COOKIE: u32 = 0x2112_a442;
const SEND_INDICATION: u16 = 0x0016;
const DATA_INDICATION: u16 = 0x0017;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;

/// How data goes between a client and its server.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum By {
    /// As ChannelData, both ways.
    Channel,
    /// As Send indications up, and as Data indications down.
    Send,
}

/// Whom a client sends to, or hears from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Far {
    /// The peer behind a channel.
    Channel(u16),
    /// The peer at an address.
    Peer(SocketAddrV4),
}

/// What a packet says of itself.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) run: u32,
    pub(crate) flow: usize,
    pub(crate) sequence: u64,
    /// When it was sent, in nanoseconds since the epoch.
    pub(crate) sent: u64,
}

impl Stamp {
    /// Writes it into a slot that was [`fill`]ed.
    pub(crate) fn write(&self, slot: &mut [u8]) {
        let payload = &mut slot[HEADROOM..];
        payload[..4].copy_from_slice(&self.run.to_be_bytes());
        payload[4..8].copy_from_slice(&(self.flow as u32).to_be_bytes());
        payload[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        payload[16..STAMP].copy_from_slice(&self.sent.to_be_bytes());
    }

    /// The stamp at the beginning of a payload.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        Some(Self {
            run: u32::from_be_bytes(*payload.first_chunk()?),
            flow: u32::from_be_bytes(*payload.get(4..)?.first_chunk()?) as usize,
            sequence: u64::from_be_bytes(*payload.get(8..)?.first_chunk()?),
            sent: u64::from_be_bytes(*payload.get(16..)?.first_chunk()?),
        })
    }
}

/// Fills the part of a slot that a payload may take.
pub(crate) fn fill(slot: &mut [u8]) {
    slot[HEADROOM..].iter_mut().enumerate().for_each(|(at, byte)| *byte = filler(at));
}

/// Whether a payload is filled as it was sent.
pub(crate) fn is_intact(payload: &[u8]) -> bool {
    (STAMP..payload.len()).all(|at| payload[at] == filler(at))
}

/// Writes what a client puts in front of a payload of `length` bytes in `slot`;
/// returns where it begins and where the message ends, padding included.
pub(crate) fn wrap(slot: &mut [u8], far: Far, length: usize) -> (usize, usize) {
    let end = HEADROOM + length;
    match far {
        Far::Channel(number) => {
            let header = &mut slot[HEADROOM - CHANNEL_HEADER..HEADROOM];
            header[..2].copy_from_slice(&number.to_be_bytes());
            header[2..].copy_from_slice(&(length as u16).to_be_bytes());
            (HEADROOM - CHANNEL_HEADER, end)
        }
        Far::Peer(peer) => {
            let end = end.next_multiple_of(4);
            write_send_header(&mut slot[..HEADROOM], peer, length, end - HEADER);
            (0, end)
        }
    }
}

/// Whom a client hears from, and the payload, if a message from the server is whole.
pub(crate) fn unwrap(message: &[u8]) -> Option<(Far, &[u8])> {
    let (kind, length) = (read_u16(message, 0)?, usize::from(read_u16(message, 2)?));
    if kind != DATA_INDICATION {
        let payload = &message[CHANNEL_HEADER..];
        return (payload.len() == length).then_some((Far::Channel(kind), payload));
    }
    let mut rest = message.get(HEADER..)?;
    if rest.len() != length || message[4..8] != COOKIE.to_be_bytes() {
        return None;
    }
    let (mut peer, mut payload) = (None, None);
    while !rest.is_empty() {
        let (kind, length) = (read_u16(rest, 0)?, usize::from(read_u16(rest, 2)?));
        let value = rest.get(4..4 + length)?;
        match kind {
            XOR_PEER_ADDRESS => peer = read_address(value),
            DATA => payload = Some(value),
            _ => {}
        }
        rest = rest.get(4 + length.next_multiple_of(4)..)?;
    }
    Some((Far::Peer(peer?), payload?))
}

fn write_send_header(header: &mut [u8], peer: SocketAddrV4, length: usize, message: usize) {
    header[..2].copy_from_slice(&SEND_INDICATION.to_be_bytes());
    header[2..4].copy_from_slice(&(message as u16).to_be_bytes());
    header[4..8].copy_from_slice(&COOKIE.to_be_bytes());
    // Nothing answers an indication, so its transaction can be any.
    header[8..HEADER].fill(0x5a);
    header[20..22].copy_from_slice(&XOR_PEER_ADDRESS.to_be_bytes());
    header[22..24].copy_from_slice(&8_u16.to_be_bytes());
    header[24..26].copy_from_slice(&1_u16.to_be_bytes());
    header[26..28].copy_from_slice(&(peer.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
    header[28..32].copy_from_slice(&(u32::from(*peer.ip()) ^ COOKIE).to_be_bytes());
    header[32..34].copy_from_slice(&DATA.to_be_bytes());
    header[34..36].copy_from_slice(&(length as u16).to_be_bytes());
}

/// The IPv4 address in an XOR-PEER-ADDRESS (RFC 8489 section 14.2).
fn read_address(value: &[u8]) -> Option<SocketAddrV4> {
    let (family, port) = (read_u16(value, 0)?, read_u16(value, 2)?);
    let address = u32::from_be_bytes(*value.get(4..)?.first_chunk()?);
    let ip = Ipv4Addr::from(address ^ COOKIE);
    (family == 1 && value.len() == 8).then(|| SocketAddrV4::new(ip, port ^ (COOKIE >> 16) as u16))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The byte that a payload carries at `at`, when it is not the stamp.
fn filler(at: usize) -> u8 {
    (at as u8).wrapping_mul(31)
}
