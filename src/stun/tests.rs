//! Reader and writer together, and the published test vectors.

use super::*;
use proptest::prelude::*;

const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c\
    69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa7\
    0cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
const RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220\
    002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
const RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220\
    002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed\
    4180280004c8fb0b4c";
const LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e3\
    82afe382b900000015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d\
    706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a28ca89666";
const LONG_TERM_SHA256: &str = "0001009c2112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952\
    c6780417da0f24819415569e60b205c46e41407f1704001500296f624d61744a6f73324141414\
    3662f2f3439396b39353464364f4c33346f4c394653547679363473410000000014000b6578616d706c652e6f726700\
    001c0020e4686c8f0edeb59013e07090010a93efccbccc544c0a45d9f830aa6d6f735a01";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| b.is_ascii_hexdigit()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

const SHORT_TERM_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

#[test]
fn rfc5769_2_1_sample_request() {
    let bytes = hex(REQUEST);
    // PRIORITY is unknown to a TURN server, and comprehension-required.
    let m = Message::parse(&bytes).unwrap();
    assert_eq!((m.method(), m.class()), (Method::BINDING, Class::Request));
    assert_eq!(m.get(Attribute::Software), Some(&b"STUN test client"[..]));
    assert_eq!(m.get(Attribute::Username), Some(&b"evtj:h6vY"[..]));
    assert_eq!(m.unknown().as_slice(), [0x0024]);
    assert!(verify_sha1(&m, SHORT_TERM_PASSWORD));
    assert!(!verify_sha1(&m, b"another password"));
}

#[test]
fn rfc5769_2_2_sample_ipv4_response() {
    let bytes = hex(RESPONSE_V4);
    let m = Message::parse(&bytes).unwrap();
    assert!(verify_sha1(&m, SHORT_TERM_PASSWORD));
    let value = m.get(Attribute::XorMappedAddress).unwrap();
    let addr = decode_xor_address(value, m.transaction_id()).unwrap();
    assert_eq!(addr, "192.0.2.1:32853".parse().unwrap());
}

#[test]
fn rfc5769_2_3_sample_ipv6_response() {
    let bytes = hex(RESPONSE_V6);
    let m = Message::parse(&bytes).unwrap();
    assert!(verify_sha1(&m, SHORT_TERM_PASSWORD));
    let value = m.get(Attribute::XorMappedAddress).unwrap();
    let addr = decode_xor_address(value, m.transaction_id()).unwrap();
    assert_eq!(addr, "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap());
}

#[test]
fn rfc5769_2_4_long_term_request() {
    let bytes = hex(LONG_TERM);
    let m = Message::parse(&bytes).unwrap();
    let user = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
    assert_eq!(m.get(Attribute::Username), Some(user.as_bytes()));
    let key = crate::auth::Key::md5(user, "example.org", "TheMatrIX");
    assert!(verify_sha1(&m, key.bytes()));
}

/// The vector's length field is 20 too large (it counts a MESSAGE-INTEGRITY that
/// is not there), and its HMAC was made over that field. So the HMAC is checked
/// as printed, and the reader must refuse the message.
#[test]
fn rfc8489_b1_long_term_request_sha256_userhash() {
    let bytes = hex(LONG_TERM_SHA256);
    let user = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
    assert_eq!(bytes[24..56], crate::auth::userhash(user, "example.org"));
    let password = crate::auth::opaque("The\u{ad}M\u{aa}tr\u{2168}");
    assert_ne!(
        password, "TheMatrIX",
        "OpaqueString maps neither compatibility characters nor case"
    );
    let key = crate::auth::Key::sha256(user, "example.org", "TheMatrIX");
    let tag = hmac_sha256(key.bytes(), &[Piece::Slice(&bytes[..120])]);
    assert_eq!(bytes[124..], tag);
    assert_eq!(Message::parse(&bytes).err(), Some(ParseError::Length));
}

fn id() -> TransactionId {
    TransactionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
}

#[test]
fn written_messages_read_back_and_verify() {
    let mut buffer = [0xffu8; 512];
    let mut w = Writer::new(&mut buffer, Method::ALLOCATE, Class::Success, id());
    let addr = "[2001:db8::7]:4242".parse().unwrap();
    w.put_xor_address(Attribute::XorRelayedAddress, addr);
    w.put_u32(Attribute::Lifetime, 600);
    w.put(Attribute::Software, b"sturn");
    w.put_integrity_sha1(b"key");
    w.put_integrity_sha256(b"key");
    w.put_fingerprint();
    let len = w.finish().unwrap();
    let m = Message::parse(&buffer[..len]).unwrap();
    assert_eq!((m.method(), m.class()), (Method::ALLOCATE, Class::Success));
    assert_eq!(m.get_u32(Attribute::Lifetime), Some(Ok(600)));
    let value = m.get(Attribute::XorRelayedAddress).unwrap();
    assert_eq!(decode_xor_address(value, id()), Some(addr));
    assert!(verify_sha1(&m, b"key"));
    assert!(verify_sha256(&m, b"key"));
}

#[test]
fn padding_is_zero() {
    let mut buffer = [0xffu8; 64];
    let mut w = Writer::new(&mut buffer, Method::BINDING, Class::Success, id());
    w.put(Attribute::Software, b"a");
    let len = w.finish().unwrap();
    assert_eq!(buffer[24..len], [b'a', 0, 0, 0]);
}

#[test]
fn a_buffer_too_small_is_told_at_the_end() {
    for room in 0..56 {
        let mut buffer = vec![0; room];
        let mut w = Writer::new(&mut buffer, Method::BINDING, Class::Success, id());
        w.put_u32(Attribute::Lifetime, 1);
        w.put_integrity_sha1(b"key");
        w.put_fingerprint();
        assert_eq!(w.finish(), None, "{room}");
    }
}

fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (code, value) in attributes {
        body.extend(code.to_be_bytes());
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut m = vec![0, 3];
    m.extend((body.len() as u16).to_be_bytes());
    m.extend(MAGIC_COOKIE.to_be_bytes());
    m.extend(id().0);
    m.extend(body);
    m
}

#[test]
fn first_of_duplicates_wins() {
    let bytes = message(&[(0x0006, b"first"), (0x0006, b"second")]);
    assert_eq!(Message::parse(&bytes).unwrap().get(Attribute::Username), Some(&b"first"[..]));
}

#[test]
fn attributes_after_message_integrity_are_ignored() {
    let tag = [0; 20];
    let bytes = message(&[(0x0008, &tag), (0x000d, &[0; 4]), (0x0012, &[0; 8]), (0x7777, &[])]);
    let m = Message::parse(&bytes).unwrap();
    assert!(!m.has(Attribute::Lifetime));
    assert_eq!(m.all(Attribute::XorPeerAddress).count(), 0);
    assert!(m.unknown().as_slice().is_empty());
}

#[test]
fn only_sha256_and_fingerprint_count_behind_message_integrity() {
    let bytes = message(&[(0x0008, &[0; 20]), (0x001c, &[0; 32]), (0x0006, b"x")]);
    let m = Message::parse(&bytes).unwrap();
    assert!(m.has(Attribute::MessageIntegritySha256));
    assert!(!m.has(Attribute::Username));
    let bytes = message(&[(0x001c, &[0; 32]), (0x0008, &[0; 20])]);
    assert!(!Message::parse(&bytes).unwrap().has(Attribute::MessageIntegrity));
}

#[test]
fn unknown_required_attributes_are_listed_once_and_bounded() {
    let bytes = message(&[(0x7777, &[]), (0x0003, &[0; 4]), (0x7777, &[]), (0xc001, &[])]);
    assert_eq!(Message::parse(&bytes).unwrap().unknown().as_slice(), [0x7777, 0x0003]);
    let many: Vec<(u16, &[u8])> = (0x4000..0x4100).map(|c| (c, &[][..])).collect();
    let bytes = message(&many);
    assert_eq!(Message::parse(&bytes).unwrap().unknown().as_slice().len(), MAX_UNKNOWN);
}

#[test]
fn lengths_that_lie_are_refused() {
    let good = message(&[(0x0006, b"abc")]);
    assert!(Message::parse(&good).is_ok());
    for cut in 0..good.len() {
        assert!(Message::parse(&good[..cut]).is_err(), "truncated to {cut}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(Message::parse(&longer).err(), Some(ParseError::Length));
    let mut odd = good.clone();
    odd[3] = 7;
    assert_eq!(Message::parse(&odd).err(), Some(ParseError::Length));
    let mut over = good.clone();
    over[23] = 9;
    assert_eq!(Message::parse(&over).err(), Some(ParseError::Attribute));
    let mut top = good;
    top[0] |= 0x80;
    assert_eq!(Message::parse(&top).err(), Some(ParseError::NotStun));
}

#[test]
fn a_wrong_fingerprint_is_not_stun() {
    let mut bytes = hex(RESPONSE_V4);
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(Message::parse(&bytes).err(), Some(ParseError::Fingerprint));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(m) = Message::parse(&bytes) {
            for code in 0..0x40u16 {
                if let Some(a) = Attribute::from_code(code) {
                    let _ = (m.get(a), m.all(a).count());
                }
            }
            let _ = (verify_sha1(&m, b"k"), verify_sha256(&m, b"k"));
        }
        let _ = channel_data::parse(&bytes);
        let _ = framing::next(&bytes);
    }

    #[test]
    fn hostile_attributes_are_read_without_panic(
        attributes in proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..20)
    ) {
        let list: Vec<(u16, &[u8])> = attributes.iter().map(|(c, v)| (*c & 0x803f, &v[..])).collect();
        let bytes = message(&list);
        if let Ok(m) = Message::parse(&bytes) {
            let _ = (verify_sha1(&m, b"k"), verify_sha256(&m, b"k"));
            for v in m.all(Attribute::XorPeerAddress) {
                let _ = decode_xor_address(v, m.transaction_id());
            }
        }
    }
}
