//! ChannelData, and whole messages out of a byte stream (RFC 8489 section
//! 6.2.2, RFC 8656 section 12.5).

use stun_rs::{MAGIC_COOKIE, MESSAGE_HEADER_SIZE};

use super::event::Problem;

/// Channel number and length.
const CHANNEL_HEADER_SIZE: usize = 4;

/// What a datagram or frame is, by its first bytes.
pub(super) enum Frame<'a> {
    /// A STUN message, not yet decoded.
    Stun(&'a [u8]),
    /// Application data.
    ChannelData { channel: u16, data: &'a [u8] },
}

impl<'a> Frame<'a> {
    /// Tells the two apart (RFC 8656 section 12.6). ChannelData may be padded.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let (&[a, b, c, d], rest) =
            bytes.split_first_chunk::<CHANNEL_HEADER_SIZE>().ok_or(Problem::Framing)?;
        match a {
            0..=0x3F => Ok(Self::Stun(bytes)),
            0x40..=0x4F => {
                let channel = u16::from_be_bytes([a, b]);
                let length = usize::from(u16::from_be_bytes([c, d]));
                let data = rest.get(..length).ok_or(Problem::Framing)?;
                Ok(Self::ChannelData { channel, data })
            }
            _ => Err(Problem::Framing),
        }
    }
}

/// Writes ChannelData, padded to four bytes where a stream carries it.
/// `data` is shorter than 64 KiB: `Client::send` has seen to it.
pub(super) fn channel_data(channel: u16, data: &[u8], pad: bool) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("Client::send refuses longer data");
    let mut frame = Vec::with_capacity(CHANNEL_HEADER_SIZE + data.len() + 3);
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(data);
    if pad {
        frame.resize(frame.len().next_multiple_of(4), 0);
    }
    frame
}

/// Collects a stream and cuts it into frames, wherever it was split.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were handed out already.
    taken: usize,
    /// Frame boundaries are lost; nothing can follow.
    broken: bool,
}

impl Deframer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, padding included. Fails once, on the first bytes that
    /// begin no frame, and yields nothing from then on.
    pub(super) fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let rest = &self.buffer[self.taken..];
        match frame_length(rest) {
            Ok(Some(length)) if rest.len() >= length => {
                let frame = rest[..length].to_vec();
                self.taken += length;
                Ok(Some(frame))
            }
            Ok(_) => Ok(None),
            Err(why) => {
                self.broken = true;
                self.buffer.clear();
                self.taken = 0;
                Err(why)
            }
        }
    }
}

/// The length of the frame that begins here, `None` while that cannot be told.
fn frame_length(bytes: &[u8]) -> Result<Option<usize>, Problem> {
    let Some(&[a, _, c, d]) = bytes.first_chunk::<CHANNEL_HEADER_SIZE>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([c, d]));
    match a {
        0..=0x3F => {
            let cookie_ok =
                bytes.get(4..8).is_none_or(|cookie| cookie == MAGIC_COOKIE.as_u32().to_be_bytes());
            if length % 4 != 0 || !cookie_ok {
                return Err(Problem::Framing);
            }
            Ok(Some(MESSAGE_HEADER_SIZE + length))
        }
        0x40..=0x4F => Ok(Some((CHANNEL_HEADER_SIZE + length).next_multiple_of(4))),
        _ => Err(Problem::Framing),
    }
}
