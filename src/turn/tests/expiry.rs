//! The end of allocations: time, and the client's connection (RFC 8656 sections 5, 6).

use super::wire::{allocate, bind, channel_data, permission, refresh, send};
use super::*;
use crate::turn::EndReason;

fn end_reasons(b: &Bench) -> Vec<EndReason> {
    let ended = |event: &Event| match event {
        Event::AllocationEnded { reason, .. } => Some(*reason),
        _ => None,
    };
    b.shell.events.iter().filter_map(ended).collect()
}

#[test]
fn rfc8656_6_an_allocation_expires_when_it_is_not_refreshed() {
    for lifetime in [600, 601, 1023, 1024, 1025, 2000, 3600] {
        let mut b = Bench::new();
        let alice = b.login("alice", 1);
        b.grant(&alice, allocate().lifetime(lifetime));
        b.advance(secs(lifetime.into()) - Duration::from_millis(1));
        assert_eq!(b.server.allocations(), 1, "{lifetime}");
        b.grant(&alice, permission(&[PEER]));
        b.advance(Duration::from_millis(251));
        b.assert_idle();
        assert_eq!(end_reasons(&b), [EndReason::Expired]);
    }
}

#[test]
fn rfc8656_6_an_expired_allocation_behaves_as_none() {
    let mut b = Bench::new();
    let (alice, relayed) = b.allocated("alice", 1);
    b.grant(&alice, bind(0x4000, PEER));
    b.grant(&alice, permission(&[OTHER_PEER]));
    b.skip(Duration::from_millis(599_999));
    b.grant(&alice, permission(&[OTHER_PEER]));
    b.grant(&alice, bind(0x4000, PEER));
    assert!(b.peer_sends(relayed, PEER, b"x").is_ok());
    b.skip(Duration::from_millis(1));
    for request in [refresh(None), refresh(Some(0)), permission(&[PEER]), bind(0x4001, OTHER_PEER)]
    {
        assert_eq!(b.refuse(&alice, request), 437);
    }
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::RelayGone));
    b.dropped(client(1), &channel_data(0x4000, b"x"));
    b.dropped(client(1), send(OTHER_PEER, b"x").bytes());
    assert_eq!(b.server.counters().traffic.packets_to_peers, 0);
}

#[test]
fn rfc8656_6_permissions_and_channels_do_not_keep_an_allocation_alive() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    b.advance(secs(500));
    b.grant(&alice, bind(0x4000, PEER));
    b.advance(secs(101));
    b.assert_idle();
    assert!(matches!(b.shell.routes[..], [Route::Add { .. }, Route::Remove { .. }]));
}

#[test]
fn what_has_expired_is_cleaned_up_within_a_tick() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    b.grant(&alice, allocate().lifetime(3600));
    b.grant(&alice, bind(0x4000, PEER));
    b.advance(Duration::from_millis(600_250));
    assert_eq!(b.shell.routes.len(), 2);
}

#[test]
fn many_allocations_end_each_at_its_time() {
    let mut b = Bench::new();
    for n in 0..100 {
        let alice = b.login("alice", n);
        b.grant(&alice, allocate().lifetime(600 + 30 * u32::from(n)));
    }
    for left in (0..100).rev() {
        b.advance(if left == 99 { Duration::from_millis(600_250) } else { secs(30) });
        assert_eq!(b.server.allocations(), left);
    }
    b.assert_idle();
}

#[test]
fn a_server_without_work_has_no_timer() {
    let mut b = Bench::new();
    let (alice, _) = b.allocated("alice", 1);
    b.grant(&alice, refresh(Some(0)));
    b.advance(secs(2000));
    assert_eq!(b.server.poll_timeout(), None);
}

#[test]
fn rfc8656_5_the_end_of_a_connection_ends_its_allocation() {
    for transport in [Transport::Tcp, Transport::Tls, Transport::Dtls] {
        let mut b = Bench::new();
        let (login, _) = b.allocated_on(transport, 1);
        b.grant(&login, bind(0x4000, PEER));
        let Client { five_tuple, link } = login.client;
        b.input(Input::LinkClosed { five_tuple, link });
        b.assert_idle();
        assert_eq!(end_reasons(&b), [EndReason::ConnectionClosed]);
    }
}

#[test]
fn the_end_of_another_connection_is_no_matter() {
    let mut b = Bench::new();
    let (login, _) = b.allocated_on(Transport::Tcp, 1);
    let Client { five_tuple, link } = login.client;
    b.input(Input::LinkClosed { five_tuple, link: Link(link.0 + 1) });
    let other = client_on(Transport::Tcp, 2).five_tuple;
    b.input(Input::LinkClosed { five_tuple: other, link });
    assert_eq!(b.server.allocations(), 1);
    b.grant(&login, refresh(None));
}

#[test]
fn the_end_of_a_connection_ends_an_opening_allocation_too() {
    let mut b = Bench::new();
    b.shell.hold = true;
    let login = b.login_from(client_on(Transport::Tcp, 1), "alice", "wonderland");
    let request = allocate().with(Attribute::EvenPort, &[0x80]);
    b.deliver(login.client, login.sign(request).bytes());
    let Client { five_tuple, link } = login.client;
    b.input(Input::LinkClosed { five_tuple, link });
    assert_eq!(b.server.allocations(), 0);
    b.open_held();
    b.assert_idle();
    assert!(b.shell.sent.is_empty());
}

#[test]
fn a_new_connection_of_the_same_client_starts_anew() {
    let mut b = Bench::new();
    let (login, _) = b.allocated_on(Transport::Tcp, 1);
    let Client { five_tuple, link } = login.client;
    b.input(Input::LinkClosed { five_tuple, link });
    let again = Login { client: Client { five_tuple, link: Link(99) }, ..login };
    assert_eq!(b.refuse(&again, refresh(None)), 437);
    let relayed = b.grant(&again, allocate()).relayed()[0];
    b.grant(&again, permission(&[PEER]));
    match b.peer_sends(relayed, PEER, b"x").unwrap() {
        Carried::ToClient { link, .. } => assert_eq!(link, Link(99)),
        other => panic!("{other:?}"),
    }
    // The end of the old connection, told late.
    b.input(Input::LinkClosed { five_tuple, link });
    assert_eq!(b.server.allocations(), 1);
}
