//! RFC 8489 section 9.2: challenges, stale nonces, bid-down, integrity.

use stun_rs::attributes::stun::nonce_cookie::StunSecurityFeatures;
use stun_rs::attributes::stun::{
    Fingerprint, MessageIntegrity, MessageIntegritySha256, UserHash, UserName,
};

use super::*;

/// A nonce whose cookie announces both security features.
fn cookie_nonce() -> String {
    let all = StunSecurityFeatures::PasswordAlgorithms | StunSecurityFeatures::UserNameAnonymity;
    Nonce::new_nonce_cookie("xyz", Some(all)).unwrap().as_str().to_owned()
}

fn sha256_signature(id: AlgorithmId) -> Signature {
    let key = HMACKey::new_long_term(USER, REALM, PASSWORD, Algorithm::from(id)).unwrap();
    Signature { key, integrity: Integrity::Sha256 }
}

fn events(client: &mut Client) -> Vec<Event> {
    std::iter::from_fn(|| client.poll_event()).collect()
}

#[test]
fn the_first_request_has_no_credentials_but_a_fingerprint() {
    let mut client = client(Transport::Udp);
    client.allocate(start(), Allocate::default());
    let first = sent(&mut client);
    assert!(!first.has::<UserName>() && !first.has::<MessageIntegrity>());
    assert!(first.has::<Fingerprint>());
}

#[test]
fn a_challenge_of_an_old_server_is_answered_with_md5_and_sha1() {
    let now = start();
    let mut client = client(Transport::Udp);
    client.allocate(now, Allocate::default());
    let first = sent(&mut client);
    client.handle_receive(now, &first.error(401, challenge(NONCE)));
    let second = sent(&mut client);
    assert_ne!(first.message.transaction_id(), second.message.transaction_id());
    assert!(second.has::<UserName>() && second.has::<Realm>());
    assert_eq!(second.nonce(), NONCE);
    assert!(second.is_signed_with(&legacy_signature()));
    assert!(!second.has::<MessageIntegritySha256>());
    assert_eq!(client.challenge(), Some((REALM, NONCE)));
}

#[test]
fn a_challenge_of_a_new_server_is_answered_with_hash_and_sha256() {
    let now = start();
    let mut client = client(Transport::Udp);
    let transaction = client.allocate(now, Allocate::default());
    let first = sent(&mut client);
    let offer = algorithms(&[AlgorithmId::Unassigned(9), AlgorithmId::SHA256, AlgorithmId::MD5]);
    let mut asked = challenge(&cookie_nonce());
    asked.push(offer);
    client.handle_receive(now, &first.error(401, asked));

    let second = sent(&mut client);
    assert!(second.has::<UserHash>() && !second.has::<UserName>());
    let echoed = second.message.get::<PasswordAlgorithms>().unwrap();
    let echoed: Vec<_> =
        echoed.as_password_algorithms().unwrap().iter().map(PasswordAlgorithm::algorithm).collect();
    assert_eq!(
        echoed,
        [AlgorithmId::Unassigned(9), AlgorithmId::SHA256, AlgorithmId::MD5],
        "the list goes back as it came"
    );
    let chosen = second.message.get::<PasswordAlgorithm>().unwrap();
    assert_eq!(chosen.as_password_algorithm().unwrap().algorithm(), AlgorithmId::SHA256);
    let signature = sha256_signature(AlgorithmId::SHA256);
    assert!(second.is_signed_with(&signature));
    assert!(!second.has::<MessageIntegrity>());

    // The answer has to be signed the same way.
    let weaker = second.reply(MessageClass::SuccessResponse, &granted(), Some(&legacy_signature()));
    client.handle_receive(now, &weaker);
    assert!(matches!(
        events(&mut client)[..],
        [Event::Invalid { why: Problem::IntegrityMissing { .. } }]
    ));
    let right = second.reply(MessageClass::SuccessResponse, &granted(), Some(&signature));
    client.handle_receive(now, &right);
    assert_eq!(events(&mut client)[0].transaction(), Some(transaction));
}

#[test]
fn the_first_known_algorithm_of_the_server_is_taken() {
    let now = start();
    let mut client = client(Transport::Udp);
    client.allocate(now, Allocate::default());
    let mut asked = challenge(&cookie_nonce());
    asked.push(algorithms(&[AlgorithmId::MD5, AlgorithmId::SHA256]));
    let first = sent(&mut client);
    client.handle_receive(now, &first.error(401, asked));
    assert!(sent(&mut client).is_signed_with(&sha256_signature(AlgorithmId::MD5)));
}

#[test]
fn a_legacy_client_ignores_what_it_does_not_know() {
    let now = start();
    let mut config = Config::new(Transport::Udp, USER, PASSWORD, [7; 32]);
    config.security = Security::Legacy;
    let mut client = Client::new(config);
    client.allocate(now, Allocate::default());
    let mut asked = challenge(&cookie_nonce());
    asked.push(algorithms(&[AlgorithmId::SHA256]));
    let first = sent(&mut client);
    client.handle_receive(now, &first.error(401, asked));
    let second = sent(&mut client);
    assert!(second.has::<UserName>() && !second.has::<PasswordAlgorithms>());
    assert!(second.is_signed_with(&legacy_signature()));
}

#[test]
fn removed_password_algorithms_are_noticed_in_challenges() {
    let now = start();
    for code in [401, 438] {
        let mut client = client(Transport::Udp);
        client.allocate(now, Allocate::default());
        if code == 438 {
            let first = sent(&mut client);
            client.handle_receive(now, &first.error(401, challenge(NONCE)));
        }
        let request = sent(&mut client);
        client.handle_receive(now, &request.error(code, challenge(&cookie_nonce())));
        assert!(client.poll_transmit().is_none(), "no retry after {code}");
        assert!(matches!(events(&mut client)[..], [Event::Unusable { why: Problem::BidDown, .. }]));
    }
}

#[test]
fn no_common_algorithm_means_no_retry() {
    let now = start();
    let mut client = client(Transport::Udp);
    client.allocate(now, Allocate::default());
    let mut asked = challenge(&cookie_nonce());
    asked.push(algorithms(&[AlgorithmId::Unassigned(77)]));
    let first = sent(&mut client);
    client.handle_receive(now, &first.error(401, asked));
    assert!(client.poll_transmit().is_none());
    assert!(matches!(
        events(&mut client)[..],
        [Event::Unusable { why: Problem::NoCommonAlgorithm, .. }]
    ));
}

#[test]
fn a_second_401_in_the_same_realm_is_final() {
    let now = start();
    let mut client = client(Transport::Udp);
    let transaction = client.allocate(now, Allocate::default());
    for _ in 0..2 {
        let request = sent(&mut client);
        client.handle_receive(now, &request.error(401, challenge(NONCE)));
    }
    assert!(client.poll_transmit().is_none());
    match &events(&mut client)[..] {
        [Event::Failed(failure)] => {
            assert_eq!((failure.transaction, failure.code), (transaction, 401));
            assert_eq!(failure.reason, "reason");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_user_name_the_challenge_is_the_answer() {
    let now = start();
    let mut client = Client::new(Config::new(Transport::Udp, "", "", [7; 32]));
    client.allocate(now, Allocate::default());
    let request = sent(&mut client);
    client.handle_receive(now, &request.error(401, challenge(NONCE)));
    assert!(matches!(&events(&mut client)[..], [Event::Failed(failure)] if failure.code == 401));
}

#[test]
fn a_stale_nonce_is_replaced_and_remembered() {
    let now = start();
    let mut client = allocated(Config::new(Transport::Udp, USER, PASSWORD, [7; 32]), now);
    let transaction = client.refresh(now, None, None);
    let request = sent(&mut client);
    assert_eq!(request.nonce(), NONCE);
    client.handle_receive(now, &request.error(438, challenge("fresh")));
    let again = sent(&mut client);
    assert_eq!(again.nonce(), "fresh");
    assert!(again.is_signed_with(&legacy_signature()));
    client.handle_receive(now, &again.success(&[LifeTime::new(300).into()]));
    let lifetime = Duration::from_secs(300);
    assert_eq!(events(&mut client), [Event::Refreshed { transaction, lifetime }]);
    client.refresh(now, None, None);
    assert_eq!(sent(&mut client).nonce(), "fresh");
}

#[test]
fn endless_stale_nonces_end() {
    let now = start();
    let mut client = allocated(Config::new(Transport::Udp, USER, PASSWORD, [7; 32]), now);
    client.refresh(now, None, None);
    let mut requests = 0;
    while let Some(bytes) = client.poll_transmit() {
        requests += 1;
        let (message, _) = MessageDecoderBuilder::default().build().decode(&bytes).unwrap();
        let answer = Sent { bytes, message }.error(438, challenge(&format!("n{requests}")));
        client.handle_receive(now, &answer);
    }
    assert_eq!(requests, 4);
    assert!(matches!(&events(&mut client)[..], [Event::Failed(failure)] if failure.code == 438));
}

#[test]
fn an_answer_with_wrong_or_no_integrity_is_discarded_and_the_wait_goes_on() {
    let now = start();
    let mut client = allocated(Config::new(Transport::Udp, USER, PASSWORD, [7; 32]), now);
    client.refresh(now, None, None);
    let request = sent(&mut client);
    let mut forged = legacy_signature();
    forged.key = HMACKey::new_short_term("guess").unwrap();
    let ok: Vec<Attribute> = vec![LifeTime::new(0).into()];
    client.handle_receive(now, &request.reply(MessageClass::SuccessResponse, &ok, Some(&forged)));
    client.handle_receive(now, &request.reply(MessageClass::SuccessResponse, &ok, None));
    let refused = [error_code(400)];
    client.handle_receive(now, &request.reply(MessageClass::ErrorResponse, &refused, None));
    assert!(matches!(
        events(&mut client)[..],
        [
            Event::Invalid { why: Problem::IntegrityMismatch },
            Event::Invalid { why: Problem::IntegrityMissing { .. } },
            Event::Invalid { why: Problem::IntegrityMissing { .. } },
        ]
    ));
    assert_eq!(client.poll_timeout(), Some(now.mono + Duration::from_millis(500)));
}

#[test]
fn unsigned_errors_count_if_so_configured_and_nothing_else_does() {
    let now = start();
    let mut config = Config::new(Transport::Udp, USER, PASSWORD, [7; 32]);
    config.accept_unsigned_errors = true;
    let mut client = allocated(config, now);
    client.refresh(now, None, None);
    let request = sent(&mut client);
    let ok: Vec<Attribute> = vec![LifeTime::new(9).into()];
    client.handle_receive(now, &request.reply(MessageClass::SuccessResponse, &ok, None));
    let mut forged = legacy_signature();
    forged.key = HMACKey::new_short_term("guess").unwrap();
    let refused = [error_code(437)];
    let class = MessageClass::ErrorResponse;
    client.handle_receive(now, &request.reply(class, &refused, Some(&forged)));
    client.handle_receive(now, &request.reply(class, &refused, None));
    assert!(matches!(
        &events(&mut client)[..],
        [
            Event::Invalid { why: Problem::IntegrityMissing { .. } },
            Event::Invalid { why: Problem::IntegrityMismatch },
            Event::Failed(Failure { code: 437, .. }),
        ]
    ));
}

#[test]
fn a_wrong_fingerprint_is_discarded() {
    let now = start();
    let mut client = client(Transport::Udp);
    client.binding(now);
    let mapped = XorMappedAddress::from(addr("192.0.2.1:1")).into();
    let mut answer = sent(&mut client).reply(MessageClass::SuccessResponse, &[mapped], None);
    *answer.last_mut().unwrap() ^= 1;
    client.handle_receive(now, &answer);
    assert_eq!(events(&mut client), [Event::Invalid { why: Problem::Fingerprint }]);
}

#[test]
fn binding_carries_credentials_only_if_challenged() {
    let now = start();
    let mut client = allocated(Config::new(Transport::Udp, USER, PASSWORD, [7; 32]), now);
    client.binding(now);
    let plain = sent(&mut client);
    assert!(!plain.has::<UserName>());
    client.handle_receive(now, &plain.error(401, challenge(NONCE)));
    assert!(sent(&mut client).is_signed_with(&legacy_signature()));
}

#[test]
fn a_replaced_nonce_is_used() {
    let now = start();
    let mut fresh = client(Transport::Udp);
    assert!(!fresh.replace_nonce("wrong"));
    let mut client = allocated(Config::new(Transport::Udp, USER, PASSWORD, [7; 32]), now);
    assert!(client.replace_nonce("wrong"));
    client.refresh(now, None, None);
    assert_eq!(sent(&mut client).nonce(), "wrong");
}

#[test]
fn the_password_and_the_seed_are_not_in_debug_output() {
    let client = allocated(Config::new(Transport::Udp, USER, PASSWORD, [7; 32]), start());
    let text = format!("{client:?}");
    let key = format!("{:?}", legacy_signature().key.as_bytes());
    for secret in [PASSWORD, "7, 7, 7", key.trim_matches(['[', ']'])] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
