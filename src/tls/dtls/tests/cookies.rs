//! Nobody gets a session without a cookie that was sent to them.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn judge<'a>(front: &Front, now: Now, from: &str, hello: &'a [u8]) -> Verdict<'a> {
    front.receive(now, addr(from), server_addr(), hello)
}

/// The second hello of a client at 192.0.2.1:5000, with the cookie that it got.
fn second_hello(front: &Front, now: Now, client: &mut Client) -> Vec<u8> {
    let hello = first_hello(client);
    let Verdict::Answer(answer) = judge(front, now, "192.0.2.1:5000", &hello) else {
        panic!("no cookie")
    };
    client.receive(&answer);
    let [hello] = <[_; 1]>::try_from(client.take_datagrams()).unwrap();
    hello
}

fn is_verified(verdict: &Verdict<'_>) -> bool {
    matches!(verdict, Verdict::Verified(_))
}

/// RFC 6347 section 4.2.1.
#[test]
fn a_cookie_is_for_one_path_and_one_hello() {
    let (front, now) = (Front::new(b"secret"), now());
    let hello = second_hello(&front, now, &mut Client::new(&Wishes::default()));
    assert!(is_verified(&judge(&front, now, "192.0.2.1:5000", &hello)));
    assert!(is_verified(&judge(&front, now, "[::ffff:192.0.2.1]:5000", &hello)));
    for other in ["192.0.2.1:5001", "192.0.2.2:5000", "[2001:db8::1]:5000"] {
        assert!(matches!(judge(&front, now, other, &hello), Verdict::Answer(_)), "{other}");
    }
    let elsewhere = front.receive(now, client_addr(), addr("198.51.100.1:443"), &hello);
    assert!(matches!(elsewhere, Verdict::Answer(_)));
    let another = Front::new(b"another secret");
    assert!(!is_verified(&judge(&another, now, "192.0.2.1:5000", &hello)));
    let same = Front::new(b"secret");
    assert!(is_verified(&judge(&same, now, "192.0.2.1:5000", &hello)), "a fleet shares it");
}

#[test]
fn a_cookie_is_old_after_two_minutes() {
    let (front, now) = (Front::new(b"secret"), now());
    let hello = second_hello(&front, now, &mut Client::new(&Wishes::default()));
    let after = |secs: u64| now.after(Duration::from_secs(secs));
    assert!(is_verified(&judge(&front, after(59), "192.0.2.1:5000", &hello)));
    // The byte that says the minute comes round after 256 of them.
    for secs in [120, 180, 3600, 256 * 60] {
        let verdict = judge(&front, after(secs), "192.0.2.1:5000", &hello);
        assert!(matches!(verdict, Verdict::Answer(_)), "{secs}");
    }
}

#[test]
fn no_byte_that_the_cookie_covers_can_be_changed() {
    let (front, now) = (Front::new(b"secret"), now());
    let hello = second_hello(&front, now, &mut Client::new(&Wishes::default()));
    let Verdict::Verified(read) = judge(&front, now, "192.0.2.1:5000", &hello) else {
        panic!("not verified")
    };
    let opening = RECORD_HEADER + HANDSHAKE_HEADER;
    let covered = opening + read.opening.len() + 1 + read.cookie.len() + read.algorithms.len();
    for at in opening..covered {
        for bit in 0..8 {
            let mut altered = hello.clone();
            altered[at] ^= 1 << bit;
            let verdict = judge(&front, now, "192.0.2.1:5000", &altered);
            assert!(!is_verified(&verdict), "byte {at}");
        }
    }
}

/// RFC 6347 section 4.2.1.
#[test]
fn an_answer_is_smaller_and_has_the_numbers_of_its_hello() {
    let (front, now) = (Front::new(b"secret"), now());
    let hello = first_hello(&mut Client::new(&Wishes::default()));
    let mut numbered = hello;
    numbered[5..11].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
    numbered[18] = 2;
    let Verdict::Answer(answer) = judge(&front, now, "192.0.2.1:5000", &numbered) else {
        panic!("no answer")
    };
    assert_eq!(answer[..3], [22, 0xfe, 0xff]);
    assert_eq!(answer[5..11], [1, 2, 3, 4, 5, 6]);
    assert_eq!(answer[17..19], [0, 2]);
    // The shortest hello there is: one cipher suite, no session, no extensions.
    let mut least = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 54, 1, 0, 0, 42];
    least.extend([0, 0, 0, 0, 0, 0, 0, 42, 0xfe, 0xfd]);
    least.extend([7; 32]);
    least.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let Verdict::Answer(answer) = judge(&front, now, "192.0.2.1:5000", &least) else {
        panic!("no answer")
    };
    assert!(answer.len() < least.len());
    for len in 0..least.len() {
        let cut = judge(&front, now, "192.0.2.1:5000", &least[..len]);
        assert!(matches!(cut, Verdict::Drop(_)), "{len}");
    }
}

#[test]
fn what_is_no_whole_hello_is_dropped() {
    let (front, now) = (Front::new(b"secret"), now());
    let hello = first_hello(&mut Client::new(&Wishes::default()));
    let altered = |at: usize, byte: u8| {
        let mut altered = hello.clone();
        altered[at] = byte;
        match judge(&front, now, "192.0.2.1:5000", &altered) {
            Verdict::Drop(reason) => Some(reason),
            _ => None,
        }
    };
    assert_eq!(altered(10, 0), None);
    assert_eq!(altered(0, 23), Some(DropReason::NotHello), "application data");
    assert_eq!(altered(4, 1), Some(DropReason::NotHello), "an encrypted record");
    assert_eq!(altered(13, 16), Some(DropReason::NotHello), "another message");
    assert_eq!(altered(1, 3), Some(DropReason::Malformed), "TLS");
    assert_eq!(altered(25, 3), Some(DropReason::Malformed), "TLS inside");
    assert_eq!(altered(18, 1), Some(DropReason::Malformed), "second message in record 0");
    assert_eq!(altered(18, 9), Some(DropReason::Malformed), "too many hellos");
    assert_eq!(altered(21, 1), Some(DropReason::Fragmented), "from the middle");
    assert_eq!(altered(24, 9), Some(DropReason::Fragmented), "not to the end");
    assert_eq!(altered(14, 1), Some(DropReason::Fragmented), "of 64 KiB");
    assert_eq!(altered(12, 1), Some(DropReason::Malformed), "a short record");
}

#[test]
fn a_flood_of_hellos_begins_nothing() {
    let certificates = super::sessions::certificate();
    let mut server = Server::new(&certificates, Limits::default());
    let hello = first_hello(&mut Client::new(&Wishes::default()));
    let now = now();
    for number in 0..20_000u32 {
        let mut flood = hello.clone();
        flood[27..31].copy_from_slice(&number.to_be_bytes());
        server.receive(now, &flood);
        assert!(server.out.pop().unwrap().len() < flood.len());
    }
    assert!(server.session.is_none() && server.begun == 0);
}

proptest! {
    #[test]
    fn hostile_datagrams_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        start in 0usize..25,
    ) {
        let (front, now) = (Front::new(b"secret"), now());
        let mut likely = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            [..start].to_vec();
        likely.extend(&bytes);
        for datagram in [bytes, likely] {
            match judge(&front, now, "192.0.2.1:5000", &datagram) {
                Verdict::Verified(_) => prop_assert!(false, "a guessed cookie"),
                Verdict::Answer(answer) => prop_assert!(answer.len() < datagram.len()),
                Verdict::Drop(_) => {}
            }
        }
    }
}
