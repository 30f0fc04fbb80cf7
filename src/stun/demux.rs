//! What arrived on a UDP port, by its first byte (RFC 7983 section 7, RFC 9443).

/// The protocol of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A STUN message: first byte 0..=3.
    Stun,
    /// ChannelData: first byte 64..=79, and 80..=127 as in RFC 5766; whether
    /// those channels can be bound is for the core to say.
    ChannelData,
    /// A DTLS record: first byte 20..=63.
    Dtls,
    /// Anything else, and the empty datagram.
    Other,
}

/// Classifies a datagram.
#[inline]
pub fn classify(datagram: &[u8]) -> Kind {
    match datagram.first() {
        Some(0..=3) => Kind::Stun,
        Some(64..=127) => Kind::ChannelData,
        Some(20..=63) => Kind::Dtls,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7983_first_byte_ranges() {
        for b in 0..=255u8 {
            let expected = match b {
                0..=3 => Kind::Stun,
                20..=63 => Kind::Dtls,
                64..=127 => Kind::ChannelData,
                _ => Kind::Other,
            };
            assert_eq!(classify(&[b, 0, 0, 0]), expected, "{b}");
        }
        assert_eq!(classify(&[]), Kind::Other);
    }
}
