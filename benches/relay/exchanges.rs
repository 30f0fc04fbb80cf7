//! Requests from many clients at a time: Binding, or the life of an allocation.
//!
//! A closed loop: every client asks for its next thing when it has its answer, and when
//! it is through another one, with an address of its own, takes its place.

use std::io;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::requests::{self, Id, Login, Response};
use crate::sys::Batch;
use crate::tally::{Tally, Watch};

/// Messages moved by one system call at most.
const BATCH: usize = 64;
/// How often answers are looked for; see `generator`.
const LOOK: Duration = Duration::from_micros(40);
/// A request unanswered for so long is sent again (RFC 8489 section 6.2.1).
const RETRANSMIT: Duration = Duration::from_millis(500);
/// So often at most; then the server is broken.
const RETRANSMISSIONS: u32 = 6;
/// Client addresses, after which the first comes again.
const ADDRESSES: usize = 1 << 20;

/// What each client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cycle {
    /// A Binding request.
    Binding,
    /// Allocate, Allocate in answer to the challenge, Refresh with a lifetime of zero.
    Allocation,
}

/// Has `clients` go through their cycles with the server `pid` at `server`, `window` of
/// them at a time, for `warm_up`, then for `duration` under measurement.
///
/// # Errors
/// The first answer that is not the expected one, or none.
pub(crate) fn measure(
    pid: u32,
    server: SocketAddrV4,
    clients: &Fleet,
    cycle: Cycle,
    window: usize,
    warm_up: Duration,
    duration: Duration,
) -> io::Result<Tally> {
    let mut load = Load::new(server, clients, cycle, window);
    load.run(warm_up)?;
    let watch = Watch::start(pid, load.done)?;
    load.run(duration)?;
    let tally = watch.stop(load.done)?;
    load.finish()?;
    Ok(tally)
}

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Binding,
    Challenge,
    Allocation,
    Release,
    /// Nothing: it is at the end of its cycle, and so is the load.
    Through,
}

struct Client {
    /// Which address it has.
    index: usize,
    stage: Stage,
    /// Of the request that is under way.
    id: Id,
    request: Vec<u8>,
    sent: Instant,
    retransmissions: u32,
    login: Option<Login>,
}

struct Load<'a> {
    server: SocketAddrV4,
    fleet: &'a Fleet,
    cycle: Cycle,
    clients: Vec<Client>,
    next_address: usize,
    serial: u64,
    done: u64,
    /// Whether clients that are through are not replaced.
    ending: bool,
    /// Clients that are through and were not replaced.
    through: usize,
    /// Clients whose request is to be sent.
    ready: Vec<usize>,
    incoming: Batch,
    outgoing: Batch,
}

impl<'a> Load<'a> {
    fn new(server: SocketAddrV4, fleet: &'a Fleet, cycle: Cycle, window: usize) -> Self {
        // So that no answer of an earlier measurement fits.
        let serial = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
        let idle = || Client {
            index: 0,
            stage: Stage::Binding,
            id: [0; 12],
            request: Vec::new(),
            sent: Instant::now(),
            retransmissions: 0,
            login: None,
        };
        let mut this = Self {
            server,
            fleet,
            cycle,
            clients: (0..window).map(|_| idle()).collect(),
            next_address: serial as usize % ADDRESSES,
            serial,
            done: 0,
            ending: false,
            through: 0,
            ready: Vec::with_capacity(window),
            incoming: Batch::new(BATCH),
            outgoing: Batch::new(BATCH),
        };
        (0..window).for_each(|client| this.begin(client));
        this
    }

    fn run(&mut self, duration: Duration) -> io::Result<()> {
        let start = Instant::now();
        self.run_until(|_, now| now - start >= duration)
    }

    /// Lets every client come to the end of its cycle: an allocation that is left
    /// behind refuses the client that has its address after it.
    fn finish(&mut self) -> io::Result<()> {
        self.ending = true;
        self.run_until(|this, _| this.through == this.clients.len())
    }

    fn run_until(&mut self, over: impl Fn(&Self, Instant) -> bool) -> io::Result<()> {
        let mut look = Instant::now();
        loop {
            let now = Instant::now();
            if over(self, now) {
                return Ok(());
            }
            if now < look {
                std::hint::spin_loop();
                continue;
            }
            look = now + LOOK;
            while self.receive()? == BATCH {}
            self.send(now);
            self.retransmit(now)?;
        }
    }

    /// Takes answers; returns how many.
    fn receive(&mut self) -> io::Result<usize> {
        let mut incoming = std::mem::take(&mut self.incoming);
        let got = incoming.receive(self.fleet.descriptor(), 0, BATCH, 0)?;
        for i in 0..got {
            let bytes = &incoming.slot(i)[..incoming.received(i)];
            let answer = Response::parse(bytes).filter(|_| incoming.source(i) == self.server);
            let answer = answer.ok_or_else(|| io::Error::other("no response from the server"))?;
            self.on_answer(&answer)?;
        }
        self.incoming = incoming;
        Ok(got)
    }

    fn on_answer(&mut self, answer: &Response<'_>) -> io::Result<()> {
        let id = answer.id();
        let number = u32::from_be_bytes([id[0], id[1], id[2], id[3]]) as usize;
        // Answered twice, because it was asked twice.
        let waits = |client: &&Client| client.id == id && client.stage != Stage::Through;
        let Some(client) = self.clients.get(number).filter(waits) else {
            return Ok(());
        };
        let (stage, index) = (client.stage, client.index);
        let expected = match (stage, answer.kind()) {
            (Stage::Binding, 0x0101) => {
                answer.mapped()
                    == Some(SocketAddrV4::new(self.fleet.address(index), self.fleet.port()))
            }
            (Stage::Challenge, 0x0113) => true,
            (Stage::Allocation, 0x0103) => answer.relayed().is_some(),
            (Stage::Release, 0x0104) => true,
            _ => false,
        };
        if !expected {
            let kind = answer.kind();
            return Err(io::Error::other(format!("{stage:?} was answered by {kind:#06x}")));
        }
        match stage {
            Stage::Binding | Stage::Release => {
                self.done += 1;
                if self.ending {
                    self.clients[number].stage = Stage::Through;
                    self.through += 1;
                } else {
                    self.begin(number);
                }
            }
            Stage::Challenge => {
                let login = Login::answer_to(answer, self.clients[number].login.as_ref());
                let login = login.ok_or_else(|| io::Error::other("401 without a challenge"))?;
                self.clients[number].login = Some(login);
                self.ask(number, Stage::Allocation);
            }
            Stage::Allocation => self.ask(number, Stage::Release),
            Stage::Through => {}
        }
        Ok(())
    }

    /// Another client begins its cycle.
    fn begin(&mut self, number: usize) {
        self.clients[number].index = self.next_address;
        self.next_address = (self.next_address + 1) % ADDRESSES;
        let first = match self.cycle {
            Cycle::Binding => Stage::Binding,
            Cycle::Allocation => Stage::Challenge,
        };
        self.ask(number, first);
    }

    /// Writes the request of a stage.
    fn ask(&mut self, number: usize, stage: Stage) {
        self.serial += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&(number as u32).to_be_bytes());
        id[4..].copy_from_slice(&self.serial.to_be_bytes());
        let client = &mut self.clients[number];
        (client.stage, client.id, client.retransmissions) = (stage, id, 0);
        match (stage, &client.login) {
            (Stage::Binding, _) => requests::binding(&mut client.request, id),
            (Stage::Allocation, Some(login)) => {
                requests::allocate_as(&mut client.request, id, login);
            }
            (Stage::Release, Some(login)) => requests::release(&mut client.request, id, login),
            (Stage::Challenge | Stage::Allocation | Stage::Release | Stage::Through, _) => {
                requests::allocate(&mut client.request, id);
            }
        }
        self.ready.push(number);
    }

    fn send(&mut self, now: Instant) {
        for numbers in self.ready.chunks(BATCH) {
            for (i, &number) in numbers.iter().enumerate() {
                let client = &mut self.clients[number];
                client.sent = now;
                let length = client.request.len();
                self.outgoing.slot_mut(i)[..length].copy_from_slice(&client.request);
                let from = self.fleet.address(client.index);
                self.outgoing.aim(i, 0, length, self.server, Some(from));
            }
            self.outgoing.send_all(self.fleet.descriptor(), 0, numbers.len());
        }
        self.ready.clear();
    }

    fn retransmit(&mut self, now: Instant) -> io::Result<()> {
        for (number, client) in self.clients.iter_mut().enumerate() {
            if client.stage != Stage::Through && now - client.sent > RETRANSMIT {
                client.retransmissions += 1;
                if client.retransmissions > RETRANSMISSIONS {
                    let stage = client.stage;
                    return Err(io::Error::other(format!("{stage:?} is not answered")));
                }
                self.ready.push(number);
            }
        }
        Ok(())
    }
}
