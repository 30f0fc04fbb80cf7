//! What a request may be answered with, by what the model knows.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use sturn::auth::userhash;
use sturn::net::{Family, FiveTuple, Now, Transport};
use sturn::turn::{Client, DefaultFamily, ExpiryCheck};

use crate::model::{Allocation, Forecast, Model, channel_request, family};
use crate::setup::{Credential, REALM, Worth};
use crate::wire::{self, Stun};
use crate::world::shard_of;

impl Model {
    /// Who signed a request, by its USERNAME or USERHASH. Wrong passwords are
    /// known by the client they come from.
    pub fn credential(&self, request: &Stun, liar: bool) -> Option<&Credential> {
        let known = self.setup.credentials.iter().filter(|c| (c.worth == Worth::Bad) == liar);
        let name = request.get(wire::USERNAME);
        let hash = request.get(wire::USERHASH);
        known.into_iter().find(|c| match (name, hash) {
            (Some(name), _) => c.name.as_bytes() == name,
            (None, Some(hash)) => userhash(&c.name, REALM) == hash,
            (None, None) => false,
        })
    }

    /// What a request may be answered with. `failed` is set when the lookup of an
    /// external user has just found nobody.
    pub fn forecast(
        &self,
        now: Now,
        client: Client,
        request: &Stun,
        liar: bool,
        failed: bool,
    ) -> Forecast {
        let mut forecast = Forecast::default();
        if request.integrity_at.is_none() {
            forecast.errors.insert(401);
            return forecast;
        }
        // Nobody is looked up outside for a client whose nonce is stale.
        if self.setup.settings.auth.external && !self.is_fresh(now, client, request) {
            forecast.errors.insert(438);
        }
        let Some(credential) = self.credential(request, liar) else {
            forecast.errors.insert(401);
            return forecast;
        };
        let subject = self.subject(client, request);
        let (accepted, refused) = self.verdict_on(now, client, credential, subject, failed);
        let (accepted, refused) = match credential.worth {
            Worth::Token(end) => self.verdict_on_token(now, request, credential, subject, end),
            _ => (accepted, refused),
        };
        if refused {
            forecast.errors.insert(401);
        }
        let fresh = self.is_fresh(now, client, request);
        // Who may have to be looked up outside has to have a good nonce first.
        if !fresh && (accepted || credential.worth != Worth::Good) {
            forecast.errors.insert(438);
        }
        if !accepted || !fresh {
            return forecast;
        }
        if has_unknown(request) {
            forecast.errors.insert(420);
            return forecast;
        }
        let outcome = match request.method {
            wire::ALLOCATE => self.forecast_allocate(now, client, request),
            _ => self.forecast_owned(now, client, request, credential),
        };
        forecast.success = outcome.success;
        forecast.errors.extend(outcome.errors);
        forecast
    }

    /// Whether a credential can be accepted now, and whether it can be refused.
    fn verdict_on(
        &self,
        now: Now,
        client: Client,
        credential: &Credential,
        subject: Option<&Allocation>,
        failed: bool,
    ) -> (bool, bool) {
        let owner = subject.map(|a| a.name == credential.name);
        match credential.worth {
            Worth::Good => (true, false),
            Worth::Bad | Worth::Token(_) => (false, true),
            // Who owns the allocation is known without a lookup.
            Worth::External => (!failed || owner == Some(true), failed),
            Worth::Until(end) if now.unix_secs() <= end => (true, false),
            Worth::Until(_) => {
                let check = self.setup.settings.auth.expiry;
                let pending = self.is_opening(&client.five_tuple);
                let lenient = check == ExpiryCheck::Allocate && (owner == Some(true) || pending);
                (lenient, !lenient || pending || owner.is_some())
            }
        }
    }

    /// The same for who comes with a token, or has come with one before.
    fn verdict_on_token(
        &self,
        now: Now,
        request: &Stun,
        credential: &Credential,
        subject: Option<&Allocation>,
        end: u64,
    ) -> (bool, bool) {
        let known = subject.filter(|a| a.is_alive(now.mono));
        let sent = request.get(wire::ACCESS_TOKEN).is_some();
        let proven = sent || known.is_some_and(|a| a.name == credential.name);
        let accepted = proven && now.unix_secs() <= end;
        // Without a token an opening allocation is as good as one that is there.
        // A ticket that is used up still names its allocation where that has stayed.
        let unsure = !sent && request.is_moving_refresh();
        (accepted || !sent && now.unix_secs() <= end, !accepted || unsure)
    }

    fn is_opening(&self, five_tuple: &FiveTuple) -> bool {
        self.openings.keys().any(|(of, _)| of == five_tuple)
    }

    /// The allocation that a request is about.
    fn subject(&self, client: Client, request: &Stun) -> Option<&Allocation> {
        let there = self.at(&client.five_tuple).or_else(|| self.named_allocation(request));
        there.or_else(|| self.allocations.values().find(|a| a.is_named_by(request)))
    }

    fn is_fresh(&self, now: Now, client: Client, request: &Stun) -> bool {
        let lifetime = self.setup.settings.auth.nonce_lifetime.as_secs();
        request.get(wire::NONCE).and_then(|nonce| self.nonces.get(nonce)).is_some_and(
            |(made_for, at)| {
                *made_for == client.five_tuple.client.socket() && now.unix_secs() - at <= lifetime
            },
        )
    }

    fn forecast_allocate(&self, now: Now, client: Client, request: &Stun) -> Forecast {
        let alive = self.at(&client.five_tuple).filter(|a| a.is_alive(now.mono));
        if let Some(allocation) = alive {
            let at_home = allocation.client.five_tuple == client.five_tuple;
            let repeated = at_home && allocation.id == Some(request.id);
            return if repeated { success() } else { error(437) };
        }
        let mut forecast = self.forecast_new(client, request);
        if self.is_opening(&client.five_tuple) {
            forecast.errors.insert(437);
        }
        forecast
    }

    fn forecast_new(&self, client: Client, request: &Stun) -> Forecast {
        if let Some(code) = self.wrong_transport(client, request) {
            return error(code);
        }
        if has_bad_combination(request) {
            return error(400);
        }
        let supports =
            |f| self.setup.settings.relay.addresses.iter().any(|r| Family::of(r.local) == f);
        if request.get(wire::TOKEN).is_none()
            && self.families(client, request).iter().all(|family| !supports(*family))
        {
            return error(440);
        }
        if request.get(wire::TICKET).is_some() && self.setup.settings.mobility.is_none() {
            return error(405);
        }
        if self.draining[usize::from(shard_of(&client.five_tuple, self.setup.shards))] {
            return error(if self.alternates_of(client).is_empty() { 508 } else { 300 });
        }
        // Ports, capacity and quota are judged when everything is at rest.
        let mut forecast = success();
        forecast.errors.insert(508);
        if self.setup.settings.limits.allocations_per_user > 0 {
            forecast.errors.insert(486);
        }
        forecast
    }

    /// What is wrong with REQUESTED-TRANSPORT: TCP is for streams, and goes with
    /// nothing that is about datagrams.
    fn wrong_transport(&self, client: Client, request: &Stun) -> Option<u16> {
        match request.get(wire::TRANSPORT)?[0] {
            wire::UDP => None,
            wire::TCP if self.setup.settings.relay.tcp => {
                let of_udp = [wire::EVEN_PORT, wire::TOKEN, wire::DONT_FRAGMENT];
                let wrong = !client.five_tuple.transport.is_stream()
                    || of_udp.iter().any(|kind| request.get(*kind).is_some());
                wrong.then_some(400)
            }
            _ => Some(442),
        }
    }

    /// The servers that a client can be sent to; none when none is of its family.
    pub fn alternates_of(&self, client: Client) -> Vec<SocketAddr> {
        let Some(alternates) = &self.setup.settings.alternates else { return Vec::new() };
        let servers = match client.five_tuple.transport {
            Transport::Udp | Transport::Tcp => &alternates.servers,
            Transport::Tls | Transport::Dtls => &alternates.tls_servers,
        };
        let v4 = client.five_tuple.client.socket().is_ipv4();
        if servers.iter().any(|s| s.is_ipv4() == v4) { servers.clone() } else { Vec::new() }
    }

    /// The families an Allocate asks for; not of use with RESERVATION-TOKEN.
    pub fn families(&self, client: Client, request: &Stun) -> Vec<Family> {
        if request.get(wire::ADDITIONAL).is_some() {
            return vec![Family::V4, Family::V6];
        }
        let asked = request.get(wire::FAMILY).map(|v| family(v[0]));
        vec![asked.unwrap_or(match self.setup.settings.relay.default_family {
            DefaultFamily::V4 => Family::V4,
            DefaultFamily::Client => client.five_tuple.client.family(),
        })]
    }

    /// Refresh, CreatePermission and ChannelBind.
    fn forecast_owned(
        &self,
        now: Now,
        client: Client,
        request: &Stun,
        credential: &Credential,
    ) -> Forecast {
        if request.is_moving_refresh() {
            return self.forecast_move(now, client, request, credential);
        }
        if request.method == wire::CONNECTION_BIND {
            return self.forecast_connection_bind(now, client, request, credential);
        }
        let alive = self.at(&client.five_tuple).filter(|a| a.is_alive(now.mono));
        let Some(allocation) = alive else { return error(437) };
        if allocation.name != credential.name {
            return error(441);
        }
        match request.method {
            wire::REFRESH => {
                let asked = request.get(wire::FAMILY).map(|v| family(v[0]));
                let there = asked.is_none_or(|f| allocation.relay(f, now.mono).is_some());
                if there { success() } else { error(443) }
            }
            wire::CREATE_PERMISSION => self.forecast_permission(now, allocation, request),
            wire::CONNECT => self.forecast_connect(now, allocation, request),
            _ if allocation.transport == wire::TCP => error(403),
            _ => self.forecast_channel(now, allocation, request),
        }
    }

    fn forecast_permission(&self, now: Now, allocation: &Allocation, request: &Stun) -> Forecast {
        let peers = request.addresses(wire::PEER);
        for peer in &peers {
            if allocation.relay(Family::of(peer.ip()), now.mono).is_none() {
                return error(443);
            }
            if self.setup.is_denied(peer.ip()) {
                return error(403);
            }
        }
        let limit = self.setup.settings.limits.permissions;
        let alive: BTreeSet<IpAddr> = allocation.permitted(now.mono).collect();
        let wanted: BTreeSet<IpAddr> = peers.iter().map(|peer| peer.ip()).collect();
        let mut forecast =
            Forecast { success: alive.union(&wanted).count() <= limit, ..Forecast::default() };
        // What has expired may still take up room, and a peer named twice counts twice.
        if allocation.permissions.len() + peers.len() > limit {
            forecast.errors.insert(508);
        }
        forecast
    }

    fn forecast_channel(&self, now: Now, allocation: &Allocation, request: &Stun) -> Forecast {
        let (number, peer) = channel_request(request);
        if number > 0x4FFF && !self.setup.settings.rfc5766_channels {
            return error(400);
        }
        if allocation.relay(Family::of(peer.ip()), now.mono).is_none() {
            return error(443);
        }
        if !self.may_send(peer) {
            return error(403);
        }
        let bound = |n: &u16| allocation.channel(*n, now.mono);
        let taken = bound(&number).is_some_and(|p| p != peer);
        if taken || allocation.channel_to(peer, now.mono).is_some_and(|n| n != number) {
            return error(400);
        }
        let limits = &self.setup.settings.limits;
        let alive = allocation.channels.keys().filter(|n| bound(n).is_some()).count();
        let full = alive >= limits.channels && bound(&number).is_none();
        let permissions = allocation.permitted(now.mono).count();
        let crowded = permissions >= limits.permissions
            && !allocation.permitted(now.mono).any(|ip| ip == peer.ip());
        let mut forecast = Forecast { success: !full && !crowded, ..Forecast::default() };
        // The binding of a family that has expired may not be tidied up yet.
        if allocation.channels.get(&number).is_some_and(|(bound, _)| *bound != peer) {
            forecast.errors.insert(400);
        }
        if allocation.channels.len() >= limits.channels
            || allocation.permissions.len() >= limits.permissions
        {
            forecast.errors.insert(508);
        }
        forecast
    }

    /// Whether policy lets datagrams out to a transport address.
    pub fn may_send(&self, peer: SocketAddr) -> bool {
        let fine = if self.setup.is_relay(peer.ip()) {
            self.setup.is_relay_port(peer.port())
        } else {
            peer.port() != 0
        };
        fine && !self.setup.is_denied(peer.ip())
    }
}

pub fn success() -> Forecast {
    Forecast { success: true, ..Forecast::default() }
}

pub fn error(code: u16) -> Forecast {
    Forecast { success: false, errors: BTreeSet::from([code]) }
}

/// Attributes that the simulation's clients make up.
fn has_unknown(request: &Stun) -> bool {
    request.attributes.iter().any(|(kind, _)| (0x7000..0x8000).contains(kind))
}

fn has_bad_combination(request: &Stun) -> bool {
    let has = |kind| request.get(kind).is_some();
    let reserves = request.get(wire::EVEN_PORT).is_some_and(|flags| flags[0] & 0x80 != 0);
    let token = has(wire::TOKEN);
    (token && (has(wire::EVEN_PORT) || has(wire::FAMILY) || has(wire::ADDITIONAL)))
        || (has(wire::FAMILY) && has(wire::ADDITIONAL))
        || (has(wire::ADDITIONAL) && (reserves || request.get(wire::ADDITIONAL).unwrap()[0] != 2))
}
