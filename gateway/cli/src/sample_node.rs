//! `evenkeel sample-node`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use evenkeel_lab::sample_node::{self, Numbers, Options, PlainRoom, Stamps, Words};

use crate::Failure;

/// A sample media server: reflects packets among the sessions of a room, as a media server would, with an SSRC and
/// numbers of its own; answers probes; counts key-frame requests.
#[derive(Args)]
pub(crate) struct SampleNode {
    /// Where it listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7001")]
    listen: SocketAddr,
    /// Its name; packets with a test header are stamped with its number
    #[arg(long, default_value = "sample")]
    name: String,
    /// The secret it shares with the gateway; without it there are no trunk legs
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Keep SSRC, sequence numbers, timestamps and payloads as they came, as mode `hitless` needs it
    #[arg(long)]
    untouched: bool,
    /// With `--untouched`, still stamp packets that have a test header: their payloads change then
    #[arg(long, requires = "untouched")]
    stamp: bool,
    /// All senders of plain RTP are in one room, else each hears itself
    #[arg(long)]
    plain_room: bool,
    /// Who knows the secret may cut it off, to see what follows (`evenkeel drill cut-link`)
    #[arg(long, requires = "secret")]
    drills: bool,
    /// Say where it listens, and at the end what it counted, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl SampleNode {
    pub(crate) fn act(self) -> Result<(), Failure> {
        let failed = |error: sample_node::Failed| Failure::Failed(error.to_string());
        let mut options = Options::new(self.listen, &self.name);
        options.secret =
            self.secret.as_deref().map(sample_node::read_secret).transpose().map_err(failed)?;
        if self.untouched {
            options.numbers = Numbers::Untouched;
            options.stamps = if self.stamp { Stamps::Yes } else { Stamps::No };
        }
        if self.plain_room {
            options.plain_room = PlainRoom::Shared;
        }
        options.drills = self.drills;
        let words = if self.json { Words::Json } else { Words::Plain };
        sample_node::run(options, words).map_err(failed)
    }
}
