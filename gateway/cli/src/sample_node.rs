//! `evenkeel sample-node`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use evenkeel_lab::sample_node::{
    self, NumberTreatment, PlainRoom, SampleNodeOptions, Stamps, Words,
};

use crate::CommandError;

/// Run a sample media server for trials and drills
///
/// It reflects packets among the sessions of a room with its own SSRCs and sequence numbers, answers probes, and counts
/// key-frame requests.
#[derive(Args)]
pub(crate) struct SampleNodeArgs {
    /// Listen address; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7001")]
    listen: SocketAddr,
    /// Name of the node in the gateway's `[[node]]`; packets with a test header are stamped with its number
    #[arg(long, default_value = "sample")]
    name: String,
    /// Secret shared with the gateway; without it there are no trunk legs
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Keep SSRCs, sequence numbers, timestamps and payloads, as mode `hitless` needs
    #[arg(long)]
    untouched: bool,
    /// Stamp packets that have a test header in spite of `--untouched`, which changes their payloads
    #[arg(long, requires = "untouched")]
    stamp: bool,
    /// Put all senders of plain RTP in one room; without it each gets its own packets back
    #[arg(long)]
    plain_room: bool,
    /// Accept signed commands to cut the link (`evenkeel drill cut-link`)
    #[arg(long, requires = "secret")]
    drills: bool,
    /// Encrypt trunk legs, as with `encrypt = true` in the gateway's `[[node]]`
    #[arg(long, requires = "secret")]
    encrypt: bool,
    /// Print the listen address, and counters at the end, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl SampleNodeArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let failed = |error: sample_node::SampleNodeError| CommandError::Failed(error.to_string());
        let mut options = SampleNodeOptions::new(self.listen, &self.name);
        let secret = self.secret.as_deref().map(|path| sample_node::read_secret(path, &self.name));
        options.secret = secret.transpose().map_err(failed)?;
        if self.untouched {
            options.numbers = NumberTreatment::Untouched;
            options.stamps = if self.stamp { Stamps::Yes } else { Stamps::No };
        }
        if self.plain_room {
            options.plain_room = PlainRoom::Shared;
        }
        options.drills = self.drills;
        options.encrypt = self.encrypt;
        let words = if self.json { Words::Json } else { Words::Plain };
        sample_node::run(options, Box::new(()), words).map_err(failed)
    }
}
