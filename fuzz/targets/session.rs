//! Sequences of everything that can happen to two shards: requests signed with
//! the right key around any attributes, data, peers, answers of the shell, time.

#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};
use sturn::auth::{Algorithm, userhash};
use sturn::net::PeerAddr;
use sturn::turn::Input;
use sturn_fuzz::fixture::{MAC_KEY, OUTSIDER, TOKEN_KEY, access_token, key};
use sturn_fuzz::wire::{self, Builder};
use sturn_fuzz::{Fixture, REALM, USER};

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Request {
        client: u8,
        method: Method,
        attributes: Vec<Attribute<'a>>,
        signature: Signature,
    },
    /// The same request once more.
    Again,
    Send {
        client: u8,
        peer: Peer,
        attributes: Vec<Attribute<'a>>,
        data: &'a [u8],
    },
    ChannelData {
        client: u8,
        number: u8,
        data: &'a [u8],
        padding: u8,
    },
    Bytes {
        client: u8,
        bytes: &'a [u8],
    },
    Datagram {
        relay: u8,
        peer: Peer,
        len: u16,
    },
    Answer {
        well: bool,
    },
    AnswerLast {
        well: bool,
    },
    Wait {
        quarters: u16,
    },
    Icmp {
        relay: u8,
        peer: Peer,
        icmp_type: u8,
        code: u8,
        info: u32,
    },
    LinkClosed {
        client: u8,
    },
    /// A good request of a client on TCP, whose questions are answered at once.
    Stream {
        client: u8,
        deed: Deed,
    },
    /// A peer connects to a relay.
    PeerConnects {
        relay: u8,
        peer: Peer,
    },
    PeerCloses {
        pick: u8,
    },
    /// A good request about an allocation that follows its client.
    Roam {
        client: u8,
        deed: Roaming,
    },
    Drain {
        shard: bool,
        on: bool,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Method {
    Allocate,
    Refresh,
    CreatePermission,
    ChannelBind,
    Connect,
    ConnectionBind,
    Other(u16),
}

/// What it takes to have bytes pass between a client and a peer.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Deed {
    Allocate,
    Permit(u8),
    Connect(u8),
    Bind,
}

/// What it takes to go from five-tuple to five-tuple.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Roaming {
    Allocate,
    /// With one of the last tickets: 0 is the newest.
    Show(u8),
    Permit(u8),
    Refresh,
}

#[derive(Arbitrary, Debug)]
enum Attribute<'a> {
    Transport,
    Lifetime(u32),
    Peer(Peer),
    Channel(u8),
    Family(bool),
    AdditionalFamily,
    EvenPort(bool),
    /// The token that the server gave out last, or one like it.
    Token([u8; 8]),
    DontFragment,
    TcpTransport,
    /// The id that the server gave out last, or one like it.
    Connection(u32),
    /// None, or one of the last that the server gave out.
    Ticket(Option<u8>),
    Raw(u16, &'a [u8]),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Peer {
    Host(bool, u8),
    V6(u8),
    Own(u8),
    Any([u8; 4], u16),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Signature {
    Sha1,
    Sha256(bool),
    Outsider,
    UserhashOfOutsider,
    WrongKey,
    WrongNonce,
    /// With a token that is sent along, or was sent before.
    Token {
        sent: bool,
        lifetime: u16,
        sha256: bool,
    },
    None,
}

fuzz_target!(|steps: Vec<Step>| {
    let mut fixture = Fixture::new();
    let mut last = None;
    for step in steps.into_iter().take(64) {
        take(&mut fixture, &mut last, step);
    }
    fixture.finish();
});

fn take(fixture: &mut Fixture, last: &mut Option<(usize, Vec<u8>)>, step: Step) {
    match step {
        Step::Request { client, method, attributes, signature } => {
            let client = usize::from(client);
            let request = request(fixture, client, method, &attributes, signature);
            fixture.from_client(client, &request);
            *last = Some((client, request));
        }
        Step::Again => {
            if let Some((client, request)) = last {
                fixture.from_client(*client, request);
            }
        }
        Step::Send { client, peer, attributes, data } => {
            let id = fixture.transaction();
            let (kind, value) = peer_value(fixture, peer, id);
            let builder = Builder::new(wire::SEND, id).put(kind, &value);
            let builder = with(fixture, builder, id, &attributes).put(wire::DATA, data);
            fixture.from_client(client.into(), &builder.build());
        }
        Step::ChannelData { client, number, data, padding } => {
            let mut packet = vec![0x40 | number >> 4 & 0xf, number & 3];
            packet.extend((data.len() as u16).to_be_bytes());
            packet.extend(data);
            packet.resize(packet.len() + usize::from(padding % 5), 0);
            fixture.from_client(client.into(), &packet);
        }
        Step::Bytes { client, bytes } => drop(fixture.from_client(client.into(), bytes)),
        Step::Datagram { relay, peer, len } => {
            if let Some((shard, relay, _)) = socket(fixture, relay) {
                let peer = address(fixture, peer);
                fixture.from_peer(shard, relay, peer, usize::from(len).min(65_507));
            }
        }
        Step::Answer { well } => {
            if let Some(question) = fixture.questions.pop_front() {
                fixture.answer(question, well);
            }
        }
        Step::AnswerLast { well } => {
            if let Some(question) = fixture.take_last() {
                fixture.answer(question, well);
            }
        }
        Step::Wait { quarters } => fixture.wait(Duration::from_millis(250) * u32::from(quarters)),
        Step::Icmp { relay, peer, icmp_type, code, info } => {
            if let Some((shard, relay, _)) = socket(fixture, relay) {
                let peer = PeerAddr::new(address(fixture, peer));
                fixture.input(shard, Input::Icmp { relay, peer, icmp_type, code, info });
            }
        }
        Step::LinkClosed { client } => fixture.close_link(client.into()),
        Step::Stream { client, deed } => {
            let client = [1, 4, 5][usize::from(client % 3)];
            let (method, attribute) = match deed {
                Deed::Allocate => (wire::ALLOCATE, (wire::REQUESTED_TRANSPORT, vec![6, 0, 0, 0])),
                Deed::Permit(host) => (wire::CREATE_PERMISSION, peer(host)),
                Deed::Connect(host) => (wire::CONNECT, peer(host)),
                Deed::Bind => {
                    let id = fixture.connection.to_be_bytes();
                    (wire::CONNECTION_BIND, (wire::CONNECTION_ID, id.to_vec()))
                }
            };
            fixture.granted(client, method, &[attribute]);
        }
        Step::PeerConnects { relay, peer } => {
            if let Some((shard, relay, _)) = socket(fixture, relay) {
                let peer = address(fixture, peer);
                fixture.peer_connects(shard, relay, peer);
            }
        }
        Step::PeerCloses { pick } => fixture.peer_closes(pick.into()),
        Step::Roam { client, deed } => {
            let (method, attributes) = match deed {
                Roaming::Allocate => {
                    let udp = (wire::REQUESTED_TRANSPORT, vec![17, 0, 0, 0]);
                    (wire::ALLOCATE, vec![udp, (wire::MOBILITY_TICKET, Vec::new())])
                }
                Roaming::Show(age) => {
                    (wire::REFRESH, vec![(wire::MOBILITY_TICKET, ticket(fixture, age))])
                }
                Roaming::Permit(host) => (wire::CREATE_PERMISSION, vec![peer(host)]),
                Roaming::Refresh => (wire::REFRESH, Vec::new()),
            };
            fixture.granted(client.into(), method, &attributes);
        }
        Step::Drain { shard, on } => fixture.set_draining(shard.into(), on),
    }
}

/// XOR-PEER-ADDRESS of one of a few hosts.
fn peer(host: u8) -> (u16, Vec<u8>) {
    let value = wire::xor_v4([9, 9, 9, 1 + host % 2], 1000 + u16::from(host / 2 % 4));
    (wire::XOR_PEER_ADDRESS, value.to_vec())
}

fn ticket(fixture: &Fixture, age: u8) -> Vec<u8> {
    let tickets = &fixture.tickets;
    tickets.iter().rev().cycle().nth(age.into()).cloned().unwrap_or_default()
}

fn socket(fixture: &Fixture, pick: u8) -> Option<(u16, sturn::turn::RelayId, SocketAddr)> {
    let sockets = fixture.ports.sockets();
    (!sockets.is_empty()).then(|| sockets[usize::from(pick) % sockets.len()])
}

fn request(
    fixture: &mut Fixture,
    client: usize,
    method: Method,
    attributes: &[Attribute],
    signature: Signature,
) -> Vec<u8> {
    let kind = match method {
        Method::Allocate => wire::ALLOCATE,
        Method::Refresh => wire::REFRESH,
        Method::CreatePermission => wire::CREATE_PERMISSION,
        Method::ChannelBind => wire::CHANNEL_BIND,
        Method::Connect => wire::CONNECT,
        Method::ConnectionBind => wire::CONNECTION_BIND,
        Method::Other(kind) => kind & 0x3fff,
    };
    let id = fixture.transaction();
    let builder = with(fixture, Builder::new(kind, id), id, attributes);
    let nonce = fixture.nonce(client).to_vec();
    let realm = REALM.as_bytes();
    let named = |builder: Builder, user: &str, nonce: &[u8]| {
        let builder = builder.put(wire::USERNAME, user.as_bytes());
        builder.put(wire::REALM, realm).put(wire::NONCE, nonce)
    };
    let md5 = |user| key(user, Algorithm::Md5);
    let offer =
        |builder: Builder| builder.put(wire::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
    match signature {
        Signature::Sha1 => named(builder, USER, &nonce).sign_sha1(md5(USER).bytes()),
        Signature::Sha256(modern) => {
            let algorithm = if modern { Algorithm::Sha256 } else { Algorithm::Md5 };
            let [_, number] = algorithm.number().to_be_bytes();
            offer(named(builder, USER, &nonce))
                .put(wire::PASSWORD_ALGORITHM, &[0, number, 0, 0])
                .sign_sha256(key(USER, algorithm).bytes())
        }
        Signature::Outsider => named(builder, OUTSIDER, &nonce).sign_sha1(md5(OUTSIDER).bytes()),
        Signature::UserhashOfOutsider => builder
            .put(wire::USERHASH, &userhash(OUTSIDER, REALM))
            .put(wire::REALM, realm)
            .put(wire::NONCE, &nonce)
            .sign_sha1(md5(OUTSIDER).bytes()),
        Signature::WrongKey => named(builder, USER, &nonce).sign_sha1(b"wrong"),
        Signature::WrongNonce => named(builder, USER, b"stale").sign_sha1(md5(USER).bytes()),
        Signature::Token { sent, lifetime, sha256 } => {
            let builder = named(builder, TOKEN_KEY, &nonce);
            let token = sent.then(|| access_token(lifetime.into()));
            let builder = token.into_iter().fold(builder, |b, t| b.put(wire::ACCESS_TOKEN, &t));
            if sha256 { builder.sign_sha256(MAC_KEY) } else { builder.sign_sha1(MAC_KEY) }
        }
        Signature::None => builder,
    }
    .build()
}

fn with(fixture: &Fixture, builder: Builder, id: [u8; 12], attributes: &[Attribute]) -> Builder {
    attributes.iter().take(16).fold(builder, |builder, attribute| match attribute {
        Attribute::Transport => builder.put(wire::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
        Attribute::Lifetime(seconds) => builder.put(0x000D, &seconds.to_be_bytes()),
        Attribute::Peer(peer) => {
            let (kind, value) = peer_value(fixture, *peer, id);
            builder.put(kind, &value)
        }
        Attribute::Channel(n) => {
            builder.put(wire::CHANNEL_NUMBER, &[0x40 | n >> 4 & 0xf, n & 3, 0, 0])
        }
        Attribute::Family(v6) => builder.put(0x0017, &[1 + u8::from(*v6), 0, 0, 0]),
        Attribute::AdditionalFamily => builder.put(0x8000, &[2, 0, 0, 0]),
        Attribute::EvenPort(reserve) => builder.put(0x0018, &[u8::from(*reserve) << 7]),
        Attribute::Token(token) => {
            let token = fixture.token.filter(|_| token[0] % 4 > 0).unwrap_or(*token);
            builder.put(0x0022, &token)
        }
        Attribute::DontFragment => builder.put(0x001A, &[]),
        Attribute::TcpTransport => builder.put(wire::REQUESTED_TRANSPORT, &[6, 0, 0, 0]),
        Attribute::Connection(id) => {
            let id = if id % 4 > 0 { fixture.connection } else { *id };
            builder.put(wire::CONNECTION_ID, &id.to_be_bytes())
        }
        Attribute::Ticket(None) => builder.put(wire::MOBILITY_TICKET, &[]),
        Attribute::Ticket(Some(age)) => builder.put(wire::MOBILITY_TICKET, &ticket(fixture, *age)),
        Attribute::Raw(kind, value) => builder.put(*kind, value),
    })
}

fn peer_value(fixture: &Fixture, peer: Peer, id: [u8; 12]) -> (u16, Vec<u8>) {
    let address = address(fixture, peer);
    let value = match address {
        SocketAddr::V4(v4) => wire::xor_v4(v4.ip().octets(), v4.port()).to_vec(),
        SocketAddr::V6(v6) => wire::xor_v6(v6.ip().octets(), v6.port(), id).to_vec(),
    };
    (wire::XOR_PEER_ADDRESS, value)
}

fn address(fixture: &Fixture, peer: Peer) -> SocketAddr {
    match peer {
        Peer::Host(first, port) => {
            let host = 1 + u8::from(first);
            SocketAddr::from(([9, 9, 9, host], 1000 + u16::from(port % 4)))
        }
        Peer::V6(host) => {
            SocketAddr::from(([0x2606, 0x4700, 0, 0, 0, 0, 0, u16::from(host % 4)], 1000))
        }
        Peer::Own(pick) => socket(fixture, pick)
            .map_or(SocketAddr::from(([8, 8, 4, 4], 60_000)), |(_, _, address)| address),
        Peer::Any(ip, port) => SocketAddr::from((ip, port)),
    }
}
