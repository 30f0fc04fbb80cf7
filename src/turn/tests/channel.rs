//! Channels and ChannelBind (RFC 8656 section 12).

use super::wire::{Request, allocate, bind, channel_data, permission, refresh, send};
use super::*;

/// Whether ChannelData with this number gets to a peer.
fn to_peer(b: &mut Bench, number: u16) -> Result<SocketAddr, DropReason> {
    b.carry(client(1), &channel_data(number, b"data")).map(|carried| carried.for_peer().0)
}

/// The first bytes of what the client gets from a peer: a channel number or a type.
fn from_peer(b: &mut Bench, relayed: SocketAddr, peer: &str) -> Result<u16, DropReason> {
    let bytes = b.peer_sends(relayed, peer, b"data")?.for_client();
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

const DATA_INDICATION: u16 = 0x0017;

#[test]
fn rfc8656_12_2_a_bound_channel_carries_data_both_ways() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    let reply = b.grant(&alice, bind(0x4000, PEER));
    assert!(!reply.has(Attribute::ChannelNumber) && !reply.has(Attribute::Lifetime));
    assert_eq!(to_peer(&mut b, 0x4000), Ok(addr(PEER)));
    assert_eq!(from_peer(&mut b, relayed, PEER), Ok(0x4000));
}

#[test]
fn rfc8656_12_2_channel_numbers_are_4000_to_4fff() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    for number in [0, 1, 0x3fff, 0x5000, 0x7fff, 0x8000, 0xffff] {
        assert_eq!(b.refuse(&alice, bind(number, PEER)), 400, "{number:#x}");
    }
    b.grant(&alice, bind(0x4000, PEER));
    b.grant(&alice, bind(0x4fff, OTHER_PEER));
    assert_eq!(to_peer(&mut b, 0x4fff), Ok(addr(OTHER_PEER)));
}

#[test]
fn rfc5766_11_channels_up_to_7fff_can_be_bound_where_enabled() {
    let mut b = Bench::with(|s| s.rfc5766_channels = true);
    let (alice, relayed) = b.allocated("alice", 1);
    for number in [0x3fff, 0x8000, 0xffff] {
        assert_eq!(b.refuse(&alice, bind(number, PEER)), 400, "{number:#x}");
    }
    b.grant(&alice, bind(0x7fff, PEER));
    assert_eq!(to_peer(&mut b, 0x7fff), Ok(addr(PEER)));
    assert_eq!(from_peer(&mut b, relayed, PEER), Ok(0x7fff));
    assert_eq!(to_peer(&mut b, 0x5000), Err(DropReason::NoChannel));
}

#[test]
fn rfc8656_12_2_number_or_peer_missing_is_400() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let request = || Request::new(Method::CHANNEL_BIND);
    assert_eq!(b.refuse(&alice, request()), 400);
    assert_eq!(b.refuse(&alice, request().channel(0x4000)), 400);
    assert_eq!(b.refuse(&alice, request().peer(PEER)), 400);
}

#[test]
fn rfc8656_12_2_malformed_number_or_peer_is_400() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let request = || Request::new(Method::CHANNEL_BIND);
    for value in [&[][..], &[0x40, 0], &[0x40, 0, 0, 0, 0]] {
        let request = request().with(Attribute::ChannelNumber, value).peer(PEER);
        assert_eq!(b.refuse(&alice, request), 400, "{value:?}");
    }
    for value in [&[][..], &[0, 1, 0, 0, 1, 2, 3], &[0, 7, 0, 0, 1, 2, 3, 4]] {
        let request = request().channel(0x4000).with(Attribute::XorPeerAddress, value);
        assert_eq!(b.refuse(&alice, request), 400, "{value:?}");
    }
    assert_eq!(to_peer(&mut b, 0x4000), Err(DropReason::NoChannel));
}

#[test]
fn rfc8656_18_1_reserved_bytes_of_channel_number_are_ignored() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let request = Request::new(Method::CHANNEL_BIND)
        .with(Attribute::ChannelNumber, &[0x40, 0x01, 0xff, 0xff])
        .peer(PEER);
    b.grant(&alice, request);
    assert_eq!(to_peer(&mut b, 0x4001), Ok(addr(PEER)));
}

#[test]
fn rfc8656_12_2_a_channel_of_another_peer_is_400() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, PEER));
    assert_eq!(b.refuse(&alice, bind(0x4000, OTHER_PEER)), 400);
    assert_eq!(b.refuse(&alice, bind(0x4000, "198.51.100.7:7001")), 400, "a port is another peer");
    assert_eq!(to_peer(&mut b, 0x4000), Ok(addr(PEER)));
    assert_eq!(from_peer(&mut b, relayed, OTHER_PEER), Err(DropReason::NoPermission));
}

#[test]
fn rfc8656_12_2_a_peer_with_another_channel_is_400() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, PEER));
    assert_eq!(b.refuse(&alice, bind(0x4001, PEER)), 400);
    assert_eq!(to_peer(&mut b, 0x4001), Err(DropReason::NoChannel));
    assert_eq!(from_peer(&mut b, relayed, PEER), Ok(0x4000));
}

#[test]
fn rfc8656_12_2_two_ports_of_one_host_are_two_peers() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, "198.51.100.7:1"));
    b.grant(&alice, bind(0x4001, "198.51.100.7:2"));
    assert_eq!(from_peer(&mut b, relayed, "198.51.100.7:1"), Ok(0x4000));
    assert_eq!(from_peer(&mut b, relayed, "198.51.100.7:2"), Ok(0x4001));
}

#[test]
fn rfc8656_12_a_binding_lasts_exactly_ten_minutes() {
    for late_shell in [false, true] {
        let mut b = Bench::new();
        let (alice, relayed) = b.allocated("alice", 1);
        b.grant(&alice, refresh(Some(3600)));
        b.grant(&alice, bind(0x4000, PEER));
        let pass = |b: &mut Bench, time| if late_shell { b.skip(time) } else { b.advance(time) };
        pass(&mut b, Duration::from_millis(599_999));
        assert_eq!(to_peer(&mut b, 0x4000), Ok(addr(PEER)));
        assert_eq!(from_peer(&mut b, relayed, PEER), Ok(0x4000));
        pass(&mut b, Duration::from_millis(1));
        assert_eq!(to_peer(&mut b, 0x4000), Err(DropReason::NoChannel));
        assert_eq!(from_peer(&mut b, relayed, PEER), Err(DropReason::NoPermission));
    }
}

#[test]
fn rfc8656_12_2_binding_again_prolongs() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, refresh(Some(3600)));
    b.grant(&alice, bind(0x4000, PEER));
    b.advance(secs(599));
    b.grant(&alice, bind(0x4000, PEER));
    b.advance(secs(599));
    assert_eq!(to_peer(&mut b, 0x4000), Ok(addr(PEER)));
    assert_eq!(from_peer(&mut b, relayed, PEER), Ok(0x4000));
    b.advance(secs(1));
    assert_eq!(to_peer(&mut b, 0x4000), Err(DropReason::NoChannel));
}

#[test]
fn rfc8656_12_data_does_not_prolong_a_binding() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, refresh(Some(3600)));
    b.grant(&alice, bind(0x4000, PEER));
    for _ in 0..59 {
        b.advance(secs(10));
        assert!(to_peer(&mut b, 0x4000).is_ok() && from_peer(&mut b, relayed, PEER).is_ok());
    }
    b.advance(secs(10));
    assert_eq!(to_peer(&mut b, 0x4000), Err(DropReason::NoChannel));
}

#[test]
fn rfc8656_12_neither_create_permission_nor_refresh_prolongs_a_binding() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, PEER));
    b.advance(secs(500));
    b.grant(&alice, refresh(Some(3600)));
    b.grant(&alice, permission(&[PEER]));
    b.advance(secs(100));
    assert_eq!(to_peer(&mut b, 0x4000), Err(DropReason::NoChannel));
    assert_eq!(from_peer(&mut b, relayed, PEER), Ok(DATA_INDICATION), "the permission is left");
}

#[test]
fn rfc8656_12_after_expiry_number_and_peer_are_free() {
    for late_shell in [false, true] {
        let mut b = Bench::new();
        let (alice, relayed) = b.allocated("alice", 1);
        b.grant(&alice, refresh(Some(3600)));
        b.grant(&alice, bind(0x4000, PEER));
        b.grant(&alice, bind(0x4001, OTHER_PEER));
        if late_shell {
            b.skip(secs(600))
        } else {
            b.advance(secs(601))
        }
        // Crosswise, so that both meet the other's remains.
        b.grant(&alice, bind(0x4000, OTHER_PEER));
        b.grant(&alice, bind(0x4001, PEER));
        assert_eq!(to_peer(&mut b, 0x4000), Ok(addr(OTHER_PEER)));
        assert_eq!(from_peer(&mut b, relayed, PEER), Ok(0x4001));
        let added = b.shell.routes.iter().filter(|r| matches!(r, Route::Add { .. })).count();
        assert_eq!((added, b.shell.routes.len()), (4, 6), "every old route was taken back");
    }
}

#[test]
fn rfc8656_12_2_policy_refuses_with_403() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    for peer in ["127.0.0.1:1", "10.0.0.1:1", "203.0.113.1:3478", "198.51.100.7:0"] {
        assert_eq!(b.refuse(&alice, bind(0x4000, peer)), 403, "{peer}");
    }
    assert_eq!(to_peer(&mut b, 0x4000), Err(DropReason::NoChannel));
}

#[test]
fn rfc8656_12_2_a_peer_of_another_family_is_443() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    assert_eq!(b.refuse(&alice, bind(0x4000, PEER_V6)), 443);
}

#[test]
fn rfc8656_12_2_too_many_channels_are_508() {
    let mut b = Bench::with(|s| s.limits.channels = 2);
    let (alice, _) = b.allocated("alice", 1);
    b.grant(&alice, refresh(Some(3600)));
    b.grant(&alice, bind(0x4000, "198.51.100.7:1"));
    b.grant(&alice, bind(0x4001, "198.51.100.7:2"));
    assert_eq!(b.refuse(&alice, bind(0x4002, "198.51.100.7:3")), 508);
    b.grant(&alice, bind(0x4001, "198.51.100.7:2"));
    b.advance(secs(601));
    b.grant(&alice, bind(0x4002, "198.51.100.7:3"));
}

#[test]
fn rfc8656_12_2_a_channel_needs_room_for_its_permission() {
    let mut b = Bench::with(|s| s.limits.permissions = 1);
    let (alice, _) = b.allocated("alice", 1);
    b.grant(&alice, permission(&[OTHER_PEER]));
    assert_eq!(b.refuse(&alice, bind(0x4000, PEER)), 508);
    assert_eq!(to_peer(&mut b, 0x4000), Err(DropReason::NoChannel));
    b.grant(&alice, bind(0x4000, OTHER_PEER));
}

#[test]
fn rfc8656_12_channels_end_with_their_allocation() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, PEER));
    b.grant(&alice, refresh(Some(0)));
    b.grant(&alice, allocate());
    assert_eq!(to_peer(&mut b, 0x4000), Err(DropReason::NoChannel));
    b.grant(&alice, bind(0x4000, OTHER_PEER));
}

#[test]
fn rfc8656_12_channels_belong_to_one_allocation() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    let (again, _) = b.allocated("alice", 2);
    b.grant(&alice, bind(0x4000, PEER));
    b.grant(&again, bind(0x4000, OTHER_PEER));
    assert_eq!(to_peer(&mut b, 0x4000), Ok(addr(PEER)));
    let other = b.carry(client(2), &channel_data(0x4000, b"x")).unwrap();
    assert_eq!(other.for_peer().0, addr(OTHER_PEER));
}

#[test]
fn rfc8656_12_send_works_beside_a_channel_but_answers_come_through_it() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, PEER));
    assert_eq!(b.carry(client(1), send(PEER, b"x").bytes()).unwrap().for_peer().0, addr(PEER));
    assert_eq!(from_peer(&mut b, relayed, PEER), Ok(0x4000));
    assert_eq!(from_peer(&mut b, relayed, "198.51.100.7:1"), Ok(DATA_INDICATION));
}

#[test]
fn routes_say_what_an_accelerator_needs() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, PEER));
    b.grant(&alice, bind(0x4000, PEER));
    let id = b.relay_at(relayed).unwrap();
    match b.shell.routes[..] {
        [Route::Add { five_tuple, channel, relay, local, peer }] => {
            assert_eq!((five_tuple, channel), (alice.client.five_tuple, 0x4000));
            assert_eq!((relay, local.socket(), peer.socket()), (id, relayed, addr(PEER)));
        }
        ref other => panic!("{other:?}"),
    }
    b.advance(secs(601));
    let last = b.shell.routes.last().unwrap();
    assert!(matches!(last, Route::Remove { channel: 0x4000, .. }), "{last:?}");
}
