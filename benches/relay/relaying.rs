//! Relayed packets: each server in turn, in every row.

use std::time::Duration;

use crate::certificate::KeyType;
use crate::clients::{Clients, Transport};
use crate::fleet::Fleet;
use crate::generator::{self, Load, Relay, Sample};
use crate::options::Plan;
use crate::report::{DENIED_MAX, Point, Report, no_rounds};
use crate::servers::{Flows, Front, Server};
use crate::{Outcome, WARM_UP, in_turn};

/// A point whose loss is above this is measured again.
const LOSS_MAX: f64 = 0.02;
/// Bytes under way to one client on a stream: coturn drops what a client's socket
/// does not take at once when more than some 64 KiB wait for it.
const STREAM_WINDOW: usize = 32 << 10;

/// Bytes under way in one flow in trains: when the kernel takes a train apart for a
/// receiver, its parts count for more than twice their bytes in a socket's buffer, and a
/// relay socket of coturn holds 128 KiB.
const TRAIN_WINDOW: usize = 32 << 10;

/// Carries out a plan of relaying.
pub(crate) fn measure(plan: &Plan) -> Outcome<Report> {
    let mut points = Vec::new();
    for &transport in &plan.transport {
        for allocations in plan.allocations() {
            let mut rows = rows(plan, transport, allocations);
            let servers = rows[0].servers.len();
            for round in 0..plan.rounds {
                for server in in_turn(servers, round) {
                    one_server(plan, server, &mut rows)
                        .map_err(|error| format!("round {}: {error}", round + 1))?;
                }
            }
            points.append(&mut rows);
        }
    }
    Ok(Report::of_relaying(&points))
}

/// Rows without samples for what one start of a server is good for.
fn rows(plan: &Plan, transport: Transport, allocations: usize) -> Vec<Point> {
    let servers = plan.servers(transport);
    let mut rows = Vec::new();
    for &payload in &plan.payload {
        for way in plan.ways() {
            let servers = no_rounds(&servers);
            rows.push(Point { transport, payload, allocations, way, servers });
        }
    }
    rows
}

/// Measures one server in every row and adds a sample to each.
fn one_server(plan: &Plan, server: usize, rows: &mut [Point]) -> Outcome<()> {
    let Point { transport, allocations, .. } = rows[0];
    let kind = rows[0].servers[server].0;
    let (clients, peers) = (Clients::new(transport)?, Fleet::peers()?);
    let front = Front { transport, key_type: KeyType::Ecdsa };
    let flows = Flows { count: allocations, by: plan.by, across: plan.relay_to_relay };
    let mut running = Server::start(kind, front, flows, &clients, &peers)?;
    for row in rows {
        let relay = Relay {
            pid: running.process.pid(),
            server: running.address,
            relayed: &running.relayed,
            clients: &clients,
            peers: &peers,
            by: plan.by,
        };
        let sample = clean_sample(plan, &relay, row).map_err(|error| {
            let what =
                format!("{kind}, {transport}, {allocations} allocations, {}: {error}", row.way);
            running.process.explain(&what)
        })?;
        eprintln!(
            "{kind:<13} {transport} {:>4} {allocations:>5} {:<6} {:>7.3} CPU s per million \
             {:>8.0} pps {:>5.2}% lost",
            row.payload,
            row.way,
            sample.cost(),
            sample.rate(),
            100.0 * sample.loss(),
        );
        row.servers[server].1.push(sample);
    }
    Ok(())
}

/// Measures until the server had its core and lost little: on a machine that
/// does other work too, it can be kept waiting for longer than its sockets can
/// hold. Of attempts that were all disturbed the least disturbed one counts,
/// unless it lost too much.
fn clean_sample(plan: &Plan, relay: &Relay<'_>, row: &Point) -> Outcome<Sample> {
    let load = Load {
        payload: row.payload,
        train: plan.train,
        take_trains: !plan.no_gro,
        window: plan.window,
        flow_window: match row.transport {
            Transport::Udp if plan.train > 1 => plan.flow_window.min(TRAIN_WINDOW / row.payload),
            Transport::Udp => plan.flow_window,
            Transport::Tcp | Transport::Tls => plan.flow_window.min(STREAM_WINDOW / row.payload),
        },
        rate: plan.rate,
    };
    let duration = Duration::from_secs_f64(plan.seconds);
    let mut best: Option<Sample> = None;
    for _ in 0..plan.attempts {
        let sample = generator::measure(relay, row.way.directions(), &load, WARM_UP, duration)?;
        if sample.strays > 0 {
            return Err(format!("damaged or misdelivered packets: {sample:?}").into());
        }
        if sample.loss() <= LOSS_MAX {
            if sample.denied() <= DENIED_MAX {
                return Ok(sample);
            }
            best = best.filter(|best| best.denied() <= sample.denied()).or(Some(sample));
        }
        eprintln!(
            "disturbed: {:.1}% lost, the server waited for its core {:.0}% of the time",
            100.0 * sample.loss(),
            100.0 * sample.denied(),
        );
    }
    best.ok_or_else(|| format!("more than {LOSS_MAX} lost in each attempt").into())
}
