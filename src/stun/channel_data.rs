//! ChannelData messages (RFC 8656 section 12.4).

use std::ops::{Range, RangeInclusive};

use super::error::ParseError;

/// Length of a ChannelData header in bytes.
pub const HEADER_LEN: usize = 4;

/// The channel numbers a client may bind (RFC 8656 section 12).
pub const NUMBERS: RangeInclusive<u16> = 0x4000..=0x4FFF;

/// The channel numbers a client could bind before (RFC 5766 section 11).
pub const RFC5766_NUMBERS: RangeInclusive<u16> = 0x4000..=0x7FFF;

/// Reads a ChannelData message that fills `packet`: the channel number and where
/// its application data lies. Up to three bytes of padding may follow the data,
/// on UDP too (RFC 8656 section 12.5).
///
/// # Errors
/// [`ParseError::Short`], [`ParseError::Channel`] for what was never a channel number,
/// [`ParseError::Length`] when the length field does not fit the packet.
#[inline]
pub fn parse(packet: &[u8]) -> Result<(u16, Range<usize>), ParseError> {
    let Some(&[n0, n1, l0, l1]) = packet.first_chunk::<HEADER_LEN>() else {
        return Err(ParseError::Short);
    };
    let number = u16::from_be_bytes([n0, n1]);
    if !RFC5766_NUMBERS.contains(&number) {
        return Err(ParseError::Channel);
    }
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let room = packet.len() - HEADER_LEN;
    if len > room || room - len > 3 {
        return Err(ParseError::Length);
    }
    Ok((number, HEADER_LEN..HEADER_LEN + len))
}

/// The header of a ChannelData message with `len` bytes of application data.
#[inline]
pub fn header(number: u16, len: u16) -> [u8; HEADER_LEN] {
    let [n0, n1] = number.to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    [n0, n1, l0, l1]
}

/// How many bytes of padding follow `len` bytes so that the sum is a multiple of four.
#[inline]
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_optional_on_udp() {
        let mut packet = vec![0x40, 0x00, 0x00, 0x05, 1, 2, 3, 4, 5];
        for _ in 0..4 {
            assert_eq!(parse(&packet), Ok((0x4000, 4..9)));
            packet.push(0);
        }
        assert_eq!(parse(&packet), Err(ParseError::Length));
    }

    #[test]
    fn what_was_never_a_channel_number_is_refused() {
        for number in [0x3fffu16, 0x8000, 0xffff] {
            let [a, b] = number.to_be_bytes();
            assert_eq!(parse(&[a, b, 0, 0]), Err(ParseError::Channel));
        }
        assert_eq!(parse(&[0x4f, 0xff, 0, 0]), Ok((0x4fff, 4..4)));
        assert_eq!(parse(&[0x7f, 0xff, 0, 0]), Ok((0x7fff, 4..4)));
    }

    #[test]
    fn length_field_over_the_end_is_refused() {
        assert_eq!(parse(&[0x40, 0, 0xff, 0xff, 1, 2]), Err(ParseError::Length));
        assert_eq!(parse(&[0x40, 0, 0]), Err(ParseError::Short));
    }
}
