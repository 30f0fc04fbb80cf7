//! The command line: what one table measures, and which tables.

use std::fmt;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::Outcome;
use crate::clients::Transport;
use crate::fleet::FLOWS_MAX;
use crate::generator::Direction;
use crate::packet::{By, PAYLOAD_MAX, PAYLOAD_MIN};
use crate::servers::Kind;
use crate::suite::Part;

/// Nothing is refreshed, so a server must be done before a permission ends.
const SERVER_SECONDS_MAX: f64 = 240.0;
/// Arguments of a plan that the tables of the page can be told as well.
const FOR_ALL: [&str; 3] = ["rounds", "seconds", "attempts"];

/// Compare the CPU time and the memory that TURN servers need. Without an option that
/// says what to measure, every table of docs/benchmarks.md.
#[derive(Parser)]
#[command(name = "scripts/bench")]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) plan: Plan,
    /// Of the tables of the page only these.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) table: Vec<Part>,
    /// The tables of the page in three minutes: one round, less of everything.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write every round as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the tables, the machine and the commands into the page.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        default_missing_value = "docs/benchmarks.md"
    )]
    pub(crate) write: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one table measures.
#[derive(Args, Clone, Debug)]
pub(crate) struct Plan {
    /// What the servers have to do.
    #[arg(long, value_enum, default_value_t = Work::Relay)]
    pub(crate) work: Work,
    /// Servers to measure, in the order of the rows. One that cannot do the work is
    /// left out.
    #[arg(long, value_delimiter = ',', default_value = "coturn,sturn,forwarder")]
    pub(crate) servers: Vec<Kind>,
    /// Numbers of allocations [default: 1,100,1000; for scaling 10,100,1000,10000; for
    /// memory 10000; 200 from relay to relay].
    #[arg(long, value_delimiter = ',')]
    allocations: Vec<usize>,
    /// Directions to relay in [default: up,down,both; for scaling both].
    #[arg(long, value_delimiter = ',')]
    directions: Vec<Way>,
    /// How clients reach the server.
    #[arg(long, value_delimiter = ',', default_value = "udp")]
    pub(crate) transport: Vec<Transport>,
    /// How data goes between clients and server.
    #[arg(long, value_enum, default_value_t = By::Channel)]
    pub(crate) by: By,
    /// Each allocation's peer is another allocation of the same server.
    #[arg(long)]
    pub(crate) relay_to_relay: bool,
    /// Bytes of application data in a packet.
    #[arg(long, value_delimiter = ',', default_value = "160")]
    pub(crate) payload: Vec<usize>,
    /// Consecutive packets of one allocation, over UDP in one buffer (GSO).
    #[arg(long, default_value_t = 1)]
    pub(crate) train: usize,
    /// The generator takes every packet of a train for itself.
    #[arg(long)]
    pub(crate) no_gro: bool,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Rounds; the order of the servers alternates.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Measurements of a point in a round at most, until one is undisturbed.
    #[arg(long, default_value_t = 5)]
    pub(crate) attempts: usize,
    /// Packets per second, all directions together, instead of saturation.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Packets or requests under way in one direction at saturation.
    #[arg(long, default_value_t = 128)]
    pub(crate) window: usize,
    /// Packets under way in one allocation and direction at saturation.
    #[arg(long, default_value_t = 64)]
    pub(crate) flow_window: usize,
}

/// What servers have to do.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Work {
    /// Relay packets.
    Relay,
    /// The same with ten to ten thousand allocations.
    Scaling,
    /// Allocate, be challenged, allocate with credentials, refresh to zero.
    Allocate,
    /// Answer Binding requests.
    Binding,
    /// Shake hands within TLS.
    Handshakes,
    /// Hold allocations that nobody uses.
    Memory,
}

/// One or both directions.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(crate) enum Way {
    /// Client to peer.
    Up,
    /// Peer to client.
    Down,
    /// Up and down at once.
    Both,
    /// From relay to relay, both ways.
    #[value(skip)]
    Across,
}

impl Way {
    /// The lanes of the load.
    pub(crate) fn directions(self) -> &'static [Direction] {
        match self {
            Self::Up => &[Direction::Up],
            Self::Down => &[Direction::Down],
            Self::Both => &[Direction::Up, Direction::Down],
            Self::Across => &[Direction::Across],
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
            Self::Across => "across",
        })
    }
}

impl Options {
    /// Reads the command line; the second is whether it says itself what to measure.
    pub(crate) fn read() -> Outcome<(Self, bool)> {
        let matches = Self::command().get_matches();
        let plan = Plan::augment_args(Command::new("plan"));
        let own = plan.get_arguments().map(|argument| argument.get_id().as_str()).any(|id| {
            !FOR_ALL.contains(&id) && matches.value_source(id) == Some(ValueSource::CommandLine)
        });
        let options = Self::from_arg_matches(&matches)?;
        if own && (options.quick || options.write.is_some() || !options.table.is_empty()) {
            return Err("--table, --quick and --write are for the tables of the page, which say \
                        themselves what they measure"
                .into());
        }
        if !own {
            return Ok((options, false));
        }
        options.plan.check()?;
        Ok((options, true))
    }

    /// What `--rounds` and the like add to the commands of the page's tables.
    pub(crate) fn overrides() -> Vec<String> {
        let matches = Self::command().get_matches();
        let given = |id: &&&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let raw = |id: &str| matches.get_raw(id).and_then(|mut values| values.next_back());
        FOR_ALL
            .iter()
            .filter(given)
            .filter_map(|id| Some([format!("--{id}"), raw(id)?.to_str()?.to_owned()]))
            .flatten()
            .collect()
    }
}

impl Plan {
    /// The plan of a command line.
    pub(crate) fn parse(arguments: &[String]) -> Outcome<Self> {
        let program = ["scripts/bench".to_owned()];
        let plan = Options::try_parse_from(program.iter().chain(arguments))?.plan;
        plan.check()?;
        Ok(plan)
    }

    /// Numbers of allocations, each of which is measured.
    pub(crate) fn allocations(&self) -> Vec<usize> {
        match self.work {
            _ if !self.allocations.is_empty() => self.allocations.clone(),
            Work::Scaling => vec![10, 100, 1000, 10_000],
            Work::Memory => vec![10_000],
            _ if self.relay_to_relay => vec![200],
            _ => vec![1, 100, 1000],
        }
    }

    /// Ways that packets go, each of which is measured.
    pub(crate) fn ways(&self) -> Vec<Way> {
        match self.work {
            _ if self.relay_to_relay => vec![Way::Across],
            _ if !self.directions.is_empty() => self.directions.clone(),
            Work::Scaling => vec![Way::Both],
            _ => vec![Way::Up, Way::Down, Way::Both],
        }
    }

    /// The servers that are in the table.
    pub(crate) fn all_servers(&self) -> Vec<Kind> {
        let measured = |kind: &Kind| self.transport.iter().any(|of| self.suits(*kind, *of));
        self.servers.iter().copied().filter(measured).collect()
    }

    /// The servers that can do the work for clients on `transport`.
    pub(crate) fn servers(&self, transport: Transport) -> Vec<Kind> {
        self.servers.iter().copied().filter(|kind| self.suits(*kind, transport)).collect()
    }

    fn suits(&self, kind: Kind, transport: Transport) -> bool {
        match kind {
            Kind::Coturn | Kind::Sturn => true,
            Kind::WebrtcRs => transport == Transport::Udp && self.work != Work::Handshakes,
            Kind::Forwarder | Kind::ForwarderGso => {
                transport == Transport::Udp
                    && matches!(self.work, Work::Relay | Work::Scaling)
                    && self.by == By::Channel
                    && !self.relay_to_relay
            }
        }
    }

    fn check(&self) -> Outcome<()> {
        let fail = |text: String| Err(text.into());
        if self.rounds == 0 || self.attempts == 0 {
            return fail("at least one round and one attempt".to_owned());
        }
        if self.transport.iter().any(|transport| self.servers(*transport).is_empty()) {
            return fail("none of --servers can do this".to_owned());
        }
        if !self.payload.iter().all(|bytes| (PAYLOAD_MIN..=PAYLOAD_MAX).contains(bytes)) {
            return fail(format!("--payload is from {PAYLOAD_MIN} to {PAYLOAD_MAX}"));
        }
        let allocations = self.allocations();
        if !allocations.iter().all(|count| (1..=FLOWS_MAX).contains(count)) {
            return fail(format!("--allocations are from 1 to {FLOWS_MAX}"));
        }
        if self.relay_to_relay && !allocations.iter().all(|count| count % 2 == 0) {
            return fail("--relay-to-relay takes pairs: --allocations have to be even".to_owned());
        }
        if !(1..=32).contains(&self.train) || self.window < 2 * self.train {
            return fail("--train is from 1 to 32 and at most half of --window".to_owned());
        }
        let measurements = self.ways().len() * self.payload.len() * self.attempts;
        let per_server = self.seconds * measurements as f64;
        if !(0.1..SERVER_SECONDS_MAX).contains(&per_server) {
            return fail(format!(
                "--seconds is too small or too large ({per_server} s per server)"
            ));
        }
        Ok(())
    }
}
