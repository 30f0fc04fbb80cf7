//! Allocations that follow their clients (RFC 8016).

use super::quota::Cluster;
use super::tcp_relay::{allocate_tcp, connection_bind};
use super::wire::{Request, allocate, bind, channel_data, permission, refresh, send};
use super::*;
use crate::auth::time_limited::{Mac, issue};

fn on(settings: &mut Settings) {
    settings.mobility = Some(Box::from(&b"ticket secret"[..]));
}

fn mobile() -> Bench {
    Bench::with(on)
}

/// An Allocate that asks for mobility.
fn roaming() -> Request {
    allocate().with(Attribute::MobilityTicket, &[])
}

/// A Refresh that shows a ticket.
fn showing(ticket: &[u8]) -> Request {
    refresh(None).with(Attribute::MobilityTicket, ticket)
}

fn ticket_in(reply: &Reply) -> Vec<u8> {
    reply.get(Attribute::MobilityTicket).expect("a ticket")
}

/// Alice at client 1, with a permission and a channel; her relayed address and ticket.
fn at_home(b: &mut Bench) -> (Login, SocketAddr, Vec<u8>) {
    let alice = b.login("alice", 1);
    let reply = b.grant(&alice, roaming());
    b.grant(&alice, permission(&[PEER]));
    b.grant(&alice, bind(0x4000, OTHER_PEER));
    (alice, reply.relayed()[0], ticket_in(&reply))
}

/// Where data of a peer goes.
fn heard_at(b: &mut Bench, relayed: SocketAddr) -> SocketAddr {
    match b.peer_sends(relayed, PEER, b"x") {
        Ok(Carried::ToClient { client, .. }) => client,
        other => panic!("{other:?}"),
    }
}

fn of(n: u8) -> SocketAddr {
    client(n).five_tuple.client.socket()
}

/// Client `n` shows a ticket and gets the next.
fn moves(b: &mut Bench, n: u8, ticket: &[u8]) -> Vec<u8> {
    let alice = b.login("alice", n);
    ticket_in(&b.grant(&alice, showing(ticket)))
}

#[test]
fn rfc8016_3_1_2_mobility_that_is_off_is_405() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    assert_eq!(b.refuse(&alice, roaming()), 405);
    b.assert_idle();
    b.grant(&alice, allocate());
}

#[test]
fn rfc8016_3_1_2_a_ticket_with_a_value_in_an_allocate_is_400() {
    let mut b = mobile();
    let alice = b.login("alice", 1);
    assert_eq!(b.refuse(&alice, allocate().with(Attribute::MobilityTicket, &[0])), 400);
}

#[test]
fn rfc8016_3_1_2_who_asks_gets_a_ticket() {
    let mut b = mobile();
    let alice = b.login("alice", 1);
    let request = alice.sign(roaming());
    let reply = b.ask(client(1), request.bytes());
    assert!(!ticket_in(&reply).is_empty());
    assert_eq!(b.ask(client(1), request.bytes()), reply, "also when it asks again");
    let (bob, _) = b.allocated("bob", 2);
    assert!(!b.grant(&bob, refresh(None)).has(Attribute::MobilityTicket), "who does not, does not");
    let third = b.login("alice", 3);
    assert_ne!(ticket_in(&b.grant(&third, roaming())), ticket_in(&reply));
}

#[test]
fn rfc8016_3_1_2_a_tcp_allocation_gets_no_ticket_and_stays_where_it_is() {
    let roaming_tcp = || allocate_tcp().with(Attribute::MobilityTicket, &[]);
    let mut b = Bench::with(|s| {
        on(s);
        s.relay.tcp = true;
    });
    let alice = b.login_from(client_on(Transport::Tcp, 1), "alice", "wonderland");
    let with_value = allocate_tcp().with(Attribute::MobilityTicket, &[0]);
    assert_eq!(b.refuse(&alice, with_value), 400);
    let request = alice.sign(roaming_tcp());
    let reply = b.ask(alice.client, request.bytes());
    assert!(reply.is_success() && !reply.has(Attribute::MobilityTicket), "without a ticket");
    assert_eq!(b.ask(alice.client, request.bytes()), reply, "also when it asks again");
    let other = b.login_from(client_on(Transport::Tcp, 2), "alice", "wonderland");
    let ticket = ticket_in(&b.grant(&other, roaming()));
    assert_eq!(b.refuse(&alice, showing(&ticket)), 437, "nor does one come to its five-tuple");
    let closed = alice.client;
    b.input(Input::LinkClosed { five_tuple: closed.five_tuple, link: closed.link });
    assert_eq!(b.server.allocations(), 1, "it ended with its connection");
    let mut off = Bench::with(|s| s.relay.tcp = true);
    let alice = off.login_from(client_on(Transport::Tcp, 1), "alice", "wonderland");
    assert_eq!(off.refuse(&alice, roaming_tcp()), 405, "where there is no mobility at all");
}

#[test]
fn rfc8016_3_2_2_a_refresh_with_a_ticket_moves_the_allocation() {
    let mut b = mobile();
    let (_, relayed, ticket) = at_home(&mut b);
    let moved = b.login("alice", 2);
    let reply = b.grant(&moved, showing(&ticket).lifetime(1200));
    assert_eq!(reply.lifetime(), 1200);
    assert_ne!(ticket_in(&reply), ticket, "the new ticket is another one");
    let data = b.carry(client(2), &channel_data(0x4000, b"up")).unwrap();
    assert_eq!(data.for_peer(), (addr(OTHER_PEER), b"up".to_vec()));
    assert_eq!(heard_at(&mut b, relayed), of(2));
    b.grant(&moved, refresh(None));
    b.grant(&moved, permission(&[OTHER_PEER]));
    assert_eq!(b.server.allocations(), 1);
}

#[test]
fn rfc8016_3_2_2_the_old_five_tuple_works_until_the_new_one_is_used() {
    let mut b = mobile();
    let (alice, relayed, ticket) = at_home(&mut b);
    moves(&mut b, 2, &ticket);
    for _ in 0..2 {
        assert_eq!(heard_at(&mut b, relayed), of(1));
        assert!(b.carry(client(1), &channel_data(0x4000, b"old")).is_ok());
        b.grant(&alice, refresh(None));
    }
    b.carry(client(2), &channel_data(0x4000, b"new")).unwrap();
    assert_eq!(heard_at(&mut b, relayed), of(2));
    let late = b.carry(client(1), &channel_data(0x4000, b"late"));
    assert_eq!(late, Err(DropReason::NoAllocation));
    assert_eq!(b.refuse(&alice, refresh(None)), 437);
    b.grant(&alice, allocate());
    assert_eq!(b.server.allocations(), 2, "the old five-tuple is free");
}

#[test]
fn rfc8016_3_2_2_anything_but_the_same_refresh_shows_that_the_client_is_there() {
    let indication = |b: &mut Bench, _: &Login| drop(b.carry(client(2), send(PEER, b"x").bytes()));
    let channel = |b: &mut Bench, _: &Login| drop(b.carry(client(2), &channel_data(0x4000, b"x")));
    let request = |b: &mut Bench, moved: &Login| drop(b.grant(moved, permission(&[PEER])));
    let plain = |b: &mut Bench, moved: &Login| drop(b.grant(moved, refresh(None)));
    type Way = fn(&mut Bench, &Login);
    for way in [indication as Way, channel, request, plain] {
        let mut b = mobile();
        let (_, relayed, ticket) = at_home(&mut b);
        let moved = b.login("alice", 2);
        b.grant(&moved, showing(&ticket));
        b.grant(&moved, showing(&ticket));
        assert_eq!(heard_at(&mut b, relayed), of(1));
        way(&mut b, &moved);
        assert_eq!(heard_at(&mut b, relayed), of(2));
        let told = b.shell.events.iter().any(|event| {
            matches!(event, Event::AllocationMoved { five_tuple, previous, .. }
                if (*five_tuple, *previous) == (client(2).five_tuple, client(1).five_tuple))
        });
        assert!(told, "{:?}", b.shell.events);
    }
}

#[test]
fn rfc8016_3_2_2_a_ticket_that_is_not_valid_is_400() {
    let mut b = mobile();
    let (_, _, ticket) = at_home(&mut b);
    let mut other = Bench::with(|s| s.mobility = Some(Box::from(&b"another secret"[..])));
    let (_, _, foreign) = at_home(&mut other);
    let moved = b.login("alice", 2);
    let mut altered = ticket.clone();
    altered[20] ^= 1;
    for wrong in [&[][..], &[0; 32], &ticket[1..], &ticket[..31], &foreign, &altered] {
        assert_eq!(b.refuse(&moved, showing(wrong)), 400);
    }
    b.grant(&moved, showing(&ticket));
}

#[test]
fn rfc8016_3_2_2_another_users_ticket_is_441() {
    let mut b = mobile();
    let (_, relayed, ticket) = at_home(&mut b);
    let bob = b.login("bob", 2);
    assert_eq!(b.refuse(&bob, showing(&ticket)), 441);
    assert_eq!(b.refuse(&bob, showing(&ticket).lifetime(0)), 441);
    assert_eq!(heard_at(&mut b, relayed), of(1));
    let stranger = Login { password: "wrong".into(), ..b.login("alice", 3) };
    assert_eq!(b.ask(client(3), stranger.sign(showing(&ticket)).bytes()).code(), 401);
    assert_eq!(b.ask(client(4), showing(&ticket).bytes()).code(), 401);
}

#[test]
fn rfc8016_3_2_2_a_ticket_from_the_same_five_tuple_is_400() {
    let mut b = mobile();
    let (alice, _, ticket) = at_home(&mut b);
    assert_eq!(b.refuse(&alice, showing(&ticket)), 400);
    let next = moves(&mut b, 2, &ticket);
    let moved = b.login("alice", 2);
    assert_eq!(b.refuse(&moved, showing(&next)), 400);
    b.grant(&moved, refresh(None));
    assert_eq!(b.refuse(&moved, showing(&next)), 400);
}

#[test]
fn rfc8016_3_2_2_the_ticket_of_an_allocation_that_is_gone_is_437() {
    let mut b = mobile();
    let (alice, _, ticket) = at_home(&mut b);
    b.grant(&alice, refresh(Some(0)));
    let moved = b.login("alice", 2);
    assert_eq!(b.refuse(&moved, showing(&ticket)), 437);
    let (_, _, ticket) = at_home(&mut b);
    b.skip(secs(601));
    let moved = b.login("alice", 2);
    assert_eq!(b.refuse(&moved, showing(&ticket)), 437, "cleaned up or not");
}

#[test]
fn rfc8016_3_2_2_mobility_that_was_switched_off_is_405() {
    let mut b = Bench::new();
    let moved = b.login("alice", 2);
    assert_eq!(b.refuse(&moved, showing(&[b'A'; 32])), 405);
}

#[test]
fn rfc8016_3_2_2_a_ticket_is_good_for_one_move() {
    let mut b = mobile();
    let (_, relayed, first) = at_home(&mut b);
    let second = moves(&mut b, 2, &first);
    b.carry(client(2), &channel_data(0x4000, b"x")).unwrap();
    let third = b.login("alice", 3);
    assert_eq!(b.refuse(&third, showing(&first)), 400);
    b.grant(&third, showing(&second));
    b.carry(client(3), &channel_data(0x4000, b"x")).unwrap();
    assert_eq!(heard_at(&mut b, relayed), of(3));
    let home = b.login("alice", 1);
    for used in [&first, &second] {
        assert_eq!(b.refuse(&home, showing(used)), 400);
    }
}

#[test]
fn rfc8016_3_2_2_a_repeated_refresh_is_answered_for_thirty_seconds() {
    let mut b = mobile();
    let (_, _, ticket) = at_home(&mut b);
    let moved = b.login("alice", 2);
    let request = moved.sign(showing(&ticket));
    let first = b.ask(client(2), request.bytes());
    b.advance(secs(1));
    assert_eq!(b.ask(client(2), request.bytes()), first, "while it is on its way");
    b.carry(client(2), &channel_data(0x4000, b"x")).unwrap();
    b.advance(secs(29));
    assert_eq!(b.ask(client(2), request.bytes()), first, "and when it is there");
    b.advance(secs(1));
    assert_eq!(b.ask(client(2), request.bytes()).code(), 400);
    b.grant(&moved, refresh(None));
}

#[test]
fn rfc8016_3_2_2_a_five_tuple_with_an_allocation_gets_437() {
    let mut b = mobile();
    let (_, relayed, ticket) = at_home(&mut b);
    let (taken, _) = b.allocated("alice", 2);
    assert_eq!(b.refuse(&taken, showing(&ticket)), 437);
    moves(&mut b, 3, &ticket);
    let awaited = b.login("alice", 3);
    assert_eq!(b.refuse(&awaited, allocate()), 437, "also one that is awaited there");
    assert_eq!(heard_at(&mut b, relayed), of(1));
}

#[test]
fn a_client_that_has_not_arrived_may_go_elsewhere() {
    for with_the_new_ticket in [false, true] {
        let mut b = mobile();
        let (_, relayed, first) = at_home(&mut b);
        let second = moves(&mut b, 2, &first);
        let third = moves(&mut b, 3, if with_the_new_ticket { &second } else { &first });
        assert_eq!(
            b.carry(client(2), &channel_data(0x4000, b"x")),
            Err(DropReason::NoAllocation),
            "it is not awaited there any more"
        );
        assert_eq!(heard_at(&mut b, relayed), of(1));
        b.carry(client(3), &channel_data(0x4000, b"x")).unwrap();
        let fourth = b.login("alice", 4);
        assert_eq!(b.refuse(&fourth, showing(&first)), 400);
        b.grant(&fourth, showing(&third));
    }
}

#[test]
fn rfc8016_3_2_1_a_refresh_with_a_ticket_can_delete() {
    let mut b = mobile();
    let (_, _, ticket) = at_home(&mut b);
    let moved = b.login("alice", 2);
    let reply = b.grant(&moved, refresh(Some(0)).with(Attribute::MobilityTicket, &ticket));
    assert_eq!((reply.lifetime(), reply.has(Attribute::MobilityTicket)), (0, false));
    b.assert_idle();
}

#[test]
fn rfc8016_3_2_2_the_end_of_the_old_connection_completes_the_move() {
    let mut b = mobile();
    let old = client_on(Transport::Tcp, 1);
    let alice = b.login_from(old, "alice", "wonderland");
    let reply = b.grant(&alice, roaming());
    b.grant(&alice, permission(&[PEER]));
    moves(&mut b, 2, &ticket_in(&reply));
    b.input(Input::LinkClosed { five_tuple: old.five_tuple, link: old.link });
    assert_eq!(heard_at(&mut b, reply.relayed()[0]), of(2));
    assert!(!b.server.has_allocation(&old.five_tuple));
}

#[test]
fn an_allocation_waits_for_a_client_whose_connection_ended() {
    let mut b = Bench::with(|s| {
        on(s);
        s.limits.allocations_per_user = 1;
    });
    let old = client_on(Transport::Tcp, 1);
    let alice = b.login_from(old, "alice", "wonderland");
    let reply = b.grant(&alice, roaming());
    let relayed = reply.relayed()[0];
    b.grant(&alice, permission(&[PEER]));
    b.input(Input::LinkClosed { five_tuple: old.five_tuple, link: old.link });
    assert!(!b.server.has_allocation(&old.five_tuple));
    assert_eq!(b.peer_sends(relayed, PEER, b"x"), Err(DropReason::ClientAway));
    // It still counts, so that nobody gets more than a share by hanging up.
    let again = b.login_from(Client { link: Link(77), ..old }, "alice", "wonderland");
    assert_eq!(b.refuse(&again, roaming()), 486);
    // The very five-tuple it had is as good as any.
    let ticket = ticket_in(&b.grant(&again, showing(&ticket_in(&reply))));
    match b.peer_sends(relayed, PEER, b"x") {
        Ok(Carried::ToClient { link, .. }) => assert_eq!(link, Link(77)),
        other => panic!("{other:?}"),
    }
    b.input(Input::LinkClosed { five_tuple: old.five_tuple, link: Link(77) });
    b.advance(secs(601));
    b.assert_idle();
    let late = b.login("alice", 2);
    assert_eq!(b.refuse(&late, showing(&ticket)), 437);
    b.grant(&late, allocate());
}

#[test]
fn the_end_of_a_connection_that_was_not_used_takes_nothing_along() {
    let mut b = mobile();
    let (_, relayed, ticket) = at_home(&mut b);
    let next = client_on(Transport::Tcp, 2);
    let moved = b.login_from(next, "alice", "wonderland");
    let second = ticket_in(&b.grant(&moved, showing(&ticket)));
    b.input(Input::LinkClosed { five_tuple: next.five_tuple, link: next.link });
    assert_eq!(heard_at(&mut b, relayed), of(1));
    let again = b.login("alice", 3);
    b.grant(&again, showing(&second));
    b.carry(client(3), &channel_data(0x4000, b"x")).unwrap();
    assert_eq!(heard_at(&mut b, relayed), of(3));
}

#[test]
fn a_user_whose_credential_has_expired_can_move() {
    let mut b = Bench::with(|s| {
        on(s);
        s.auth.directory = Some(directory(&["secret"]));
    });
    let (name, password) = issue("secret", "carol", EPOCH + 10, Mac::Sha1, ':');
    let carol = b.login_from(client(1), &name, &password);
    let ticket = ticket_in(&b.grant(&carol, roaming()));
    b.advance(secs(20));
    let moved = b.login_from(client(2), &name, &password);
    b.grant(&moved, showing(&ticket));
}

#[test]
fn routes_follow_the_client() {
    let mut b = mobile();
    let (_, _, ticket) = at_home(&mut b);
    moves(&mut b, 2, &ticket);
    b.shell.routes.clear();
    b.carry(client(2), &channel_data(0x4000, b"x")).unwrap();
    match b.shell.routes[..] {
        [Route::Remove { five_tuple: old, .. }, Route::Add { five_tuple: new, channel, .. }] => {
            assert_eq!((old, new), (client(1).five_tuple, client(2).five_tuple));
            assert_eq!(channel, 0x4000);
        }
        ref other => panic!("{other:?}"),
    }
}

// Across shards.

impl Cluster {
    /// A request at a shard, with all it takes; the answer, if there is one.
    fn try_ask(&mut self, shard: usize, login: &Login, request: Request) -> Option<Reply> {
        let bytes = login.sign(request).bytes().to_vec();
        let outcome = self.shards[shard].deliver(login.client, &bytes);
        self.carry();
        let reply = match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Queued => {
                let (to, reply) = self.shards[shard].shell.sent.pop_front()?;
                assert_eq!(to, login.client);
                reply
            }
            Outcome::Dropped(_) => return None,
            other => panic!("{other:?}"),
        };
        assert_eq!(reply.bytes[4..20], bytes[4..20], "of the same transaction");
        assert!(login.proves(&reply), "{reply:?}");
        Some(reply)
    }

    fn ask(&mut self, shard: usize, login: &Login, request: Request) -> Reply {
        self.try_ask(shard, login, request).expect("an answer")
    }

    /// Alice at client 1 of shard 0, with a permission and a channel.
    fn at_home(&mut self) -> (Login, SocketAddr, Vec<u8>) {
        let alice = self.shards[0].login("alice", 1);
        let reply = self.allocate(0, &alice, roaming());
        assert!(reply.is_success());
        self.shards[0].grant(&alice, permission(&[PEER]));
        self.shards[0].grant(&alice, bind(0x4000, OTHER_PEER));
        (alice, reply.relayed()[0], ticket_in(&reply))
    }

    /// Client `n` of a shard shows a ticket and gets the next.
    fn moves(&mut self, shard: usize, n: u8, ticket: &[u8]) -> Vec<u8> {
        let alice = self.shards[shard].login("alice", n);
        let reply = self.ask(shard, &alice, showing(ticket));
        assert!(reply.is_success(), "{}", reply.code());
        ticket_in(&reply)
    }

    /// Client `n` of a shard sends on its channel, which is lost, and has arrived.
    fn arrives(&mut self, shard: usize, n: u8) {
        let lost = self.shards[shard].carry(client(n), &channel_data(0x4000, b"x"));
        assert_eq!(lost, Err(DropReason::InProgress));
        self.carry();
        let data = self.shards[shard].carry(client(n), &channel_data(0x4000, b"up")).unwrap();
        assert_eq!(data.for_peer(), (addr(OTHER_PEER), b"up".to_vec()));
    }

    fn allocations(&self) -> Vec<usize> {
        self.shards.iter().map(|shard| shard.server.allocations()).collect()
    }
}

fn cluster(count: u16) -> Cluster {
    Cluster::with(count, |s| {
        on(s);
        s.limits.allocations_per_user = 1;
    })
}

#[test]
fn rfc8016_3_2_2_an_allocation_moves_to_another_shard() {
    let mut c = cluster(3);
    let (alice, relayed, ticket) = c.at_home();
    let second = c.moves(1, 2, &ticket);
    // The old five-tuple works as before.
    assert_eq!(heard_at(&mut c.shards[0], relayed), of(1));
    assert!(c.shards[0].carry(client(1), &channel_data(0x4000, b"x")).is_ok());
    c.shards[0].grant(&alice, refresh(None));
    assert_eq!(c.allocations(), [1, 0, 0]);
    c.arrives(1, 2);
    assert_eq!(c.allocations(), [0, 1, 0]);
    assert_eq!(heard_at(&mut c.shards[1], relayed), of(2));
    let late = c.shards[0].carry(client(1), &channel_data(0x4000, b"late"));
    assert_eq!(late, Err(DropReason::NoAllocation));
    c.shards[0].assert_idle();
    // On and on: the next ticket leads to where it is now.
    let third = c.moves(2, 3, &second);
    c.arrives(2, 3);
    c.moves(0, 1, &third);
    c.arrives(0, 1);
    assert_eq!(c.allocations(), [1, 0, 0]);
    assert_eq!(heard_at(&mut c.shards[0], relayed), of(1));
    // The quota was kept all along, and is given back once.
    let other = c.shards[1].login("alice", 9);
    assert_eq!(c.allocate(1, &other, allocate()).code(), 486);
    c.advance(secs(601));
    c.carry();
    c.assert_idle();
    assert!(c.allocate(1, &other, allocate()).is_success());
}

#[test]
fn a_move_takes_everything_along() {
    let mut c = cluster(2);
    let alice = c.shards[0].login("alice", 1);
    let dual = roaming()
        .lifetime(3600)
        .with(Attribute::AdditionalAddressFamily, &super::wire::family(Family::V6));
    let reply = c.allocate(0, &alice, dual);
    c.shards[0].grant(&alice, permission(&[PEER, PEER_V6]));
    c.shards[0].grant(&alice, bind(0x4000, OTHER_PEER));
    c.shards[0].carry(client(1), &channel_data(0x4000, b"12345")).unwrap();
    c.moves(1, 2, &ticket_in(&reply));
    c.arrives(1, 2);
    assert_eq!(heard_at(&mut c.shards[1], reply.relayed()[0]), of(2));
    assert!(c.shards[1].peer_sends(reply.relayed()[1], PEER_V6, b"x").is_ok());
    let stranger = c.shards[1].peer_sends(reply.relayed()[0], "198.51.100.9:1", b"x");
    assert_eq!(stranger, Err(DropReason::NoPermission));
    // The timers have come along, too.
    c.advance(secs(301));
    let expired = c.shards[1].peer_sends(reply.relayed()[0], PEER, b"x");
    assert_eq!(expired, Err(DropReason::NoPermission));
    let moved = c.shards[1].login("alice", 2);
    c.shards[1].grant(&moved, refresh(Some(0)));
    c.carry();
    c.assert_idle();
    let traffic = c.shards[1].shell.events.iter().find_map(|event| match event {
        Event::AllocationEnded { traffic, .. } => Some(traffic.bytes_to_peers),
        _ => None,
    });
    assert_eq!(traffic, Some(5 + 2), "what it relayed before counts");
}

#[test]
fn a_request_at_the_new_shard_waits_for_the_allocation() {
    let mut c = cluster(2);
    let (_, relayed, ticket) = c.at_home();
    c.moves(1, 2, &ticket);
    let moved = c.shards[1].login("alice", 2);
    assert!(c.ask(1, &moved, permission(&[PEER])).is_success());
    assert_eq!(heard_at(&mut c.shards[1], relayed), of(2));
    assert_eq!(c.ask(1, &moved, allocate()).code(), 437);
}

#[test]
fn rfc8016_3_2_2_a_repeated_refresh_at_another_shard_is_answered_alike() {
    let mut c = cluster(2);
    let (_, _, ticket) = c.at_home();
    let moved = c.shards[1].login("alice", 2);
    let request = showing(&ticket);
    let bytes = moved.sign(request.clone()).bytes().to_vec();
    assert!(matches!(c.shards[1].deliver(client(2), &bytes), Outcome::Queued));
    assert_eq!(c.shards[1].dropped(client(2), &bytes), DropReason::InProgress);
    c.carry();
    let (_, first) = c.shards[1].shell.sent.pop_front().expect("an answer");
    assert_eq!(c.ask(1, &moved, request.clone()), first, "the answer was lost");
    assert_eq!(c.allocations(), [1, 0], "asking again is no arrival");
    c.arrives(1, 2);
    assert_eq!(c.ask(1, &moved, request.clone()), first, "it has moved since");
    c.advance(secs(31));
    assert_eq!(c.ask(1, &moved, request).code(), 437, "it is no ticket of the new shard");
}

#[test]
fn refusals_come_back_from_the_owner() {
    let mut c = cluster(2);
    let (alice, relayed, ticket) = c.at_home();
    let bob = c.shards[1].login("bob", 3);
    assert_eq!(c.ask(1, &bob, showing(&ticket)).code(), 441);
    let liar = Login { password: "wrong".into(), ..c.shards[1].login("alice", 4) };
    let bytes = liar.sign(showing(&ticket)).bytes().to_vec();
    c.shards[1].deliver(client(4), &bytes);
    c.carry();
    assert_eq!(c.shards[1].shell.sent.pop_front().unwrap().1.code(), 401);
    // A client that does not own its address makes no shard write.
    let stale = Login { client: client(5), ..bob };
    let reply = c.shards[1].ask(client(5), stale.sign(showing(&ticket)).bytes());
    assert_eq!((reply.code(), c.shards[1].shell.to_shards.len()), (438, 0));
    assert_eq!(heard_at(&mut c.shards[0], relayed), of(1));
    c.shards[0].grant(&alice, refresh(Some(0)));
    c.carry();
    let moved = c.shards[1].login("alice", 2);
    assert_eq!(c.ask(1, &moved, showing(&ticket)).code(), 437);
    c.assert_idle();
}

#[test]
fn rfc8016_3_2_2_another_shard_deletes_with_a_ticket() {
    let mut c = cluster(2);
    let (_, _, ticket) = c.at_home();
    let moved = c.shards[1].login("alice", 2);
    let reply = c.ask(1, &moved, refresh(Some(0)).with(Attribute::MobilityTicket, &ticket));
    assert_eq!(reply.lifetime(), 0);
    c.assert_idle();
    assert!(c.allocate(1, &moved, roaming()).is_success(), "five-tuple and quota are free");
}

#[test]
fn an_allocation_that_ends_is_not_awaited_any_more() {
    let mut c = cluster(2);
    let (alice, _, ticket) = c.at_home();
    let second = c.moves(1, 2, &ticket);
    // The client shows up in the moment in which the allocation is deleted.
    assert_eq!(
        c.shards[1].carry(client(2), &channel_data(0x4000, b"x")),
        Err(DropReason::InProgress)
    );
    let moved = c.shards[1].login("alice", 2);
    let held = c.shards[1].deliver(client(2), moved.sign(refresh(None)).bytes());
    assert!(matches!(held, Outcome::Queued));
    c.shards[0].grant(&alice, refresh(Some(0)));
    c.carry();
    let (_, reply) = c.shards[1].shell.sent.pop_front().expect("what was held is answered");
    assert_eq!(reply.code(), 437);
    assert_eq!(c.ask(1, &moved, showing(&second)).code(), 437);
    c.assert_idle();
    assert!(c.allocate(1, &moved, roaming()).is_success());
}

#[test]
fn a_client_may_go_on_to_a_third_shard_before_it_arrives() {
    for with_the_new_ticket in [false, true] {
        let mut c = cluster(3);
        let (_, relayed, first) = c.at_home();
        let second = c.moves(1, 2, &first);
        let ticket = if with_the_new_ticket { &second } else { &first };
        let third = c.moves(2, 3, ticket);
        c.arrives(2, 3);
        assert_eq!(heard_at(&mut c.shards[2], relayed), of(3));
        assert_eq!(c.allocations(), [0, 0, 1]);
        assert_eq!(
            c.shards[1].carry(client(2), &channel_data(0x4000, b"x")),
            Err(DropReason::NoAllocation)
        );
        c.moves(0, 4, &third);
        c.arrives(0, 4);
        c.advance(secs(601));
        c.carry();
        c.assert_idle();
    }
}

fn tcp(n: u8) -> Client {
    client_on(Transport::Tcp, n)
}

fn hang_up(b: &mut Bench, client: Client) {
    b.input(Input::LinkClosed { five_tuple: client.five_tuple, link: client.link });
    assert!(!b.server.has_allocation(&client.five_tuple));
}

/// Alice over TCP at shard 0; her relayed address and ticket.
fn connected(c: &mut Cluster) -> (SocketAddr, Vec<u8>) {
    let alice = c.shards[0].login_from(tcp(1), "alice", "wonderland");
    let reply = c.allocate(0, &alice, roaming());
    c.shards[0].grant(&alice, permission(&[PEER]));
    c.shards[0].grant(&alice, bind(0x4000, OTHER_PEER));
    (reply.relayed()[0], ticket_in(&reply))
}

#[test]
fn a_new_connection_that_ends_unused_strands_nobody() {
    let mut c = cluster(3);
    let (relayed, first) = connected(&mut c);
    let alice = c.shards[1].login_from(tcp(2), "alice", "wonderland");
    let second = ticket_in(&c.ask(1, &alice, showing(&first)));
    hang_up(&mut c.shards[1], tcp(2));
    // The ticket it brought still leads to the allocation.
    c.moves(2, 3, &second);
    assert_eq!(c.allocations(), [0, 0, 1]);
    assert_eq!(heard_at(&mut c.shards[2], relayed), of(3));
    hang_up(&mut c.shards[0], tcp(1));
    c.advance(secs(601));
    c.carry();
    c.assert_idle();
}

#[test]
fn an_allocation_without_a_client_goes_at_once_to_where_the_client_is() {
    let mut c = cluster(2);
    let (relayed, ticket) = connected(&mut c);
    hang_up(&mut c.shards[0], tcp(1));
    assert_eq!(c.allocations(), [1, 0]);
    c.moves(1, 2, &ticket);
    assert_eq!(c.allocations(), [0, 1]);
    assert_eq!(heard_at(&mut c.shards[1], relayed), of(2));
    c.shards[0].assert_idle();
}

#[test]
fn rfc8016_3_2_2_the_end_of_the_old_connection_hands_over() {
    let mut c = cluster(2);
    let (relayed, ticket) = connected(&mut c);
    c.moves(1, 2, &ticket);
    assert_eq!(c.allocations(), [1, 0]);
    hang_up(&mut c.shards[0], tcp(1));
    c.carry();
    assert_eq!(c.allocations(), [0, 1]);
    assert_eq!(heard_at(&mut c.shards[1], relayed), of(2));
}

#[test]
fn an_allocation_handed_over_to_a_connection_that_has_ended_waits_for_the_next() {
    let mut c = cluster(2);
    let (relayed, first) = connected(&mut c);
    let alice = c.shards[1].login_from(tcp(2), "alice", "wonderland");
    let second = ticket_in(&c.ask(1, &alice, showing(&first)));
    let lost = c.shards[1].carry(tcp(2), &channel_data(0x4000, b"x"));
    assert_eq!(lost, Err(DropReason::InProgress));
    hang_up(&mut c.shards[1], tcp(2));
    c.carry();
    assert_eq!(c.allocations(), [0, 1]);
    let away = c.shards[1].peer_sends(relayed, PEER, b"x");
    assert_eq!(away, Err(DropReason::ClientAway));
    c.moves(0, 3, &second);
    assert_eq!(c.allocations(), [1, 0]);
    assert_eq!(heard_at(&mut c.shards[0], relayed), of(3));
}

#[test]
fn a_full_shard_takes_nobody_in() {
    let mut c = Cluster::with(2, |s| {
        on(s);
        s.limits.allocations = 1;
    });
    let (_, relayed, ticket) = c.at_home();
    let bob = c.shards[1].login("bob", 9);
    assert!(c.allocate(1, &bob, allocate()).is_success());
    let moved = c.shards[1].login("alice", 2);
    assert_eq!(c.ask(1, &moved, showing(&ticket)).code(), 508);
    assert_eq!(heard_at(&mut c.shards[0], relayed), of(1));
    c.shards[1].grant(&bob, refresh(Some(0)));
    c.moves(1, 2, &ticket);
    let bob = c.shards[1].login("bob", 10);
    assert_eq!(c.allocate(1, &bob, allocate()).code(), 508, "the place is taken");
    c.arrives(1, 2);
}

#[test]
fn questions_to_other_shards_are_bounded() {
    let mut c = Cluster::with(2, |s| {
        on(s);
        s.limits.pending = 2;
    });
    let (_, _, ticket) = c.at_home();
    let outcomes: Vec<bool> = (2..6)
        .map(|n| {
            let alice = c.shards[1].login("alice", n);
            let bytes = alice.sign(showing(&ticket)).bytes().to_vec();
            matches!(c.shards[1].deliver(client(n), &bytes), Outcome::Queued)
        })
        .collect();
    assert_eq!(outcomes, [true, true, false, false]);
    c.carry();
    c.shards[1].shell.sent.clear();
    // The last that was granted counts.
    c.arrives(1, 3);
    assert_eq!(c.allocations(), [0, 1]);
    c.advance(secs(601));
    c.carry();
    c.assert_idle();
}

/// A client that moves about at random, over shards whose messages take their time
/// and connections that break.
struct Roamer {
    c: Cluster,
    /// By client: its login. The kernel keeps a client on one shard.
    logins: Vec<Login>,
    /// Tickets it was given, the newest last.
    tickets: Vec<Vec<u8>>,
    state: u64,
}

impl Roamer {
    const SHARDS: usize = 4;
    const CLIENTS: u8 = 12;

    fn new(seed: u64) -> Self {
        let mut c = cluster(Self::SHARDS as u16);
        let logins: Vec<Login> = (0..Self::CLIENTS)
            .map(|n| {
                let transport = if n % 2 == 0 { Transport::Udp } else { Transport::Tcp };
                let from = client_on(transport, n);
                c.shards[Self::shard(n)].login_from(from, "alice", "wonderland")
            })
            .collect();
        let reply = c.allocate(0, &logins[0], roaming().lifetime(3600));
        c.shards[0].grant(&logins[0], bind(0x4000, OTHER_PEER));
        Self { c, logins, tickets: vec![ticket_in(&reply)], state: seed }
    }

    fn shard(n: u8) -> usize {
        usize::from(n) % Self::SHARDS
    }

    /// SplitMix64.
    fn below(&mut self, end: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn step(&mut self) {
        let n = self.below(usize::from(Self::CLIENTS)) as u8;
        let (shard, login) = (Self::shard(n), self.logins[usize::from(n)].clone());
        let (action, age) = (self.below(16), self.below(3));
        let b = &mut self.c.shards[shard];
        match action {
            0..4 => {
                let newest = self.tickets.len() - 1;
                let ticket = self.tickets[newest.saturating_sub(age)].clone();
                let request = login.sign(showing(&ticket).lifetime(3600));
                let outcome = self.c.shards[shard].deliver(login.client, request.bytes());
                if let Outcome::Reply(reply) = outcome {
                    self.heard(&reply);
                }
            }
            4..7 => drop(b.carry(login.client, &channel_data(0x4000, b"x"))),
            7 => drop(b.deliver(login.client, login.sign(refresh(Some(3600))).bytes())),
            8 if login.client.five_tuple.transport == Transport::Tcp => {
                hang_up(b, login.client);
                let link = Link(login.client.link.0 + 1000);
                self.logins[usize::from(n)].client.link = link;
            }
            9 => self.c.advance(Duration::from_millis(500)),
            _ => drop(self.c.carry_from(shard)),
        }
        self.listen();
    }

    fn heard(&mut self, reply: &Reply) {
        self.tickets.extend(reply.get(Attribute::MobilityTicket));
    }

    fn listen(&mut self) {
        for shard in 0..Self::SHARDS {
            while let Some((_, reply)) = self.c.shards[shard].shell.sent.pop_front() {
                self.heard(&reply);
            }
        }
    }
}

#[test]
fn whoever_moves_about_at_random_neither_loses_nor_leaks_anything() {
    for seed in 0..200 {
        let mut r = Roamer::new(seed);
        for _ in 0..300 {
            r.step();
        }
        r.c.carry();
        r.listen();
        assert_eq!(r.c.allocations().iter().sum::<usize>(), 1, "seed {seed}");
        // One of its tickets still leads to it, mostly the newest.
        let found = (0..r.tickets.len()).rev().any(|i| {
            let alice = r.c.shards[1].login("alice", 100);
            let ticket = r.tickets[i].clone();
            r.c.try_ask(1, &alice, showing(&ticket).lifetime(0)).is_some_and(|r| r.is_success())
        });
        if !found {
            r.c.advance(secs(3601));
            r.c.carry();
        }
        assert!(found, "seed {seed}: the allocation is out of reach");
        r.c.assert_idle();
        let (first, b) = (r.logins[0].clone(), &mut r.c);
        assert!(b.allocate(0, &first, roaming()).is_success(), "seed {seed}: quota and five-tuple");
    }
}

#[test]
fn a_refresh_from_a_new_five_tuple_needs_a_nonce_of_its_own() {
    let mut b = mobile();
    let (alice, relayed, ticket) = at_home(&mut b);
    let replayed = Login { client: client(2), ..alice };
    for _ in 0..2 {
        // Also where the client is awaited, the second time.
        for request in [showing(&ticket), refresh(Some(0))] {
            assert_eq!(b.ask(client(2), replayed.sign(request).bytes()).code(), 438);
        }
        assert_eq!(heard_at(&mut b, relayed), of(1));
        moves(&mut b, 2, &ticket);
    }
}

#[test]
fn a_client_whose_allocation_is_to_come_is_not_handed_over() {
    let mut c = Cluster::with(2, |s| {
        on(s);
        s.relay.tcp = true;
    });
    let (_, _, ticket) = c.at_home();
    let from = client_on(Transport::Tcp, 2);
    let alice = c.shards[1].login_from(from, "alice", "wonderland");
    assert!(c.ask(1, &alice, showing(&ticket)).is_success());
    // The id is one of shard 0; the allocation comes to the connection, which stays.
    assert_eq!(c.ask(1, &alice, connection_bind(1)).code(), 400);
    assert_eq!(c.allocations(), [0, 1]);
}
