//! Messages in a byte stream (RFC 8489 section 6.2.2, RFC 8656 section 12.5).
//!
//! On TCP and TLS messages follow each other without a separator: a STUN message
//! says its length, and ChannelData is padded to a multiple of four bytes.

use super::channel_data;
use super::header::{HEADER_LEN, MAGIC_COOKIE};

/// Longest frame that can appear in a stream, in bytes: a STUN header and the
/// largest length that is a multiple of four.
pub const MAX_FRAME: usize = HEADER_LEN + 0xfffc;

/// What the front of a stream buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole frame.
    Complete {
        /// Length of the message, without the padding of ChannelData.
        message: usize,
        /// Length of the frame: what to remove from the buffer.
        frame: usize,
    },
    /// More bytes are needed; this many in all, as far as can be told.
    Partial {
        /// Total length to wait for before asking again.
        needed: usize,
    },
    /// Neither STUN nor ChannelData; a stream cannot be resynchronised, close it.
    Broken,
}

/// Looks at the front of `buffer`.
pub fn next(buffer: &[u8]) -> Frame {
    let Some(&first) = buffer.first() else {
        return Frame::Partial { needed: 1 };
    };
    match first >> 6 {
        0 => stun(buffer),
        1 => channel(buffer),
        _ => Frame::Broken,
    }
}

fn stun(buffer: &[u8]) -> Frame {
    // The cookie is looked at as soon as it is there, so that a client speaking
    // another protocol is noticed before it has to send a whole "message".
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let seen = &buffer[buffer.len().min(4)..buffer.len().min(8)];
    if !cookie.starts_with(seen) {
        return Frame::Broken;
    }
    let Some(&[_, _, l0, l1]) = buffer.first_chunk::<4>() else {
        return Frame::Partial { needed: HEADER_LEN };
    };
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if !len.is_multiple_of(4) {
        return Frame::Broken;
    }
    whole(buffer, HEADER_LEN + len, 0)
}

fn channel(buffer: &[u8]) -> Frame {
    let Some(&[_, _, l0, l1]) = buffer.first_chunk::<4>() else {
        return Frame::Partial { needed: channel_data::HEADER_LEN };
    };
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    whole(buffer, channel_data::HEADER_LEN + len, channel_data::padding(len))
}

fn whole(buffer: &[u8], message: usize, padding: usize) -> Frame {
    let frame = message + padding;
    if buffer.len() < frame {
        Frame::Partial { needed: frame }
    } else {
        Frame::Complete { message, frame }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Vec<u8> {
        let mut m = vec![0, 1, 0, 0];
        m.extend(MAGIC_COOKIE.to_be_bytes());
        m.extend([7; 12]);
        m
    }

    #[test]
    fn every_split_gives_the_same_frames() {
        let mut stream = binding();
        stream.extend([0x40, 1, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]);
        stream.extend(binding());
        let expected = [(20, 20), (9, 12), (20, 20)];
        for cut in 0..=stream.len() {
            let mut frames = Vec::new();
            let mut buffer: Vec<u8> = Vec::new();
            for piece in [&stream[..cut], &stream[cut..]] {
                buffer.extend(piece);
                while let Frame::Complete { message, frame } = next(&buffer) {
                    frames.push((message, frame));
                    buffer.drain(..frame);
                }
            }
            assert_eq!(frames, expected, "cut at {cut}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn another_protocol_is_broken_at_once() {
        assert_eq!(next(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]), Frame::Broken);
        assert_eq!(next(&[0x80]), Frame::Broken);
        assert_eq!(next(&[0, 1, 0, 3]), Frame::Broken);
        // "GET " happens to be the header of ChannelData with 0x5420 bytes.
        assert_eq!(next(b"GET / HTTP/1.1\r\n"), Frame::Partial { needed: 4 + 0x5420 });
    }

    #[test]
    fn longest_lengths_do_not_wrap() {
        let mut m = binding();
        m[2..4].copy_from_slice(&[0xff, 0xfc]);
        assert_eq!(next(&m), Frame::Partial { needed: MAX_FRAME });
        assert_eq!(next(&[0x4f, 0xff, 0xff, 0xff]), Frame::Partial { needed: 65_540 });
    }
}
