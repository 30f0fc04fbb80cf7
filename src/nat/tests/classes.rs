//! Every NAT is told for what it is.

use std::time::Duration;

use super::super::{
    Filtering, Finding, Fragments, Hairpin, Mapping, Outcome, Pooling, Ports, Unknown, classify,
};
use super::nat::{Nat, PortPolicy};
use super::world::{Run, World};

const EXTERNAL: &str = "203.0.113.7";
const MAPPINGS: [Mapping; 3] =
    [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
const FILTERINGS: [Filtering; 3] = [
    Filtering::EndpointIndependent,
    Filtering::AddressDependent,
    Filtering::AddressAndPortDependent,
];

fn class(mapping: Mapping, filtering: Filtering) -> Outcome {
    match (mapping, filtering) {
        (Mapping::EndpointIndependent, Filtering::EndpointIndependent) => Outcome::FullCone,
        (Mapping::EndpointIndependent, Filtering::AddressDependent) => Outcome::RestrictedCone,
        (Mapping::EndpointIndependent, _) => Outcome::PortRestrictedCone,
        _ => Outcome::Symmetric,
    }
}

fn nat(mapping: Mapping, filtering: Filtering) -> Nat {
    Nat::new(EXTERNAL, mapping, filtering)
}

fn firewall(filtering: Filtering) -> Nat {
    Nat { transparent: true, ..nat(Mapping::EndpointIndependent, filtering) }
}

#[test]
fn every_mapping_filtering_port_policy_and_hairpin() {
    for mapping in MAPPINGS {
        for filtering in FILTERINGS {
            for ports in [PortPolicy::Preserve, PortPolicy::KeepParity, PortPolicy::Change] {
                for hairpin in [None, Some(true), Some(false)] {
                    let nat = Nat { ports, hairpin, ..nat(mapping, filtering) };
                    let what = format!("{mapping:?} {filtering:?} {ports:?} {hairpin:?}");
                    let run = World::new(vec![nat]).run();
                    check(&run, mapping, filtering, &what);
                    check_ports(&run, ports, &what);
                    check_hairpin(&run, (mapping, filtering), hairpin, &what);
                    assert!(run.took < Duration::from_secs(12), "{what}: {:?}", run.took);
                }
            }
        }
    }
}

fn check(run: &Run, mapping: Mapping, filtering: Filtering, what: &str) {
    let report = &run.report;
    assert_eq!(report.mapping, Finding::Known(mapping), "{what}");
    assert_eq!(report.filtering, Finding::Known(filtering), "{what}");
    assert_eq!(report.tcp_mapping, Finding::Known(mapping), "{what}");
    assert_eq!(report.pooling, Finding::Known(Pooling::Paired), "{what}");
    assert_eq!(report.request_fragments, Finding::Known(Fragments::Pass), "{what}");
    assert_eq!(report.response_fragments, Finding::Known(Fragments::Pass), "{what}");
    assert_eq!(classify(report), class(mapping, filtering), "{what}");
    assert_eq!(report.is_untranslated(), Some(false), "{what}");
}

fn check_ports(run: &Run, policy: PortPolicy, what: &str) {
    let ports @ Ports { sockets, preserved, parity_preserved } =
        run.report.ports.known().expect(what);
    assert_eq!(sockets, 8, "{what}");
    match policy {
        PortPolicy::Preserve => assert_eq!((preserved, parity_preserved), (8, 8), "{what}"),
        PortPolicy::KeepParity => assert_eq!((preserved, parity_preserved), (0, 8), "{what}"),
        PortPolicy::Change => {
            assert_eq!(preserved, 0, "{what}");
            assert!(parity_preserved < 8, "{what}: {ports:?}");
        }
    }
}

fn check_hairpin(
    run: &Run,
    (mapping, filtering): (Mapping, Filtering),
    hairpin: Option<bool>,
    what: &str,
) {
    // A mapping of its own for the other socket opens no filter of the one that the
    // server saw.
    let shut =
        mapping != Mapping::EndpointIndependent && filtering != Filtering::EndpointIndependent;
    let expected = match hairpin {
        Some(true) if !shut => Hairpin::External,
        Some(false) if !shut => Hairpin::Internal,
        _ => Hairpin::No,
    };
    assert_eq!(run.report.hairpin, Finding::Known(expected), "{what}");
}

#[test]
fn two_nats_are_as_strict_as_the_stricter() {
    for outer_mapping in MAPPINGS {
        for inner_mapping in MAPPINGS {
            for outer_filtering in FILTERINGS {
                for inner_filtering in FILTERINGS {
                    let inner = Nat::new("100.64.0.2", inner_mapping, inner_filtering);
                    let outer = nat(outer_mapping, outer_filtering);
                    let strictest = |a: usize, b: usize| a.max(b);
                    let index = |m| MAPPINGS.iter().position(|x| *x == m).unwrap();
                    let rank = |f| FILTERINGS.iter().position(|x| *x == f).unwrap();
                    let mapping = MAPPINGS[strictest(index(inner_mapping), index(outer_mapping))];
                    let filtering =
                        FILTERINGS[strictest(rank(inner_filtering), rank(outer_filtering))];
                    let run = World::new(vec![inner, outer]).run();
                    let what = format!(
                        "{inner_mapping:?}/{inner_filtering:?} in {outer_mapping:?}/{outer_filtering:?}"
                    );
                    assert_eq!(run.report.mapping, Finding::Known(mapping), "{what}");
                    assert_eq!(run.report.filtering, Finding::Known(filtering), "{what}");
                    assert_eq!(classify(&run.report), class(mapping, filtering), "{what}");
                }
            }
        }
    }
}

#[test]
fn without_a_nat() {
    let run = World::new(vec![]).run();
    assert_eq!(classify(&run.report), Outcome::OpenInternet);
    assert_eq!(run.report.is_untranslated(), Some(true));
    assert_eq!(run.report.hairpin, Finding::Unknown(Unknown::NoNat));
    assert!(run.took < Duration::from_secs(1), "only silence takes time: {:?}", run.took);
    for filtering in [Filtering::AddressDependent, Filtering::AddressAndPortDependent] {
        let run = World::new(vec![firewall(filtering)]).run();
        assert_eq!(run.report.filtering, Finding::Known(filtering));
        assert_eq!(classify(&run.report), Outcome::Firewall);
        assert_eq!(run.report.is_untranslated(), Some(true));
        assert!(run.took < Duration::from_secs(5), "{:?}", run.took);
    }
}

/// Loss, reordering, duplicates and forged answers may cost a verdict, never make a
/// wrong one.
#[test]
fn a_bad_network_makes_no_wrong_class() {
    let (mut runs, mut undecided) = (0, 0);
    for seed in 0..60 {
        for mapping in MAPPINGS {
            for filtering in FILTERINGS {
                let mut world = World::new(vec![nat(mapping, filtering)]).seed(seed * 9 + runs);
                world.loss = 20;
                world.duplicates = 20;
                world.forged = 20;
                let report = world.run().report;
                let what = format!("seed {seed}: {mapping:?} {filtering:?}: {report:#?}");
                runs += 1;
                match classify(&report) {
                    Outcome::Inconclusive => undecided += 1,
                    found => assert_eq!(found, class(mapping, filtering), "{what}"),
                }
                if let Finding::Known(found) = report.filtering {
                    assert_eq!(found, filtering, "{what}");
                }
                if let Finding::Known(found) = report.mapping
                    && found != Mapping::Dependent
                {
                    assert_eq!(found, mapping, "{what}");
                }
            }
        }
    }
    assert!(undecided * 50 < runs, "{undecided} of {runs} undecided");
}

#[test]
fn the_bound_holds_whatever_is_lost() {
    for seed in 0..20 {
        for loss in [50, 90] {
            let mut world = World::new(vec![nat(
                Mapping::AddressAndPortDependent,
                Filtering::AddressAndPortDependent,
            )])
            .seed(seed);
            world.loss = loss;
            let run = world.run();
            assert!(run.took <= Duration::from_secs(16), "{loss} %, seed {seed}: {:?}", run.took);
        }
    }
}

#[test]
fn fragments_that_do_not_pass() {
    let base = nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    let fragments = |out, back| {
        let nat = Nat { drops_fragments_out: out, drops_fragments_in: back, ..base.clone() };
        let report = World::new(vec![nat]).run().report;
        assert_eq!(classify(&report), Outcome::PortRestrictedCone);
        (report.request_fragments, report.response_fragments)
    };
    let (pass, drop) = (Finding::Known(Fragments::Pass), Finding::Known(Fragments::Drop));
    assert_eq!(fragments(false, false), (pass, pass));
    assert_eq!(fragments(true, false), (drop, pass));
    // An answer that does not come back does not say whether the request arrived.
    assert_eq!(fragments(false, true), (Finding::Unknown(Unknown::Lost), drop));
    assert_eq!(fragments(true, true), (Finding::Unknown(Unknown::Lost), drop));
}

#[test]
fn a_mapping_that_changes_under_way_is_no_symmetric_nat() {
    let unsteady = Nat {
        lifetime: Duration::from_millis(100),
        ..nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent)
    };
    let report = World::new(vec![unsteady]).run().report;
    assert_eq!(classify(&report), Outcome::Inconclusive, "{report:#?}");
}
