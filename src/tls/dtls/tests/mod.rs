//! OpenSSL's client against front and session, over a network that is good or bad.
//!
//! Front and timers get virtual time; OpenSSL reads a real clock beneath both
//! sides, so what is lost here is waited for.

mod cookies;
mod networks;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;

use openssl::ssl::{ErrorCode, Ssl, SslContext, SslMethod, SslOptions, SslStream};

use super::super::certificates::tests::now;
use super::super::{Certificates, State};
use super::link::Link;
use super::*;
use crate::net::Now;

/// A client on OpenSSL.
struct Client {
    stream: SslStream<Link>,
    connected: bool,
    closed: bool,
    /// What it received.
    plain: Vec<Vec<u8>>,
}

/// What a client wants.
#[derive(Clone, Default)]
struct Wishes {
    name: Option<&'static str>,
    /// Each behind its length.
    protocols: &'static [u8],
    ciphers: Option<&'static str>,
}

impl Client {
    fn new(wishes: &Wishes) -> Self {
        let mut context = SslContext::builder(SslMethod::dtls_client()).unwrap();
        context.set_options(SslOptions::NO_QUERY_MTU);
        if !wishes.protocols.is_empty() {
            context.set_alpn_protos(wishes.protocols).unwrap();
        }
        if let Some(ciphers) = wishes.ciphers {
            context.set_cipher_list(ciphers).unwrap();
        }
        let mut ssl = Ssl::new(&context.build()).unwrap();
        if let Some(name) = wishes.name {
            ssl.set_hostname(name).unwrap();
        }
        ssl.set_mtu(1200).unwrap();
        ssl.set_connect_state();
        let stream = SslStream::new(ssl, Link::default()).unwrap();
        Self { stream, connected: false, closed: false, plain: Vec::new() }
    }

    /// Does what there is to do; OpenSSL looks at its clock.
    fn step(&mut self) {
        if !self.connected {
            match self.stream.do_handshake() {
                Ok(()) => self.connected = true,
                Err(why) if why.code() == ErrorCode::WANT_READ => return,
                Err(why) => panic!("the client gave up: {why}"),
            }
        }
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.ssl_read(&mut buffer) {
                Ok(len) => self.plain.push(buffer[..len].to_vec()),
                Err(why) if why.code() == ErrorCode::WANT_READ => return,
                Err(why) if why.code() == ErrorCode::ZERO_RETURN => {
                    self.closed = true;
                    return;
                }
                Err(why) => panic!("the client gave up: {why}"),
            }
        }
    }

    fn receive(&mut self, datagram: &[u8]) {
        self.stream.get_mut().put(datagram);
        self.step();
    }

    fn send(&mut self, plain: &[u8]) {
        self.stream.ssl_write(plain).unwrap();
    }

    fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        let link = self.stream.get_mut();
        let datagrams = link.datagrams().map(<[u8]>::to_vec).collect();
        link.clear();
        datagrams
    }
}

/// What an owner does with one client's datagrams.
struct Server {
    front: Front,
    certificates: Arc<Certificates>,
    limits: Limits,
    session: Option<Session>,
    /// Sessions begun so far.
    begun: usize,
    plain: Vec<Vec<u8>>,
    out: Vec<Vec<u8>>,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client_addr() -> SocketAddr {
    addr("192.0.2.1:5000")
}

fn server_addr() -> SocketAddr {
    addr("198.51.100.1:5349")
}

impl Server {
    fn new(certificates: &Arc<Certificates>, limits: Limits) -> Self {
        Self {
            front: Front::new(b"secret"),
            certificates: Arc::clone(certificates),
            limits,
            session: None,
            begun: 0,
            plain: Vec::new(),
            out: Vec::new(),
        }
    }

    fn receive(&mut self, now: Now, datagram: &[u8]) {
        if self.session.is_none() || starts_with_hello(datagram) {
            match self.front.receive(now, client_addr(), server_addr(), datagram) {
                Verdict::Verified(hello) => {
                    let same = |session: &Session| session.began_with(&hello);
                    if !self.session.as_ref().is_some_and(same) {
                        let begun =
                            Session::accept(&self.certificates, self.limits, &hello, now.mono);
                        self.session = Some(begun.map_err(|(why, _)| why).unwrap());
                        self.begun += 1;
                        return self.collect();
                    }
                }
                Verdict::Answer(answer) => {
                    assert!(answer.len() < datagram.len());
                    return self.out.push(answer.to_vec());
                }
                Verdict::Drop(_) => return,
            }
        }
        let Some(session) = &mut self.session else { return };
        session.receive(now.mono, datagram).unwrap();
        let mut buffer = vec![0; MAX];
        while let Some(len) = session.read(&mut buffer).unwrap() {
            self.plain.push(buffer[..len].to_vec());
        }
        self.collect();
    }

    fn handle_timeout(&mut self, now: Now) {
        if let Some(session) = &mut self.session {
            session.handle_timeout(now.mono).unwrap();
            self.collect();
        }
    }

    fn send(&mut self, pieces: &[&[u8]]) {
        let session = self.session.as_mut().unwrap();
        session.send(pieces.iter().copied(), &mut Vec::new()).unwrap();
        self.collect();
    }

    fn collect(&mut self) {
        let session = self.session.as_mut().unwrap();
        self.out.extend(session.datagrams().map(<[u8]>::to_vec));
        session.clear_datagrams();
    }

    fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.state() == State::Connected)
    }
}

const MAX: usize = super::super::MAX_PLAINTEXT;

/// Carries every datagram at once, in order, until both are silent.
fn settle(now: Now, client: &mut Client, server: &mut Server) {
    client.step();
    loop {
        let out = client.take_datagrams();
        for datagram in &out {
            server.receive(now, datagram);
        }
        let answers = std::mem::take(&mut server.out);
        for datagram in &answers {
            client.receive(datagram);
        }
        if out.is_empty() && answers.is_empty() {
            return;
        }
    }
}

/// The first ClientHello of a client.
fn first_hello(client: &mut Client) -> Vec<u8> {
    client.step();
    let [hello] = <[_; 1]>::try_from(client.take_datagrams()).unwrap();
    hello
}
