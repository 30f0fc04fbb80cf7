//! The report for programs.

use serde_json::{Map, Value, json};

use super::Told;
use crate::nat::{Contact, Finding, Lifetime, Misbehaviour, Ports, Report, Unknown, calls};

/// Raised when a field changes its meaning or goes away, not when one is added.
pub(super) const VERSION: u32 = 1;

/// Every field with what it is: the help is made of this, and a test compares it
/// with what is written.
pub(super) const FIELDS: &[(&str, &str)] = &[
    ("version", "number: of this list"),
    ("outcome", "name as in the exit codes"),
    ("exit-code", "number"),
    ("problem", "text: what was in the way, if it was not a NAT"),
    ("misbehaviour", "garbage, error-response, wrong-source, change-request-misrouted or"),
    ("", "other-address-KIND, of outcome protocol-error"),
    ("server", "object: name, address, second, software, other-address, response-origin"),
    ("tcp-port", "number: of the port that answers over TCP, of outcome udp-blocked"),
    ("local-address", "address:port here"),
    ("mapped-address", "address:port as the server sees it"),
    ("mapping", "endpoint-independent, address-dependent, address-and-port-dependent,"),
    ("", "dependent (one of the two before)"),
    ("filtering", "endpoint-independent, address-dependent, address-and-port-dependent"),
    ("ports", "object of numbers: sockets, preserved, parity-preserved"),
    ("pooling", "paired, arbitrary"),
    ("hairpin", "external, internal (with that source address), no"),
    ("fragments", "object: requests, responses; each pass, drop"),
    ("tcp-mapping", "as mapping"),
    ("lifetime", "object: at-least-seconds, less-than-seconds (null: outlived --lifetime)"),
    ("unknown", "object: why a fact is null, by field; fragments have a field for each way"),
    ("calls", "text: what it means for calls"),
];

/// One object and a line end.
pub(super) fn object(told: &Told) -> String {
    let report = told.report.as_ref();
    let mut unknown = Unknowns::default();
    let mut object = json!({
        "version": VERSION,
        "outcome": told.outcome.name(),
        "exit-code": told.outcome.code(),
        "problem": told.problem,
        "misbehaviour": report.and_then(misbehaviour),
        "server": server(told),
        "tcp-port": report.and_then(tcp_port),
        "local-address": report.and_then(|r| r.local),
        "mapped-address": report.and_then(|r| r.mapped),
        "calls": report.and_then(calls),
    });
    let mut put = |field: &str, value: Value| object[field] = value;
    let find = |pick: fn(&Report) -> Fact| report.map_or(Fact::Unknown(Unknown::NotTested), pick);
    put("mapping", unknown.note("mapping", find(|r| name(r.mapping, |m| m.name()))));
    put("filtering", unknown.note("filtering", find(|r| name(r.filtering, |f| f.name()))));
    put("ports", unknown.note("ports", find(|r| fact(r.ports, ports))));
    put("pooling", unknown.note("pooling", find(|r| name(r.pooling, |p| p.name()))));
    put("hairpin", unknown.note("hairpin", find(|r| name(r.hairpin, |h| h.name()))));
    let requests = find(|r| name(r.request_fragments, |f| f.name()));
    let responses = find(|r| name(r.response_fragments, |f| f.name()));
    put(
        "fragments",
        json!({
            "requests": unknown.note("fragments-requests", requests),
            "responses": unknown.note("fragments-responses", responses),
        }),
    );
    put("tcp-mapping", unknown.note("tcp-mapping", find(|r| name(r.tcp_mapping, |m| m.name()))));
    put("lifetime", unknown.note("lifetime", find(|r| fact(r.lifetime, lifetime))));
    put("unknown", Value::Object(unknown.0));
    format!("{object:#}\n")
}

type Fact = Finding<Value>;

/// Why facts are missing, by field.
#[derive(Default)]
struct Unknowns(Map<String, Value>);

impl Unknowns {
    fn note(&mut self, field: &str, fact: Fact) -> Value {
        match fact {
            Fact::Known(value) => value,
            Fact::Unknown(why) => {
                self.0.insert(field.to_owned(), why.name().into());
                Value::Null
            }
        }
    }
}

fn fact<T>(finding: Finding<T>, value: fn(T) -> Value) -> Fact {
    match finding {
        Finding::Known(fact) => Fact::Known(value(fact)),
        Finding::Unknown(why) => Fact::Unknown(why),
    }
}

fn name<T>(finding: Finding<T>, name: fn(T) -> &'static str) -> Fact {
    match finding {
        Finding::Known(fact) => Fact::Known(name(fact).into()),
        Finding::Unknown(why) => Fact::Unknown(why),
    }
}

fn server(told: &Told) -> Value {
    let report = told.report.as_ref();
    json!({
        "name": told.name,
        "address": report.map(|r| r.server),
        "second": report.and_then(|r| r.second),
        "software": report.and_then(|r| r.software.as_deref()),
        "other-address": report.and_then(|r| r.other_address),
        "response-origin": report.and_then(|r| r.response_origin),
    })
}

fn ports(ports: Ports) -> Value {
    json!({
        "sockets": ports.sockets,
        "preserved": ports.preserved,
        "parity-preserved": ports.parity_preserved,
    })
}

fn lifetime(lifetime: Lifetime) -> Value {
    json!({
        "at-least-seconds": lifetime.at_least.as_secs(),
        "less-than-seconds": lifetime.less_than.map(|most| most.as_secs()),
    })
}

fn tcp_port(report: &Report) -> Option<u16> {
    match report.contact {
        Contact::TcpOnly { port } => Some(port),
        _ => None,
    }
}

fn misbehaviour(report: &Report) -> Option<String> {
    match &report.contact {
        Contact::Misbehaves(how) => Some(match how {
            Misbehaviour::Garbage { .. } => "garbage".to_owned(),
            Misbehaviour::Error { .. } => "error-response".to_owned(),
            Misbehaviour::AnswersFrom { .. } => "wrong-source".to_owned(),
            Misbehaviour::Lies(lie) => format!("other-address-{}", lie.why.name()),
        }),
        _ => report.misrouted.map(|_| "change-request-misrouted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Outcome;

    #[test]
    fn the_fields_are_those_of_the_help() {
        let told = Told {
            name: "host.invalid:3478".to_owned(),
            outcome: Outcome::NoHost,
            report: None,
            problem: Some("host.invalid does not resolve".to_owned()),
        };
        let object: Value = serde_json::from_str(&object(&told)).unwrap();
        let mut written: Vec<&str> = object.as_object().unwrap().keys().map(|k| &**k).collect();
        let mut listed: Vec<&str> = FIELDS.iter().map(|(field, _)| *field).collect();
        listed.retain(|field| !field.is_empty());
        written.sort_unstable();
        listed.sort_unstable();
        assert_eq!(written, listed);
        assert_eq!(object["unknown"]["mapping"], "not-tested");
    }
}
