//! A sample node that misbehaves but still answers probes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use evenkeel_lab::sample_node::{self, NodeBehaviour, SampleNodeOptions};
use evenkeel_media::demux::DatagramKind;
use signal_hook::consts::{SIGUSR1, SIGUSR2};

/// The fault of the node, from SIGUSR1 to SIGUSR2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Misbehaviour {
    /// Accepts sessions and packets, and forwards none.
    Drops,
    /// The same for the packets of one in 64 of the sessions that send media meanwhile, always the same ones.
    DropsFlows,
    /// Loses one of ten media packets.
    Loses,
    /// Allocates 64 MiB per second.
    Leaks,
    /// Reports to be empty and to be overloaded, in turns of one second.
    Lies,
    /// Its clock is an hour ahead.
    JumpsAhead,
}

impl Misbehaviour {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Misbehaviour::Drops => "drops",
            Misbehaviour::DropsFlows => "drops-flows",
            Misbehaviour::Loses => "loses",
            Misbehaviour::Leaks => "leaks",
            Misbehaviour::Lies => "lies",
            Misbehaviour::JumpsAhead => "jumps-ahead",
        }
    }
}

/// The options of `evenkeel sample-node`, and a fault.
#[derive(Args)]
pub(crate) struct Node {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    name: String,
    #[arg(long)]
    secret: PathBuf,
    #[arg(long)]
    json: bool,
    #[arg(long)]
    untouched: bool,
    #[arg(long)]
    misbehaviour: Misbehaviour,
}

impl Node {
    pub(crate) fn act(self) -> Result<(), String> {
        let mut options = SampleNodeOptions::new(self.listen, &self.name);
        let secret = sample_node::read_secret(&self.secret, &self.name);
        options.secret = Some(secret.map_err(|error| error.to_string())?);
        options.untouched = self.untouched;
        let faulty = FaultyNode::new(self.misbehaviour, Arc::default());
        faulty.listen().map_err(|error| format!("listening to signals: {error}"))?;
        sample_node::run(options, Box::new(faulty), self.json).map_err(|error| error.to_string())
    }
}

/// Offset of a clock that jumped ahead, microseconds.
const AHEAD_US: u64 = 3_600_000_000;

/// Duration of each reported load.
const SAYS_FOR: Duration = Duration::from_secs(1);

/// The reported load, thousandths.
const SAYS: [u16; 2] = [0, 60_000];

/// Bytes leaked at each review of leases, 20 times per second.
const LEAK: usize = 64 * 1_024 * 1_024 / 20;

/// One of this many media packets is lost.
const LOSES: u32 = 10;

/// One of this many flows is dropped.
const FLOWS: usize = 64;

/// Index of the dropped flow among each [`FLOWS`]. With the middle one, the share is rounded to the nearest whole: 3 of
/// 160 flows.
const DROPPED: usize = FLOWS / 2 - 1;

/// The misbehaviour of a node, and whether it is active.
struct FaultyNode {
    misbehaviour: Misbehaviour,
    active: Arc<AtomicBool>,
    leaked: Vec<Vec<u8>>,
    began: Option<Instant>,
    /// For each session that sent media during the fault, whether its flow is dropped.
    flows: HashMap<u64, bool>,
}

impl FaultyNode {
    fn new(misbehaviour: Misbehaviour, active: Arc<AtomicBool>) -> Self {
        Self { misbehaviour, active, leaked: Vec::new(), began: None, flows: HashMap::new() }
    }

    /// SIGUSR1 starts the fault, SIGUSR2 ends it.
    fn listen(&self) -> std::io::Result<()> {
        signal_hook::flag::register(SIGUSR1, Arc::clone(&self.active))?;
        let active = Arc::clone(&self.active);
        let mut ends = signal_hook::iterator::Signals::new([SIGUSR2])?;
        std::thread::spawn(move || {
            ends.forever().for_each(|_| active.store(false, Ordering::Relaxed));
        });
        Ok(())
    }

    fn is(&self, misbehaviour: Misbehaviour) -> bool {
        self.misbehaviour == misbehaviour && self.active.load(Ordering::Relaxed)
    }
}

impl NodeBehaviour for FaultyNode {
    fn tick(&mut self) {
        if self.is(Misbehaviour::Leaks) {
            self.leaked.push(vec![1; LEAK]);
        }
    }

    fn unix_us(&self, unix_us: u64) -> u64 {
        unix_us + if self.is(Misbehaviour::JumpsAhead) { AHEAD_US } else { 0 }
    }

    fn load(&mut self, permille: u16, now: Instant) -> u16 {
        if !self.is(Misbehaviour::Lies) {
            return permille;
        }
        let since = now.saturating_duration_since(*self.began.get_or_insert(now));
        SAYS[(since.as_millis() / SAYS_FOR.as_millis()) as usize % SAYS.len()]
    }

    /// Flows are numbered in the order of their first packet, so that the number of flows determines the dropped ones.
    fn drops(&mut self, session: u64, kind: DatagramKind) -> bool {
        if self.is(Misbehaviour::Loses) {
            return kind == DatagramKind::Rtp && fastrand::u32(..LOSES) == 0;
        }
        if !self.is(Misbehaviour::DropsFlows) {
            return self.is(Misbehaviour::Drops);
        }
        if kind == DatagramKind::Rtp {
            let before = self.flows.len();
            *self.flows.entry(session).or_insert(before % FLOWS == DROPPED)
        } else {
            self.flows.get(&session).is_some_and(|drops| *drops)
        }
    }
}

#[cfg(test)]
mod tests;
