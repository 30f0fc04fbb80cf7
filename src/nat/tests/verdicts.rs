//! The table from facts to a class and a sentence.

use super::super::{
    Contact, Filtering, Finding, Mapping, Misbehaviour, Misrouted, Outcome, Report, Unknown, calls,
    classify,
};
use super::addr;
use Finding::{Known, Unknown as Not};

fn report(mapped: &str, mapping: Finding<Mapping>, filtering: Finding<Filtering>) -> Report {
    let mut report = Report::new(addr("198.51.100.1:3478"), None);
    report.contact = Contact::Udp;
    report.local = Some(addr("192.0.2.2:5000"));
    report.mapped = Some(addr(mapped));
    report.mapping = mapping;
    report.filtering = filtering;
    report
}

#[test]
fn facts_to_class_and_sentence() {
    use Filtering as F;
    use Mapping as M;
    use Outcome as O;
    const HERE: &str = "192.0.2.2:5000";
    const ELSEWHERE: &str = "203.0.113.7:5000";
    let eim = Known(M::EndpointIndependent);
    let lost = Unknown::Lost;
    let lacks = Unknown::NoOtherAddress;
    for (mapped, mapping, filtering, outcome, sentence) in [
        (HERE, eim, Known(F::EndpointIndependent), O::OpenInternet, "no relay is needed"),
        (HERE, Not(lost), Known(F::EndpointIndependent), O::OpenInternet, "no relay is needed"),
        (HERE, eim, Known(F::AddressDependent), O::Firewall, "no relay is needed"),
        (HERE, eim, Known(F::AddressAndPortDependent), O::Firewall, "a relay (TURN) is needed"),
        (ELSEWHERE, eim, Known(F::EndpointIndependent), O::FullCone, "no relay is needed"),
        (ELSEWHERE, eim, Known(F::AddressDependent), O::RestrictedCone, "no relay is needed"),
        (
            ELSEWHERE,
            eim,
            Known(F::AddressAndPortDependent),
            O::PortRestrictedCone,
            "everybody but those behind symmetric NATs",
        ),
        (ELSEWHERE, Known(M::AddressDependent), Not(lost), O::Symmetric, "only with open"),
        (
            ELSEWHERE,
            Known(M::AddressAndPortDependent),
            Known(F::EndpointIndependent),
            O::Symmetric,
            "only with open",
        ),
        (ELSEWHERE, Known(M::Dependent), Not(lacks), O::Symmetric, "only with open"),
        (ELSEWHERE, Not(lacks), Not(lacks), O::NotDecidable, "cannot be told"),
        (ELSEWHERE, eim, Not(lacks), O::NotDecidable, "at least with everybody but"),
        (HERE, Not(lacks), Not(lacks), O::NotDecidable, "No NAT is in the way"),
        (ELSEWHERE, eim, Not(Unknown::ServerRefuses), O::NotDecidable, "at least"),
        (ELSEWHERE, eim, Not(lost), O::Inconclusive, "at least with everybody but"),
        (ELSEWHERE, Not(lost), Known(F::AddressDependent), O::Inconclusive, "cannot be told"),
        (
            HERE,
            Not(Unknown::Unstable),
            Known(F::EndpointIndependent),
            O::Inconclusive,
            "No NAT is in the way",
        ),
    ] {
        let report = report(mapped, mapping, filtering);
        let what = format!("{mapped} {mapping:?} {filtering:?}");
        assert_eq!(classify(&report), outcome, "{what}");
        let said = calls(&report).expect(&what);
        assert!(said.contains(sentence), "{what}: {said}");
        assert!(said.ends_with('.') && said.matches(". ").count() == 0, "one sentence: {said}");
    }
}

#[test]
fn contacts_that_end_it() {
    let fine = report(
        "203.0.113.7:1",
        Known(Mapping::EndpointIndependent),
        Known(Filtering::EndpointIndependent),
    );
    let garbage = Misbehaviour::Garbage { what: "noise".into() };
    for (contact, outcome) in [
        (Contact::TcpOnly { port: 443 }, Outcome::UdpBlocked),
        (Contact::Nothing, Outcome::Unavailable),
        (Contact::Local { why: "x".into() }, Outcome::Local),
        (Contact::Misbehaves(garbage), Outcome::Protocol),
    ] {
        let report = Report { contact, ..fine.clone() };
        assert_eq!(classify(&report), outcome);
        assert_eq!(calls(&report).is_some(), outcome == Outcome::UdpBlocked);
    }
    let server = fine.server;
    let misrouted = Some(Misrouted { expected: addr("198.51.100.2:3479"), from: server });
    assert_eq!(classify(&Report { misrouted, ..fine }), Outcome::Protocol);
}

#[test]
fn the_table_of_outcomes() {
    let rows: Vec<(u8, &str)> = Outcome::ALL.iter().map(|o| (o.code(), o.name())).collect();
    assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0), "{rows:?}");
    for outcome in Outcome::ALL {
        let is_kebab = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(outcome.name().chars().all(is_kebab), "{outcome:?}");
        assert!(!outcome.text().is_empty() && !outcome.meaning().is_empty());
    }
    let names: std::collections::BTreeSet<&str> = rows.iter().map(|(_, name)| *name).collect();
    assert_eq!(names.len(), Outcome::ALL.len());
}
