//! What is always true of a shard's state. Checked by tests and simulation.

use std::net::SocketAddr;

use super::Server;
use super::allocation::{Allocation, Stage, slot};
use super::mobility::Next;
use super::table::Table;
use super::vocabulary::{AllocationId, Client, RelayTransport};
use crate::net::Now;

/// Panics when something does not hold.
pub(super) fn check(server: &Server, now: Now) {
    let mut counted_here = 0u64;
    let mut relayed = 0;
    let mut five_tuples = 0;
    for (id, a) in server.table.iter() {
        five_tuples += check_five_tuples(server, id, a);
        a.channels.check_invariants();
        assert!(a.channels.len() <= server.settings.limits.channels, "bounded channels");
        assert!(a.permissions.len() <= server.settings.limits.permissions, "bounded permissions");
        for channel in a.channels.iter().filter(|c| c.expires > now.mono) {
            assert!(
                a.permitted(channel.peer.ip(), now.mono).is_some(),
                "a channel has a permission"
            );
        }
        let udp = a.transport == RelayTransport::Udp;
        for relay in a.relays.iter().flatten().filter(|_| udp) {
            assert!(
                is_consistent(&server.table, relay.advertised, a),
                "found by advertised address"
            );
            assert!(
                is_consistent(&server.table, relay.local.socket(), a),
                "found by local address"
            );
            relayed += if relay.advertised == relay.local.socket() { 1 } else { 2 };
        }
        match &a.stage {
            Stage::Live(_) => {
                assert!(a.relays.iter().any(Option::is_some), "a live allocation relays");
                assert!(a.wakes.is_some(), "a live allocation has a timer");
                let next = a.next_expiry().expect("a live allocation expires");
                assert!(a.wakes <= Some(next), "its timer is not late");
            }
            Stage::Opening(_) => assert!(a.permissions.is_empty(), "nothing before it is live"),
        }
        assert!(udp || a.channels.is_empty(), "channels are of UDP");
        let home = server.shard.home_of(&a.identity.user, server.seed);
        counted_here += u64::from(a.counted && home == server.shard.index);
    }
    assert_eq!(server.table.five_tuples_len(), five_tuples, "no stale five-tuples");
    server.arrivals.check();
    assert!(server.arrivals.asking() <= server.settings.limits.pending, "bounded arrivals");
    assert_eq!(server.table.iter().count(), server.table.len(), "allocations are counted");
    assert_eq!(server.table.relayed_len(), relayed, "no stale relayed addresses");
    check_connections(server);
    let taken = server.table.len() + server.arrivals.granted();
    assert!(taken <= server.settings.limits.allocations, "bounded allocations");
    assert!(server.pending.len() <= server.settings.limits.pending, "bounded pending requests");
    if server.shard.count == 1 {
        assert_eq!(server.ledger.total(), counted_here, "the ledger counts what is there");
    }
}

/// The five-tuples of an allocation lead to it; how many it has.
fn check_five_tuples(server: &Server, id: AllocationId, a: &Allocation) -> usize {
    let leads_here = |client: &Client| server.table.find(&client.five_tuple) == Some(id);
    let mut count = usize::from(!a.is_adrift());
    assert!(a.is_adrift() || leads_here(&a.client), "found by its five-tuple");
    let Some(mobility) = &a.mobility else { return count };
    assert!(a.is_live(), "only a live allocation is mobile");
    assert_eq!(a.transport, RelayTransport::Udp, "connections with peers do not move");
    if let Some(Next::Here(client)) = &mobility.next {
        assert!(leads_here(client), "found by the five-tuple that its client is going to");
        assert_ne!(client.five_tuple, a.client.five_tuple, "which is another one");
        count += 1;
    }
    if let Some(Next::Away { shard, .. }) = mobility.next {
        assert_ne!(shard, server.shard.index, "away is elsewhere");
    }
    let awaited_here = matches!(mobility.next, Some(Next::Here(_)));
    assert!(!a.is_adrift() || !awaited_here, "a client that came back is not adrift");
    count
}

/// The connections with peers: each belongs to a live TCP allocation, and is found
/// by whatever finds it.
fn check_connections(server: &Server) {
    let (connections, limits) = (&server.connections, &server.settings.limits);
    let (mut ids, mut links) = (0, 0);
    for (id, c) in connections.iter() {
        let owner = server.table.get(c.allocation).expect("no connection outlives its allocation");
        assert!(owner.is_live() && owner.transport == RelayTransport::Tcp, "of a TCP allocation");
        let relay = owner.relays[slot(c.peer.family())];
        assert!(relay.is_some(), "no connection outlives its relayed address");
        assert!(owner.client.five_tuple.transport.is_stream(), "for clients with connections");
        assert_eq!(server.shard.of_connection(id), server.shard.index, "named after its shard");
        assert_eq!(connections.find_peer(c.allocation, c.peer), Some(id), "found by its peer");
        assert_eq!(c.link().and_then(|link| connections.find(link)), c.link().map(|_| id));
        let held = connections.count_of(c.allocation);
        assert!(held <= limits.peer_connections, "bounded connections");
        let of_user = connections.count_of_user(&c.user);
        assert!(of_user <= limits.all_peer_connections.div_ceil(2), "bounded for each user");
        assert_eq!(c.user, owner.identity.user, "counted for whom the allocation is counted");
        ids += 1;
        links += usize::from(c.link().is_some());
    }
    assert!(ids <= limits.all_peer_connections, "bounded in all");
    assert_eq!(connections.lens(), [ids, links, ids, ids, ids], "no stale connections");
}

/// Whether a relayed address leads to this allocation.
fn is_consistent(table: &Table, relayed: SocketAddr, allocation: &Allocation) -> bool {
    let found = table.find_relayed(relayed).and_then(|id| table.get(id.allocation));
    found.is_some_and(|found| found.client.five_tuple == allocation.client.five_tuple)
}
