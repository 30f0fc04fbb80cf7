//! Any bytes as the start of a stream: what they are is decided once, the name a
//! TLS client asks for is the same however its bytes are cut, and a session of
//! TLS ends in an error at worst.

#![no_main]

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use sturn::front::client_hello::{self, Peek};
use sturn::front::{Detect, detect};
use sturn::net::Now;
use sturn::tls::{Certificates, Session, State};

thread_local! {
    static CERTIFICATES: OnceCell<Arc<Certificates>> = const { OnceCell::new() };
}

fn certificates() -> Arc<Certificates> {
    let make = || {
        let unix = Duration::from_secs(1_700_000_000);
        let now = Now { mono: Instant::now(), unix };
        let made = Certificates::self_signed(now, &["turn.example.org".to_owned()]);
        Arc::new(made.expect("nothing about it depends on the input"))
    };
    CERTIFICATES.with(|cell| Arc::clone(cell.get_or_init(make)))
}

// One byte says where the first piece ends.
fuzz_target!(|input: &[u8]| {
    let Some((cut, stream)) = input.split_first() else { return };
    let cut = stream.len().min(usize::from(*cut));
    match detect(&stream[..cut]) {
        Detect::NeedMore => {}
        decided => assert_eq!(decided, detect(stream)),
    }
    match client_hello::peek(&stream[..cut]) {
        Peek::NeedMore => {}
        decided => assert_eq!(decided, client_hello::peek(stream)),
    }

    let mut session = Session::new(certificates());
    let mut plain = Vec::new();
    for piece in [&stream[..cut], &stream[cut..]] {
        let failed = session.receive(piece, &mut plain).is_err();
        assert!(!failed || session.state() == State::Closed);
        let mut answer = Vec::new();
        session.write(&mut answer);
        assert!(!session.wants_write());
        if failed {
            break;
        }
    }
    assert!(plain.is_empty(), "data without a key");
});
