//! One way to the server, step by step:
//!
//! 1. connect, and the TLS handshake (`handshake.rs`)
//! 2. Binding: who are we, who is it
//! 3. Allocate without credentials: 401 and a challenge, or else an open relay
//! 4. Allocate with credentials; a second allocation for a peer
//! 5. CreatePermission for each other's relayed address
//! 6. a socket of this machine as peer: are the relay's ports open to the outside
//! 7. packets from relay to relay and back, by indications, then on channels
//! 8. Refresh, release, and whether it was released
//!
//! A step that fails ends the way where nothing behind it can work. ALTERNATE-SERVER
//! is followed once.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use super::finding::{Finding, is_special};
use super::link::{self, Link, LinkError, Socket, now};
use super::relay::{Far, knock, measure};
use super::report::Path;
use super::requests::{allocate, bind_channel, is_still_there, permit, release_quietly};
use super::settings::{Credentials, Settings};
use super::statistics::Statistics;
use super::tell::{describe, refusal};
use super::text::Console;
use crate::client::{Allocate, Allocated, Event, Failure};
use crate::net::{Family, Transport};

/// Packets for a peer of which nothing but "does it pass" is wanted.
const FEW: usize = 10;
/// More than this part of packets lost is worth a warning.
const TOLERATED_LOSS: f64 = 0.02;

/// How long a server may take to let go of an allocation: coturn takes a second.
const RELEASE: Duration = Duration::from_secs(3);
/// How often it is asked.
const ASK: Duration = Duration::from_millis(100);
/// Insufficient Capacity (RFC 8656 section 19).
const NO_PORT: u16 = 508;

/// A step has failed and nothing behind it can work.
pub(super) struct Stop;

/// A way that is being gone.
pub(super) struct Walk<'a> {
    pub(super) settings: &'a Settings,
    pub(super) transport: Transport,
    pub(super) console: &'a mut Console,
    pub(super) path: Path,
}

/// An allocation and the five-tuple it belongs to.
struct Allocation {
    link: Link,
    relayed: Vec<SocketAddr>,
}

/// What has been relayed so far.
struct Relayed {
    /// Whether the server takes its own relayed addresses as peers.
    own: bool,
    /// Whether data of this machine's socket came through.
    outside: bool,
}

/// Goes one way and returns what it has shown.
pub(super) async fn walk(settings: &Settings, path: Path, console: &mut Console) -> Path {
    let mut walk = Walk { settings, transport: path.transport, console, path };
    if let Ok(Some(alternate)) = walk.go(walk.path.address).await {
        let started = Instant::now();
        let finding = match leads_nowhere(walk.path.address, alternate) {
            true => Finding::RedirectedNowhere,
            false => Finding::Redirected,
        };
        let stops = walk.stops("redirect", started, format!("to {alternate}"), finding);
        if stops.is_err() {
            return walk.path;
        }
        if let Ok(Some(next)) = walk.go(alternate).await {
            walk.found("redirect", started, format!("to {next}"), Finding::RedirectedAgain);
        }
    }
    walk.path
}

impl Walk<'_> {
    /// All steps; the address of another server where this one names one.
    async fn go(&mut self, address: SocketAddr) -> Result<Option<SocketAddr>, Stop> {
        let settings = self.settings;
        let mut link = settings.unless_interrupted(self.connect(address), Stop).await?;
        self.binding(&mut link, address).await?;
        if !self.settings.uri.scheme.is_turn() {
            return Ok(None);
        }
        if let Some(alternate) = self.challenge(&mut link).await? {
            return Ok(Some(alternate));
        }
        let Some(credentials) = &self.settings.credentials else {
            self.found("allocate", Instant::now(), String::new(), Finding::NoCredentials);
            return Ok(None);
        };
        let mut first = match self.allocate(link, credentials, address).await? {
            Ok(first) => first,
            Err(alternate) => return Ok(Some(alternate)),
        };
        let mut second = self.second(address, credentials).await;
        // Whatever happens to the data, the allocations are given back.
        let relayed = self.relay(&mut first, second.as_mut()).await;
        if let Some(mut second) = second {
            release_quietly(&mut second.link).await;
        }
        let ended = match self.refresh(&mut first.link).await {
            Ok(()) => self.release(&mut first).await,
            stop => stop,
        };
        if settings.is_interrupted() {
            release_quietly(&mut first.link).await;
        }
        ended?;
        relayed.map(|()| None)
    }

    async fn binding(&mut self, link: &mut Link, address: SocketAddr) -> Result<(), Stop> {
        let started = Instant::now();
        let transaction = link.client().binding(now());
        let mapped = match link.finish(transaction).await {
            Ok(Event::Bound { reflexive, .. }) => reflexive,
            Ok(_) => return self.fails("binding", started, "another answer", Finding::NotStun),
            // Who answers Binding with an error is still a STUN server.
            Err(LinkError::Refused(failure)) => {
                let finding = Finding::of_code(failure.code, &failure.unknown_attributes);
                return self.fails("binding", started, &refusal(&failure), finding);
            }
            Err(error) => {
                let finding = self.judge_silence(address, &error).await;
                return self.fails("binding", started, &describe(&error), finding);
            }
        };
        self.path.mapped = Some(mapped);
        let nat = if mapped == link.local() {
            "no NAT in between".to_owned()
        } else {
            format!("NAT in between: {} here", link.local())
        };
        let software = self.software(link);
        self.went_well("binding", started, format!("you are {mapped}, {nat}{software}"));
        Ok(())
    }

    /// Allocate without credentials.
    async fn challenge(&mut self, link: &mut Link) -> Result<Option<SocketAddr>, Stop> {
        let started = Instant::now();
        let transaction = link.client().allocate(now(), Allocate::default());
        let failure = match link.finish(transaction).await {
            Ok(_) => {
                release_quietly(link).await;
                let detail = "an allocation was granted without credentials";
                return self.fails("challenge", started, detail, Finding::OpenRelay);
            }
            Err(LinkError::Refused(failure)) => failure,
            Err(error @ (LinkError::Silent | LinkError::Closed)) => {
                let detail = format!("Allocate: {}", describe(&error));
                return self.fails("challenge", started, &detail, Finding::StunOnly);
            }
            Err(error) => {
                give_back_if_interrupted(link, &error).await;
                return self.broke("challenge", started, &error);
            }
        };
        match failure.code {
            401 if link.tap().is_challenge() => {
                let realm = link.tap().realm().unwrap_or_default();
                let software = self.software(link);
                let detail = format!("refused without credentials, realm \"{realm}\"{software}");
                self.went_well("challenge", started, detail);
                Ok(None)
            }
            401 => self.fails("challenge", started, &refusal(&failure), Finding::NoChallenge),
            300 if failure.alternate_server.is_some() => Ok(failure.alternate_server),
            400..=405 => self.fails("challenge", started, &refusal(&failure), Finding::StunOnly),
            code => {
                let finding = Finding::of_code(code, &failure.unknown_attributes);
                self.fails("challenge", started, &refusal(&failure), finding)
            }
        }
    }

    /// The allocation, or another server's address.
    async fn allocate(
        &mut self,
        mut link: Link,
        credentials: &Credentials,
        server: SocketAddr,
    ) -> Result<Result<Allocation, SocketAddr>, Stop> {
        let started = Instant::now();
        let granted = match link.identify(&credentials.identity) {
            Ok(()) => allocate(&mut link).await,
            Err(error) => Err(error),
        };
        let granted = match granted {
            Ok(granted) => granted,
            Err(LinkError::Refused(Failure {
                code: 300, alternate_server: Some(other), ..
            })) => {
                return Ok(Err(other));
            }
            Err(LinkError::Refused(failure)) => {
                let finding = refused(&failure, credentials, link.tap().realm());
                return self.fails("allocate", started, &refusal(&failure), finding);
            }
            Err(error) => {
                give_back_if_interrupted(&mut link, &error).await;
                return self.broke("allocate", started, &error);
            }
        };
        let detail = format!("{}{}", describe_allocation(&granted), self.software(&link));
        // Who asks for no family wants IPv4, as browsers do, and would be refused.
        if granted.address_error == Some((Family::V4, NO_PORT)) {
            release_quietly(&mut link).await;
            return self.fails("allocate", started, &detail, Finding::NoPort);
        }
        self.path.relayed.clone_from(&granted.relayed);
        let unusable = |ip| Finding::of_relayed_address(ip, server.ip());
        match granted.relayed.iter().find_map(|relayed| unusable(relayed.ip())) {
            Some(finding) => self.found("allocate", started, detail, finding),
            None => self.went_well("allocate", started, detail),
        }
        Ok(Ok(Allocation { link, relayed: granted.relayed }))
    }

    /// A second allocation on a five-tuple of its own.
    async fn second(
        &mut self,
        address: SocketAddr,
        credentials: &Credentials,
    ) -> Option<Allocation> {
        let started = Instant::now();
        let allocated = async {
            let open = self.open(address, &credentials.identity);
            let mut link = self.settings.unless_interrupted(open, LinkError::Interrupted).await?;
            match allocate(&mut link).await {
                Ok(granted) => Ok(Allocation { link, relayed: granted.relayed }),
                Err(error) => {
                    give_back_if_interrupted(&mut link, &error).await;
                    Err(error)
                }
            }
        };
        match allocated.await {
            Ok(second) => {
                let detail = format!("relayed {}", list(&second.relayed));
                self.went_well("second-allocation", started, detail);
                Some(second)
            }
            Err(error) => {
                let detail = describe(&error);
                self.found("second-allocation", started, detail, Finding::SecondRefused);
                None
            }
        }
    }

    /// Permissions and data.
    async fn relay(
        &mut self,
        first: &mut Allocation,
        second: Option<&mut Allocation>,
    ) -> Result<(), Stop> {
        let mut peers = None;
        if let Some(second) = second {
            peers = self.permission(first, second).await?.map(|to| (second, to));
        }
        let mut relayed = Relayed { own: peers.is_some(), outside: false };
        let socket = self.outside(first, &mut relayed).await?;
        match (peers, socket) {
            (Some((second, there)), _) => {
                let mut far = Far::Allocation(&mut second.link);
                let passed =
                    self.packets("relay-indications", first, there, &mut far, &relayed).await?;
                let here = same_family(&first.relayed, there).unwrap_or(first.relayed[0]);
                self.channels(first, there, Some((&mut second.link, here))).await?;
                let relayed = Relayed { outside: relayed.outside && !passed, ..relayed };
                let mut far = Far::Allocation(&mut second.link);
                self.packets("relay-channels", first, there, &mut far, &relayed).await?;
            }
            (None, Some((socket, seen_as))) => {
                self.channels(first, seen_as, None).await?;
                let mut far = Far::Socket(&socket);
                let relayed = Relayed { outside: false, ..relayed };
                self.packets("relay-channels", first, seen_as, &mut far, &relayed).await?;
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Permissions for each other's relayed address: the second's, or `None` if the
    /// server refuses its own addresses.
    async fn permission(
        &mut self,
        first: &mut Allocation,
        second: &mut Allocation,
    ) -> Result<Option<SocketAddr>, Stop> {
        let started = Instant::now();
        let here = first.relayed[0];
        let Some(there) = same_family(&second.relayed, here) else { return Ok(None) };
        let granted = match permit(&mut first.link, there).await {
            Ok(()) => permit(&mut second.link, here).await,
            refused => refused,
        };
        match granted {
            Ok(()) => {
                let detail = format!("peer: {there}, the second allocation");
                self.went_well("permission", started, detail);
                Ok(Some(there))
            }
            Err(LinkError::Refused(failure)) if failure.code == 403 => {
                let detail =
                    format!("{} for {there}; next: a socket of this machine", refusal(&failure));
                self.found("permission", started, detail, Finding::OwnRelayRefused);
                Ok(None)
            }
            Err(error) => self.broke("permission", started, &error),
        }
    }

    /// A socket of this machine as peer: whether the relay's ports are open. The
    /// socket, and its address as the relay sees it, if data came through.
    async fn outside(
        &mut self,
        first: &mut Allocation,
        relayed: &mut Relayed,
    ) -> Result<Option<(UdpSocket, SocketAddr)>, Stop> {
        let started = Instant::now();
        let mapped = self.path.mapped.expect("Binding comes before and stops where it fails");
        let Some(target) = same_family(&first.relayed, mapped) else {
            let detail = format!("no relayed address in the family of {mapped}");
            self.skipped("peer", started, detail);
            return Ok(None);
        };
        let socket = match link::udp(target, self.settings.source).await {
            Ok((socket, _)) => socket,
            Err(error) => {
                self.skipped("peer", started, describe(&error));
                return Ok(None);
            }
        };
        match permit(&mut first.link, mapped).await {
            Ok(()) => {}
            Err(LinkError::Refused(failure)) if failure.code == 403 => {
                self.refused_as_peer(started, mapped, relayed)?;
                return Ok(None);
            }
            Err(error) => return self.broke("peer", started, &error),
        }
        let knocked = match knock(&mut first.link, &socket).await {
            Ok(knocked) => knocked,
            Err(error) => return self.broke("peer", started, &error),
        };
        let Some(seen_as) = knocked else {
            let detail = format!("nothing comes from this machine through {target}");
            let finding = if relayed.own { Finding::ClosedToOutside } else { Finding::NoData };
            self.stops("peer", started, detail, finding)?;
            return Ok(None);
        };
        let packets = self.settings.packets.min(FEW);
        match measure(&mut first.link, seen_as, &mut Far::Socket(&socket), packets).await {
            Ok(back) if back.iter().any(Option::is_some) => {
                relayed.outside = true;
                self.keep(&Statistics::of(&back));
                let detail = format!("a socket of this machine, seen as {seen_as}: both ways pass");
                self.went_well("peer", started, detail);
                Ok(Some((socket, seen_as)))
            }
            Ok(_) => {
                let detail = format!("data from {seen_as} passes, none to it");
                let finding = if relayed.own { Finding::ClosedToOutside } else { Finding::NoData };
                self.stops("peer", started, detail, finding)?;
                Ok(None)
            }
            Err(error) => self.broke("peer", started, &error),
        }
    }

    fn refused_as_peer(
        &mut self,
        started: Instant,
        mapped: SocketAddr,
        relayed: &Relayed,
    ) -> Result<(), Stop> {
        let detail = format!("the server refuses {} as a peer", mapped.ip());
        match (is_special(mapped.ip()), relayed.own) {
            (true, true) => {
                self.skipped("peer", started, format!("{detail}, as it should: it is private"));
                Ok(())
            }
            (true, false) => self.stops("peer", started, detail, Finding::Untested),
            (false, true) => self.stops("peer", started, detail, Finding::PeerRefused),
            (false, false) => self.stops("peer", started, detail, Finding::PeersRefused),
        }
    }

    /// ChannelBind, on both sides where there are two.
    async fn channels(
        &mut self,
        first: &mut Allocation,
        peer: SocketAddr,
        second: Option<(&mut Link, SocketAddr)>,
    ) -> Result<(), Stop> {
        let started = Instant::now();
        let mut bound = bind_channel(&mut first.link, peer).await;
        if let (Ok(_), Some((link, here))) = (&bound, second) {
            bound = bind_channel(link, here).await;
        }
        match bound {
            Ok(channel) => {
                self.went_well("channel", started, format!("{channel:#06x} for {peer}"));
                Ok(())
            }
            Err(error) => self.broke("channel", started, &error),
        }
    }

    /// Packets to a peer and back. Whether any came back.
    async fn packets(
        &mut self,
        name: &'static str,
        first: &mut Allocation,
        peer: SocketAddr,
        far: &mut Far<'_>,
        relayed: &Relayed,
    ) -> Result<bool, Stop> {
        let started = Instant::now();
        let back = match measure(&mut first.link, peer, far, self.settings.packets).await {
            Ok(back) => back,
            Err(error) => return self.broke(name, started, &error),
        };
        let statistics = Statistics::of(&back);
        if let Some(rtt) = statistics.rtt {
            self.keep(&statistics);
            let detail = format!(
                "{} of {} packets came back; rtt min {} median {} p95 {} max {} ms, jitter {} ms",
                statistics.received,
                statistics.sent,
                rtt.min_ms,
                rtt.median_ms,
                rtt.p95_ms,
                rtt.max_ms,
                statistics.jitter_ms
            );
            if statistics.loss() > TOLERATED_LOSS {
                self.found(name, started, detail, Finding::Loss);
            } else {
                self.went_well(name, started, detail);
            }
            return Ok(true);
        }
        let detail = format!("none of {} packets came back", statistics.sent);
        let finding = if relayed.outside { Finding::NoHairpin } else { Finding::NoData };
        self.stops(name, started, detail, finding)?;
        Ok(false)
    }

    async fn refresh(&mut self, link: &mut Link) -> Result<(), Stop> {
        let started = Instant::now();
        let transaction = link.client().refresh(now(), None, None);
        match link.finish(transaction).await {
            Ok(Event::Refreshed { lifetime, .. }) => {
                self.went_well("refresh", started, format!("lifetime {} s", lifetime.as_secs()));
                Ok(())
            }
            Ok(_) => self.fails("refresh", started, "another answer", Finding::NotStun),
            Err(error) => self.broke("refresh", started, &error),
        }
    }

    /// Gives the allocation back, and asks until it is gone: first by a request that,
    /// unlike Refresh, does not bring back to life what is about to end.
    async fn release(&mut self, first: &mut Allocation) -> Result<(), Stop> {
        let started = Instant::now();
        let Allocation { link, relayed } = first;
        let transaction = link.client().refresh(now(), Some(Duration::ZERO), None);
        match link.finish(transaction).await {
            // 437 answers the copy of a request whose answer was lost.
            Ok(_) | Err(LinkError::Refused(Failure { code: 437, .. })) => {}
            Err(error) => return self.broke("release", started, &error),
        }
        let asked = Instant::now();
        while is_still_there(permit(link, relayed[0]).await) && asked.elapsed() < RELEASE {
            sleep(ASK).await;
        }
        let transaction = link.client().refresh(now(), None, None);
        match link.finish(transaction).await {
            Err(LinkError::Refused(failure)) if failure.code == 437 => {
                let detail = format!("afterwards {}, as it should be", refusal(&failure));
                self.went_well("release", started, detail);
            }
            Err(LinkError::Closed) => {
                self.went_well("release", started, "the server hangs up".to_owned());
            }
            Ok(_) | Err(LinkError::Refused(_)) => {
                release_quietly(link).await;
                let detail = "it is still there".to_owned();
                self.found("release", started, detail, Finding::NotReleased);
            }
            Err(error) => return self.broke("release", started, &error),
        }
        Ok(())
    }

    /// What the server calls itself, the first time that it does.
    fn software(&mut self, link: &Link) -> String {
        match link.tap().software() {
            Some(name) if self.path.software.is_none() => {
                self.path.software = Some(name.to_owned());
                format!("; server: {name}")
            }
            _ => String::new(),
        }
    }

    fn keep(&mut self, statistics: &Statistics) {
        self.path.rtt = statistics.rtt;
        self.path.loss = Some(statistics.loss());
        self.path.jitter_ms = Some(statistics.jitter_ms);
    }
}

/// An Allocate request that is cut short may have been granted.
async fn give_back_if_interrupted(link: &mut Link, error: &LinkError) {
    if matches!(error, LinkError::Interrupted) {
        release_quietly(link).await;
    }
}

fn refused(failure: &Failure, credentials: &Credentials, realm: Option<&str>) -> Finding {
    match failure.code {
        401 => Finding::of_refused_credentials(
            credentials.expires,
            credentials.from_secret,
            now().unix_secs(),
            realm,
        ),
        code => Finding::of_code(code, &failure.unknown_attributes),
    }
}

/// Whether a server can only name such an ALTERNATE-SERVER by mistake, or to have its
/// clients knock at doors that it cannot reach itself (RFC 8489 section 14.15).
fn leads_nowhere(server: SocketAddr, alternate: SocketAddr) -> bool {
    let (from, to) = (server.ip(), alternate.ip());
    alternate.port() == 0
        || to.is_unspecified()
        || to.is_multicast()
        || from.is_ipv4() != to.is_ipv4()
        || is_special(to) && !is_special(from)
}

fn same_family(addresses: &[SocketAddr], other: SocketAddr) -> Option<SocketAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn describe_allocation(granted: &Allocated) -> String {
    let families = match granted.address_error {
        Some((family, code)) => format!(" (no {family}: {code})"),
        None => String::new(),
    };
    let relayed = list(&granted.relayed);
    format!("relayed {relayed}{families}, lifetime {} s", granted.lifetime.as_secs())
}

/// A stream or a socket as a [`Link`] takes it.
pub(super) fn stream(
    stream: impl link::Stream + 'static,
    local: SocketAddr,
) -> (Socket, SocketAddr) {
    (Socket::Stream(Box::new(stream)), local)
}
