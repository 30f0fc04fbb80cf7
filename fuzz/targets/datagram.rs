//! Any bytes as a datagram: from a client with an allocation, and from a stranger.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sturn_fuzz::Fixture;

fuzz_target!(|packet: &[u8]| {
    Fixture::reused(|fixture| {
        fixture.from_client(0, packet);
        // Its peer is the first client's relayed transport address.
        fixture.from_client(3, packet);
        fixture.from_client(2, packet);
    });
});
