//! Third-party authorization: tokens instead of passwords (RFC 7635).

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::tcp_relay::{allocate_tcp, connect, connection_bind, id_of};
use super::wire::{Request, allocate, bind, permission, refresh};
use super::*;
use crate::auth::{TokenAlgorithm, TokenKey, Tokens};
use crate::stun::{verify_sha1, verify_sha256};

const SERVER_NAME: &str = "turn.example.org";
const KID: &str = "north";
const SHARED: [u8; 32] = [7; 32];
const MAC_KEY: &[u8] = &[0x5a; 20];

/// A server that takes tokens, and passwords as well.
fn taking() -> Bench {
    Bench::with(on)
}

fn on(settings: &mut Settings) {
    let key = TokenKey::new(KID, TokenAlgorithm::A256Gcm, &SHARED, 0..=u64::MAX);
    settings.auth.tokens = Some(Arc::new(Tokens::new(SERVER_NAME, vec![key.unwrap()])));
}

/// What an authorization server does: a token made at `EPOCH`.
fn token(mac_key: &[u8], lifetime: u32) -> Vec<u8> {
    sealed_for(SERVER_NAME, mac_key, EPOCH, lifetime)
}

fn sealed_for(server: &str, mac_key: &[u8], time: u64, lifetime: u32) -> Vec<u8> {
    let mut content = (mac_key.len() as u16).to_be_bytes().to_vec();
    content.extend(mac_key);
    content.extend((time << 16).to_be_bytes());
    content.extend(lifetime.to_be_bytes());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &SHARED).unwrap());
    let nonce = *b"a nonce once";
    let aad = Aad::from(server.as_bytes());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut content).unwrap();
    [&[0, 12][..], &nonce, &content].concat()
}

/// A client with a token and the key that came with it.
#[derive(Clone)]
struct Holder {
    client: Client,
    kid: String,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    token: Option<Vec<u8>>,
    mac_key: Vec<u8>,
    sha256: bool,
}

impl Holder {
    /// Client `n`, which learns realm and nonce by being refused.
    fn new(b: &mut Bench, n: u8, token: Vec<u8>) -> Self {
        Self::at(b, client(n), token)
    }

    fn at(b: &mut Bench, client: Client, token: Vec<u8>) -> Self {
        let challenge = b.ask(client, allocate().bytes());
        Self {
            client,
            kid: KID.into(),
            realm: challenge.get(Attribute::Realm).unwrap(),
            nonce: challenge.get(Attribute::Nonce).unwrap(),
            token: Some(token),
            mac_key: MAC_KEY.into(),
            sha256: false,
        }
    }

    /// The same without ACCESS-TOKEN in its requests.
    fn tokenless(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    fn sign(&self, request: Request) -> Request {
        let request = request
            .with(Attribute::Username, self.kid.as_bytes())
            .with(Attribute::Realm, &self.realm)
            .with(Attribute::Nonce, &self.nonce);
        let request = match &self.token {
            Some(token) => request.with(Attribute::AccessToken, token),
            None => request,
        };
        if self.sha256 { request.sha256(&self.mac_key) } else { request.sha1(&self.mac_key) }
    }

    /// A request and its answer; the code, zero for success.
    fn ask(&self, b: &mut Bench, request: Request) -> Reply {
        b.ask(self.client, self.sign(request).bytes())
    }

    fn grant(&self, b: &mut Bench, request: Request) -> Reply {
        let reply = self.ask(b, request);
        assert!(reply.is_success(), "refused with {}", reply.code());
        let message = reply.message();
        let proven = if self.sha256 {
            verify_sha256(&message, &self.mac_key)
        } else {
            verify_sha1(&message, &self.mac_key)
        };
        assert!(proven, "the answer is signed with the MAC key, in the way of the request");
        reply
    }
}

#[test]
fn rfc7635_4_a_stranger_is_told_that_tokens_are_taken() {
    let mut b = taking();
    let challenge = b.ask(client(1), allocate().bytes());
    assert_eq!(challenge.code(), 401);
    let name = challenge.get(Attribute::ThirdPartyAuthorization).expect("the server's name");
    assert_eq!(name, SERVER_NAME.as_bytes());
    assert!(challenge.has(Attribute::Nonce) && challenge.has(Attribute::Realm));
    let mut b = Bench::new();
    let challenge = b.ask(client(1), allocate().bytes());
    assert!(!challenge.has(Attribute::ThirdPartyAuthorization), "or that they are not");
}

#[test]
fn rfc7635_7_a_token_is_as_good_as_a_password() {
    let mut b = taking();
    let holder = Holder::new(&mut b, 1, token(MAC_KEY, 3600));
    let relayed = holder.grant(&mut b, allocate()).relayed()[0];
    holder.grant(&mut b, refresh(None));
    holder.grant(&mut b, permission(&[PEER]));
    assert!(b.peer_sends(relayed, PEER, b"x").is_ok());
    let (alice, _) = b.allocated("alice", 2);
    b.grant(&alice, refresh(None));
    holder.grant(&mut b, refresh(Some(0)));
}

#[test]
fn rfc7635_9_the_token_need_not_come_with_every_request() {
    // Also where passwords need an algorithm that such clients never name.
    for algorithms in [vec![Algorithm::Sha256, Algorithm::Md5], vec![Algorithm::Sha256]] {
        let mut b = Bench::with(|s| {
            on(s);
            s.auth.algorithms = algorithms;
        });
        let holder = Holder::new(&mut b, 1, token(MAC_KEY, 3600));
        assert_eq!(holder.tokenless().ask(&mut b, allocate()).code(), 401, "nobody knows it yet");
        holder.grant(&mut b, allocate());
        holder.tokenless().grant(&mut b, permission(&[PEER]));
        holder.tokenless().grant(&mut b, bind(0x4000, PEER));
        holder.tokenless().grant(&mut b, refresh(None));
        let liar = Holder { mac_key: vec![1; 20], ..holder.tokenless() };
        assert_eq!(liar.ask(&mut b, refresh(Some(0))).code(), 401);
    }
}

#[test]
fn rfc7635_6_2_keys_of_other_lengths_and_sha256() {
    let mut b = taking();
    for (n, len) in [(1, 20), (2, 32), (3, 64)] {
        let mac_key = vec![0x5b; len];
        let token = token(&mac_key, 3600);
        let holder = Holder { mac_key, sha256: true, ..Holder::new(&mut b, n, token) };
        holder.grant(&mut b, allocate());
    }
    for (n, len) in [(4, 0), (5, 19), (6, 65)] {
        let mac_key = vec![0x5b; len];
        let token = token(&mac_key, 3600);
        let holder = Holder { mac_key, ..Holder::new(&mut b, n, token) };
        assert_eq!(holder.ask(&mut b, allocate()).code(), 401, "{len}");
    }
}

#[test]
fn sixteen_bytes_of_a_key_will_do_as_in_coturn() {
    let mut b = taking();
    let holder = Holder::new(&mut b, 1, token(MAC_KEY, 3600));
    let short = Holder { mac_key: MAC_KEY[..16].into(), ..holder.clone() };
    short.grant(&mut b, allocate());
    short.tokenless().grant(&mut b, refresh(None));
    for len in [15, 17, 19] {
        let other = Holder { mac_key: MAC_KEY[..len].into(), ..holder.clone() };
        assert_eq!(other.ask(&mut b, refresh(None)).code(), 401, "{len}");
    }
}

#[test]
fn rfc7635_7_a_token_that_is_not_good_is_401_with_a_challenge() {
    let mut b = taking();
    let good = Holder::new(&mut b, 1, token(MAC_KEY, 3600));
    let other_server = sealed_for("turn.example.com", MAC_KEY, EPOCH, 3600);
    let mut altered = token(MAC_KEY, 3600);
    altered[30] ^= 1;
    let with = |token: Vec<u8>| Holder { token: Some(token), ..good.clone() };
    for wrong in [
        with(other_server),
        with(altered),
        with(Vec::new()),
        with(vec![0; 4]),
        with(sealed_for(SERVER_NAME, MAC_KEY, EPOCH - 4000, 3600)),
        with(sealed_for(SERVER_NAME, MAC_KEY, EPOCH + 4000, 3600)),
        Holder { kid: "south".into(), ..good.clone() },
        Holder { mac_key: vec![1; 20], ..good.clone() },
        Holder { realm: b"elsewhere".to_vec(), ..good.clone() },
    ] {
        let reply = wrong.ask(&mut b, allocate());
        assert_eq!(reply.code(), 401);
        assert!(reply.has(Attribute::ThirdPartyAuthorization) && reply.has(Attribute::Nonce));
        assert!(!reply.has(Attribute::MessageIntegrity));
    }
    let told = b.shell.events.iter().filter(|event| {
        matches!(
            event,
            Event::AuthenticationFailed { reason: super::super::AuthFailure::BadToken, .. }
        )
    });
    assert_eq!(told.count(), 9);
    good.grant(&mut b, allocate());
}

#[test]
fn rfc7635_7_the_checks_of_long_term_credentials_hold_too() {
    let mut b = taking();
    let holder = Holder::new(&mut b, 1, token(MAC_KEY, 3600));
    let stranger = Holder { client: client(2), ..holder.clone() };
    assert_eq!(stranger.ask(&mut b, allocate()).code(), 438, "a token without its nonce");
    let bare = allocate().with(Attribute::AccessToken, holder.token.as_ref().unwrap());
    assert_eq!(b.ask(client(1), bare.bytes()).code(), 401);
    assert_eq!(b.ask(client(1), bare.sha1(MAC_KEY).bytes()).code(), 400);
}

#[test]
fn rfc7635_7_a_token_that_nobody_asked_for_is_420() {
    let mut b = Bench::new();
    let alice = b.login("alice", 1);
    let request = allocate().with(Attribute::AccessToken, &token(MAC_KEY, 3600));
    let reply = b.request(&alice, request);
    assert_eq!((reply.code(), reply.unknown()), (420, vec![Attribute::AccessToken.code()]));
    let mut b = taking();
    let binding = Request::new(Method::BINDING).with(Attribute::AccessToken, &[]);
    assert_eq!(b.ask(client(1), binding.bytes()).code(), 420, "Binding takes none");
}

#[test]
fn rfc7635_9_no_allocation_outlives_its_token() {
    let mut b = taking();
    let holder = Holder::new(&mut b, 1, token(MAC_KEY, 1000));
    assert_eq!(holder.grant(&mut b, allocate().lifetime(3600)).lifetime(), 1004);
    b.advance(secs(600));
    assert_eq!(holder.grant(&mut b, refresh(Some(1200))).lifetime(), 404);
    assert_eq!(holder.tokenless().grant(&mut b, refresh(None)).lifetime(), 404);
    b.advance(secs(403));
    assert_eq!(holder.grant(&mut b, refresh(None)).lifetime(), 1);
    b.advance(secs(3));
    b.assert_idle();
    for expired in [holder.clone(), holder.tokenless()] {
        let reply = expired.ask(&mut b, refresh(None));
        assert_eq!((reply.code(), reply.has(Attribute::ThirdPartyAuthorization)), (401, true));
    }
}

#[test]
fn rfc7635_9_a_slow_opening_outlives_no_token_either() {
    let mut b = taking();
    b.shell.hold = true;
    let holder = Holder::new(&mut b, 1, token(MAC_KEY, 1000));
    b.deliver(holder.client, holder.sign(allocate().lifetime(3600)).bytes());
    b.advance(secs(4));
    b.open_held();
    let (_, reply) = b.shell.sent.pop_front().expect("the relay socket is there");
    assert_eq!(reply.lifetime(), 1000);
    b.advance(secs(1001));
    b.assert_idle();
}

#[test]
fn rfc7635_9_a_new_token_prolongs_an_allocation() {
    let mut b = taking();
    let holder = Holder::new(&mut b, 1, token(MAC_KEY, 1000));
    holder.grant(&mut b, allocate());
    b.advance(secs(500));
    let mac_key = vec![0x77; 20];
    let token = sealed_for(SERVER_NAME, &mac_key, EPOCH + 500, 3000);
    let renewed = Holder { mac_key, token: Some(token), ..holder.clone() };
    assert_eq!(renewed.grant(&mut b, refresh(Some(2000))).lifetime(), 2000);
    assert_eq!(holder.tokenless().ask(&mut b, refresh(None)).code(), 401, "the old key is over");
    renewed.tokenless().grant(&mut b, refresh(None));
}

#[test]
fn rfc7635_9_a_new_token_may_be_sealed_with_a_new_key() {
    let mut b = Bench::with(|s| {
        let key = |id| TokenKey::new(id, TokenAlgorithm::A256Gcm, &SHARED, 0..=u64::MAX).unwrap();
        s.auth.tokens = Some(Arc::new(Tokens::new(SERVER_NAME, vec![key(KID), key("south")])));
    });
    let holder = Holder::new(&mut b, 1, token(MAC_KEY, 1000));
    holder.grant(&mut b, allocate());
    let renewed = Holder { kid: "south".into(), ..holder.clone() };
    renewed.grant(&mut b, refresh(None));
    renewed.tokenless().grant(&mut b, permission(&[PEER]));
    assert_eq!(holder.tokenless().ask(&mut b, refresh(None)).code(), 401);
}

#[test]
fn an_allocation_of_a_token_is_nobody_elses() {
    let mut b = taking();
    let holder = Holder::new(&mut b, 1, token(MAC_KEY, 1000));
    holder.grant(&mut b, allocate());
    let alice = b.login("alice", 1);
    assert_eq!(b.refuse(&alice, refresh(Some(0))), 441);
    let (bob, _) = b.allocated("bob", 2);
    let intruder = Holder::new(&mut b, 2, token(MAC_KEY, 1000));
    assert_eq!(intruder.ask(&mut b, refresh(Some(0))).code(), 441);
    b.grant(&bob, refresh(None));
}

#[test]
fn each_token_has_a_share_of_its_own() {
    let mut b = Bench::with(|s| {
        on(s);
        s.limits.allocations_per_user = 1;
    });
    let first = Holder::new(&mut b, 1, token(MAC_KEY, 1000));
    first.grant(&mut b, allocate());
    let again = Holder::new(&mut b, 2, token(MAC_KEY, 2000));
    assert_eq!(again.ask(&mut b, allocate()).code(), 486, "the same key, the same holder");
    let mac_key = vec![0x77; 20];
    let other =
        Holder { mac_key: mac_key.clone(), ..Holder::new(&mut b, 2, token(&mac_key, 1000)) };
    other.grant(&mut b, allocate());
}

#[test]
fn a_ticket_moves_with_the_token_it_came_with_only() {
    let mut b = Bench::with(|s| {
        on(s);
        s.mobility = Some(Box::from(&b"ticket secret"[..]));
    });
    let holder = Holder::new(&mut b, 1, token(MAC_KEY, 1000));
    let mobile = allocate().with(Attribute::MobilityTicket, &[]);
    let ticket = holder.grant(&mut b, mobile).get(Attribute::MobilityTicket).unwrap();
    let showing = || refresh(None).with(Attribute::MobilityTicket, &ticket);
    let mac_key = vec![0x77; 20];
    let thief =
        Holder { mac_key: mac_key.clone(), ..Holder::new(&mut b, 2, token(&mac_key, 1000)) };
    assert_eq!(thief.ask(&mut b, showing()).code(), 441);
    let moved = Holder::new(&mut b, 2, token(MAC_KEY, 1000));
    moved.grant(&mut b, showing());
    moved.tokenless().grant(&mut b, refresh(None));
}

#[test]
fn a_name_that_a_user_shares_with_a_key_moves_nothing() {
    let mut b = Bench::with(|s| {
        let key = TokenKey::new("alice", TokenAlgorithm::A256Gcm, &SHARED, 0..=u64::MAX);
        s.auth.tokens = Some(Arc::new(Tokens::new(SERVER_NAME, vec![key.unwrap()])));
        s.mobility = Some(Box::from(&b"ticket secret"[..]));
    });
    let alice = b.login("alice", 1);
    let mobile = allocate().with(Attribute::MobilityTicket, &[]);
    let ticket = b.grant(&alice, mobile).get(Attribute::MobilityTicket).unwrap();
    let holder = Holder::new(&mut b, 2, token(MAC_KEY, 1000));
    let holder = Holder { kid: "alice".into(), ..holder };
    let showing = || refresh(None).with(Attribute::MobilityTicket, &ticket);
    assert_eq!(holder.ask(&mut b, showing()).code(), 441);
    let moved = b.login("alice", 2);
    b.grant(&moved, showing());
}

/// A holder with a TCP allocation, a connection with a peer that waits, and its id.
fn relaying(b: &mut Bench) -> (Holder, PeerLink, u32) {
    let holder = Holder::at(b, client_on(Transport::Tcp, 1), token(MAC_KEY, 1000));
    holder.grant(b, allocate_tcp());
    let (link, id) = connection(b, &holder, PEER);
    (holder, link, id)
}

fn connection(b: &mut Bench, holder: &Holder, peer: &str) -> (PeerLink, u32) {
    let request = holder.tokenless().sign(connect(peer));
    assert!(matches!(b.deliver(holder.client, request.bytes()), Outcome::Queued));
    let question = *b.shell.connects.back().unwrap();
    let link = b.connected(question);
    let (to, reply) = b.shell.sent.pop_front().expect("an answer was sent");
    assert!(to == holder.client && verify_sha1(&reply.message(), MAC_KEY));
    (link, id_of(&reply))
}

#[test]
fn a_data_connection_lives_on_the_token_of_its_allocation() {
    let mut b = Bench::with(|s| {
        on(s);
        s.relay.tcp = true;
    });
    let (control, link, id) = relaying(&mut b);
    let with_token = Holder::at(&mut b, client_on(Transport::Tcp, 2), token(MAC_KEY, 1000));
    with_token.grant(&mut b, connection_bind(id));
    assert!(b.shell.peers[&link].1 == Some(with_token.client.link), "with the token");
    let (link, id) = connection(&mut b, &control, OTHER_PEER);
    let fresh = Holder::at(&mut b, client_on(Transport::Tcp, 3), token(MAC_KEY, 1000)).tokenless();
    assert_eq!(fresh.ask(&mut b, connection_bind(id ^ 1)).code(), 401, "who is that?");
    let data = Holder { nonce: control.nonce, ..fresh };
    data.grant(&mut b, connection_bind(id));
    assert!(b.shell.peers[&link].1 == Some(data.client.link), "without, and with its nonce");
}

#[test]
fn another_token_of_the_same_key_binds_nothing() {
    let mut b = Bench::with(|s| {
        on(s);
        s.relay.tcp = true;
    });
    let (_, link, id) = relaying(&mut b);
    let mac_key = vec![0x77; 20];
    let thief = Holder::at(&mut b, client_on(Transport::Tcp, 2), token(&mac_key, 1000));
    let thief = Holder { mac_key, ..thief };
    assert_eq!(thief.ask(&mut b, connection_bind(id)).code(), 400);
    assert_eq!(thief.tokenless().ask(&mut b, connection_bind(id)).code(), 401);
    assert!(b.shell.peers[&link].1.is_none());
}
