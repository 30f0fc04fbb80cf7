//! The long-term credential mechanism, row by row (RFC 8489 section 9.2.4).

use super::wire::{Request, allocate, bind, permission, refresh};
use super::*;
use crate::auth::time_limited::{self, Mac};
use crate::stun::SHA256_LEN;

/// A challenge: everything a client needs to try again, and nothing else.
fn assert_challenge(reply: &Reply, code: u16) {
    assert_eq!(reply.code(), code);
    assert_eq!(reply.get(Attribute::Realm).as_deref(), Some(REALM.as_bytes()));
    assert_eq!(reply.get(Attribute::PasswordAlgorithms), Some(vec![0, 2, 0, 0, 0, 1, 0, 0]));
    assert!(reply.get(Attribute::Nonce).is_some_and(|nonce| nonce.starts_with(b"obMatJos2")));
    for absent in [
        Attribute::Username,
        Attribute::Userhash,
        Attribute::MessageIntegrity,
        Attribute::MessageIntegritySha256,
        Attribute::Software,
    ] {
        assert!(!reply.has(absent), "{absent:?}");
    }
}

/// A refusal that is no invitation to try again.
fn assert_unsigned(reply: &Reply, code: u16) {
    assert_eq!(reply.code(), code);
    for absent in [
        Attribute::Realm,
        Attribute::Nonce,
        Attribute::Username,
        Attribute::Userhash,
        Attribute::MessageIntegrity,
        Attribute::MessageIntegritySha256,
    ] {
        assert!(!reply.has(absent), "{absent:?}");
    }
}

const STYLES: [Style; 5] = [
    Style::Legacy,
    Style::Modern(Algorithm::Md5),
    Style::Modern(Algorithm::Sha256),
    Style::Anonymous(Algorithm::Md5),
    Style::Anonymous(Algorithm::Sha256),
];

#[test]
fn rfc8489_9_2_4_no_integrity_is_401_with_a_challenge() {
    let mut b = Bench::new();
    for request in [allocate(), refresh(None), permission(&[PEER]), bind(0x4000, PEER)] {
        let method = request.bytes()[1];
        let reply = b.ask(client(1), request.bytes());
        assert_challenge(&reply, 401);
        assert_eq!(reply.message().method(), Method(method.into()));
    }
    b.assert_idle();
}

#[test]
fn rfc8489_9_2_4_credentials_without_integrity_are_still_401() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    assert_challenge(&b.ask(client(1), alice.credentials(allocate()).bytes()), 401);
}

#[test]
fn rfc8489_14_8_the_first_401_has_no_reason_phrase() {
    let mut b = Bench::new();
    let reply = b.ask(client(1), allocate().bytes());
    assert_eq!(reply.get(Attribute::ErrorCode), Some(vec![0, 0, 4, 1]));
}

#[test]
fn rfc8489_9_2_4_integrity_without_its_companions_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let key = alice.key();
    let companions: [(Attribute, &[u8]); 3] = [
        (Attribute::Username, b"alice"),
        (Attribute::Realm, REALM.as_bytes()),
        (Attribute::Nonce, &alice.nonce),
    ];
    for missing in 0..companions.len() {
        let mut request = allocate();
        for (i, (attribute, value)) in companions.iter().enumerate() {
            if i != missing {
                request = request.with(*attribute, value);
            }
        }
        for sealed in [request.clone().sha1(key.bytes()), request.sha256(key.bytes())] {
            assert_unsigned(&b.ask(client(1), sealed.bytes()), 400);
        }
    }
}

#[test]
fn rfc8489_9_2_4_username_or_userhash_will_do() {
    for style in STYLES {
        let mut b = Bench::new();
        let alice = b.login("alice", 1).styled(style);
        b.grant(&alice, allocate());
        b.grant(&alice, permission(&[PEER]));
        b.grant(&alice, refresh(Some(0)));
    }
}

#[test]
fn rfc8489_9_2_4_username_counts_when_userhash_is_there_too() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let both =
        |hash: [u8; 32]| alice.sign(allocate().with(Attribute::Userhash, &hash)).bytes().to_vec();
    let reply = b.ask(client(1), &both(userhash("nobody", REALM)));
    assert!(reply.is_success());
}

#[test]
fn rfc8489_9_2_4_unknown_username_is_401() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for style in STYLES {
        let eve = Login { name: "eve".into(), ..alice.styled(style) };
        assert_challenge(&b.ask(client(1), eve.sign(allocate()).bytes()), 401);
    }
    b.assert_idle();
}

#[test]
fn rfc8489_14_4_ill_formed_names_are_401() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let names: [(Attribute, &[u8]); 4] = [
        (Attribute::Username, b""),
        (Attribute::Username, b"\xff\xfe"),
        (Attribute::Userhash, b"short"),
        (Attribute::Userhash, &[7; 40]),
    ];
    for (attribute, value) in names {
        let request = allocate()
            .with(attribute, value)
            .with(Attribute::Realm, REALM.as_bytes())
            .with(Attribute::Nonce, &alice.nonce)
            .sha1(alice.key().bytes());
        assert_challenge(&b.ask(client(1), request.bytes()), 401);
    }
}

#[test]
fn rfc8489_9_2_4_wrong_integrity_is_401() {
    for style in STYLES {
        let mut b = Bench::new();
        let alice = b.login("alice", 1).styled(style);
        let wrong = Login { password: "looking-glass".into(), ..alice.clone() };
        assert_challenge(&b.ask(client(1), wrong.sign(allocate()).bytes()), 401);
        // Any changed byte of a right request is as bad.
        let request = alice.sign(allocate().lifetime(700));
        for at in [20 + 12, 33, request.bytes().len() - 1] {
            let mut bytes = request.bytes().to_vec();
            bytes[at] ^= 1;
            assert_eq!(b.ask(client(1), &bytes).code(), 401, "byte {at}");
        }
        b.assert_idle();
    }
}

#[test]
fn rfc8489_9_2_4_wrong_password_is_401_while_the_allocation_is_alive() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let wrong = Login { password: "looking-glass".into(), ..alice };
    for request in [refresh(Some(0)), permission(&[PEER]), bind(0x4000, PEER), allocate()] {
        assert_challenge(&b.ask(client(1), wrong.sign(request).bytes()), 401);
    }
    assert_eq!(b.server.allocations(), 1);
}

#[test]
fn rfc8489_9_2_4_unknown_user_and_wrong_password_look_the_same() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for style in STYLES {
        let alice = alice.styled(style);
        let wrong = Login { password: "looking-glass".into(), ..alice.clone() };
        let eve = Login { name: "eve".into(), ..alice };
        let [wrong, unknown] =
            [wrong, eve].map(|login| b.ask(client(1), login.sign(allocate().id([7; 12])).bytes()));
        // At the same instant even the nonce is the same.
        assert_eq!(wrong, unknown, "{style:?}");
    }
}

#[test]
fn rfc8489_9_2_4_another_realm_is_401() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let elsewhere = Login { realm: "example.com".into(), ..alice };
    for style in STYLES {
        let request = elsewhere.styled(style).sign(allocate());
        assert_challenge(&b.ask(client(1), request.bytes()), 401);
    }
}

#[test]
fn rfc8489_9_2_4_old_nonce_is_438_with_a_new_one() {
    let mut b = Bench::with(|s| s.auth.nonce_lifetime = secs(300));
    let alice = b.login("alice", 1);
    b.skip(secs(300));
    b.grant(&alice, allocate());
    b.skip(secs(1));
    for request in [refresh(None), permission(&[PEER]), bind(0x4000, PEER), allocate()] {
        let reply = b.ask(client(1), alice.sign(request).bytes());
        assert_challenge(&reply, 438);
        let nonce = reply.get(Attribute::Nonce).unwrap();
        assert_ne!(nonce, alice.nonce);
        b.grant(&Login { nonce, ..alice.clone() }, refresh(None));
    }
}

#[test]
fn rfc8489_9_2_4_foreign_nonces_are_438() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let mut altered = alice.nonce.clone();
    *altered.last_mut().unwrap() ^= 1;
    let empty: &[u8] = b"";
    for nonce in [b"f//499k954d6OL34oL9FSTvy64sA".as_slice(), &altered, empty, &[b'a'; 127]] {
        let login = Login { nonce: nonce.to_vec(), ..alice.clone() };
        assert_challenge(&b.ask(client(1), login.sign(allocate()).bytes()), 438);
    }
    b.assert_idle();
}

#[test]
fn rfc8489_9_2_4_a_nonce_belongs_to_address_and_port() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    for other in ["192.0.2.1:5001", "192.0.2.2:5000"] {
        let from = client_at(Transport::Udp, addr(other), 1);
        assert_challenge(&b.ask(from, alice.sign(allocate()).bytes()), 438);
        let challenge = b.ask(from, allocate().bytes());
        assert_ne!(challenge.get(Attribute::Nonce).unwrap(), alice.nonce);
    }
    b.grant(&alice, allocate());
}

#[test]
fn rfc8489_9_2_4_wrong_password_beats_stale_nonce() {
    let mut b = Bench::with(|s| s.auth.nonce_lifetime = secs(300));
    let alice = b.login("alice", 1);
    b.skip(secs(1000));
    let wrong = Login { password: "looking-glass".into(), ..alice };
    assert_challenge(&b.ask(client(1), wrong.sign(allocate()).bytes()), 401);
}

#[test]
fn rfc8489_9_2_4_neither_algorithm_attribute_means_md5() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let key = Key::md5("alice", REALM, "wonderland");
    let reply = b.ask(client(1), alice.credentials(allocate()).sha1(key.bytes()).bytes());
    assert!(reply.is_success() && reply.has(Attribute::MessageIntegrity));
    let key = Key::sha256("alice", REALM, "wonderland");
    let reply = b.ask(client(1), alice.credentials(refresh(None)).sha1(key.bytes()).bytes());
    assert_eq!(reply.code(), 401);
}

#[test]
fn rfc8489_9_2_1_where_md5_is_not_offered_nobody_gets_in_with_it() {
    let mut b = Bench::with(|s| s.auth.algorithms = vec![Algorithm::Sha256]);
    let alice = b.login("alice", 1);
    assert_eq!(b.ask(client(1), alice.styled(Style::Legacy).sign(allocate()).bytes()).code(), 401);
    b.grant(&alice.styled(Style::Modern(Algorithm::Sha256)), allocate());
}

#[test]
fn rfc8489_14_3_username_longer_than_508_bytes_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let long = Login { name: "a".repeat(509), ..alice.clone() };
    assert_eq!(b.ask(client(1), long.sign(allocate()).bytes()).code(), 400);
    let short = Login { name: "a".repeat(508), ..alice };
    assert_eq!(b.ask(client(1), short.sign(allocate()).bytes()).code(), 401);
}

#[test]
fn rfc8489_9_2_4_message_integrity_sha256_counts_over_the_md5_key_too() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let request = alice.credentials(allocate()).sha256(alice.key().bytes());
    let reply = b.ask(client(1), request.bytes());
    assert!(reply.is_success());
    assert!(alice.proves(&reply), "processed as MD5, so MESSAGE-INTEGRITY answers");
}

#[test]
fn rfc8489_9_2_4_with_both_integrity_attributes_sha256_decides() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1).styled(Style::Modern(Algorithm::Sha256));
    let key = alice.key();
    let request = alice.credentials(allocate());
    let wrong = request.clone().sha1(key.bytes()).sha256(b"wrong");
    assert_eq!(b.ask(client(1), wrong.bytes()).code(), 401);
    let right = request.sha1(b"wrong").sha256(key.bytes());
    assert!(b.ask(client(1), right.bytes()).is_success());
}

#[test]
fn rfc8489_14_6_truncated_sha256_is_401() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1).styled(Style::Modern(Algorithm::Sha256));
    let whole = alice.sign(allocate());
    let tag = whole.bytes()[whole.bytes().len() - SHA256_LEN..].to_vec();
    for len in [0, 16, 28] {
        let request = alice
            .credentials(allocate().id(whole.transaction_id().0))
            .with(Attribute::MessageIntegritySha256, &tag[..len]);
        assert_eq!(b.ask(client(1), request.bytes()).code(), 401, "{len}");
    }
}

/// Credentials with chosen PASSWORD-ALGORITHMS and PASSWORD-ALGORITHM.
fn choosing(alice: &Login, offer: Option<&[u8]>, choice: Option<&[u8]>) -> Request {
    let mut request = alice.styled(Style::Legacy).credentials(allocate());
    if let Some(offer) = offer {
        request = request.with(Attribute::PasswordAlgorithms, offer);
    }
    if let Some(choice) = choice {
        request = request.with(Attribute::PasswordAlgorithm, choice);
    }
    request
}

const SHA256: &[u8] = &[0, 2, 0, 0];
const MD5: &[u8] = &[0, 1, 0, 0];

#[test]
fn rfc8489_9_2_4_one_algorithm_attribute_without_the_other_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let keys = [Key::md5("alice", REALM, "wonderland"), Key::sha256("alice", REALM, "wonderland")];
    for key in keys {
        for request in [
            choosing(&alice, Some(&alice.offer), None),
            choosing(&alice, None, Some(SHA256)),
            choosing(&alice, None, Some(MD5)),
        ] {
            let sealed = request.sha256(key.bytes());
            assert_unsigned(&b.ask(client(1), sealed.bytes()), 400);
        }
    }
}

#[test]
fn rfc8489_9_2_1_an_offer_that_lost_algorithms_on_the_way_is_400() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let key = Key::md5("alice", REALM, "wonderland");
    let longer = [&alice.offer[..], &[0, 3, 0, 0]].concat();
    let reordered = [MD5, SHA256].concat();
    for offer in [MD5, SHA256, &[], &longer, &reordered] {
        let request = choosing(&alice, Some(offer), Some(MD5)).sha256(key.bytes());
        assert_unsigned(&b.ask(client(1), request.bytes()), 400);
    }
}

#[test]
fn rfc8489_9_2_4_an_algorithm_that_was_not_offered_is_400() {
    let mut b = Bench::with(|s| s.auth.algorithms = vec![Algorithm::Sha256]);
    let alice = b.login("alice", 1);
    assert_eq!(alice.offer, SHA256);
    let key = Key::md5("alice", REALM, "wonderland");
    let parameters = [0, 2, 0, 4, 1, 2, 3, 4];
    for choice in [MD5, &[0, 3, 0, 0], &[0, 0, 0, 0], &[0, 2], &parameters] {
        let request = choosing(&alice, Some(&alice.offer), Some(choice)).sha256(key.bytes());
        assert_unsigned(&b.ask(client(1), request.bytes()), 400);
    }
    b.grant(&alice.styled(Style::Modern(Algorithm::Sha256)), allocate());
}

#[test]
fn rfc8489_9_2_1_taking_the_feature_bits_out_of_the_nonce_does_not_help() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let mut nonce = alice.nonce.clone();
    nonce[9..13].copy_from_slice(b"AAAA");
    let stripped = Login { nonce, ..alice };
    assert_challenge(&b.ask(client(1), stripped.sign(allocate()).bytes()), 438);
}

#[test]
fn rfc8489_9_2_the_nonce_announces_what_the_server_does() {
    let mut stored = Bench::new();
    // Bit 0: password algorithms; bit 1: username anonymity.
    assert_eq!(stored.login("alice", 1).nonce[9..13], *b"wAAA");
    let mut secret = Bench::with(|s| s.auth.directory = Some(directory(&["secret"])));
    assert_eq!(secret.login("alice", 1).nonce[9..13], *b"gAAA", "hashes of unknown names");
}

#[test]
fn rfc8489_9_2_4_responses_are_protected_in_the_way_of_the_request() {
    // `grant` and `refuse` check that exactly the right attribute is there.
    for style in STYLES {
        let mut b = Bench::new();
        let alice = b.login("alice", 1).styled(style);
        b.grant(&alice, allocate());
        assert_eq!(b.refuse(&alice, allocate()), 437);
        assert_eq!(b.refuse(&alice, permission(&[])), 400);
        b.grant(&alice, bind(0x4000, PEER));
    }
}

#[test]
fn rfc8489_9_2_4_a_client_may_change_its_style_during_an_allocation() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    for style in STYLES {
        b.grant(&alice.styled(style), refresh(None));
    }
}

#[test]
fn rfc8489_14_5_attributes_behind_message_integrity_are_ignored() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let request = alice.sign(allocate()).lifetime(3000).raw(0x7f00, b"");
    let reply = b.ask(client(1), request.bytes());
    assert!(reply.is_success());
    assert_eq!(reply.lifetime(), 600, "a smuggled LIFETIME does nothing");
    let smuggled = alice.sign(permission(&[PEER])).peer(OTHER_PEER);
    assert!(b.ask(client(1), smuggled.bytes()).is_success());
    let to = |peer| super::wire::send(peer, b"x").bytes().to_vec();
    assert!(b.carry(client(1), &to(PEER)).is_ok());
    assert_eq!(b.carry(client(1), &to(OTHER_PEER)), Err(DropReason::NoPermission));
    let only = alice.sign(permission(&[])).peer(OTHER_PEER);
    assert_eq!(b.ask(client(1), only.bytes()).code(), 400);
    let end = alice.sign(refresh(None)).lifetime(0);
    assert!(b.ask(client(1), end.bytes()).is_success());
    assert_eq!(b.server.allocations(), 1);
}

#[test]
fn rfc8489_14_6_attributes_behind_message_integrity_sha256_are_ignored() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1).styled(Style::Modern(Algorithm::Sha256));
    let key = alice.key();
    let request = alice.sign(allocate()).lifetime(3000).sha1(key.bytes());
    assert_eq!(b.ask(client(1), request.bytes()).lifetime(), 600);
    // Between the two integrity attributes nothing counts either.
    let request = alice.credentials(refresh(None)).sha1(key.bytes()).lifetime(0);
    let reply = b.ask(client(1), request.sha256(key.bytes()).bytes());
    assert!(reply.is_success());
    assert_eq!(b.server.allocations(), 1);
}

#[test]
fn rfc8489_14_5_integrity_covers_a_length_without_what_follows_it() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let request = alice.sign(allocate()).fingerprint();
    assert!(b.ask(client(1), request.bytes()).is_success());
}

#[test]
fn rfc8656_5_all_turn_requests_need_credentials_and_none_without_users() {
    let mut b = Bench::with(|s| s.auth.directory = None);
    let reply = b.ask(client(1), allocate().bytes());
    assert_unsigned(&reply, 403);
    assert!(b.ask(client(1), Request::new(Method::BINDING).bytes()).is_success());
}

// Time-limited credentials.

fn secrets(b: &[&str], expiry: ExpiryCheck) -> Bench {
    let directory = directory(b);
    Bench::with(|s| {
        s.auth.directory = Some(directory);
        s.auth.expiry = expiry;
    })
}

fn time_limited(b: &mut Bench, secret: &str, expires: u64, n: u8) -> Login {
    let (name, password) = time_limited::issue(secret, "carol", expires, Mac::Sha1, ':');
    b.login_from(client(n), &name, &password)
}

#[test]
fn time_limited_users_come_in_with_any_of_several_secrets() {
    let mut b = secrets(&["old", "new"], ExpiryCheck::Allocate);
    for (n, secret) in [(1, "old"), (2, "new")] {
        let carol = time_limited(&mut b, secret, EPOCH + 60, n);
        b.grant(&carol, allocate());
        b.grant(&carol.styled(Style::Modern(Algorithm::Sha256)), refresh(None));
    }
    let forged = time_limited(&mut b, "guess", EPOCH + 60, 3);
    assert_challenge(&b.ask(client(3), forged.sign(allocate()).bytes()), 401);
    let stored = b.login("alice", 4);
    b.grant(&stored, allocate());
}

#[test]
fn an_expired_credential_makes_no_allocation() {
    for expiry in [ExpiryCheck::Allocate, ExpiryCheck::Refresh] {
        let mut b = secrets(&["secret"], expiry);
        let last = time_limited(&mut b, "secret", EPOCH, 1);
        b.grant(&last, allocate());
        let late = time_limited(&mut b, "secret", EPOCH - 1, 2);
        assert_challenge(&b.ask(client(2), late.sign(allocate()).bytes()), 401);
    }
}

#[test]
fn expiry_at_allocate_lets_an_allocation_live_on() {
    let mut b = secrets(&["secret"], ExpiryCheck::Allocate);
    let carol = time_limited(&mut b, "secret", EPOCH + 60, 1);
    b.grant(&carol, allocate());
    b.advance(secs(300));
    b.grant(&carol, refresh(None));
    b.grant(&carol, permission(&[PEER]));
    b.grant(&carol, refresh(Some(0)));
    assert_challenge(&b.ask(client(1), carol.sign(allocate()).bytes()), 401);
}

#[test]
fn an_expired_credential_cannot_follow_its_expired_allocation() {
    let mut b = secrets(&["secret"], ExpiryCheck::Allocate);
    let carol = time_limited(&mut b, "secret", EPOCH + 60, 1);
    b.grant(&carol, allocate());
    // The allocation is over, but the shell has not woken yet.
    b.skip(secs(600));
    assert_challenge(&b.ask(client(1), carol.sign(allocate()).bytes()), 401);
}

#[test]
fn expiry_at_refresh_ends_an_allocation_with_its_credential() {
    let mut b = secrets(&["secret"], ExpiryCheck::Refresh);
    let carol = time_limited(&mut b, "secret", EPOCH + 60, 1);
    b.grant(&carol, allocate());
    b.advance(secs(60));
    b.grant(&carol, refresh(None));
    b.advance(secs(1));
    for request in [refresh(None), permission(&[PEER]), bind(0x4000, PEER)] {
        assert_challenge(&b.ask(client(1), carol.sign(request).bytes()), 401);
    }
    b.advance(secs(600));
    b.assert_idle();
}

#[test]
fn events_tell_why_credentials_were_refused() {
    use crate::turn::AuthFailure;
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    b.shell.events.clear();
    let wrong = Login { password: "x".into(), ..alice.clone() };
    let eve = Login { name: "eve".into(), ..alice.clone() };
    let stale = Login { nonce: b"x".to_vec(), ..alice.clone() };
    let bob = Login { name: "bob".into(), password: "builder".into(), ..alice };
    for login in [wrong, eve, stale, bob] {
        b.ask(client(1), login.sign(refresh(None)).bytes());
    }
    let reasons: Vec<AuthFailure> = b
        .shell
        .events
        .iter()
        .map(|event| match event {
            Event::AuthenticationFailed { reason, .. } => *reason,
            other => panic!("{other:?}"),
        })
        .collect();
    use AuthFailure::{NotTheOwner, StaleNonce, UnknownUser, WrongPassword};
    assert_eq!(reasons, [WrongPassword, UnknownUser, StaleNonce, NotTheOwner]);
}
