//! The protocol of a stream, by its first bytes.

use super::proxy;

/// Most bytes that [`detect`] looks at.
pub const LONGEST_START: usize = proxy::V2_SIGNATURE.len();

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detect {
    /// Not to be told yet: wait for more bytes.
    NeedMore,
    /// A PROXY protocol header in text; another protocol follows it.
    ProxyV1,
    /// A PROXY protocol header in binary; another protocol follows it.
    ProxyV2,
    /// A TLS record with a handshake message, of SSL 3.0 or later.
    Tls,
    /// A STUN message.
    Stun,
    /// ChannelData (RFC 8656 section 12.4).
    ChannelData,
    /// An HTTP request, of any version.
    Http,
    /// None of these.
    Other,
}

/// What HTTP requests begin with; the last is the preface of HTTP/2. Many of them
/// would also pass for ChannelData, on channels that nobody gets to bind before
/// the first message of a connection.
const HTTP_STARTS: [&[u8]; 10] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PATCH ",
    b"PRI * HTTP/",
];

/// Names the protocol that `start`, the first bytes of a stream, belongs to. An
/// answer other than [`Detect::NeedMore`] does not change with more bytes, and
/// [`LONGEST_START`] bytes are always enough.
pub fn detect(start: &[u8]) -> Detect {
    let texts = HTTP_STARTS.iter().map(|text| (*text, Detect::Http));
    let known = texts.chain([
        (proxy::V1_SIGNATURE, Detect::ProxyV1),
        (proxy::V2_SIGNATURE, Detect::ProxyV2),
        // A handshake record; the minor version varies.
        (&[0x16, 3], Detect::Tls),
    ]);
    let mut may_become = false;
    for (text, protocol) in known {
        if start.starts_with(text) {
            return protocol;
        }
        may_become |= text.starts_with(start);
    }
    match start.first() {
        _ if may_become => Detect::NeedMore,
        Some(0..=3) => Detect::Stun,
        Some(64..=79) => Detect::ChannelData,
        _ => Detect::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STARTS: [(&[u8], Detect); 14] = [
        (b"", Detect::NeedMore),
        (b"PROXY TCP4 192.0.2.1", Detect::ProxyV1),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Detect::ProxyV2),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], Detect::Tls),
        (&[0x16, 3, 3, 0, 9, 1], Detect::Tls),
        (&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], Detect::Stun),
        (&[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], Detect::Stun),
        (&[0x40, 0, 0, 4, 1, 2, 3, 4], Detect::ChannelData),
        (b"GET /metrics HTTP/1.1\r\n", Detect::Http),
        (b"POST / HTTP/1.0\r\n", Detect::Http),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Detect::Http),
        (b"SSH-2.0-OpenSSH_9.2", Detect::Other),
        (&[0x16, 0xfe, 0xfd], Detect::Other),
        (b"PROXIED ", Detect::Other),
    ];

    #[test]
    fn protocols_are_told_apart() {
        for (start, expected) in STARTS {
            assert_eq!(detect(start), expected, "{start:?}");
        }
    }

    #[test]
    fn an_answer_comes_after_any_split_and_stays() {
        for (start, expected) in STARTS {
            let mut seen = Detect::NeedMore;
            for len in 0..=start.len() {
                let now = detect(&start[..len]);
                assert!(seen == Detect::NeedMore || seen == now, "{start:?} at {len}");
                seen = now;
            }
            assert_eq!(seen, expected);
        }
    }

    proptest! {
        #[test]
        fn enough_bytes_are_enough(
            bytes in proptest::collection::vec(any::<u8>(), LONGEST_START..64),
        ) {
            let answer = detect(&bytes[..LONGEST_START]);
            prop_assert_ne!(answer, Detect::NeedMore);
            prop_assert_eq!(detect(&bytes), answer);
        }
    }
}
