//! Allocations per user (RFC 8656 section 7.2: 486), and what shards tell each other.

use super::wire::{allocate, refresh};
use super::*;
use crate::auth::time_limited::{self, Mac};

fn limited(limit: u32) -> Bench {
    Bench::with(|s| s.limits.allocations_per_user = limit)
}

#[test]
fn rfc8656_7_2_a_user_above_its_quota_is_486() {
    let mut b = limited(2);
    b.allocated("alice", 1);
    b.allocated("alice", 2);
    let third = b.login("alice", 3);
    assert_eq!(b.refuse(&third, allocate()), 486);
    assert_eq!(b.server.allocations(), 2);
    b.allocated("bob", 4);
}

#[test]
fn a_quota_is_given_back_however_an_allocation_ends() {
    let mut b = limited(1);
    let tcp = client_on(Transport::Tcp, 1);
    for round in 0..5 {
        let alice = b.login_from(tcp, "alice", "wonderland");
        match round {
            // No port.
            0 => {
                b.shell.refuse = [true, true];
                assert_eq!(b.refuse(&alice, allocate()), 508);
                b.shell.refuse = [false, false];
            }
            // No answer from the shell.
            1 => {
                b.shell.hold = true;
                b.deliver(tcp, alice.sign(allocate()).bytes());
                b.advance(secs(6));
                b.shell.hold = false;
                b.open_held();
            }
            2 => {
                b.grant(&alice, allocate());
                b.grant(&alice, refresh(Some(0)));
            }
            3 => {
                b.grant(&alice, allocate());
                b.advance(secs(601));
            }
            _ => {
                b.grant(&alice, allocate());
                b.input(Input::LinkClosed { five_tuple: tcp.five_tuple, link: tcp.link });
            }
        }
        b.assert_idle();
    }
    b.allocated("alice", 2);
    let second = b.login("alice", 3);
    assert_eq!(b.refuse(&second, allocate()), 486, "and not more than once");
}

#[test]
fn repeated_and_refused_requests_do_not_count() {
    let mut b = limited(2);
    let alice = b.login("alice", 1);
    let bytes = alice.sign(allocate()).bytes().to_vec();
    for _ in 0..3 {
        assert!(b.ask(client(1), &bytes).is_success());
        assert_eq!(b.refuse(&alice, allocate()), 437);
    }
    let second = b.login("alice", 2);
    assert_eq!(b.refuse(&second, allocate().with(Attribute::EvenPort, b"")), 400);
    assert_eq!(b.refuse(&second, allocate().with(Attribute::ReservationToken, &[0; 8])), 508);
    b.grant(&second, allocate());
}

#[test]
fn an_opening_allocation_counts() {
    let mut b = limited(1);
    b.shell.hold = true;
    let first = b.login("alice", 1);
    b.deliver(client(1), first.sign(allocate()).bytes());
    let second = b.login("alice", 2);
    assert_eq!(b.refuse(&second, allocate()), 486);
}

#[test]
fn a_time_limited_user_is_one_user_under_many_names() {
    let mut b = Bench::with(|s| {
        s.auth.directory = Some(directory(&["secret"]));
        s.limits.allocations_per_user = 2;
    });
    for (n, expected) in [(1, 0), (2, 0), (3, 486)] {
        let expires = EPOCH + u64::from(n);
        let (name, password) = time_limited::issue("secret", "carol", expires, Mac::Sha1, ':');
        let carol = b.login_from(client(n), &name, &password);
        assert_eq!(b.request(&carol, allocate()).code(), expected);
    }
}

// Several shards.

/// Shards of one server; messages between them go when the test says so.
pub(super) struct Cluster {
    pub(super) shards: Vec<Bench>,
}

impl Cluster {
    pub(super) fn with(count: u16, change: impl Fn(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let (settings, start) = (Arc::new(settings), start());
        let shard = |index| Bench::shard(Shard { index, count }, settings.clone(), start);
        Self { shards: (0..count).map(shard).collect() }
    }

    /// Carries messages until none is left.
    pub(super) fn carry(&mut self) {
        while self.carry_one() {}
    }

    pub(super) fn carry_one(&mut self) -> bool {
        let waiting = self.shards.iter().position(|shard| !shard.shell.to_shards.is_empty());
        waiting.is_some_and(|from| self.carry_from(from))
    }

    /// Carries the oldest message of a shard; false when there is none.
    pub(super) fn carry_from(&mut self, from: usize) -> bool {
        let Some((to, message)) = self.shards[from].shell.to_shards.pop_front() else {
            return false;
        };
        assert_ne!(usize::from(to), from, "no shard writes to itself");
        if let ShardMessage::ReservationAnswer { reserved: Some(port), .. } = &message {
            // The port changes hands with the message.
            assert!(self.shards[from].shell.used.remove(port));
            self.shards[usize::from(to)].shell.used.insert(*port);
        }
        for (there, here) in message.moved_relays() {
            let shell = &mut self.shards[from].shell;
            let local = shell.sockets.remove(&there).expect("an open socket changes hands");
            assert!(shell.used.remove(&local));
            let shell = &mut self.shards[usize::from(to)].shell;
            assert!(shell.used.insert(local));
            assert!(shell.sockets.insert(here, local).is_none(), "under an id of its own");
        }
        self.shards[usize::from(to)].input(Input::FromShard { shard: from as u16, message });
        true
    }

    pub(super) fn advance(&mut self, by: Duration) {
        for shard in &mut self.shards {
            shard.advance(by);
        }
    }

    /// An Allocate at a shard, with all it takes.
    pub(super) fn allocate(
        &mut self,
        shard: usize,
        login: &Login,
        request: super::wire::Request,
    ) -> Reply {
        let outcome = self.shards[shard].deliver(login.client, login.sign(request).bytes());
        self.carry();
        let reply = match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Queued => self.shards[shard].shell.sent.pop_front().expect("answered").1,
            other => panic!("{other:?}"),
        };
        assert!(login.proves(&reply));
        reply
    }

    pub(super) fn assert_idle(&self) {
        self.shards.iter().for_each(Bench::assert_idle);
    }
}

#[test]
fn rfc8656_7_2_a_quota_holds_over_all_shards() {
    let mut c = Cluster::with(3, |s| s.limits.allocations_per_user = 4);
    let mut logins = Vec::new();
    for n in 0..9u8 {
        let shard = usize::from(n) % 3;
        for name in ["alice", "bob"] {
            let n = if name == "bob" { n + 100 } else { n };
            let login = c.shards[shard].login(name, n);
            let reply = c.allocate(shard, &login, allocate());
            assert_eq!(reply.code(), if n % 100 < 4 { 0 } else { 486 }, "{name} {n}");
            logins.push((shard, login));
        }
    }
    // One ends anywhere, so there is room for one anywhere else.
    let (shard, first) = logins[0].clone();
    c.shards[shard].grant(&first, refresh(Some(0)));
    c.carry();
    let other = (shard + 1) % 3;
    let login = c.shards[other].login("alice", 50);
    assert!(c.allocate(other, &login, allocate()).is_success());
    let login = c.shards[other].login("alice", 51);
    assert_eq!(c.allocate(other, &login, allocate()).code(), 486);
    c.advance(secs(601));
    c.carry();
    c.assert_idle();
    for n in 0..4 {
        let login = c.shards[2].login("alice", n);
        assert!(c.allocate(2, &login, allocate()).is_success(), "everything was given back");
    }
}

/// Two shards and one at which alice is not counted.
fn away_from_home() -> (Cluster, usize) {
    let mut c = Cluster::with(2, |s| s.limits.allocations_per_user = 1);
    let away = (0..2)
        .find(|shard| {
            let login = c.shards[*shard].login("alice", 1);
            c.shards[*shard].deliver(client(1), login.sign(allocate()).bytes());
            !c.shards[*shard].shell.to_shards.is_empty()
        })
        .expect("a user has one home");
    (Cluster::with(2, |s| s.limits.allocations_per_user = 1), away)
}

#[test]
fn an_answer_about_a_quota_that_comes_too_late_is_given_back() {
    let (mut c, away) = away_from_home();
    let login = c.shards[away].login("alice", 1);
    let bytes = login.sign(allocate()).bytes().to_vec();
    c.shards[away].deliver(client(1), &bytes);
    assert_eq!(c.shards[away].dropped(client(1), &bytes), DropReason::InProgress);
    assert!(c.shards[away].shell.ports.is_empty(), "no port before there is room");
    c.advance(secs(6));
    c.assert_idle();
    c.carry();
    c.assert_idle();
    assert!(c.shards[away].shell.sent.is_empty());
    assert!(c.allocate(away, &login, allocate()).is_success());
}

#[test]
fn a_quota_is_given_back_across_shards_when_no_port_opens() {
    let (mut c, away) = away_from_home();
    let login = c.shards[away].login("alice", 1);
    c.shards[away].shell.refuse = [true, true];
    assert_eq!(c.allocate(away, &login, allocate()).code(), 508);
    c.carry();
    c.shards[away].shell.refuse = [false, false];
    assert!(c.allocate(away, &login, allocate()).is_success());
    let home = 1 - away;
    let second = c.shards[home].login("alice", 2);
    assert_eq!(c.allocate(home, &second, allocate()).code(), 486);
}

/// Reserves a port at shard 0; the token, and the port as advertised.
fn reserve(c: &mut Cluster) -> (Vec<u8>, SocketAddr) {
    let login = c.shards[0].login("alice", 1);
    let reply = c.allocate(0, &login, allocate().with(Attribute::EvenPort, &[0x80]));
    let first = reply.relayed()[0];
    let token = reply.get(Attribute::ReservationToken).unwrap();
    (token, SocketAddr::new(first.ip(), first.port() + 1))
}

fn claiming(token: &[u8]) -> super::wire::Request {
    allocate().with(Attribute::ReservationToken, token)
}

#[test]
fn rfc8656_7_2_a_token_is_good_at_another_shard() {
    let mut c = Cluster::with(3, |_| {});
    let (token, port) = reserve(&mut c);
    let bob = c.shards[1].login("bob", 9);
    assert_eq!(c.allocate(1, &bob, claiming(&token)).code(), 508, "its owner only");
    let again = c.shards[2].login("alice", 2);
    assert_eq!(c.allocate(2, &again, claiming(&token)).relayed(), [port]);
    let third = c.shards[1].login("alice", 3);
    assert_eq!(c.allocate(1, &third, claiming(&token)).code(), 508, "once only");
    c.shards[2].grant(&again, refresh(Some(0)));
    c.advance(secs(601));
    c.assert_idle();
}

#[test]
fn rfc8656_7_2_a_token_that_expires_on_its_way_is_508() {
    let mut c = Cluster::with(2, |_| {});
    let (token, _) = reserve(&mut c);
    c.advance(secs(29));
    let again = c.shards[1].login("alice", 2);
    c.shards[1].deliver(client(2), again.sign(claiming(&token)).bytes());
    c.advance(secs(2));
    c.carry();
    assert_eq!(c.shards[1].shell.sent.pop_front().unwrap().1.code(), 508);
}

#[test]
fn a_port_that_is_handed_over_too_late_is_released() {
    let mut c = Cluster::with(2, |_| {});
    let (token, _) = reserve(&mut c);
    let again = c.shards[1].login("alice", 2);
    c.shards[1].deliver(client(2), again.sign(claiming(&token)).bytes());
    assert!(c.carry_one(), "the question arrives in time");
    c.advance(secs(6));
    c.carry();
    assert_eq!(c.shards[1].shell.released.len(), 1);
    c.shards[1].assert_idle();
}

#[test]
fn a_token_of_a_shard_that_does_not_exist_is_508() {
    let mut c = Cluster::with(2, |_| {});
    let alice = c.shards[0].login("alice", 1);
    for keeper in [2u8, 0xff] {
        let token = [keeper, keeper, 1, 2, 3, 4, 5, 6];
        assert_eq!(c.allocate(0, &alice, claiming(&token)).code(), 508);
    }
    c.assert_idle();
}

#[test]
fn rfc8656_7_2_quota_and_token_at_two_other_shards() {
    let mut c = Cluster::with(4, |s| s.limits.allocations_per_user = 2);
    let (token, port) = reserve(&mut c);
    for shard in 1..4 {
        let bob = c.shards[shard].login("bob", 9);
        assert_eq!(c.allocate(shard, &bob, claiming(&token)).code(), 508);
        c.carry();
    }
    let again = c.shards[3].login("alice", 2);
    assert_eq!(c.allocate(3, &again, claiming(&token)).relayed(), [port]);
    for shard in 0..4 {
        let third = c.shards[shard].login("alice", 30);
        assert_eq!(c.allocate(shard, &third, allocate()).code(), 486);
    }
    for shard in 0..2 {
        let bob = c.shards[shard].login("bob", 40);
        assert!(c.allocate(shard, &bob, allocate()).is_success(), "refusals gave theirs back");
    }
}
