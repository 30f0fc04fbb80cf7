//! rustls' client against the session, with the streams cut anywhere.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    SupportedProtocolVersion,
};

use super::super::certificates::tests::{KINDS, Kind, certificates};
use super::*;

const VERSIONS: [(&SupportedProtocolVersion, Version); 2] =
    [(&TLS12, Version::Tls12), (&TLS13, Version::Tls13)];

/// Trusts every certificate, and verifies that the server has its key.
#[derive(Debug)]
struct Anyone(CryptoProvider);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn client(
    version: &'static SupportedProtocolVersion,
    name: &str,
    protocols: &[&[u8]],
) -> ClientConnection {
    let provider = ring::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// A client, a session, and the stream between them.
struct Pair {
    client: ClientConnection,
    session: Session,
    /// What the session made of the client's bytes.
    plain: Vec<u8>,
    /// What the client made of the session's.
    answers: Vec<u8>,
    /// Bytes of the client so far.
    sent: usize,
    /// Where the client's bytes are cut.
    cut: Box<dyn Fn(usize) -> bool>,
}

impl Pair {
    fn new(client: ClientConnection, certificates: &Arc<Certificates>) -> Self {
        Self {
            client,
            session: Session::new(Arc::clone(certificates)),
            plain: Vec::new(),
            answers: Vec::new(),
            sent: 0,
            cut: Box::new(|_| false),
        }
    }

    /// Carries bytes until both are silent.
    fn run(&mut self) -> Result<(), Error> {
        loop {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            let mut start = 0;
            for end in 1..=bytes.len() {
                if end == bytes.len() || (self.cut)(self.sent + end) {
                    self.session.receive(&bytes[start..end], &mut self.plain)?;
                    start = end;
                }
            }
            self.sent += bytes.len();
            if !self.answer() && bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Carries what the session has to say; whether it had.
    fn answer(&mut self) -> bool {
        let mut bytes = Vec::new();
        assert_eq!(self.session.wants_write(), {
            self.session.write(&mut bytes);
            !bytes.is_empty()
        });
        self.deliver(&bytes);
        !bytes.is_empty()
    }

    fn deliver(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            let _ = self.client.process_new_packets();
            let _ = self.client.reader().read_to_end(&mut self.answers);
        }
    }

    /// The whole life of a connection.
    fn live(&mut self) {
        self.client.writer().write_all(b"from the client").unwrap();
        self.run().unwrap();
        assert_eq!(self.plain, b"from the client");
        assert_eq!(self.session.state(), State::Connected);
        let mut cipher = Vec::new();
        let mut pieces = [&b"from"[..], b"", b" the ", b"server", b""].map(IoSlice::new);
        self.session.send(&mut pieces, &mut cipher).unwrap();
        self.deliver(&cipher);
        assert_eq!(self.answers, b"from the server");
        self.client.send_close_notify();
        self.run().unwrap();
        assert_eq!(self.session.state(), State::Closed);
        let refused = self.session.send(&mut [IoSlice::new(b"x")], &mut cipher);
        assert_eq!(refused, Err(Error::NotConnected));
    }
}

/// Lengths of the records in `cipher`.
fn records(mut cipher: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = cipher {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        lengths.push(length);
        cipher = &rest[length..];
    }
    lengths
}

#[test]
fn messages_sent_together_are_records_of_their_own() {
    let certificates = certificates(&[(Kind::P256, &["turn.example.org"])]);
    for (version, _) in VERSIONS {
        let mut pair = Pair::new(client(version, "turn.example.org", &[]), &certificates);
        let early = pair.session.send_each([[IoSlice::new(b"x")]].into_iter(), &mut Vec::new());
        assert_eq!(early, Err(Error::NotConnected));
        pair.run().unwrap();
        // More than the library keeps, and one that takes several records.
        let messages: Vec<Vec<u8>> = (0..100u8)
            .map(|n| vec![n; if n == 50 { 40_000 } else { 1_200 + usize::from(n) }])
            .collect();
        let pieces = messages.iter().map(|message| {
            let (header, body) = message.split_at(4);
            [header, body, &[]].map(IoSlice::new)
        });
        let mut cipher = Vec::new();
        pair.session.send_each(pieces, &mut cipher).unwrap();
        let lengths = records(&cipher);
        assert_eq!(lengths.len(), 102);
        let overhead = lengths[0] - messages[0].len();
        for n in 0..49 {
            assert_eq!(lengths[n], messages[n].len() + overhead);
            assert_eq!(lengths[101 - n], messages[99 - n].len() + overhead);
        }
        pair.deliver(&cipher);
        assert!(pair.answers == messages.concat());
    }
}

#[test]
fn the_stream_may_be_cut_at_every_byte() {
    let certificates = certificates(&[(Kind::P256, &["turn.example.org"])]);
    for (version, _) in VERSIONS {
        let new = || Pair::new(client(version, "turn.example.org", &[]), &certificates);
        let mut whole = new();
        whole.live();
        let len = whole.sent;
        assert!(len > 200, "{len}");
        for at in 1..len {
            let mut pair = new();
            pair.cut = Box::new(move |sent| sent == at);
            pair.live();
        }
        let mut pair = new();
        pair.cut = Box::new(|_| true);
        pair.live();
    }
}

#[test]
fn every_kind_of_key_in_both_versions() {
    for kind in KINDS {
        let certificates = certificates(&[(kind, &["turn.example.org"])]);
        for (version, expected) in VERSIONS {
            let mut pair = Pair::new(client(version, "turn.example.org", &[]), &certificates);
            assert_eq!(pair.session.state(), State::Handshaking);
            pair.run().unwrap();
            assert_eq!(pair.session.version(), Some(expected));
            assert_eq!(pair.session.server_name(), Some("turn.example.org"));
            pair.live();
        }
    }
}

#[test]
fn the_name_chooses_the_certificate() {
    let certificates = certificates(&[
        (Kind::P256, &["default.example"]),
        (Kind::P256, &["*.example.org"]),
        (Kind::P384, &["turn.example.org"]),
    ]);
    for (version, _) in VERSIONS {
        for (name, expected) in [
            ("default.example", 0),
            ("elsewhere.example", 0),
            ("192.0.2.1", 0),
            ("stun.example.org", 1),
            ("turn.example.org", 2),
        ] {
            let mut pair = Pair::new(client(version, name, &[]), &certificates);
            pair.run().unwrap();
            let shown = &pair.client.peer_certificates().unwrap()[0];
            let fingerprint = |index: usize| certificates.list()[index].fingerprint.clone();
            let digest = ::ring::digest::digest(&::ring::digest::SHA256, shown);
            let hex: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
            assert_eq!(hex.join(":"), fingerprint(expected), "{name}");
        }
    }
}

/// RFC 7443 section 3.
#[test]
fn application_protocols_are_offered_and_never_demanded() {
    let certificates = certificates(&[(Kind::P256, &["turn.example.org"])]);
    let (turn, discovery): (&[u8], &[u8]) = (b"stun.turn", b"stun.nat-discovery");
    for (version, _) in VERSIONS {
        for (offered, expected) in [
            (vec![], None),
            (vec![turn], Some(turn)),
            (vec![discovery], Some(discovery)),
            (vec![discovery, turn], Some(turn)),
            (vec![b"h2".as_slice(), discovery], Some(discovery)),
            (vec![b"h2".as_slice(), b"http/1.1"], None),
        ] {
            let mut pair = Pair::new(client(version, "turn.example.org", &offered), &certificates);
            pair.run().unwrap();
            assert_eq!(pair.session.application_protocol(), expected);
            assert_eq!(pair.client.alpn_protocol(), expected);
            pair.live();
        }
    }
}

#[test]
fn more_than_a_record_goes_through_both_ways() {
    let certificates = certificates(&[(Kind::P256, &["turn.example.org"])]);
    let data: Vec<u8> = (0..200_000u32).map(|at| (at * 7 + at / 256) as u8).collect();
    for (version, _) in VERSIONS {
        let mut pair = Pair::new(client(version, "turn.example.org", &[]), &certificates);
        pair.run().unwrap();
        pair.client.set_buffer_limit(None);
        pair.client.writer().write_all(&data).unwrap();
        pair.run().unwrap();
        assert!(pair.plain == data);
        let mut cipher = Vec::new();
        let mut pieces = [&data[..9], &data[9..150_000], &data[150_000..]].map(IoSlice::new);
        pair.session.send(&mut pieces, &mut cipher).unwrap();
        pair.deliver(&cipher);
        assert!(pair.answers == data);
    }
}

#[test]
fn the_server_closes() {
    let certificates = certificates(&[(Kind::P256, &["turn.example.org"])]);
    for (version, _) in VERSIONS {
        let mut pair = Pair::new(client(version, "turn.example.org", &[]), &certificates);
        pair.run().unwrap();
        pair.session.close();
        let mut cipher = Vec::new();
        pair.session.write(&mut cipher);
        pair.client.read_tls(&mut cipher.as_slice()).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn what_fails_is_named_and_the_client_is_told() {
    let certificates = certificates(&[(Kind::P256, &["turn.example.org"])]);
    let fail = |bytes: &[u8]| {
        let mut session = Session::new(Arc::clone(&certificates));
        let failed = session.receive(bytes, &mut Vec::new()).unwrap_err();
        assert_eq!(session.state(), State::Closed);
        let mut alert = Vec::new();
        session.write(&mut alert);
        (failed, alert.first().copied())
    };
    assert_eq!(fail(b"GET / HTTP/1.1\r\n\r\n").0, Error::NotTls);
    assert_eq!(fail(&[22, 3, 1, 0, 4, 1, 0, 0, 0]), (Error::NotTls, Some(21)));
    assert_eq!(fail(&[23, 3, 3, 0, 1, 1]), (Error::Misbehaved, None));
    // A ClientHello of TLS 1.1 with one cipher suite.
    let mut old = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    old.extend([9; 32]);
    old.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    assert_eq!(fail(&old), (Error::Incompatible, Some(21)));
    // A hello that does not end, in records of 4 KiB.
    let mut long = vec![22, 3, 1, 0x10, 0, 1, 0, 0xff, 0xf0];
    long.extend([0; 4092]);
    long.extend([[22, 3, 1, 0x10, 0].as_slice(), &[0; 4096]].concat().repeat(8));
    assert_eq!(fail(&long).0, Error::HelloTooLong);
}

#[test]
fn altered_bytes_end_the_session() {
    let certificates = certificates(&[(Kind::P256, &["turn.example.org"])]);
    for (version, _) in VERSIONS {
        let mut pair = Pair::new(client(version, "turn.example.org", &[]), &certificates);
        pair.run().unwrap();
        pair.client.writer().write_all(b"genuine").unwrap();
        pair.client.writer().write_all(b"altered").unwrap();
        let mut bytes = Vec::new();
        while pair.client.wants_write() {
            pair.client.write_tls(&mut bytes).unwrap();
        }
        *bytes.last_mut().unwrap() ^= 1;
        let failed = pair.session.receive(&bytes, &mut pair.plain);
        assert_eq!(failed, Err(Error::BadRecord));
        assert_eq!(pair.plain, b"genuine");
        assert!(pair.session.wants_write(), "an alert");
    }
}

#[test]
fn a_client_that_does_not_trust_the_certificate_refuses() {
    let certificates = certificates(&[(Kind::P256, &["turn.example.org"])]);
    for (version, _) in VERSIONS {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from("turn.example.org").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut pair = Pair::new(client, &certificates);
        assert_eq!(pair.run(), Err(Error::Refused));
        assert_eq!(pair.session.state(), State::Closed);
    }
}
