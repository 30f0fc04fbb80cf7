//! A hostile server: any bytes to the client, some of them dressed as the answer
//! to what it has just asked, and signed with the right key.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};
use sturn::auth::Algorithm;
use sturn::client::{Allocate, Client, Config, Security};
use sturn::net::{Now, Transport};
use sturn_fuzz::fixture::{key, shard_of};
use sturn_fuzz::wire::Builder;
use sturn_fuzz::{Fixture, PASSWORD, USER};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    stream: bool,
    legacy: bool,
    keep_alive: bool,
    /// The client has an allocation, granted by the real server.
    allocated: bool,
    steps: Vec<Step<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Bytes(&'a [u8]),
    /// An answer to the last request, with any class and attributes.
    Answer {
        class: u8,
        attributes: Vec<(Kind, &'a [u8])>,
        sign: Sign,
    },
    Wait(u16),
    Allocate,
    Refresh,
    Permission(u8),
    Channel(Option<u16>, u8),
    Send(u8, &'a [u8], bool),
    Binding,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Sign {
    No,
    Sha1,
    Sha256,
}

/// Mostly attributes that the client looks at.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Known(u8),
    Any(u16),
}

const KNOWN: [u16; 24] = [
    0x0001, 0x0006, 0x0008, 0x0009, 0x000A, 0x000C, 0x000D, 0x0012, 0x0013, 0x0014, 0x0015, 0x0016,
    0x001C, 0x001D, 0x001E, 0x0020, 0x0022, 0x8001, 0x8002, 0x8004, 0x8022, 0x8023, 0x8028, 0x802B,
];

fuzz_target!(|input: Input| {
    let transport = if input.stream { Transport::Tcp } else { Transport::Udp };
    let mut config = Config::new(transport, USER, PASSWORD, [3; 32]);
    config.keep_alive = input.keep_alive;
    config.security = if input.legacy { Security::Legacy } else { Security::Full };
    let mut fixture = Fixture::new();
    let mut now = fixture.now;
    let mut client = Client::new(config);
    if input.allocated {
        allocate(&mut client, &mut fixture, usize::from(input.stream));
    }
    let mut last = [0; 20];
    for step in input.steps.into_iter().take(32) {
        take(&mut client, &mut now, &last, step);
        drain(&mut client, &mut last);
    }
    // Every transaction ends; only what is kept alive goes on.
    for _ in 0..400 {
        let Some(at) = client.poll_timeout() else { return };
        now = now.after(at.saturating_duration_since(now.mono));
        client.handle_timeout(now);
        drain(&mut client, &mut last);
    }
    assert!(input.keep_alive, "the client comes to rest");
});

/// Lets the real server grant an allocation.
fn allocate(client: &mut Client, fixture: &mut Fixture, index: usize) {
    client.allocate(fixture.now, Allocate::default());
    for _ in 0..4 {
        while let Some(request) = client.poll_transmit() {
            if let Some(answer) = fixture.from_client(index, &request) {
                client.handle_receive(fixture.now, &answer);
            }
        }
        while let Some(question) = fixture.questions.pop_front() {
            fixture.answer(question, true);
        }
        if let Some(answer) = fixture.sent.take() {
            client.handle_receive(fixture.now, &answer);
        }
    }
    let granted = std::iter::from_fn(|| client.poll_event())
        .any(|event| matches!(event, sturn::client::Event::Allocated(_)));
    assert!(granted, "the server grants the client an allocation");
    assert!(fixture.shards[shard_of(index)].has_allocation(&fixture.client(index).five_tuple));
}

fn take(client: &mut Client, now: &mut Now, last: &[u8; 20], step: Step) {
    let peer = |n: u8| std::net::SocketAddr::from(([9, 9, 9, n], 1000));
    match step {
        Step::Bytes(bytes) => client.handle_receive(*now, bytes),
        Step::Answer { class, attributes, sign } => {
            client.handle_receive(*now, &answer(last, class, &attributes, sign));
        }
        Step::Wait(ms) => {
            *now = now.after(Duration::from_millis(u64::from(ms)));
            client.handle_timeout(*now);
        }
        Step::Allocate => {
            client.allocate(*now, Allocate::default());
        }
        Step::Refresh => {
            client.refresh(*now, None, None);
        }
        Step::Permission(n) => {
            client.create_permission(*now, &[peer(n)]);
        }
        Step::Channel(number, n) => {
            client.channel_bind(*now, number, peer(n));
        }
        Step::Send(n, data, dont_fragment) => client.send(peer(n), data, dont_fragment),
        Step::Binding => {
            client.binding(*now);
        }
    }
}

fn answer(last: &[u8; 20], class: u8, attributes: &[(Kind, &[u8])], sign: Sign) -> Vec<u8> {
    let classes = [0x0100, 0x0110, 0x0010, 0x0000];
    let kind = u16::from_be_bytes([last[0], last[1]]) & !0x0110;
    let id = *last.last_chunk().expect("a header ends in the transaction id");
    let builder = Builder::new(kind | classes[usize::from(class % 4)], id);
    let builder = attributes.iter().take(12).fold(builder, |builder, (kind, value)| {
        let kind = match kind {
            Kind::Known(n) => KNOWN[usize::from(*n) % KNOWN.len()],
            Kind::Any(kind) => *kind,
        };
        builder.put(kind, value)
    });
    match sign {
        Sign::No => builder,
        Sign::Sha1 => builder.sign_sha1(key(USER, Algorithm::Md5).bytes()),
        Sign::Sha256 => builder.sign_sha256(key(USER, Algorithm::Sha256).bytes()),
    }
    .build()
}

/// Takes everything out of the client; remembers the header of its last request.
fn drain(client: &mut Client, last: &mut [u8; 20]) {
    while let Some(bytes) = client.poll_transmit() {
        if let Some(header) = bytes.first_chunk::<20>().filter(|header| header[0] < 4) {
            *last = *header;
        }
    }
    while client.poll_event().is_some() {}
}
