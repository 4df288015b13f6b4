//! `evenkeel run`.

use clap::Args;
use evenkeel_handover::SuccessorProgram;
use evenkeel_server::serve;
use evenkeel_server::serve::ServedAddresses;

use crate::{CommandError, ConfigArgs, check, say};

/// Run the gateway until SIGTERM or SIGINT; SIGHUP reloads nodes, policies and modes.
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    place: ConfigArgs,
    /// Print the listen addresses as one line of JSON, and configuration errors as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Take over from the gateway that started this process for an upgrade
    #[arg(long, hide = true)]
    inherit: bool,
}

impl RunArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let program = SuccessorProgram::this();
        let program =
            program.map_err(|error| CommandError::Failed(format!("own path: {error}")))?;
        let place = serve::ServePaths {
            program: Some(program),
            inherit: self.inherit,
            ..self.place.serve()
        };
        // A reader of standard output that knows the addresses may be gone by an upgrade.
        let started = |listening: &ServedAddresses| {
            if !self.inherit {
                tell(listening, self.json);
            }
        };
        serve::serve(&place, started).map_err(|failure| match failure {
            serve::ServeError::Invalid(invalid) => check::wrong(&invalid, self.json),
            failure @ serve::ServeError::NoStore => CommandError::Wrong(failure.to_string()),
            serve::ServeError::Successor(status) => std::process::exit(status),
            failure => CommandError::Failed(failure.to_string()),
        })
    }
}

fn tell(listening: &ServedAddresses, json: bool) {
    let ServedAddresses { udp, quic, socket, api } = listening;
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
