//! The report for people.

use std::fmt::Write;
use std::time::Duration;

use crate::config::format_duration;
use crate::nat::{
    Contact, Finding, Lifetime, Outcome, Pooling, Ports, Report, Unknown, calls, classify,
};

/// Width of what stands before a comma or a line's end, for the words of `calls`.
const WIDTH: usize = 78;

/// Lines for a terminal; none where nothing was learnt.
pub(super) fn report(report: &Report) -> String {
    let mut page = Page::default();
    match report.contact {
        Contact::Udp if report.misrouted.is_none() => facts(&mut page, report),
        Contact::TcpOnly { .. } => page.line("NAT", Outcome::UdpBlocked.text()),
        _ => return String::new(),
    }
    if let Some(sentence) = calls(report) {
        page.wrapped("calls", sentence);
    }
    page.0
}

fn facts(page: &mut Page, report: &Report) {
    page.line("NAT", class(report));
    page.line("", format!("mapping    {}", words(report.mapping, |m| m.text().into())));
    page.line("", format!("filtering  {}", words(report.filtering, |f| f.text().into())));
    if let (Some(mapped), Some(local)) = (report.mapped, report.local) {
        if report.is_untranslated() == Some(true) {
            page.line("address", format!("{mapped}, here and seen by the server"));
        } else {
            page.line("address", format!("{mapped} seen by the server, {local} here"));
        }
    }
    if report.pooling == Finding::Known(Pooling::Arbitrary) {
        page.line("", "other sockets get other external addresses");
    }
    page.line("ports", words(report.ports, ports));
    page.line("hairpin", words(report.hairpin, |h| h.text().into()));
    fragments(page, report);
    let tcp = words(report.tcp_mapping, |m| format!("{} mapping", m.text()));
    page.line("TCP", tcp);
    if report.lifetime != Finding::Unknown(Unknown::NotTested) {
        page.line("lifetime", words(report.lifetime, lifetime));
    }
}

fn class(report: &Report) -> String {
    let outcome = classify(report);
    let ports = report.ports.known();
    // What a host with an external address of its own looks like from outside.
    let one_to_one =
        outcome == Outcome::FullCone && ports.is_some_and(|p| p.preserved == p.sockets);
    match outcome {
        _ if one_to_one => "full cone, or a 1:1 NAT".to_owned(),
        Outcome::NotDecidable if report.is_untranslated() == Some(true) => {
            "none; whether a firewall is there cannot be told with this server".to_owned()
        }
        Outcome::NotDecidable if report.mapping.known().is_some() => {
            "a cone; which one cannot be told with this server".to_owned()
        }
        outcome => outcome.text().to_owned(),
    }
}

fn words<T>(finding: Finding<T>, text: fn(T) -> String) -> String {
    match finding {
        Finding::Known(fact) => text(fact),
        Finding::Unknown(Unknown::NoNat) => "not needed, no NAT".to_owned(),
        Finding::Unknown(why) => format!("unknown: {}", why.text()),
    }
}

fn ports(ports: Ports) -> String {
    let Ports { sockets, preserved, parity_preserved } = ports;
    if preserved == sockets {
        return format!("preserved ({preserved} of {sockets})");
    }
    let start = if preserved == 0 { "changed" } else { "partly preserved" };
    let parity = if parity_preserved == sockets { "parity kept" } else { "parity not kept" };
    format!("{start} ({preserved} of {sockets} preserved), {parity}")
}

fn fragments(page: &mut Page, report: &Report) {
    let [out, back] = [report.request_fragments, report.response_fragments]
        .map(|finding| words(finding, |f| f.text().into()));
    if out == back {
        page.line("fragments", format!("{out} both ways"));
        return;
    }
    page.line("fragments", format!("to the server: {out}"));
    page.line("", format!("back: {back}"));
}

fn lifetime(lifetime: Lifetime) -> String {
    let at_least = format_duration(lifetime.at_least);
    match lifetime.less_than {
        Some(less_than) if lifetime.at_least == Duration::ZERO => {
            format!("less than {}", format_duration(less_than))
        }
        Some(less_than) => format!("between {at_least} and {}", format_duration(less_than)),
        None => format!("at least {at_least}"),
    }
}

/// Lines with a name in front.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, name: &str, what: impl AsRef<str>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{name:<10} {}", what.as_ref());
    }

    fn wrapped(&mut self, name: &str, sentence: &str) {
        let mut line = String::new();
        let mut name = name;
        for word in sentence.split(' ') {
            if !line.is_empty() && 11 + line.len() + 1 + word.len() > WIDTH {
                self.line(name, &line);
                line.clear();
                name = "";
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(name, &line);
    }
}
