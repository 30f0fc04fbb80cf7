//! Names: SRV records, addresses, and name servers that do not know or do not speak.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::fake;
use crate::run::{probe, probe_as_alice};
use crate::setup::Setup;

const A: u16 = 1;
const SRV: u16 = 33;

#[test]
fn srv_records_lead_to_host_and_port() {
    let server = Setup::new().start();
    let port = server.addr().port();
    let dns = dns(vec![
        srv("_turn._udp.site.test", 10, port, "a.site.test"),
        srv("_turn._tcp.site.test", 10, port, "a.site.test"),
        a("a.site.test", [127, 0, 0, 1]),
        a("site.test", [127, 0, 0, 9]),
    ]);
    let run = probe_as_alice("turn:site.test", &["--dns", &dns, "--packets", "3"]);
    let report = run.ends_with(0).json();
    let address = server.addr().to_string();
    for (way, transport, via) in
        [(0, "udp", "_turn._udp a.site.test"), (1, "tcp", "_turn._tcp a.site.test")]
    {
        let way = &report["transports"][way];
        assert_eq!(
            (&way["transport"], &way["address"]),
            (&transport.into(), &address.clone().into())
        );
        assert_eq!(way["via"], via);
        assert_eq!(way["url"], format!("turn:a.site.test:{port}?transport={transport}"));
    }
    let notes = report["browser"]["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().contains("SRV")), "{notes:?}");
}

#[test]
fn the_preferred_record_comes_first_and_the_transport_chooses_the_service() {
    let records = vec![
        srv("_turn._udp.site.test", 20, 7001, "b.site.test"),
        srv("_turn._udp.site.test", 10, 7002, "a.site.test"),
        srv("_turn._tcp.site.test", 10, 7003, "a.site.test"),
        a("a.site.test", [127, 0, 0, 1]),
        a("b.site.test", [127, 0, 0, 2]),
    ];
    let dns = dns(records);
    let run = probe("turn:site.test?transport=udp", &["--dns", &dns]);
    assert_eq!(addresses(&run.json()), ["127.0.0.1:7002", "127.0.0.2:7001"]);
}

#[test]
fn without_srv_records_the_default_port_is_taken() {
    let dns = dns(vec![a("site.test", [127, 0, 0, 9])]);
    let report = probe("turn:site.test?transport=tcp", &["--dns", &dns]).json();
    assert_eq!(addresses(&report), ["127.0.0.9:3478"]);
    assert!(report["resolve"]["detail"].as_str().unwrap().contains("no SRV records"), "{report}");
    let report = probe("turns:site.test", &["--dns", &dns]).json();
    assert_eq!(addresses(&report), ["127.0.0.9:5349"]);
}

#[test]
fn a_port_in_the_uri_rules_srv_out() {
    let server = Setup::new().start();
    let port = server.addr().port();
    let dns = dns(vec![
        srv("_turn._udp.site.test", 10, 9, "a.site.test"),
        a("site.test", [127, 0, 0, 1]),
    ]);
    let uri = format!("turn:site.test:{port}?transport=udp");
    let run = probe_as_alice(&uri, &["--dns", &dns, "--packets", "3"]);
    assert_eq!(addresses(&run.ends_with(0).json()), [server.addr().to_string()]);
}

#[test]
fn a_name_that_does_not_exist() {
    let dns = dns(vec![]);
    let run = probe("turn:missing.test", &["--dns", &dns]);
    run.ends_with(68).found("resolve", "name-not-found", "spelling");
    assert_eq!(run.json()["transports"].as_array().unwrap().len(), 0);
    let run = probe("turn:missing.test", &["--dns", &dns, "-4"]);
    run.ends_with(68).found("resolve", "name-not-found", "spelling");
}

#[test]
fn whoever_writes_the_records_does_not_choose_how_many_are_tried() {
    // Eight records of a service are looked up, and sixteen ways tried in all.
    let records = (0..20).map(|n| srv("_turn._udp.site.test", n, 7000 + n, "a.site.test"));
    let far = a("a.site.test", [127, 0, 0, 1]);
    let dns = dns(records.chain([far.clone()]).collect());
    let report = probe("turn:site.test?transport=udp", &["--dns", &dns]).json();
    let expected: Vec<String> = (7000..7008).map(|port| format!("127.0.0.1:{port}")).collect();
    assert_eq!(addresses(&report), expected);
    let detail = report["resolve"]["detail"].as_str().unwrap();
    assert!(detail.contains("more, which are not tried"), "{detail}");

    let dns = self::dns((1..=40).map(|n| a("site.test", [127, 0, 1, n])).collect());
    let report = probe("turn:site.test:9?transport=udp", &["--dns", &dns]).json();
    assert_eq!(addresses(&report).len(), 16);
}

#[test]
fn an_srv_record_that_leads_nowhere() {
    let dns = dns(vec![
        srv("_turn._udp.site.test", 10, 0, "a.site.test"),
        a("a.site.test", [127, 0, 0, 8]),
        a("site.test", [127, 0, 0, 9]),
    ]);
    let report = probe("turn:site.test?transport=udp", &["--dns", &dns]).json();
    assert_eq!(addresses(&report), ["127.0.0.9:3478"], "as without the record");
}

#[test]
fn a_name_without_an_address_of_that_family() {
    let dns = dns(vec![a("site.test", [127, 0, 0, 1])]);
    let run = probe("turn:site.test:9", &["--dns", &dns, "-6"]);
    run.ends_with(68).found("resolve", "other-family", "-6");
}

#[test]
fn a_name_server_that_is_silent() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let run = probe("turn:site.test:9", &["--dns", &silent, "--timeout", "5s"]);
    run.ends_with(68).found("resolve", "dns-unanswered", "--dns");
}

fn addresses(report: &serde_json::Value) -> Vec<String> {
    let resolved = report["resolved"].as_array().unwrap();
    resolved.iter().map(|target| target["address"].as_str().unwrap().to_owned()).collect()
}

/// Name, type and data of a record.
type Record = (&'static str, u16, Vec<u8>);

fn a(name: &'static str, ip: [u8; 4]) -> Record {
    (name, A, Ipv4Addr::from(ip).octets().to_vec())
}

fn srv(name: &'static str, priority: u16, port: u16, target: &str) -> Record {
    let numbers = [priority, 0, port].map(u16::to_be_bytes).concat();
    (name, SRV, [numbers, wire_name(target)].concat())
}

/// A name server for these records; what it does not know does not exist.
fn dns(records: Vec<Record>) -> String {
    let address: SocketAddr = fake::udp(move |query, _| answer(query, &records));
    address.to_string()
}

fn answer(query: &[u8], records: &[Record]) -> Option<Vec<u8>> {
    let (name, end) = read_name(query)?;
    let kind = u16::from_be_bytes(*query.get(end..)?.first_chunk()?);
    let same_name = |record: &&Record| record.0.eq_ignore_ascii_case(&name);
    let found: Vec<&Record> = records.iter().filter(same_name).filter(|r| r.1 == kind).collect();
    let no_such_name: u8 = if records.iter().any(|r| same_name(&r)) { 0 } else { 3 };
    let mut reply = query[..2].to_vec();
    // A recursive answer with one question.
    reply.extend_from_slice(&[0x81, 0x80 | no_such_name, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    reply.extend_from_slice(&query[12..end + 4]);
    for (_, kind, data) in found {
        // The name of the question, class IN, 60 seconds.
        reply.extend_from_slice(&[0xC0, 12]);
        reply.extend_from_slice(&kind.to_be_bytes());
        reply.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        reply.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        reply.extend_from_slice(data);
    }
    Some(reply)
}

/// The name in the question, and where it ends.
fn read_name(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            return Some((labels.join("."), at + 1));
        }
        labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).into_owned());
        at += 1 + length;
    }
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
