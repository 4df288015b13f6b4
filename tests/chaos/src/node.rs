//! A sample node with a vice.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use evenkeel_lab::sample_node::{self, Numbers, Options, Words};

/// The fault of the node, from SIGUSR1 to SIGUSR2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Vice {
    /// Accepts sessions and packets, and forwards none.
    Drops,
    /// It does so with one in 64 of the flows that there are.
    DropsFlows,
    /// It takes ever more memory.
    Leaks,
    /// Reports to be empty and overloaded, in turns.
    Lies,
    /// Its clock is an hour ahead.
    JumpsAhead,
}

impl Vice {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Vice::Drops => "drops",
            Vice::DropsFlows => "drops-flows",
            Vice::Leaks => "leaks",
            Vice::Lies => "lies",
            Vice::JumpsAhead => "jumps-ahead",
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
    vice: Vice,
}

impl Node {
    pub(crate) fn act(self) -> Result<(), String> {
        let mut options = Options::new(self.listen, &self.name);
        let secret = sample_node::read_secret(&self.secret);
        options.secret = Some(secret.map_err(|error| error.to_string())?);
        if self.untouched {
            options.numbers = Numbers::Untouched;
        }
        options.vice = match self.vice {
            Vice::Drops => sample_node::Vice::Drops,
            Vice::DropsFlows => sample_node::Vice::DropsFlows,
            Vice::Leaks => sample_node::Vice::Leaks,
            Vice::Lies => sample_node::Vice::Lies,
            Vice::JumpsAhead => sample_node::Vice::JumpsAhead,
        };
        let words = if self.json { Words::Json } else { Words::Plain };
        sample_node::run(options, words).map_err(|error| error.to_string())
    }
}
