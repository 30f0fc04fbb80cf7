//! Work by the piece: handshakes, Binding requests, allocations, and the memory that
//! allocations take.

use std::time::Duration;

use crate::certificate::KeyType;
use crate::clients::{Clients, Transport};
use crate::exchanges::{self, Cycle};
use crate::fleet::Fleet;
use crate::handshakes::{self, Version};
use crate::options::Plan;
use crate::packet::By;
use crate::report::{DENIED_MAX, Holding, MemoryPoint, Report, WorkPoint, no_rounds};
use crate::servers::{Flows, Front, Kind, Server};
use crate::tally::Tally;
use crate::{Outcome, WARM_UP, in_turn, sys};

/// Carries out a plan of handshakes: two kinds of certificate, two versions of TLS.
pub(crate) fn measure_handshakes(plan: &Plan) -> Outcome<Report> {
    let servers = plan.servers(Transport::Tls);
    let mut points = Vec::new();
    for key_type in [KeyType::Ecdsa, KeyType::Rsa] {
        let versions = [Version::Tls13, Version::Tls12];
        let mut rows = versions.map(|version| WorkPoint {
            what: vec![key_type.to_string(), version.to_string()],
            servers: no_rounds(&servers),
        });
        for round in 0..plan.rounds {
            for server in in_turn(servers.len(), round) {
                let (clients, peers) = (Clients::new(Transport::Tls)?, Fleet::peers()?);
                let front = Front { transport: Transport::Tls, key_type };
                let mut running =
                    Server::start(servers[server], front, Flows::NONE, &clients, &peers)?;
                for (row, version) in rows.iter_mut().zip(versions) {
                    let tally = clean_tally(plan, || {
                        let (pid, address) = (running.process.pid(), running.address);
                        handshakes::measure(pid, address, version, WARM_UP, duration(plan))
                    });
                    row.add(server, tally, &mut running)?;
                }
            }
        }
        points.extend(rows);
    }
    Ok(Report::of_work(&["certificate", "version"], "handshake", &points))
}

/// Carries out a plan of requests.
pub(crate) fn measure_exchanges(plan: &Plan, cycle: Cycle) -> Outcome<Report> {
    let servers = plan.servers(Transport::Udp);
    let (what, unit) = match cycle {
        Cycle::Binding => ("Binding", "answer"),
        Cycle::Allocation => ("Allocate, 401, Allocate, Refresh 0", "cycle"),
    };
    let mut row = WorkPoint { what: vec![what.to_owned()], servers: no_rounds(&servers) };
    for round in 0..plan.rounds {
        for server in in_turn(servers.len(), round) {
            let (clients, peers) = (Fleet::clients()?, Fleet::peers()?);
            let front = Front { transport: Transport::Udp, key_type: KeyType::Ecdsa };
            let clients = Clients::Datagrams(clients);
            let mut running = Server::start(servers[server], front, Flows::NONE, &clients, &peers)?;
            let Clients::Datagrams(fleet) = &clients else { unreachable!("they are datagrams") };
            let tally = clean_tally(plan, || {
                let (pid, address) = (running.process.pid(), running.address);
                exchanges::measure(pid, address, fleet, cycle, plan.window, WARM_UP, duration(plan))
            });
            row.add(server, tally, &mut running)?;
        }
    }
    Ok(Report::of_work(&["requests"], unit, &[row]))
}

/// Carries out a plan of memory: allocations with a channel each, of which no packet
/// comes.
pub(crate) fn measure_memory(plan: &Plan) -> Outcome<Report> {
    let servers = plan.servers(Transport::Udp);
    let mut points = Vec::new();
    for allocations in plan.allocations() {
        let mut row = MemoryPoint { allocations, servers: no_rounds(&servers) };
        for round in 0..plan.rounds {
            for server in in_turn(servers.len(), round) {
                let holding = hold(servers[server], allocations)?;
                eprintln!(
                    "{:<13} {allocations:>5} allocations {:>7.0} bytes each",
                    servers[server],
                    holding.cost(),
                );
                row.servers[server].1.push(holding);
            }
        }
        points.push(row);
    }
    Ok(Report::of_memory(&points))
}

fn hold(kind: Kind, allocations: usize) -> Outcome<Holding> {
    let (clients, peers) = (Clients::new(Transport::Udp)?, Fleet::peers()?);
    let front = Front { transport: Transport::Udp, key_type: KeyType::Ecdsa };
    let mut running = Server::start(kind, front, Flows::NONE, &clients, &peers)?;
    let before = sys::memory(running.process.pid())?;
    let flows = Flows { count: allocations, by: By::Channel, across: false };
    running.open(flows, &clients, &peers)?;
    Ok(Holding { allocations, before, after: sys::memory(running.process.pid())? })
}

impl WorkPoint {
    /// Adds what `server` did in a round; if it failed, with the last lines of `running`.
    fn add(&mut self, server: usize, tally: Outcome<Tally>, running: &mut Server) -> Outcome<()> {
        let (kind, samples) = &mut self.servers[server];
        let what = self.what.join(", ");
        let tally =
            tally.map_err(|error| running.process.explain(&format!("{kind}, {what}: {error}")))?;
        eprintln!(
            "{kind:<13} {what} {:>7.2} CPU us {:>7.0}/s, busy {:.0}%",
            tally.cost(),
            tally.rate(),
            100.0 * tally.busy(),
        );
        samples.push(tally);
        Ok(())
    }
}

/// Measures until the server had its core, or takes the least disturbed attempt.
fn clean_tally(plan: &Plan, mut measure: impl FnMut() -> std::io::Result<Tally>) -> Outcome<Tally> {
    let mut best: Option<Tally> = None;
    for _ in 0..plan.attempts {
        let tally = measure()?;
        if tally.denied() <= DENIED_MAX {
            return Ok(tally);
        }
        eprintln!("disturbed: the server waited for its core {:.0}%", 100.0 * tally.denied());
        best = best.filter(|best| best.denied() <= tally.denied()).or(Some(tally));
    }
    best.ok_or_else(|| "no attempt".into())
}

fn duration(plan: &Plan) -> Duration {
    Duration::from_secs_f64(plan.seconds)
}
