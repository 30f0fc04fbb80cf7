//! Ctrl-C: what was allocated is given back before the end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::setup::{DEADLINE, Setup};

/// A person waits for it.
const SOON: Duration = Duration::from_secs(4);

#[test]
fn an_interrupted_probe_gives_back_what_it_has() {
    for transport in ["udp", "tcp"] {
        let mut server = Setup::new().start();
        // Ten seconds of packets, so that it is not over by itself.
        let mut child = Command::new(env!("CARGO_BIN_EXE_sturn"))
            .args(["probe", &format!("turn:{}?transport={transport}", server.addr())])
            .args(["--user", "alice", "--password", "wonderland", "--packets", "1000", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        for _ in 0..2 {
            server.process().expect_line("allocation created", DEADLINE);
        }
        let started = Instant::now();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        while child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = started.elapsed();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "sturn: interrupted\n");
        assert!(output.stdout.is_empty(), "half a report is none");
        assert!(took < SOON, "{took:?}");
        for _ in 0..2 {
            let ended = server.process().expect_line("allocation ended", DEADLINE);
            assert!(ended.contains("deleted by client"), "{transport}: {ended}");
        }
    }
}

#[test]
fn a_probe_that_waits_for_an_answer_ends_at_once() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_read_timeout(Some(DEADLINE)).unwrap();
    let uri = format!("stun:{}", silent.local_addr().unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_sturn"))
        .args(["probe", &uri])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It asks, so it listens for the signal.
    silent.recv_from(&mut [0; 64]).unwrap();
    let started = Instant::now();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}
