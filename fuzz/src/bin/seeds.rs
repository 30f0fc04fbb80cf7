//! Writes the seeds of `datagram` and `stream`: the messages of a real client and
//! a real server, `cargo run --bin seeds` in this folder after a change of either.
//! The seeds of the structured targets are chosen from what fuzzing has found.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

// The coverage counters of the code under test want their runtime.
use libfuzzer_sys as _;
use sturn::client::{Allocate, Attribute, Client, Config, Security, Transaction};
use sturn::net::{Family, Now, Transport};
use sturn_fuzz::fixture::access_token;
use sturn_fuzz::{Fixture, PASSWORD, USER};

/// Starts something on the client.
type Start = fn(&mut Client, Now) -> Option<Transaction>;

const STARTS: &[(&str, Start)] = &[
    ("binding", |c, now| Some(c.binding(now))),
    ("allocate", |c, now| Some(c.allocate(now, Allocate::default()))),
    ("allocate-even", |c, now| {
        Some(c.allocate(now, Allocate { even_port: Some(true), ..Allocate::default() }))
    }),
    ("allocate-dual", |c, now| {
        let additional_family = Some(Family::V6);
        Some(c.allocate(now, Allocate { additional_family, ..Allocate::default() }))
    }),
    ("allocate-token", |c, now| {
        let reservation_token = Some([0; 8]);
        Some(c.allocate(now, Allocate { reservation_token, ..Allocate::default() }))
    }),
    ("refresh", |c, now| Some(c.refresh(now, None, None))),
    ("refresh-end", |c, now| Some(c.refresh(now, Some(Duration::ZERO), None))),
    ("permission", |c, now| Some(c.create_permission(now, &[peer(), peer6()]))),
    ("channel", |c, now| Some(c.channel_bind(now, Some(0x4002), peer()))),
    ("send", |c, _| {
        c.send(peer(), b"data of some length", false);
        None
    }),
    ("send-df", |c, _| {
        c.send(peer(), b"", true);
        None
    }),
    ("connect", |c, now| Some(c.request_raw(now, 0x00A, Vec::new()))),
    ("connection-bind", |c, now| {
        Some(c.request_raw(now, 0x00B, vec![Attribute::Raw(0x002A, vec![1, 2, 3, 4])]))
    }),
    ("allocate-mobile", |c, now| {
        let udp = Attribute::Raw(0x0019, vec![17, 0, 0, 0]);
        Some(c.request_raw(now, 0x003, vec![udp, Attribute::Raw(0x8030, Vec::new())]))
    }),
    ("refresh-moving", |c, now| {
        Some(c.request_raw(now, 0x004, vec![Attribute::Raw(0x8030, vec![b'A'; 32])]))
    }),
    ("refresh-token", |c, now| {
        Some(c.request_raw(now, 0x004, vec![Attribute::Raw(0x001B, access_token(3600))]))
    }),
];

fn peer() -> SocketAddr {
    SocketAddr::from(([9, 9, 9, 1], 1000))
}

fn peer6() -> SocketAddr {
    SocketAddr::from(([0x2606, 0x4700, 0, 0, 0, 0, 0, 1], 1000))
}

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut all = Vec::new();
    for (name, start) in STARTS {
        for (security, kind) in [(Security::Legacy, "legacy"), (Security::Full, "full")] {
            for (step, message) in conversation(security, *start).into_iter().enumerate() {
                write(&corpus, "datagram", &format!("{name}-{kind}-{step}"), &message)?;
                all.push(message);
            }
        }
    }
    for (name, packet) in [
        ("channel-data", &b"\x40\x01\x00\x05hello"[..]),
        ("channel-data-padded", b"\x40\x01\x00\x05hello\0\0\0"),
        ("channel-data-empty", b"\x40\x01\x00\x00"),
        ("rfc3489-binding", b"\x00\x01\x00\x000123456789abcdef"),
        (
            "change-request",
            b"\x00\x01\x00\x08\x21\x12\xa4\x420123456789ab\x00\x03\x00\x04\0\0\0\x06",
        ),
        (
            "response-port",
            b"\x00\x01\x00\x08\x21\x12\xa4\x420123456789ab\x00\x27\x00\x04\x1f\x90\0\0",
        ),
        ("padding", b"\x00\x01\x00\x0c\x21\x12\xa4\x420123456789ab\x00\x26\x00\x08paddings"),
        ("dtls-client-hello", b"\x16\xfe\xff\0\0\0\0\0\0\0\0\0\x10"),
    ] {
        write(&corpus, "datagram", name, packet)?;
        all.push(packet.to_vec());
    }
    // Streams: a few of the messages in a row, cut here and there.
    for (number, messages) in all.chunks(3).enumerate() {
        let mut stream = vec![4, 1, 3, 0, 40];
        for message in messages {
            stream.extend(message);
            stream.resize(stream.len() + message.len().wrapping_neg() % 4, 0);
        }
        write(&corpus, "stream", &format!("stream-{number:02}"), &stream)?;
    }
    Ok(())
}

/// What a client and the server say to each other.
fn conversation(security: Security, start: Start) -> Vec<Vec<u8>> {
    let mut config = Config::new(Transport::Udp, USER, PASSWORD, [3; 32]);
    config.security = security;
    let mut client = Client::new(config);
    let mut fixture = Fixture::with_allocations();
    let mut said = Vec::new();
    start(&mut client, fixture.now);
    while let Some(message) = client.poll_transmit() {
        if let Some(answer) = fixture.from_client(0, &message) {
            client.handle_receive(fixture.now, &answer);
            said.push(answer);
        }
        said.push(message);
    }
    said
}

fn write(corpus: &Path, target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}
