//! Two shapes of a worker's loop, on the same sockets and the same work.
//!
//! `epoll`: the worker's own epoll holds all sockets; timers are its timeout.
//! `tokio`: a current-thread runtime; the packet plane is a task that awaits
//! the same epoll, nested as an `AsyncFd`, or its next timer.
//! `tokio-drained` is the plain way to write that task: it asks the nested
//! epoll until it is empty before it awaits again, which is one call more.
//!
//! Each variant forwards between 100 clients and 100 relay sockets, both ways,
//! in a process pinned to core 0; the load comes from core 1. Printed is the
//! server's CPU time per packet that came out, per load: median, minimum and
//! maximum of alternating rounds, and the median of the rounds' ratios.
#![allow(clippy::print_stdout, reason = "a report on standard output is what it is for")]

#[allow(dead_code, reason = "shared with the relay benchmark")]
#[path = "relay/clients.rs"]
mod clients;
#[allow(dead_code, reason = "shared with the relay benchmark")]
#[path = "relay/fleet.rs"]
mod fleet;
#[allow(dead_code, reason = "shared with the relay benchmark")]
#[path = "relay/forwarder.rs"]
mod forwarder;
#[allow(dead_code, reason = "shared with the relay benchmark")]
#[path = "relay/generator.rs"]
mod generator;
#[allow(dead_code, reason = "shared with the relay benchmark")]
#[path = "relay/packet.rs"]
mod packet;
#[path = "relay/spawn.rs"]
mod spawn;
#[allow(dead_code, reason = "shared with the relay benchmark")]
#[path = "relay/streams.rs"]
mod streams;
#[allow(dead_code, reason = "shared with the relay benchmark")]
#[path = "relay/sys.rs"]
mod sys;
#[allow(dead_code, reason = "shared with the relay benchmark")]
#[path = "relay/tls.rs"]
mod tls;

use std::env;
use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use clients::Clients;
use fleet::Fleet;
use forwarder::Forwarder;
use generator::{Direction, Load, Relay};
use packet::By;
use spawn::{GENERATOR_CORE, spawn_forwarder};

type Outcome<T> = Result<T, Box<dyn Error>>;

const VARIANTS: [&str; 3] = ["epoll", "tokio", "tokio-drained"];
const FLOWS: usize = 100;
const ROUNDS: usize = 5;
const ATTEMPTS: usize = 5;
/// Events taken by one wake at most.
const EVENTS: usize = 64;
/// How far away a worker's next timer is; it moves on when it fires.
const TICK: Duration = Duration::from_millis(10);
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("serve") => serve(&args[1..]),
        Some(other) => Err(format!("unknown argument {other}").into()),
        None => compare(),
    }
}

fn compare() -> Outcome<()> {
    sys::pin(GENERATOR_CORE)?;
    let saturated = Load {
        payload: 160,
        train: 1,
        take_trains: false,
        window: 128,
        flow_window: 64,
        rate: None,
    };
    let loads = [
        ("20k pps", Load { rate: Some(20_000.0), ..saturated }),
        ("100k pps", Load { rate: Some(100_000.0), ..saturated }),
        ("saturated", saturated),
    ];
    println!("CPU seconds per million packets: median (min .. max) of {ROUNDS} rounds");
    for (name, load) in loads {
        let mut costs = vec![Vec::new(); VARIANTS.len()];
        let mut rates = vec![Vec::new(); VARIANTS.len()];
        for _ in 0..ROUNDS {
            for (i, variant) in VARIANTS.iter().enumerate() {
                let sample = clean_round(variant, &load)?;
                costs[i].push(sample.cost());
                rates[i].push(sample.rate());
            }
        }
        for (i, variant) in VARIANTS.iter().enumerate() {
            let ratios = costs[i].iter().zip(&costs[0]).map(|(cost, base)| cost / base).collect();
            let (cost, low, high) = spread(costs[i].clone());
            println!(
                "{name:<10} {variant:<14} {cost:>6.3} ({low:.3} .. {high:.3})  \
                 x{:.3} of epoll  {:>7.0} pps",
                spread(ratios).0,
                spread(rates[i].clone()).0,
            );
        }
    }
    Ok(())
}

/// A round in which something else took the server's core is repeated.
fn clean_round(variant: &str, load: &Load) -> Outcome<generator::Sample> {
    for _ in 0..ATTEMPTS {
        let sample = one_round(variant, load)?;
        if sample.loss() < 0.02 && sample.strays == 0 {
            return Ok(sample);
        }
        eprintln!("repeated, {variant} lost packets: {sample:?}");
    }
    Err(format!("{variant} lost packets in {ATTEMPTS} rounds out of {ATTEMPTS}").into())
}

fn one_round(variant: &str, load: &Load) -> Outcome<generator::Sample> {
    let (clients, peers) = (Fleet::clients()?, Fleet::peers()?);
    let mut command = Command::new(env::current_exe()?);
    command.args(["serve", variant]);
    let server = spawn_forwarder(command, FLOWS, clients.port(), peers.port())?;
    let relay = Relay {
        pid: server.process.pid(),
        server: server.listener,
        relayed: &server.relayed,
        clients: &Clients::Datagrams(clients),
        peers: &peers,
        by: By::Channel,
    };
    let both = [Direction::Up, Direction::Down];
    Ok(generator::measure(&relay, &both, load, WARM_UP, MEASURED)?)
}

/// Median, minimum and maximum.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn serve(args: &[String]) -> Outcome<()> {
    let [variant, count, client_port, peer_port] = args else {
        return Err("usage: serve VARIANT COUNT CLIENT-PORT PEER-PORT".into());
    };
    let plane = Forwarder::bind(count.parse()?, client_port.parse()?, peer_port.parse()?, false)?;
    plane.announce()?;
    if variant == "epoll" {
        return Ok(own_epoll(plane)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(match variant.as_str() {
        "tokio" => runtime.block_on(nested(plane)),
        _ => runtime.block_on(nested_drained(plane)),
    }?)
}

fn own_epoll(mut plane: Forwarder) -> io::Result<()> {
    let mut events = sys::events(EVENTS);
    let mut timer = Instant::now() + TICK;
    loop {
        let now = Instant::now();
        if now >= timer {
            timer = now + TICK;
        }
        let wait = timer.saturating_duration_since(now).as_micros().div_ceil(1000);
        plane.turn(&mut events, wait as i32)?;
    }
}

/// Clears tokio's readiness before it looks, so that an empty look is not
/// needed to get the next edge; what it left behind it remembers itself.
async fn nested(mut plane: Forwarder) -> io::Result<()> {
    let epoll = watch(&plane)?;
    let mut events = sys::events(EVENTS);
    let timer = sleep_until(Instant::now() + TICK);
    tokio::pin!(timer);
    let mut more = false;
    loop {
        if more {
            tokio::task::yield_now().await;
        } else {
            tokio::select! {
                biased;
                ready = epoll.readable() => ready?.clear_ready(),
                () = &mut timer => {
                    timer.as_mut().reset(Instant::now() + TICK);
                    continue;
                }
            }
        }
        more = plane.turn(&mut events, 0)?.more;
    }
}

fn watch(plane: &Forwarder) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same open descriptor until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(plane.descriptor()?, Interest::READABLE) }?)
}

async fn nested_drained(mut plane: Forwarder) -> io::Result<()> {
    let epoll = watch(&plane)?;
    let mut events = sys::events(EVENTS);
    let timer = sleep_until(Instant::now() + TICK);
    tokio::pin!(timer);
    loop {
        tokio::select! {
            biased;
            ready = epoll.readable() => {
                let mut ready = ready?;
                if plane.turn(&mut events, 0)?.ready == 0 {
                    ready.clear_ready();
                }
            }
            () = &mut timer => timer.as_mut().reset(Instant::now() + TICK),
        }
    }
}
