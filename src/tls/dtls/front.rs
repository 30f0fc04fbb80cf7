//! The stateless front: cookies for ClientHellos (RFC 6347 section 4.2.1).
//!
//! A cookie is the minute and 152 bits of HMAC-SHA256 over the minute, both
//! transport addresses and what the client must repeat in its second hello. The
//! key therefore changes in effect each minute, without anything to replace.

use std::net::{IpAddr, SocketAddr};

use ring::hmac;

use super::hello::{Hello, u24};
use super::{HANDSHAKE_HEADER, HELLO_VERIFY_REQUEST, RECORD_HANDSHAKE, RECORD_HEADER};
use crate::net::{FiveTuple, Now, Transport};

const TAG_LEN: usize = 19;
const COOKIE_LEN: usize = 1 + TAG_LEN;
const BODY_LEN: usize = 2 + 1 + COOKIE_LEN;

/// Length of the answer to a ClientHello in bytes: less than any ClientHello has,
/// so that nobody can be flooded by way of this server.
pub const HELLO_VERIFY_REQUEST_LEN: usize = RECORD_HEADER + HANDSHAKE_HEADER + BODY_LEN;

/// Whatever version follows, this message is of DTLS 1.0.
const DTLS_1_0: [u8; 2] = [0xfe, 0xff];

/// What a datagram from an address without a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// A ClientHello with a cookie that was sent to this client less than two
    /// minutes ago: begin a [`super::Session`] with it.
    Verified(Hello<'a>),
    /// A ClientHello without such a cookie: send this HelloVerifyRequest.
    Answer([u8; HELLO_VERIFY_REQUEST_LEN]),
    /// Nothing that deserves an answer.
    Drop(DropReason),
}

/// Why a datagram was dropped. One counter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Another record or message: mostly of a session that is gone.
    NotHello,
    /// A ClientHello in pieces. They would have to be kept for somebody who may
    /// not exist.
    Fragmented,
    /// A ClientHello that cannot be read.
    Malformed,
}

/// Makes and checks cookies. The same secret makes the same front: workers and
/// servers that share it accept each other's cookies.
pub struct Front {
    key: hmac::Key,
}

impl Front {
    /// `secret` is any length; 32 bytes of randomness serve.
    pub fn new(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// Judges a datagram. Nothing of it is kept, and `client` is believed only with
    /// the cookie that was sent there.
    pub fn receive<'a>(
        &self,
        now: Now,
        client: SocketAddr,
        server: SocketAddr,
        datagram: &'a [u8],
    ) -> Verdict<'a> {
        let hello = match Hello::parse(datagram) {
            Ok(hello) => hello,
            Err(reason) => return Verdict::Drop(reason),
        };
        let path = FiveTuple::new(Transport::Dtls, client, server);
        let minute = now.unix_secs() / 60;
        if self.is_fresh(minute, &path, &hello) {
            Verdict::Verified(hello)
        } else {
            Verdict::Answer(answer(&hello, &self.cookie(minute, &path, &hello)))
        }
    }

    /// Whether the cookie is of this minute or the one before.
    fn is_fresh(&self, minute: u64, path: &FiveTuple, hello: &Hello<'_>) -> bool {
        let Some((&made, _)) = hello.cookie.split_first() else { return false };
        let age = (minute as u8).wrapping_sub(made);
        age <= 1 && hello.cookie.len() == COOKIE_LEN && {
            let genuine = self.cookie(minute.saturating_sub(age.into()), path, hello);
            openssl::memcmp::eq(&genuine, hello.cookie)
        }
    }

    fn cookie(&self, minute: u64, path: &FiveTuple, hello: &Hello<'_>) -> [u8; COOKIE_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"sturn dtls cookie 1");
        context.update(&minute.to_be_bytes());
        for address in [path.client.socket(), path.server] {
            match address.ip() {
                IpAddr::V4(ip) => context.update(&ip.to_ipv6_mapped().octets()),
                IpAddr::V6(ip) => context.update(&ip.octets()),
            }
            context.update(&address.port().to_be_bytes());
        }
        // Both say how long they are.
        context.update(hello.opening);
        context.update(hello.algorithms);
        let mut cookie = [minute as u8; COOKIE_LEN];
        cookie[1..].copy_from_slice(&context.sign().as_ref()[..TAG_LEN]);
        cookie
    }
}

/// The HelloVerifyRequest: it has the numbers of the hello that it answers, so
/// that nothing has to be counted.
fn answer(hello: &Hello<'_>, cookie: &[u8; COOKIE_LEN]) -> [u8; HELLO_VERIFY_REQUEST_LEN] {
    let record_sequence = hello.record_sequence.to_be_bytes();
    let pieces: [&[u8]; 13] = [
        &[RECORD_HANDSHAKE],
        &DTLS_1_0,
        &[0, 0],
        &record_sequence[2..],
        &[0, (HANDSHAKE_HEADER + BODY_LEN) as u8],
        &[HELLO_VERIFY_REQUEST],
        &u24(BODY_LEN),
        &hello.message_sequence.to_be_bytes(),
        &u24(0),
        &u24(BODY_LEN),
        &DTLS_1_0,
        &[COOKIE_LEN as u8],
        cookie,
    ];
    let mut out = [0; HELLO_VERIFY_REQUEST_LEN];
    let mut at = 0;
    for piece in pieces {
        out[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    out
}
