//! Another server than our own: coturn as Debian ships it.

use crate::run::{SLOW, load, number, run};
use crate::turnserver::Coturn;

const LOOPBACK: [&str; 1] = ["--allow-loopback-peers"];

#[test]
fn everything_is_delivered_by_every_way() {
    let Some(server) = Coturn::start("coturn::everything_is_delivered", &LOOPBACK) else { return };
    let pid = server.id().to_string();
    for arguments in [
        &["--direction", "both", "--server-pid", &pid][..],
        &["--direction", "both", "--by", "send"],
        &["--direction", "both", "--relay-to-relay"],
        &["--direction", "both", "--own-sockets", "--train", "4"],
    ] {
        let run = load(&server.uri(), &[&["-n", "4"][..], arguments, &SLOW].concat());
        let report = run.delivers_all();
        assert_eq!(number(&report, "given-back"), 4, "{run}");
        assert_eq!(report.get("server-cpu").is_some(), arguments.contains(&"--server-pid"));
    }
    let stream = format!("{}?transport=tcp", server.uri());
    load(&stream, &[&["--direction", "both", "-n", "4"][..], &SLOW].concat()).delivers_all();
}

#[test]
fn storms_and_floods() {
    let Some(server) = Coturn::start("coturn::storms_and_floods", &LOOPBACK) else { return };
    for more in [&[][..], &["--own-sockets"]] {
        let storm = ["--work", "allocate", "-n", "4", "--rate", "100"];
        load(&server.uri(), &[&storm[..], more].concat()).delivers_all();
    }
    load(&server.uri(), &["--work", "binding", "-n", "4", "--rate", "1000"]).delivers_all();
}

#[test]
fn refusals() {
    let Some(server) = Coturn::start("coturn::refusals", &["--user-quota=3"]) else { return };
    let uri = server.uri();
    load(&uri, &[]).fails(69, "allow-loopback-peers");
    load(&uri, &["-n", "5"]).fails(69, "is refused: 4");
    run(&["load", &uri, "--user", "alice", "--password", "wrong"]).fails(77, "401");
}
