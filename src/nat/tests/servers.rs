//! Servers that are less than they should be, and paths to none.

use std::time::Duration;

use super::super::{
    Contact, Filtering, Finding, Mapping, Misbehaviour, Misrouted, Outcome, Unknown, calls,
    classify,
};
use super::addr;
use super::nat::Nat;
use super::server::{Behaviour, Change, Server};
use super::world::World;

fn cone() -> Nat {
    Nat::new("203.0.113.7", Mapping::EndpointIndependent, Filtering::AddressAndPortDependent)
}

fn symmetric() -> Nat {
    Nat { mapping: Mapping::AddressAndPortDependent, ..cone() }
}

fn with(change: impl FnOnce(&mut Server)) -> World {
    let mut world = World::new(vec![cone()]);
    change(&mut world.server);
    world
}

#[test]
fn udp_is_blocked() {
    let blocked = || vec![Nat { blocks_udp: true, ..cone() }];
    let report = World::new(blocked()).run().report;
    assert_eq!(report.contact, Contact::TcpOnly { port: 3478 });
    assert_eq!(classify(&report), Outcome::UdpBlocked);

    let mut world = World::new(blocked());
    world.server.tcp = Behaviour::Silent;
    world.server.https = Behaviour::Binding;
    let report = world.run().report;
    assert_eq!(report.contact, Contact::TcpOnly { port: 443 });

    // A connection that is neither accepted nor refused says nothing in time.
    let mut world = World::new(blocked());
    world.server.web_only = true;
    world.server.https = Behaviour::Binding;
    let run = world.run();
    assert_eq!(run.report.contact, Contact::TcpOnly { port: 443 });
    assert!(run.took < Duration::from_secs(8), "{:?}", run.took);

    // A web server there says nothing about STUN.
    let mut world = World::new(blocked());
    world.server.tcp = Behaviour::Silent;
    world.server.https = Behaviour::Garbage;
    let report = world.run().report;
    assert_eq!(classify(&report), Outcome::Unavailable);
    assert_eq!(calls(&report), None);
}

#[test]
fn nothing_answers() {
    let mut world = with(|server| server.udp = Behaviour::Silent);
    world.server.tcp = Behaviour::Silent;
    let run = world.run();
    assert_eq!(classify(&run.report), Outcome::Unavailable);
    assert!(run.took < Duration::from_secs(8), "{:?}", run.took);
}

#[test]
fn this_system_does_not_send() {
    let mut world = with(|server| server.tcp = Behaviour::Silent);
    world.send_error = Some("Operation not permitted");
    let report = world.run().report;
    assert_eq!(report.contact, Contact::Local { why: "Operation not permitted".into() });
    assert_eq!(classify(&report), Outcome::Local);

    // Where TCP passes, it is UDP that is blocked, be it by this system.
    let mut world = with(|_| {});
    world.send_error = Some("Operation not permitted");
    assert_eq!(classify(&world.run().report), Outcome::UdpBlocked);
}

#[test]
fn what_answers_is_no_stun_server() {
    let elsewhere = addr("198.51.100.77:3478");
    for (udp, expected) in [
        (Behaviour::Garbage, "bytes that are no STUN message"),
        (Behaviour::Echo, "no answer to a Binding request"),
        (Behaviour::WrongTransaction, "another transaction"),
        (Behaviour::Error(401), "credentials"),
        (Behaviour::Error(500), "error 500 (No)"),
        (Behaviour::AnswersFrom(elsewhere), "198.51.100.77:3478"),
    ] {
        let mut world = with(|server| server.udp = udp);
        // Its answer from elsewhere would not pass a filter.
        if udp == Behaviour::AnswersFrom(elsewhere) {
            world = World::new(vec![]);
            world.server.udp = udp;
        }
        let report = world.run().report;
        assert_eq!(classify(&report), Outcome::Protocol, "{udp:?}");
        let Contact::Misbehaves(how) = &report.contact else { panic!("{report:?}") };
        assert!(how.to_string().contains(expected), "{how}");
    }
}

#[test]
fn an_other_address_that_cannot_be_true() {
    for (other, name) in [
        ("0.0.0.0:3479", "unspecified"),
        ("10.0.0.9:3479", "private"),
        ("224.0.0.5:3479", "multicast"),
        ("255.255.255.255:3479", "broadcast"),
        ("127.0.0.1:3479", "loopback"),
        ("198.51.100.1:3479", "same-address"),
        ("198.51.100.2:3478", "same-port"),
        ("[2001:db8::2]:3479", "other-family"),
    ] {
        let report = with(|server| server.other_address = Some(addr(other))).run().report;
        assert_eq!(classify(&report), Outcome::Protocol, "{other}");
        let Contact::Misbehaves(Misbehaviour::Lies(lie)) = report.contact else {
            panic!("{report:?}")
        };
        assert_eq!(lie.why.name(), name);
        assert!(report.mapped.is_some(), "what it did see is still told");
    }
}

#[test]
fn an_other_address_where_nobody_is() {
    let mut world = World::new(vec![cone()]);
    world.server.alternate_is_silent = true;
    let report = world.run().report;
    assert_eq!(report.mapping, Finding::Unknown(Unknown::AlternateSilent));
    // Silence from those who never speak does not make a filter.
    assert_eq!(report.filtering, Finding::Unknown(Unknown::AlternateSilent));
    assert_eq!(classify(&report), Outcome::Inconclusive);
}

#[test]
fn a_server_that_answers_change_request_from_where_it_was_asked() {
    for nats in [vec![], vec![cone()]] {
        let mut world = World::new(nats);
        world.server.change = Change::Ignored;
        let report = world.run().report;
        assert_eq!(classify(&report), Outcome::Protocol);
        let expected = addr("198.51.100.2:3479");
        assert_eq!(report.misrouted, Some(Misrouted { expected, from: report.server }));
    }
}

#[test]
fn a_server_that_refuses_change_request() {
    let run = with(|server| server.change = Change::Refused).run();
    assert_eq!(run.report.mapping, Finding::Known(Mapping::EndpointIndependent));
    assert_eq!(run.report.filtering, Finding::Unknown(Unknown::ServerRefuses));
    assert_eq!(classify(&run.report), Outcome::NotDecidable);
}

#[test]
fn a_server_with_one_address() {
    let report = with(|server| server.other_address = None).run().report;
    assert_eq!(classify(&report), Outcome::NotDecidable);
    for unknown in [report.mapping.unknown(), report.filtering.unknown()] {
        assert_eq!(unknown, Some(Unknown::NoOtherAddress));
    }
    assert!(report.mapped.is_some() && report.ports.known().is_some());
}

#[test]
fn a_second_server_tells_the_mapping() {
    for (nat, second, mapping, outcome) in [
        (cone(), "192.0.2.1:3478", Mapping::EndpointIndependent, Outcome::NotDecidable),
        (symmetric(), "192.0.2.1:3478", Mapping::Dependent, Outcome::Symmetric),
        (symmetric(), "198.51.100.1:3479", Mapping::AddressAndPortDependent, Outcome::Symmetric),
    ] {
        let mut world = World::new(vec![nat]);
        world.server.other_address = None;
        world.second = Some(Server { primary: addr(second), ..world.server.clone() });
        let report = world.run().report;
        assert_eq!(report.mapping, Finding::Known(mapping), "{second}");
        assert_eq!(classify(&report), outcome, "{second}");
    }
    // The same address again does not tell an endpoint-independent mapping from an
    // address-dependent one.
    let mut world = World::new(vec![cone()]);
    world.server.other_address = None;
    world.second = Some(Server { primary: addr("198.51.100.1:3479"), ..world.server.clone() });
    assert_eq!(world.run().report.mapping, Finding::Unknown(Unknown::NoOtherAddress));
}

#[test]
fn a_server_behind_a_1_1_nat_says_public_addresses() {
    let mut world = with(|server| {
        server.primary = addr("10.1.0.1:3478");
        server.alternate = addr("10.1.0.2:3479");
        server.other_address = Some(addr("10.1.0.2:3479"));
    });
    world.server.pads = false;
    let report = world.run().report;
    assert_eq!(classify(&report), Outcome::PortRestrictedCone);
    // An error is an answer too: the long request has arrived.
    assert!(report.request_fragments.known().is_some());
    assert_eq!(report.response_fragments, Finding::Unknown(Unknown::ServerRefuses));
}

#[test]
fn no_tcp_takes_nothing_from_the_rest() {
    let report = with(|server| server.tcp = Behaviour::Silent).run().report;
    assert_eq!(report.tcp_mapping, Finding::Unknown(Unknown::NoTcp));
    assert_eq!(classify(&report), Outcome::PortRestrictedCone);
}
