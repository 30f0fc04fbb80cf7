//! The first message of a TLS client (RFC 8446 section 4.1.2), without speaking
//! TLS: which server it wants and what it wants to speak there.

use super::Reader;

/// Most bytes that [`peek`] looks at, record headers included.
pub const LONGEST: usize = 16 * 1024;

/// What a ClientHello asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name of the server, in lower case (RFC 6066 section 3).
    pub server_name: Option<String>,
    /// The application protocols offered, the preferred one first (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}

/// What is known of the ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Not complete: wait for more bytes.
    NeedMore,
    /// All of it is there.
    Hello(ClientHello),
    /// It cannot become a ClientHello of at most [`LONGEST`] bytes.
    Malformed,
}

const RECORD_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;

/// Longest host name in bytes (RFC 1035 section 2.3.4, as text).
const LONGEST_NAME: usize = 253;

/// Longest fragment in a plaintext record in bytes (RFC 8446 section 5.1).
const LONGEST_FRAGMENT: usize = 1 << 14;

/// Looks into the first bytes of a TLS stream. The message may be spread over
/// several records.
pub fn peek(stream: &[u8]) -> Peek {
    let seen = &stream[..stream.len().min(LONGEST)];
    match handshake_message(seen) {
        Ok(Some(body)) => client_hello(&body).map_or(Peek::Malformed, Peek::Hello),
        Ok(None) if seen.len() < LONGEST => Peek::NeedMore,
        Ok(None) | Err(Malformed) => Peek::Malformed,
    }
}

struct Malformed;

/// The body of the first handshake message, put together from its records.
fn handshake_message(stream: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut records = Reader::new(stream);
    let mut message = Vec::new();
    while !records.is_empty() {
        let (fragment, complete) = record(&mut records)?;
        message.extend_from_slice(fragment);
        if let Some(body) = message_body(&message)? {
            return Ok(Some(body.to_vec()));
        }
        if !complete {
            break;
        }
    }
    Ok(None)
}

/// The next record's fragment, or what is there of it.
fn record<'a>(records: &mut Reader<'a>) -> Result<(&'a [u8], bool), Malformed> {
    let header = records.rest();
    let plausible = |at: usize, is: fn(u8) -> bool| header.get(at).is_none_or(|byte| is(*byte));
    if !plausible(0, |kind| kind == RECORD_HANDSHAKE) || !plausible(1, |major| major == 3) {
        return Err(Malformed);
    }
    let Some([_, _, _, high, low]) = records.array() else { return Ok((&[], false)) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len == 0 || len > LONGEST_FRAGMENT {
        return Err(Malformed);
    }
    match records.take(len) {
        Some(fragment) => Ok((fragment, true)),
        None => Ok((records.rest(), false)),
    }
}

fn message_body(message: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let mut reader = Reader::new(message);
    match reader.u8() {
        None => return Ok(None),
        Some(HANDSHAKE_CLIENT_HELLO) => {}
        Some(_) => return Err(Malformed),
    }
    let Some(len) = reader.u24() else { return Ok(None) };
    if len > LONGEST {
        return Err(Malformed);
    }
    Ok(reader.take(len))
}

fn client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader::new(body);
    let _version_and_random = reader.take(2 + 32)?;
    let _session_id = reader.vector8()?;
    let _cipher_suites = reader.vector16()?;
    let _compression_methods = reader.vector8()?;
    let mut hello = ClientHello::default();
    if reader.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader::new(reader.vector16()?);
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let extension = extensions.vector16()?;
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = server_name(extension)?,
            EXTENSION_ALPN => hello.alpn = protocols(extension)?,
            _ => {}
        }
    }
    reader.is_empty().then_some(hello)
}

/// The first host name of a list; there should be no more than one.
fn server_name(extension: &[u8]) -> Option<Option<String>> {
    let mut names = Reader::new(Reader::new(extension).vector16()?);
    while !names.is_empty() {
        let kind = names.u8()?;
        let name = names.vector16()?;
        if kind == NAME_TYPE_HOST {
            return host_name(name).map(Some);
        }
    }
    Some(None)
}

fn host_name(name: &[u8]) -> Option<String> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    let valid = (1..=LONGEST_NAME).contains(&name.len()) && name.iter().all(plain);
    let name = valid.then_some(name).and_then(|name| std::str::from_utf8(name).ok())?;
    Some(name.to_ascii_lowercase())
}

fn protocols(extension: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader::new(Reader::new(extension).vector16()?);
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let name = list.vector8()?;
        protocols.push((!name.is_empty()).then(|| name.to_vec())?);
    }
    Some(protocols)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), vector16(body)].concat()
    }

    fn name_extension(name: &str) -> Vec<u8> {
        let entry = [vec![NAME_TYPE_HOST], vector16(name.as_bytes())].concat();
        extension(EXTENSION_SERVER_NAME, &vector16(&entry))
    }

    fn alpn_extension(protocols: &[&str]) -> Vec<u8> {
        let list: Vec<u8> = protocols
            .iter()
            .flat_map(|name| [&[u8::try_from(name.len()).unwrap()], name.as_bytes()].concat())
            .collect();
        extension(EXTENSION_ALPN, &vector16(&list))
    }

    fn message(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(vector16(extensions));
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[HANDSHAKE_CLIENT_HELLO], &len[1..], &body].concat()
    }

    /// The message in records with at most `fragment` bytes of it each.
    fn stream(message: &[u8], fragment: usize) -> Vec<u8> {
        let record = |part: &[u8]| [vec![RECORD_HANDSHAKE, 3, 1], vector16(part)].concat();
        message.chunks(fragment).flat_map(record).collect()
    }

    #[test]
    fn name_and_protocols_at_every_split_of_stream_and_records() {
        let extensions = [
            extension(0x0a0a, &[]),
            name_extension("Turn.Example.ORG"),
            alpn_extension(&["stun.turn", "h2"]),
        ];
        let message = message(&extensions.concat());
        let expected = ClientHello {
            server_name: Some("turn.example.org".to_owned()),
            alpn: vec![b"stun.turn".to_vec(), b"h2".to_vec()],
        };
        for fragment in 1..=message.len() {
            let stream = stream(&message, fragment);
            for len in 0..stream.len() {
                assert_eq!(peek(&stream[..len]), Peek::NeedMore, "{len}, records of {fragment}");
            }
            assert_eq!(peek(&stream), Peek::Hello(expected.clone()));
            let followed = [stream, vec![0x17; 5]].concat();
            assert_eq!(peek(&followed), Peek::Hello(expected.clone()));
        }
    }

    #[test]
    fn a_hello_may_ask_for_nothing() {
        let nothing = Peek::Hello(ClientHello::default());
        assert_eq!(peek(&stream(&message(&[]), 1000)), nothing);
        let mut old = message(&[]);
        old.truncate(old.len() - 2);
        old[3] -= 2;
        assert_eq!(peek(&stream(&old, 1000)), nothing);
    }

    #[test]
    fn malformed_hellos() {
        for name in ["", "a b", "caf\u{e9}", "x\0", &"a".repeat(254)] {
            let message = message(&name_extension(name));
            assert_eq!(peek(&stream(&message, 1000)), Peek::Malformed, "{name:?}");
        }
        assert_eq!(peek(&stream(&message(&alpn_extension(&[""])), 1000)), Peek::Malformed);
        let mut short = message(&[]);
        short[3] -= 1;
        assert_eq!(peek(&stream(&short, 1000)), Peek::Malformed);
        assert_eq!(peek(&[21]), Peek::Malformed);
        assert_eq!(peek(&[22, 0xfe]), Peek::Malformed);
        assert_eq!(peek(&[22, 3, 1, 0, 0]), Peek::Malformed);
        assert_eq!(peek(&[22, 3, 1, 0x40, 1]), Peek::Malformed);
        assert_eq!(peek(&[22, 3, 1, 0, 1, 2]), Peek::Malformed);
        assert_eq!(peek(&[22, 3, 1, 0, 4, 1, 1, 0, 0]), Peek::Malformed, "64 KiB promised");
    }

    #[test]
    fn a_hello_that_does_not_end_is_given_up() {
        let long = message(&extension(0x0a0a, &[0; LONGEST]))[..LONGEST - 100].to_vec();
        let mut long = stream(&long, 4000);
        long[7..9].copy_from_slice(&[0x3f, 0xff]);
        assert_eq!(peek(&long), Peek::NeedMore);
        long.resize(LONGEST, 0);
        assert_ne!(peek(&long), Peek::NeedMore);
    }

    proptest! {
        #[test]
        fn altered_hellos_are_read_without_a_panic(
            at in 0usize..120, value in any::<u8>(), fragment in 1usize..120,
        ) {
            let extensions = [name_extension("turn.example.org"), alpn_extension(&["stun.turn"])];
            let mut stream = stream(&message(&extensions.concat()), fragment);
            let at = at % stream.len();
            stream[at] = value;
            peek(&stream);
        }
    }
}
