//! RFC 8489 section 6.2: when requests are sent again and when they are given up.

use super::*;

/// Runs the client's timers alone and records when it sends and when it gives up.
fn timeline(client: &mut Client, now: Now) -> (Vec<u128>, u128) {
    let mut at = Vec::new();
    loop {
        let elapsed = |due: Instant| due.duration_since(now.mono);
        let due = client.poll_timeout();
        let sent = std::iter::from_fn(|| client.poll_transmit()).count();
        if sent > 0 && at.is_empty() {
            at.push(0);
        }
        let due = due.expect("a request in flight has a timer");
        client.handle_timeout(now.after(elapsed(due)));
        if let Some(event) = client.poll_event() {
            assert!(matches!(event, Event::TimedOut { .. }), "{event:?}");
            return (at, elapsed(due).as_millis());
        }
        assert!(client.poll_transmit().is_some());
        at.push(elapsed(due).as_millis());
    }
}

#[test]
fn udp_doubles_the_wait_and_gives_up_after_sixteen_rto() {
    let now = start();
    for transport in [Transport::Udp, Transport::Dtls] {
        let mut client = client(transport);
        client.binding(now);
        let (sent, gave_up) = timeline(&mut client, now);
        assert_eq!(sent, [0, 500, 1500, 3500, 7500, 15500, 31500]);
        assert_eq!(gave_up, 39500);
        assert_eq!(client.poll_timeout(), None);
    }
}

#[test]
fn streams_do_not_retransmit() {
    let now = start();
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut client = client(transport);
        client.binding(now);
        assert_eq!(timeline(&mut client, now), (vec![0], 39500));
    }
}

#[test]
fn rc_of_one_waits_rm_at_once() {
    let now = start();
    let mut config = Config::new(Transport::Udp, USER, PASSWORD, [7; 32]);
    config.retransmission.rc = 1;
    let mut client = Client::new(config);
    client.binding(now);
    assert_eq!(timeline(&mut client, now), (vec![0], 8000));
}

#[test]
fn a_retransmission_is_the_same_bytes() {
    let now = start();
    let mut client = client(Transport::Udp);
    client.binding(now);
    let first = sent(&mut client).bytes;
    client.handle_timeout(now.after(Duration::from_millis(500)));
    assert_eq!(sent(&mut client).bytes, first);
}

#[test]
fn nothing_is_sent_before_its_time() {
    let now = start();
    let mut client = client(Transport::Udp);
    client.binding(now);
    sent(&mut client);
    client.handle_timeout(now.after(Duration::from_millis(499)));
    assert_eq!(client.poll_transmit(), None);
}

#[test]
fn an_answer_stops_the_timer_and_a_second_one_is_ignored() {
    let now = start();
    let mut client = client(Transport::Udp);
    let transaction = client.binding(now);
    let mapped = XorMappedAddress::from(addr("[2001:db8::1]:9")).into();
    let answer = sent(&mut client).reply(MessageClass::SuccessResponse, &[mapped], None);
    client.handle_receive(now, &answer);
    client.handle_receive(now, &answer);
    assert_eq!(
        client.poll_event(),
        Some(Event::Bound {
            transaction,
            reflexive: addr("[2001:db8::1]:9"),
            response_origin: None,
            other_address: None,
        })
    );
    assert_eq!(client.poll_event(), None);
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn ids_repeat_with_the_seed_and_only_then() {
    let now = start();
    let first = |seed: u8| {
        let mut client = Client::new(Config::new(Transport::Udp, "", "", [seed; 32]));
        client.binding(now);
        client.binding(now);
        (sent(&mut client).bytes, sent(&mut client).bytes)
    };
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
    let (a, b) = first(1);
    assert_ne!(a[8..20], b[8..20]);
}
