//! Commands that run or check a process: the gateway, an agent, and the processes that a gateway starts.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use evenkeel_agent::Config;
use evenkeel_config::{Colour, InvalidSetting};
use evenkeel_handover::SuccessorProgram;
use evenkeel_server::{ServeError, ServePaths, ServedAddresses, serve};

use crate::command::{CommandError, ConfigArgs, say};

/// Run the gateway until SIGTERM or SIGINT; SIGHUP reloads nodes, policies, modes and secrets.
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let program = SuccessorProgram::this();
        let program =
            program.map_err(|error| CommandError::Failed(format!("own path: {error}")))?;
        let place =
            ServePaths { program: Some(program), inherit: self.inherit, ..self.place.serve() };
        // A reader of standard output that knows the addresses may be gone by an upgrade.
        let started = |listening: &ServedAddresses| {
            if !self.inherit {
                print_addresses(listening, self.json);
            }
        };
        serve(&place, started).map_err(|failure| match failure {
            ServeError::Invalid(invalid) => wrong(&invalid, self.json),
            failure @ ServeError::NoStore => CommandError::Wrong(failure.to_string()),
            ServeError::Successor(status) => std::process::exit(status),
            failure => CommandError::Failed(failure.to_string()),
        })
    }
}

fn print_addresses(listening: &ServedAddresses, json: bool) {
    let ServedAddresses { udp, quic, socket, api, webrtc } = listening;
    if json {
        let addresses = serde_json::json!({
            "udp": udp, "quic": quic, "socket": socket, "api": api, "webrtc": webrtc,
        });
        say(&addresses);
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
    if let Some(address) = webrtc {
        say(&format!("WHIP and WHEP at {address}"));
    }
}

/// Check a configuration and print its errors. Exit code 2: it is invalid.
#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    place: ConfigArgs,
    /// The same as --config FILE
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl CheckArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let mut place = self.place.serve();
        place.config = place.config.or(self.file);
        let checked = place.check().map(|mut notes| {
            // Otherwise the file in this folder would seem to be valid.
            if place.config.is_none() {
                notes.push("no file was named: this is the built-in configuration; --config FILE names one".to_owned());
            }
            notes
        });
        match checked {
            Ok(notes) => {
                if self.json {
                    say(&serde_json::json!({"ok": true, "errors": [], "notes": notes}));
                } else {
                    say(&"The configuration is valid.");
                    notes.iter().for_each(|note| say(&format!("Note: {note}.")));
                }
                Ok(())
            }
            Err(ServeError::Invalid(invalid)) => Err(wrong(&invalid, self.json)),
            Err(failure) => Err(CommandError::Wrong(failure.to_string())),
        }
    }
}

/// Prints the errors: as JSON on standard output, or as text on standard error.
fn wrong(invalid: &[InvalidSetting], json: bool) -> CommandError {
    if json {
        say(&serde_json::json!({"ok": false, "errors": invalid}));
        return CommandError::Wrong(String::new());
    }
    let colour = if std::io::stderr().is_terminal() { Colour::Ansi } else { Colour::Plain };
    eprint!("{}", InvalidSetting::render(invalid, colour));
    let errors = if invalid.len() == 1 { "error" } else { "errors" };
    CommandError::Wrong(format!("{} {errors} in the configuration", invalid.len()))
}

/// Run an agent beside a media server or a gateway until SIGTERM or SIGINT
///
/// It reports the server's death to gateways and ends trunk legs for it. SIGUSR1 drains the node, SIGUSR2 ends the drain. Beside
/// a gateway of a group it reports the end of its process to the other gateway.
#[derive(Args)]
pub(crate) struct AgentArgs {
    /// Configuration of the agent (`agent.toml`)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the listen address, and counters at the end, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl AgentArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let config =
            Config::load(&self.config).map_err(|wrong| CommandError::Wrong(wrong.to_string()))?;
        evenkeel_agent::run(config, self.json)
            .map_err(|error| CommandError::Failed(error.to_string()))
    }
}

/// Run a witness of groups of gateways until SIGTERM or SIGINT
///
/// It votes between gateways that do not hear each other, as the agents of nodes do. Run it on a host that fails independently
/// of both.
#[derive(Args)]
pub(crate) struct WitnessArgs {
    /// Configuration of the witness (`witness.toml`)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the listen address as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl WitnessArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let config = Config::load_witness(&self.config)
            .map_err(|wrong| CommandError::Wrong(wrong.to_string()))?;
        evenkeel_agent::run(config, self.json)
            .map_err(|error| CommandError::Failed(error.to_string()))
    }
}

/// Compile a plugin within limits; started by the gateway.
#[derive(Args)]
pub(crate) struct CompilePluginArgs {
    /// Limit of processor time, seconds
    #[arg(long)]
    processor_seconds: u64,
    /// Limit of memory
    #[arg(long)]
    memory_mib: u64,
}

impl CompilePluginArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        evenkeel_policies::compile_plugin(self.processor_seconds, self.memory_mib)
            .map_err(|error| CommandError::Failed(error.to_string()))
    }
}

/// Hold addresses of a group as ordered; started by the gateway.
#[derive(Args)]
pub(crate) struct HoldAddressesArgs {
    /// Address, prefix length and interface
    #[arg(value_name = "192.0.2.10/24@eth0", required = true)]
    addresses: Vec<String>,
}

impl HoldAddressesArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        evenkeel_group::hold_addresses(&self.addresses)
            .map_err(|error| CommandError::Failed(error.to_string()))
    }
}
