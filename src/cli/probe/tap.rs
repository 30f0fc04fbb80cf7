//! Listens in on what a server sends: who it is that speaks, and what of its
//! responses the client keeps to itself.

use crate::stun::{Attribute, Class, Message, framing};

/// So many bytes tell who speaks.
const ENOUGH: usize = 8;
/// The longest text that is worth showing.
const LONGEST: usize = 128;

/// What speaks behind a port, judged by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// A STUN server: nothing but a response comes first.
    Stun,
    /// A TLS record: an alert, as a rule.
    Tls,
    /// A web server.
    Http,
    /// Something else.
    Unknown,
}

/// Ears on one five-tuple.
#[derive(Debug)]
pub(super) struct Tap {
    is_stream: bool,
    /// Bytes of a stream that make no frame yet.
    pending: Vec<u8>,
    speaker: Option<Speaker>,
    software: Option<String>,
    realm: Option<String>,
    has_nonce: bool,
}

impl Speaker {
    /// Judges the first bytes, `None` while they are too few.
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] => None,
            [b'H', b'T', b'T', b'P', ..] => Some(Self::Http),
            [b'H', ..] if b"HTTP".starts_with(bytes) => None,
            // Content types of TLS 1.2 and 1.3: alert and handshake.
            [0x15 | 0x16, 3, ..] => Some(Self::Tls),
            [0x15 | 0x16] => None,
            [0..=0x3F, ..] if bytes.len() < ENOUGH => None,
            [0..=0x3F, _, _, _, 0x21, 0x12, 0xA4, 0x42, ..] => Some(Self::Stun),
            _ => Some(Self::Unknown),
        }
    }
}

impl Tap {
    /// On a stream, or on datagrams.
    pub(super) fn new(is_stream: bool) -> Self {
        Self {
            is_stream,
            pending: Vec::new(),
            speaker: None,
            software: None,
            realm: None,
            has_nonce: false,
        }
    }

    /// Takes what has come: a datagram, or any piece of a stream.
    pub(super) fn listen(&mut self, bytes: &[u8]) {
        if !self.is_stream {
            // One STUN message outweighs the garbage around it.
            if self.speaker != Some(Speaker::Stun) {
                self.speaker = Speaker::of(bytes).or(Some(Speaker::Unknown));
            }
            self.read(bytes);
            return;
        }
        self.pending.extend_from_slice(bytes);
        self.speaker = self.speaker.or_else(|| Speaker::of(&self.pending));
        loop {
            match framing::next(&self.pending) {
                framing::Frame::Complete { message, frame } => {
                    let rest = self.pending.split_off(frame);
                    let whole = std::mem::replace(&mut self.pending, rest);
                    self.read(&whole[..message]);
                }
                framing::Frame::Partial { .. } => break,
                framing::Frame::Broken => {
                    self.speaker = Some(self.speaker.unwrap_or(Speaker::Unknown));
                    self.pending.clear();
                    break;
                }
            }
        }
    }

    /// Who speaks, as far as is known.
    pub(super) fn speaker(&self) -> Option<Speaker> {
        self.speaker
    }

    /// The last SOFTWARE.
    pub(super) fn software(&self) -> Option<&str> {
        self.software.as_deref()
    }

    /// The last REALM.
    pub(super) fn realm(&self) -> Option<&str> {
        self.realm.as_deref()
    }

    /// Whether there was a REALM and a NONCE.
    pub(super) fn is_challenge(&self) -> bool {
        self.realm.is_some() && self.has_nonce
    }

    fn read(&mut self, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else { return };
        if !matches!(message.class(), Class::Success | Class::Error) {
            return;
        }
        let text = |attribute| message.get(attribute).map(text);
        self.software = text(Attribute::Software).or(self.software.take());
        self.realm = text(Attribute::Realm).or(self.realm.take());
        self.has_nonce |= message.has(Attribute::Nonce);
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 401 with SOFTWARE "s", REALM "r" and NONCE "n".
    const CHALLENGE: &[u8] = b"\x01\x13\x00\x24\x21\x12\xa4\x42\
        \x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\
        \x00\x09\x00\x04\x00\x00\x04\x01\
        \x80\x22\x00\x01s\x00\x00\x00\
        \x00\x14\x00\x01r\x00\x00\x00\
        \x00\x15\x00\x01n\x00\x00\x00";

    fn tap(is_stream: bool, pieces: &[&[u8]]) -> Tap {
        let mut tap = Tap::new(is_stream);
        pieces.iter().for_each(|piece| tap.listen(piece));
        tap
    }

    #[test]
    fn the_challenge_is_heard_however_the_stream_is_split() {
        let challenge = [&CHALLENGE[..2], b"\x00\x20", &CHALLENGE[4..]].concat();
        for at in 0..challenge.len() {
            let tap = tap(true, &[&challenge[..at], &challenge[at..]]);
            assert_eq!(tap.speaker(), Some(Speaker::Stun), "{at}");
            assert_eq!((tap.software(), tap.realm()), (Some("s"), Some("r")), "{at}");
            assert!(tap.is_challenge());
        }
        assert!(tap(false, &[&challenge]).is_challenge());
    }

    #[test]
    fn who_speaks() {
        for (bytes, speaker) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], Speaker::Http),
            (b"\x15\x03\x03\x00\x02\x02\x46", Speaker::Tls),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Speaker::Unknown),
            (b"\x00\x01\x00\x00garbage!", Speaker::Unknown),
            (b"\x40\x00\x00\x00", Speaker::Unknown),
        ] {
            assert_eq!(tap(true, &[bytes]).speaker(), Some(speaker), "{bytes:?}");
            let (first, rest) = bytes.split_at(1);
            assert_eq!(tap(true, &[first, rest]).speaker(), Some(speaker), "{bytes:?}");
        }
    }

    #[test]
    fn datagrams_of_garbage_do_not_hide_the_server() {
        let challenge = [&CHALLENGE[..2], b"\x00\x20", &CHALLENGE[4..]].concat();
        assert_eq!(tap(false, &[b"hello"]).speaker(), Some(Speaker::Unknown));
        assert_eq!(tap(false, &[b"hello", &challenge]).speaker(), Some(Speaker::Stun));
        assert_eq!(tap(false, &[&challenge, b"hello"]).speaker(), Some(Speaker::Stun));
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(text(&[b'a'; 763]).len(), LONGEST);
    }
}
