//! How long a mapping lives.

use std::time::Duration;

use super::super::{Filtering, Finding, Lifetime, Mapping, Outcome, Progress, Unknown, classify};
use super::nat::Nat;
use super::server::ResponsePort;
use super::world::{Run, World};

fn world(mapping: Mapping, lifetime: u64, longest: u64) -> World {
    let nat = Nat::new("203.0.113.7", mapping, Filtering::AddressAndPortDependent);
    let mut world = World::new(vec![Nat { lifetime: Duration::from_secs(lifetime), ..nat }]);
    world.lifetime = Some(Duration::from_secs(longest));
    world
}

fn bounds(run: &Run) -> (u64, Option<u64>) {
    let Finding::Known(Lifetime { at_least, less_than }) = run.report.lifetime else {
        panic!("{:?}", run.report.lifetime)
    };
    (at_least.as_secs(), less_than.map(|most| most.as_secs()))
}

#[test]
fn the_bounds_hold_and_are_close() {
    for mapping in [Mapping::EndpointIndependent, Mapping::AddressAndPortDependent] {
        for lifetime in [30, 60, 65, 180, 300] {
            let run = world(mapping, lifetime, 600).run();
            let (at_least, less_than) = bounds(&run);
            let less_than = less_than.expect("it ends");
            // A packet is under way for less than a second.
            assert!(at_least <= lifetime && lifetime <= less_than + 1, "{at_least} {less_than}");
            assert!(less_than <= at_least * 5 / 4 + 1, "{at_least} {less_than}");
            assert_eq!(
                classify(&run.report) == Outcome::Symmetric,
                mapping != Mapping::EndpointIndependent
            );
            assert!(run.took.as_secs() < lifetime * 3 / 2 + 30, "{lifetime}: {:?}", run.took);
            assert!(
                run.news.contains(&Progress::MappingAlive { after: Duration::from_secs(at_least) })
            );
        }
    }
}

#[test]
fn loss_does_not_shorten_it() {
    for seed in 0..20 {
        let mut world = world(Mapping::EndpointIndependent, 60, 120).seed(seed);
        world.loss = 10;
        let (at_least, less_than) = bounds(&world.run());
        assert!(
            at_least <= 60 && less_than.is_none_or(|most| most >= 59),
            "{at_least} {less_than:?}"
        );
    }
}

#[test]
fn it_may_outlive_the_test() {
    let run = world(Mapping::EndpointIndependent, 120, 40).run();
    assert_eq!(bounds(&run), (40, None));
}

#[test]
fn ctrl_c_keeps_what_is_known() {
    let mut world = world(Mapping::EndpointIndependent, 300, 600);
    world.interrupt_after = Some(Duration::from_secs(60));
    let (at_least, less_than) = bounds(&world.run());
    assert!((40..=60).contains(&at_least) && less_than.is_none(), "{at_least} {less_than:?}");
}

#[test]
fn servers_that_count_the_padding_of_response_port() {
    let mut world = world(Mapping::EndpointIndependent, 30, 60);
    world.server.response_port = ResponsePort::Honoured(4);
    let (at_least, less_than) = bounds(&world.run());
    assert!(at_least <= 30 && less_than.is_some_and(|most| most >= 29));
}

#[test]
fn servers_without_response_port() {
    for (how, why) in [
        (ResponsePort::Ignored, Unknown::ServerIgnores),
        (ResponsePort::Refused, Unknown::ServerRefuses),
    ] {
        let mut world = world(Mapping::EndpointIndependent, 30, 60);
        world.server.response_port = how;
        let run = world.run();
        assert_eq!(run.report.lifetime, Finding::Unknown(why));
        assert_eq!(classify(&run.report), Outcome::PortRestrictedCone);
    }
}

#[test]
fn without_a_nat_there_is_none() {
    let mut world = World::new(vec![]);
    world.lifetime = Some(Duration::from_secs(60));
    assert_eq!(world.run().report.lifetime, Finding::Unknown(Unknown::NoNat));
}
