//! Sessions over a network that loses nothing.

use std::time::Duration;

use super::super::super::Error;
use super::super::super::certificates::tests::{Kind, certificates};
use super::*;

pub(super) fn certificate() -> Arc<Certificates> {
    certificates(&[(Kind::P256, &["turn.example.org"])])
}

fn connect(certificates: &Arc<Certificates>, wishes: &Wishes) -> (Client, Server) {
    let mut client = Client::new(wishes);
    let mut server = Server::new(certificates, Limits::default());
    settle(now(), &mut client, &mut server);
    assert!(client.connected && server.is_connected());
    (client, server)
}

fn exchange(client: &mut Client, server: &mut Server) {
    client.send(b"from the client");
    client.send(b"twice");
    settle(now(), client, server);
    assert_eq!(server.plain, [&b"from the client"[..], b"twice"]);
    server.send(&[b"from", b"", b" the ", b"server"]);
    server.send(&[b"twice"]);
    assert_eq!(server.out.len(), 2, "a datagram each");
    settle(now(), client, server);
    assert_eq!(client.plain, [&b"from the server"[..], b"twice"]);
}

#[test]
fn every_kind_of_key() {
    for kind in [Kind::Rsa, Kind::P256, Kind::P384] {
        let (mut client, mut server) =
            connect(&certificates(&[(kind, &["turn.example.org"])]), &Wishes::default());
        exchange(&mut client, &mut server);
        assert_eq!(server.begun, 1);
        assert_eq!(server.session.as_ref().unwrap().poll_timeout(), None);
    }
}

#[test]
fn ed25519_is_left_to_tls() {
    let alone = certificates(&[(Kind::Ed25519, &["turn.example.org"])]);
    assert!(!alone.serve_datagrams());
    let both = certificates(&[
        (Kind::Ed25519, &["turn.example.org"]),
        (Kind::P256, &["turn.example.org", "stun.example.org"]),
    ]);
    assert!(both.serve_datagrams());
    for name in [None, Some("turn.example.org"), Some("elsewhere.example")] {
        connect(&both, &Wishes { name, ..Wishes::default() });
    }
}

#[test]
fn data_of_every_length_stays_in_one_datagram() {
    let (mut client, mut server) = connect(&certificate(), &Wishes::default());
    for len in [1, 1199, 1200, 1500, 9000, MAX] {
        let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
        client.send(&data);
        let out = client.take_datagrams();
        assert_eq!(out.len(), 1);
        server.receive(now(), &out[0]);
        assert!(server.plain.pop().unwrap() == data);
        server.send(&[&data[..len / 2], &data[len / 2..]]);
        let [datagram] = <[_; 1]>::try_from(std::mem::take(&mut server.out)).unwrap();
        client.receive(&datagram);
        assert!(client.plain.pop().unwrap() == data);
    }
    let session = server.session.as_mut().unwrap();
    let long = vec![0; MAX + 1];
    assert_eq!(session.send([long.as_slice()], &mut Vec::new()), Err(Error::TooLong));
    assert_eq!(session.send([[].as_slice()], &mut Vec::new()), Ok(()));
    assert!(!session.wants_write());
    assert_eq!(session.state(), State::Connected);
}

#[test]
fn a_datagram_may_hold_several_records() {
    let (mut client, mut server) = connect(&certificate(), &Wishes::default());
    client.send(b"one");
    client.send(b"two");
    let both = client.take_datagrams().concat();
    server.receive(now(), &both);
    assert_eq!(server.plain, [b"one", b"two"]);
}

#[test]
fn forged_repeated_and_old_datagrams_change_nothing() {
    let (mut client, mut server) = connect(&certificate(), &Wishes::default());
    client.send(b"genuine");
    let out = client.take_datagrams();
    let mut forged = out[0].clone();
    *forged.last_mut().unwrap() ^= 1;
    for hostile in [&forged[..], &[], &[22], &[0xff; 40], &out[0][..20]] {
        server.receive(now(), hostile);
        assert!(server.plain.is_empty());
    }
    server.receive(now(), &out[0]);
    server.receive(now(), &out[0]);
    assert_eq!(server.plain, [b"genuine"]);
    server.plain.clear();
    client.plain.clear();
    exchange(&mut client, &mut server);
}

#[test]
fn the_name_chooses_the_certificate() {
    let certificates = certificates(&[
        (Kind::P256, &["default.example"]),
        (Kind::P256, &["*.example.org"]),
        (Kind::Rsa, &["turn.example.org"]),
    ]);
    for (name, expected) in [
        (None, 0),
        (Some("elsewhere.example"), 0),
        (Some("stun.example.org"), 1),
        (Some("turn.example.org"), 2),
    ] {
        let (client, server) = connect(&certificates, &Wishes { name, ..Wishes::default() });
        let shown = client.stream.ssl().peer_certificate().unwrap().to_der().unwrap();
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, &shown);
        let hex: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(hex.join(":"), certificates.list()[expected].fingerprint, "{name:?}");
        assert_eq!(server.session.unwrap().server_name(), name);
    }
}

/// RFC 7443 section 3.
#[test]
fn application_protocols_are_offered_over_dtls_too() {
    let certificates = certificate();
    let (turn, discovery): (&[u8], &[u8]) = (b"stun.turn", b"stun.nat-discovery");
    for (protocols, expected) in [
        (&b""[..], None),
        (b"\x09stun.turn", Some(turn)),
        (b"\x12stun.nat-discovery", Some(discovery)),
        (b"\x12stun.nat-discovery\x09stun.turn", Some(turn)),
        (b"\x02h2", None),
        (b"\x02h2\x09stun.turn", Some(turn)),
    ] {
        let wishes = Wishes { protocols, name: Some("turn.example.org"), ..Wishes::default() };
        let (client, server) = connect(&certificates, &wishes);
        assert_eq!(client.stream.ssl().selected_alpn_protocol(), expected);
        assert_eq!(server.session.unwrap().application_protocol(), expected);
    }
}

#[test]
fn only_forward_secrecy_and_authenticated_encryption() {
    let certificates = certificates(&[(Kind::Rsa, &[])]);
    for ciphers in ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256"] {
        let mut client = Client::new(&Wishes { ciphers: Some(ciphers), ..Wishes::default() });
        let front = Front::new(b"secret");
        let first = first_hello(&mut client);
        let Verdict::Answer(answer) = front.receive(now(), client_addr(), server_addr(), &first)
        else {
            panic!("no cookie")
        };
        client.receive(&answer);
        let second = client.take_datagrams().concat();
        let Verdict::Verified(hello) = front.receive(now(), client_addr(), server_addr(), &second)
        else {
            panic!("not verified")
        };
        let begun = Session::accept(&certificates, Limits::default(), &hello, now().mono);
        let (why, alert) = begun.map(|_| ()).unwrap_err();
        assert_eq!(why, Error::Incompatible);
        assert_eq!(alert[0], 21);
        // The number of the hello that it answers.
        assert_eq!(alert[3..11], second[3..11]);
    }
}

#[test]
fn either_side_closes() {
    let (mut client, mut server) = connect(&certificate(), &Wishes::default());
    client.stream.shutdown().unwrap();
    for datagram in client.take_datagrams() {
        server.receive(now(), &datagram);
    }
    assert_eq!(server.session.as_ref().unwrap().state(), State::Closed);
    assert_eq!(server.out.len(), 1, "a close_notify in return");

    let (mut client, mut server) = connect(&certificate(), &Wishes::default());
    let session = server.session.as_mut().unwrap();
    session.close();
    let refused = session.send([b"x".as_slice()], &mut Vec::new());
    assert_eq!(refused, Err(Error::NotConnected));
    server.collect();
    settle(now(), &mut client, &mut server);
    assert!(client.closed);
}

#[test]
fn a_cookie_that_has_aged_is_replaced() {
    let mut client = Client::new(&Wishes::default());
    let mut server = Server::new(&certificate(), Limits::default());
    let mut now = now();
    // The second and the third hello come too late for their cookies.
    let mut hello = first_hello(&mut client);
    for message in 0..3 {
        assert_eq!(hello[17..19], [0, message]);
        server.receive(now, &hello);
        let answer = server.out.pop().unwrap();
        client.receive(&answer);
        hello = client.take_datagrams().concat();
        now = now.after(Duration::from_secs(if message < 2 { 180 } else { 0 }));
    }
    assert_eq!(server.begun, 0);
    server.receive(now, &hello);
    assert_eq!(server.begun, 1);
    for datagram in std::mem::take(&mut server.out) {
        client.receive(&datagram);
    }
    settle(now, &mut client, &mut server);
    assert!(client.connected && server.is_connected());
    exchange(&mut client, &mut server);
}

/// RFC 6347 section 4.2.8.
#[test]
fn a_client_that_has_forgotten_begins_anew() {
    let (mut client, mut server) = connect(&certificate(), &Wishes::default());
    exchange(&mut client, &mut server);
    server.plain.clear();
    let mut anew = Client::new(&Wishes::default());
    // A first hello alone, which anybody can send, ends nothing.
    let hello = first_hello(&mut anew);
    server.receive(now(), &hello);
    client.send(b"still there");
    let datagram = client.take_datagrams().concat();
    server.receive(now(), &datagram);
    assert_eq!(server.plain.pop().unwrap(), b"still there");
    let answer = server.out.pop().unwrap();
    anew.receive(&answer);
    settle(now(), &mut anew, &mut server);
    assert!(anew.connected);
    assert_eq!(server.begun, 2);
    exchange(&mut anew, &mut server);
}

#[test]
fn a_handshake_has_a_deadline() {
    let mut client = Client::new(&Wishes::default());
    let mut server = Server::new(&certificate(), Limits::default());
    let now = now();
    let first = first_hello(&mut client);
    server.receive(now, &first);
    client.receive(&server.out.pop().unwrap());
    for datagram in client.take_datagrams() {
        server.receive(now, &datagram);
    }
    let session = server.session.as_mut().unwrap();
    assert_eq!(session.poll_timeout(), Some(now.mono + Duration::from_secs(1)));
    assert_eq!(session.handle_timeout(now.mono + Duration::from_millis(999)), Ok(()));
    let late = now.mono + Limits::default().handshake;
    assert_eq!(session.handle_timeout(late), Err(Error::TimedOut));
    assert_eq!(session.state(), State::Closed);
    assert_eq!(session.poll_timeout(), None);
}
