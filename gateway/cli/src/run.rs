//! `evenkeel run`.

use clap::Args;
use evenkeel_server::serve::{self, Listening};

use crate::{Failure, Place, check};

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
        serve::serve(&place, |listening| say(listening, self.json)).map_err(|failure| match failure
        {
            serve::Failure::Invalid(invalid) => check::wrong(&invalid, self.json),
            failure => Failure::Failed(failure.to_string()),
        })
    }
}

fn say(listening: &Listening, json: bool) {
    let Listening { udp, quic, socket, api } = listening;
    if json {
        let line = serde_json::json!({"udp": udp, "quic": quic, "socket": socket, "api": api});
        println!("{line}");
        return;
    }
    for address in udp {
        println!("RTP over UDP at {address}");
    }
    if let Some(address) = quic {
        println!("RTP over QUIC at {address}");
    }
    println!("API at {}", socket.display());
    if let Some(address) = api {
        println!("API at {address}");
    }
}
