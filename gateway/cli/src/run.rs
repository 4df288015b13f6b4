//! `evenkeel run`.

use clap::Args;
use evenkeel_server::handover::Program;
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
    /// Take over from the gateway that started this process for an upgrade
    #[arg(long, hide = true)]
    inherit: bool,
}

impl Run {
    pub(crate) fn act(self) -> Result<(), Failure> {
        let program = Program::this();
        let program = program.map_err(|error| Failure::Failed(format!("own path: {error}")))?;
        let place =
            serve::Place { program: Some(program), inherit: self.inherit, ..self.place.serve() };
        // A reader of standard output that knows the addresses may be gone by an upgrade.
        let started = |listening: &Listening| {
            if !self.inherit {
                tell(listening, self.json);
            }
        };
        serve::serve(&place, started).map_err(|failure| match failure {
            serve::Failure::Invalid(invalid) => check::wrong(&invalid, self.json),
            serve::Failure::Successor(status) => std::process::exit(status),
            failure => Failure::Failed(failure.to_string()),
        })
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
