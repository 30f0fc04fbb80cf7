//! Whether an answer is right: at once, after a lookup, or when an allocation came up.

use std::net::SocketAddr;
use std::time::Duration;

use sturn::net::Family;
use sturn::turn::{self, DropReason, Traffic};

use crate::judge::{Asker, Question};
use crate::model::{Allocation, Forecast, Relay};
use crate::peers;
use crate::roaming::Mobile;
use crate::wire::{self, Class, Stun};
use crate::world::World;

impl World {
    pub fn judge_drop(&self, message: &Stun, reason: DropReason) {
        if message.class != Class::Request {
            return;
        }
        let known = [
            wire::BINDING,
            wire::ALLOCATE,
            wire::REFRESH,
            wire::CREATE_PERMISSION,
            wire::CHANNEL_BIND,
        ];
        let of_tcp = [wire::CONNECT, wire::CONNECTION_BIND].contains(&message.method);
        let tcp = self.setup.settings.relay.tcp;
        match reason {
            DropReason::InProgress | DropReason::TooManyPending => {}
            DropReason::AnswerBudget => {
                assert!(self.setup.settings.limits.answers_per_prefix > 0, "there is a budget");
            }
            DropReason::UnknownMethod => {
                assert!(!known.contains(&message.method) && (!of_tcp || !tcp));
            }
            reason => panic!("a good request was dropped: {reason:?} {message:?}"),
        }
    }

    /// An immediate answer.
    pub fn judge_reply(
        &mut self,
        from: turn::Client,
        request: Option<&Stun>,
        answer: Option<&Stun>,
        altered: bool,
        forecast: Option<&Forecast>,
    ) {
        self.tally_answer(request, answer);
        let Some(request) = request else {
            // Without the cookie: RFC 3489, where that is on.
            assert!(altered && self.setup.settings.rfc3489 && answer.is_none());
            return;
        };
        let answer = answer.expect("a request with the cookie gets an answer with it");
        assert_eq!((answer.id, answer.method), (request.id, request.method));
        assert_eq!(request.class, Class::Request);
        self.remember_nonce(from, answer);
        if request.method == wire::BINDING {
            if answer.class == Class::Success {
                let reflexive = from.five_tuple.client.socket();
                assert_eq!(answer.addresses(wire::MAPPED), [reflexive]);
            }
            assert!(altered || answer.class == Class::Success, "Binding is always answered");
            return;
        }
        if altered {
            assert_eq!(answer.class, Class::Error, "an altered request is not granted");
            return;
        }
        let forecast = forecast.expect("made for every request");
        judge(request, answer, forecast);
        if answer.error() == Some(300) {
            self.check_alternates(from, answer);
        }
        if answer.class == Class::Error {
            return;
        }
        if request.method == wire::ALLOCATE {
            return self.check_repeated(from, request, answer);
        }
        self.granted(from, request, answer);
    }

    /// The servers named in a 300: the first is of the client's family.
    fn check_alternates(&self, from: turn::Client, answer: &Stun) {
        let named: Vec<SocketAddr> = answer
            .all(wire::ALTERNATE_SERVER)
            .map(|value| wire::plain_address(value).expect("an address"))
            .collect();
        let list = self.model.alternates_of(from);
        assert!(named.iter().all(|server| list.contains(server)), "{named:?} of {list:?}");
        let v4 = from.five_tuple.client.socket().is_ipv4();
        assert!(named.first().is_some_and(|server| server.is_ipv4() == v4), "of its family first");
    }

    /// Only an Allocate that was granted before is answered without delay.
    fn check_repeated(&self, from: turn::Client, request: &Stun, answer: &Stun) {
        let known = &self.model.allocations[&from.five_tuple];
        assert_eq!(known.id, Some(request.id), "the same request as before");
        for relayed in answer.addresses(wire::RELAYED) {
            let mut known = known.relays.iter().map(|relay| relay.advertised);
            assert!(known.any(|known| known == relayed), "the same addresses as before");
        }
    }

    /// A success response to anything but Allocate.
    fn granted(&mut self, from: turn::Client, request: &Stun, answer: &Stun) {
        if request.is_moving_refresh() {
            return self.granted_move(from, request, answer);
        }
        if request.method == wire::REFRESH {
            let lifetime = self.model.lifetime(self.now, request).as_secs() as u32;
            assert_eq!(answer.u32(wire::LIFETIME), Some(lifetime));
        }
        if matches!(request.method, wire::CONNECT | wire::CONNECTION_BIND) {
            // Of connections `peers` keeps the books.
            return;
        }
        // What has waited behind it may have ended the allocation, at the same time.
        if !self.model.deleted.contains_key(&from.five_tuple) {
            self.model.apply(self.now, from, request);
        }
    }

    fn tally_answer(&mut self, request: Option<&Stun>, answer: Option<&Stun>) {
        match (request, answer.and_then(Stun::error)) {
            (_, Some(code)) => self.tally(&format!("error {code}")),
            (Some(request), None) => self.tally(&format!("method {} granted", request.method)),
            (None, None) => self.tally("RFC 3489 answer"),
        }
    }

    pub fn remember_nonce(&mut self, client: turn::Client, answer: &Stun) {
        if let Some(nonce) = answer.get(wire::NONCE) {
            let address = client.five_tuple.client.socket();
            let known = (address, self.now.unix_secs());
            self.model.nonces.entry(nonce.to_vec()).or_insert(known);
        }
    }

    pub fn queue(
        &mut self,
        host: usize,
        from: turn::Client,
        request: Stun,
        altered: bool,
        forecast: Option<&Forecast>,
    ) {
        if request.method == wire::ALLOCATE && !altered {
            self.model.openings.insert((from.five_tuple, request.id), self.now.mono);
        }
        // A user may have to be looked up first, so nothing is certain yet.
        let hopeless = forecast.is_some_and(|f| !f.success && f.errors.is_empty());
        assert!(!hopeless, "something can come of {request:?}");
        let key = (from, request.id, altered);
        let question = Question { request, host, altered, forecast: None, times: 0 };
        let queued = self.queued.entry(key).or_insert(question);
        if queued.times == 0 {
            // The answer to an earlier copy says nothing of this one.
            queued.forecast = None;
        }
        queued.times += 1;
    }

    /// A message that was not an immediate reply.
    pub fn judge_send(
        &mut self,
        shard: u16,
        client: turn::Client,
        message: &[u8],
        cause: Option<Asker>,
    ) {
        if peers::attempt(message).is_some() {
            // Judged where the peer has connected.
            return;
        }
        let answer = Stun::parse(message).expect("the server sends whole messages");
        assert!(matches!(answer.class, Class::Success | Class::Error), "answers only");
        let asker = self.asker_of(client, &answer, cause);
        let question = self.queued.get_mut(&asker).filter(|q| q.times > 0);
        let question = question.expect("an answer goes to the five-tuple that asked, once");
        question.times -= 1;
        let Question { request, altered, forecast, host, .. } = question.clone();
        self.tally_answer(Some(&request), Some(&answer));
        assert_eq!(answer.method, request.method);
        assert!(!altered || answer.class == Class::Error, "an altered request is not granted");
        self.remember_nonce(client, &answer);
        if request.method == wire::ALLOCATE && !altered {
            self.model.openings.remove(&(client.five_tuple, request.id));
        }
        let immediate = forecast.is_some();
        match forecast {
            Some(forecast) if !altered => judge(&request, &answer, &forecast),
            _ if altered => {}
            _ => self.judge_late(host, client, &request, &answer),
        }
        if answer.class == Class::Error {
            return;
        }
        match (request.method, immediate) {
            (wire::ALLOCATE, true) => self.check_repeated(client, &request, &answer),
            (wire::ALLOCATE, false) => self.allocated(shard, client, &request, &answer),
            _ => self.granted(client, &request, &answer),
        }
    }

    /// The request that an answer is for. What is not said in answer to a lookup
    /// concludes an opening, or comes when an allocation has arrived; an altered
    /// request can be among the latter, and is never granted.
    fn asker_of(&self, client: turn::Client, answer: &Stun, cause: Option<Asker>) -> Asker {
        let caused = cause.filter(|(who, id, _)| (*who, *id) == (client, answer.id));
        let altered = (client, answer.id, true);
        let waits = self.queued.get(&altered).is_some_and(|q| q.times > 0);
        let other = waits && answer.class == Class::Error && self.may_arrive();
        caused.unwrap_or(if other { altered } else { (client, answer.id, false) })
    }

    /// Whether allocations may come from other shards.
    pub fn may_arrive(&self) -> bool {
        self.setup.settings.mobility.is_some() && self.setup.shards > 1
    }

    /// The answer to a request that has waited, but not for a user.
    fn judge_late(&self, host: usize, client: turn::Client, request: &Stun, answer: &Stun) {
        let code = answer.error();
        let held = || {
            let forecast = |failed| {
                self.model.forecast(self.now, client, request, self.hosts[host].liar, failed)
            };
            // Its user may have been looked up since then, and not found.
            let (mut found, missed) = (forecast(false), forecast(true));
            found.errors.extend(missed.errors);
            found
        };
        match request.method {
            wire::ALLOCATE if matches!(code, None | Some(486 | 508)) => {}
            // Of several that have waited the first one has begun to open.
            wire::ALLOCATE if code == Some(437) && self.may_arrive() => {}
            wire::CONNECT if matches!(code, None | Some(447)) => {}
            wire::CONNECTION_BIND => assert_eq!(code, None, "refused at once or never"),
            // Granted where the allocation was.
            wire::REFRESH if request.is_moving_refresh() && code.is_none() => {}
            wire::REFRESH if request.is_moving_refresh() => {
                let codes = [400, 401, 437, 438, 441, 443, 508];
                assert!(codes.contains(&code.unwrap_or(0)), "{code:?} for a ticket");
            }
            // What has waited behind it has ended the allocation, at the same time.
            _ if self.may_arrive() && !self.model.deleted.is_empty() => {}
            _ => {
                assert!(self.may_arrive(), "nothing else takes its time: {request:?}, {code:?}");
                judge(request, answer, &held());
            }
        }
    }

    /// A new allocation: everything about it has to fit.
    fn allocated(&mut self, shard: u16, client: turn::Client, request: &Stun, answer: &Stun) {
        let now = self.now;
        assert!(self.model.alive(now, &client.five_tuple).is_none(), "one for each five-tuple");
        let lifetime = self.model.lifetime(self.now, request);
        assert_eq!(answer.u32(wire::LIFETIME), Some(lifetime.as_secs() as u32));
        assert_eq!(answer.addresses(wire::MAPPED), [client.five_tuple.client.socket()]);
        let relays: Vec<Relay> = answer
            .addresses(wire::RELAYED)
            .into_iter()
            .map(|advertised| self.opened(shard, advertised, lifetime))
            .collect();
        assert!(!relays.is_empty(), "an allocation relays");
        self.check_relays(client, request, answer, &relays);
        if relays.len() == 2 {
            self.tally("allocation of two families");
        }
        if request.get(wire::TOKEN).is_some() {
            self.tally("reserved port claimed");
        }
        let asked = request.get(wire::TICKET).is_some();
        let tcp = request.get(wire::TRANSPORT).is_some_and(|value| value[0] == wire::TCP);
        assert_eq!(answer.get(wire::TICKET).is_some(), asked && !tcp, "a ticket for who asks");
        if tcp {
            self.tally("allocation for TCP");
        }
        if request.get(wire::ACCESS_TOKEN).is_some() {
            self.tally("allocation for a token");
        }
        let credential = self.model.credential(request, false).expect("a known user").clone();
        let allocation = Allocation {
            client,
            shard,
            name: credential.name.clone(),
            quota: credential.quota.clone(),
            id: Some(request.id),
            transport: request.get(wire::TRANSPORT).map_or(0, |value| value[0]),
            mobile: answer.get(wire::TICKET).map(Mobile::new),
            relays,
            permissions: Default::default(),
            channels: Default::default(),
            traffic: Traffic::default(),
        };
        if let Some(host) = self.hosts.iter_mut().find(|h| h.identity == client) {
            host.granted.extend(allocation.relays.iter().map(|r| r.advertised));
        }
        self.model.allocations.insert(client.five_tuple, allocation);
        let limit = self.setup.settings.limits.allocations_per_user as usize;
        let count = self.model.count_of(now, &credential.quota);
        assert!(limit == 0 || count <= limit, "{} has {count} of {limit}", credential.quota);
    }

    fn opened(&self, shard: u16, advertised: SocketAddr, lifetime: Duration) -> Relay {
        let local = self.setup.local_of(advertised).expect("an address of this host");
        let (owner, id) = self.kernel.socket_at(local).expect("its socket is open");
        assert_eq!(owner, shard, "the socket is the shard's own");
        let held = self.model.allocations.values().flat_map(|a| &a.relays);
        let mut held = held.filter(|r| r.expires > self.now.mono);
        assert!(held.all(|r| r.local != local), "it is nobody else's");
        Relay { id, local, advertised, expires: self.now.mono + lifetime }
    }

    fn check_relays(&self, client: turn::Client, request: &Stun, answer: &Stun, relays: &[Relay]) {
        let families: Vec<Family> = relays.iter().map(|r| Family::of(r.local.ip())).collect();
        if request.get(wire::TOKEN).is_none() {
            let asked = self.model.families(client, request);
            assert!(families.iter().all(|f| asked.contains(f)), "{families:?} of {asked:?}");
            let short = families.len() < asked.len();
            assert_eq!(short, answer.get(0x8001).is_some(), "ADDRESS-ERROR-CODE says what lacks");
        }
        if let Some(flags) = request.get(wire::EVEN_PORT) {
            assert_eq!(relays[0].local.port() % 2, 0, "EVEN-PORT");
            let reserves = flags[0] & 0x80 != 0;
            assert_eq!(reserves, answer.get(wire::TOKEN).is_some(), "a token when asked for");
        }
    }
}

/// The answer has to be one of those that were expected.
fn judge(request: &Stun, answer: &Stun, forecast: &Forecast) {
    let right = match answer.error() {
        None => forecast.success,
        Some(code) => forecast.errors.contains(&code),
    };
    assert!(right, "{request:?} was answered with {answer:?}, expected {forecast:?}");
}
