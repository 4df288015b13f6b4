//! `evenkeel run`.

use clap::Args;
use evenkeel_server::serve::{self, Listening};

use crate::{Failure, Place, check, say};

/// Run the gateway until SIGTERM or SIGINT; SIGHUP reloads nodes, policies and modes.
#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    place: Place,
    /// Print the listen addresses as one line of JSON, and configuration errors as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Run {
    pub(crate) fn act(self) -> Result<(), Failure> {
        let place = self.place.serve();
        serve::serve(&place, |listening| tell(listening, self.json)).map_err(
            |failure| match failure {
                serve::Failure::Invalid(invalid) => check::wrong(&invalid, self.json),
                failure => Failure::Failed(failure.to_string()),
            },
        )
    }
}

fn tell(listening: &Listening, json: bool) {
    let Listening { udp, quic, socket, api } = listening;
    if json {
        say(&serde_json::json!({"udp": udp, "quic": quic, "socket": socket, "api": api}));
        return;
    }
    for address in udp {
        say(&format!("RTP over UDP at {address}"));
    }
    if let Some(address) = quic {
        say(&format!("RTP over QUIC at {address}"));
    }
    say(&format!("API at {}", socket.display()));
    if let Some(address) = api {
        say(&format!("API at {address}"));
    }
}
