//! Any datagram of a stranger: no cookie is guessed, no answer is longer than the
//! question. Then the same bytes with a cookie of ours, since whoever receives at
//! their address can get that far: a session ends in an error at worst.

#![no_main]

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use sturn::net::Now;
use sturn::tls::Certificates;
use sturn::tls::dtls::{Front, HELLO_VERIFY_REQUEST_LEN, Limits, Session, Verdict};

/// Where the cookie is in the answer to a hello.
const COOKIE_AT: usize = 28;

/// Where the length of the session identifier is in a hello.
const SESSION_ID_AT: usize = 59;

struct Server {
    front: Front,
    certificates: Certificates,
    now: Now,
}

thread_local! {
    static SERVER: OnceCell<Server> = const { OnceCell::new() };
}

impl Server {
    fn new() -> Self {
        let now = Now { mono: Instant::now(), unix: Duration::from_secs(1_700_000_000) };
        let made = Certificates::self_signed(now, &["turn.example.org".to_owned()]);
        let certificates = made.expect("nothing about it depends on the input");
        Self { front: Front::new(b"secret"), certificates, now }
    }

    fn judge<'a>(&self, datagram: &'a [u8]) -> Verdict<'a> {
        let client = SocketAddr::from(([192, 0, 2, 1], 5000));
        let server = SocketAddr::from(([198, 51, 100, 1], 5349));
        self.front.receive(self.now, client, server, datagram)
    }

    fn run(&self, hello: &[u8], next: &[u8]) {
        let answer = match self.judge(hello) {
            Verdict::Verified(_) => panic!("a guessed cookie"),
            Verdict::Drop(_) => return,
            Verdict::Answer(answer) => answer,
        };
        assert!(answer.len() < hello.len());
        let second = with_cookie(hello, &answer);
        let Verdict::Verified(hello) = self.judge(&second) else {
            panic!("its own cookie is refused")
        };
        let begun = Session::accept(&self.certificates, Limits::default(), &hello, self.now.mono);
        let Ok(mut session) = begun else { return };
        session.clear_datagrams();
        let _ = session.receive(self.now.mono, next);
        let _ = session.handle_timeout(self.now.mono + Duration::from_secs(1));
        assert!(!matches!(session.read(&mut [0; 100]), Ok(Some(_))), "data without a key");
    }
}

/// The hello again, as the first message with a cookie.
fn with_cookie(hello: &[u8], answer: &[u8; HELLO_VERIFY_REQUEST_LEN]) -> Vec<u8> {
    let cookie = &answer[COOKIE_AT..];
    let cookie_len_at = SESSION_ID_AT + 1 + usize::from(hello[SESSION_ID_AT]);
    let end = 13 + usize::from(u16::from_be_bytes([hello[11], hello[12]]));
    let old = usize::from(hello[cookie_len_at]);
    let mut second = hello[..cookie_len_at].to_vec();
    second.push(cookie.len() as u8);
    second.extend_from_slice(cookie);
    second.extend_from_slice(&hello[cookie_len_at + 1 + old..end]);
    let record_len = (second.len() - 13) as u16;
    let message_len = ((second.len() - 25) as u32).to_be_bytes();
    second[11..13].copy_from_slice(&record_len.to_be_bytes());
    second[14..17].copy_from_slice(&message_len[1..]);
    second[22..25].copy_from_slice(&message_len[1..]);
    second
}

// Two bytes say how long the hello is; what follows it is the next datagram.
fuzz_target!(|input: &[u8]| {
    let Some((len, rest)) = input.split_first_chunk::<2>() else { return };
    let len = rest.len().min(usize::from(u16::from_be_bytes(*len)));
    let (hello, next) = rest.split_at(len);
    // A record that could not take a cookie more.
    if hello.len() > 60_000 {
        return;
    }
    SERVER.with(|server| server.get_or_init(Server::new).run(hello, next));
});
