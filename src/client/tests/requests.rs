//! What requests look like and what becomes of their answers.

use stun_rs::attributes::stun::{AlternateServer, Software, UnknownAttributes};
use stun_rs::attributes::turn::{
    AdditionalAddressFamily, AddressErrorCode, ChannelNumber, EvenPort, RequestedAddressFamily,
    ReservationToken,
};
use stun_rs::{AddressFamily, MessageMethod};

use super::*;

fn config() -> Config {
    Config::new(Transport::Udp, USER, PASSWORD, [7; 32])
}

#[test]
fn allocate_carries_what_was_asked() {
    let mut config = config();
    config.software = Some("sturn test".to_owned());
    let mut client = Client::new(config);
    client.allocate(
        start(),
        Allocate {
            lifetime: Some(Duration::from_secs(1234)),
            family: Some(Family::V6),
            even_port: Some(true),
            reservation_token: Some(*b"12345678"),
            dont_fragment: true,
            ..Allocate::default()
        },
    );
    let Sent { message, .. } = sent(&mut client);
    let get = |kind: u16| message.attributes().iter().find(|a| a.attribute_type().as_u16() == kind);
    assert_eq!(get(0x0019).unwrap().as_requested_trasport().unwrap().protocol(), 17);
    assert_eq!(get(0x000D).unwrap().as_life_time().unwrap().as_u32(), 1234);
    let family = message.get::<RequestedAddressFamily>().unwrap();
    assert_eq!(family.as_requested_address_family().unwrap().family(), AddressFamily::IPv6);
    assert!(message.get::<EvenPort>().unwrap().as_even_port().unwrap().reserve());
    let token = message.get::<ReservationToken>().unwrap();
    assert_eq!(token.as_reservation_token().unwrap().token(), b"12345678");
    assert!(message.get::<DontFragment>().is_some());
    assert!(message.get::<AdditionalAddressFamily>().is_none());
    assert_eq!(message.get::<Software>().unwrap().as_software().unwrap(), "sturn test");
}

#[test]
fn other_transports_can_be_requested() {
    let mut client = client(Transport::Udp);
    client.allocate(start(), Allocate { requested_transport: 6, ..Allocate::default() });
    let bytes = client.poll_transmit().unwrap();
    assert!(bytes.windows(8).any(|tlv| tlv == [0x00, 0x19, 0, 4, 6, 0, 0, 0]));
}

#[test]
fn a_dual_allocation_yields_both_addresses_or_the_error() {
    let now = start();
    let mut client = client(Transport::Udp);
    let additional_family = Some(Family::V6);
    client.allocate(now, Allocate { additional_family, ..Allocate::default() });
    let first = sent(&mut client);
    assert!(first.has::<AdditionalAddressFamily>());
    let mut attributes = granted();
    attributes.push(XorRelayedAddress::from(addr("[2001:db8::7]:50002")).into());
    attributes.push(ReservationToken::from([9; 8]).into());
    let refused = stun_rs::ErrorCode::new(440, "no").unwrap();
    attributes.push(AddressErrorCode::new(AddressFamily::IPv6, refused).into());
    client.handle_receive(now, &first.success(&attributes));
    let Some(Event::Allocated(done)) = client.poll_event() else { panic!("not allocated") };
    assert_eq!(done.relayed, [addr("198.51.100.1:50000"), addr("[2001:db8::7]:50002")]);
    assert_eq!(done.reflexive, addr("192.0.2.9:4000"));
    assert_eq!(done.lifetime, Duration::from_secs(600));
    assert_eq!(done.reservation_token, Some([9; 8]));
    assert_eq!(done.address_error, Some((Family::V6, 440)));
}

#[test]
fn an_allocate_success_without_relayed_address_is_unusable() {
    let now = start();
    let mut client = client(Transport::Udp);
    client.allocate(now, Allocate::default());
    let first = sent(&mut client);
    client.handle_receive(now, &first.success(&granted()[1..]));
    assert!(matches!(
        client.poll_event(),
        Some(Event::Unusable { why: Problem::Missing("XOR-RELAYED-ADDRESS"), .. })
    ));
}

#[test]
fn an_unknown_required_attribute_makes_a_success_unusable() {
    let now = start();
    let mut client = client(Transport::Udp);
    client.allocate(now, Allocate::default());
    let first = sent(&mut client);
    let mut attributes = granted();
    attributes.push(Attribute::Raw(0x7ABC, vec![1]));
    client.handle_receive(now, &first.success(&attributes));
    assert!(matches!(
        client.poll_event(),
        Some(Event::Unusable { why: Problem::UnknownRequired(0x7ABC), .. })
    ));
}

#[test]
fn errors_are_told_in_full() {
    let now = start();
    let mut client = client(Transport::Udp);
    let transaction = client.allocate(now, Allocate::default());
    let first = sent(&mut client);
    let attributes = vec![
        UnknownAttributes::from(&[0x7F01, 0x7F02][..]).into(),
        AlternateServer::from(addr("203.0.113.5:3478")).into(),
    ];
    client.handle_receive(now, &first.error(420, attributes));
    assert_eq!(
        client.poll_event(),
        Some(Event::Failed(Failure {
            transaction,
            method: 3,
            code: 420,
            reason: "reason".to_owned(),
            unknown_attributes: vec![0x7F01, 0x7F02],
            alternate_server: Some(addr("203.0.113.5:3478")),
        }))
    );
}

#[test]
fn rfc_5780_addresses_of_a_binding_are_told() {
    let now = start();
    let mut client = client(Transport::Udp);
    client.binding(now);
    let attributes = [
        XorMappedAddress::from(addr("192.0.2.1:1")).into(),
        Attribute::Raw(0x802B, vec![0, 1, 0x0D, 0x96, 203, 0, 113, 1]),
        Attribute::Raw(0x802C, vec![0, 1, 0x0D, 0x97, 203, 0, 113, 2]),
    ];
    let answer = sent(&mut client).reply(MessageClass::SuccessResponse, &attributes, None);
    client.handle_receive(now, &answer);
    let Some(Event::Bound { response_origin, other_address, .. }) = client.poll_event() else {
        panic!("not bound");
    };
    assert_eq!(response_origin, Some(addr("203.0.113.1:3478")));
    assert_eq!(other_address, Some(addr("203.0.113.2:3479")));
}

#[test]
fn spliced_and_whole_encodings_agree() {
    // The same message, once through stun-rs alone and once with an attribute
    // spliced in: SHA-1, SHA-256, CRC and lengths have to come out the same.
    let typed: Vec<Attribute> =
        vec![LifeTime::new(77).into(), Software::new("odd").unwrap().into()];
    let mut mixed = typed.clone();
    mixed[0] = Attribute::Raw(0x000D, vec![0, 0, 0, 77]);
    for integrity in [Integrity::Sha1, Integrity::Sha256] {
        let signature = Signature { integrity, ..legacy_signature() };
        let encode = |attributes: &[Attribute]| {
            let id = [3; 12];
            let class = MessageClass::Request;
            codec::encode(class, methods::REFRESH, id, attributes, Some(&signature), true).unwrap()
        };
        assert_eq!(encode(&typed), encode(&mixed));
    }
}

#[test]
fn raw_requests_are_signed_and_answered_raw() {
    let now = start();
    let mut client = allocated(config(), now);
    let odd = Attribute::Raw(0x002A, vec![1, 2, 3, 4]);
    let transaction = client.request_raw(now, 0x00B, vec![odd.clone()]);
    let request = sent(&mut client);
    assert_eq!(request.message.method(), MessageMethod::try_from(0x00B).unwrap());
    assert!(request.is_signed_with(&legacy_signature()));
    client.handle_receive(now, &request.success(&[odd, Attribute::Raw(0x8123, vec![5])]));
    assert_eq!(
        client.poll_event(),
        Some(Event::Answered {
            transaction,
            method: 0x00B,
            attributes: vec![(0x002A, vec![1, 2, 3, 4]), (0x8123, vec![5])],
        })
    );
}

#[test]
fn what_cannot_be_encoded_ends_the_transaction_without_sending() {
    let mut client = client(Transport::Udp);
    let huge = Attribute::Raw(0x8123, vec![0; 70_000]);
    for (method, attributes) in [(0x1000, vec![]), (1, vec![huge])] {
        let transaction = client.request_raw(start(), method, attributes);
        let event = client.poll_event().unwrap();
        assert!(matches!(event, Event::Unusable { .. }), "{event:?}");
        assert_eq!(event.transaction(), Some(transaction));
        assert!(client.poll_transmit().is_none());
    }
}

#[test]
fn channels_are_numbered_upwards_and_kept_per_peer() {
    let now = start();
    let mut client = allocated(config(), now);
    for (peer, channel) in
        [("192.0.2.50:1", 0x4000), ("192.0.2.50:2", 0x4001), ("192.0.2.50:1", 0x4000)]
    {
        let transaction = client.channel_bind(now, None, addr(peer));
        let request = sent(&mut client);
        let asked = request.message.get::<ChannelNumber>().unwrap();
        assert_eq!(asked.as_channel_number().unwrap().number(), channel);
        client.handle_receive(now, &request.success(&[]));
        let peer = addr(peer);
        assert_eq!(client.poll_event(), Some(Event::ChannelBound { transaction, channel, peer }));
    }
}

#[test]
fn a_kept_alive_allocation_refreshes_everything_in_time() {
    let now = start();
    let mut config = config();
    config.keep_alive = true;
    let mut client = allocated(config, now);
    let peer = addr("192.0.2.50:1");
    client.channel_bind(now, None, peer);
    let bind = sent(&mut client);
    client.handle_receive(now, &bind.success(&[]));
    client.poll_event().unwrap();

    let mut seen = Vec::new();
    while seen.len() < 5 {
        let due = client.poll_timeout().unwrap();
        let at = now.after(due.duration_since(now.mono));
        client.handle_timeout(at);
        while let Some(bytes) = client.poll_transmit() {
            let (message, _) = MessageDecoderBuilder::default().build().decode(&bytes).unwrap();
            seen.push((at.mono.duration_since(now.mono).as_secs(), message.method().as_u16()));
            let answer = Sent { bytes, message }.success(&[LifeTime::new(600).into()]);
            client.handle_receive(at, &answer);
        }
    }
    // CreatePermission 8, Refresh 4, ChannelBind 9.
    assert_eq!(seen[..5], [(240, 8), (480, 8), (540, 4), (540, 9), (720, 8)]);
}

#[test]
fn without_keep_alive_nothing_is_refreshed() {
    let client = allocated(config(), start());
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn a_lifetime_of_zero_ends_channels_and_timers() {
    let now = start();
    let mut config = config();
    config.keep_alive = true;
    let mut client = allocated(config, now);
    client.refresh(now, Some(Duration::ZERO), None);
    let request = sent(&mut client);
    let asked = request.message.get::<LifeTime>().unwrap();
    assert_eq!(asked.as_life_time().unwrap().as_u32(), 0);
    client.handle_receive(now, &request.success(&[LifeTime::new(0).into()]));
    assert_eq!(client.poll_timeout(), None);
}
