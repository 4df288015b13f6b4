//! The `evenkeel` command.
//!
//! Exit codes: 0 success · 1 failure · 2 wrong command line or configuration · 3 no gateway answers. With `--json` a
//! failure is printed as an object on standard output, with the code of the API if it refused a request.

mod alert;
mod blast;
#[cfg(feature = "lab")]
mod call;
mod command;
mod config;
mod events;
mod gateway;
#[cfg(feature = "lab")]
mod lab;
mod operations;
mod plugin;
mod policy;
#[cfg(feature = "lab")]
mod probe;
mod progress;
mod recording;
mod risk;
mod run;
mod session;
mod status;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use evenkeel_process::{escape, escape_lines};

/// A media gateway that stays on an even keel when nodes, links and regions fail.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: EvenkeelCommand,
}

/// Commands without a line here have their help in their own module.
#[derive(Subcommand)]
enum EvenkeelCommand {
    /// Run the gateway
    Run(run::RunArgs),
    /// Run a gateway and nodes on loopback, inject faults, and check the outcome
    #[cfg(feature = "lab")]
    Demo(evenkeel_lab::demo::DemoOptions),
    /// Run an agent beside a media server or a gateway
    Agent(run::AgentArgs),
    /// Run a witness, which votes between gateways that do not hear each other
    Witness(run::WitnessArgs),
    /// Run a sample media server for trials and drills
    #[cfg(feature = "lab")]
    SampleNode(lab::SampleNodeArgs),
    /// Check a configuration and print its errors
    Check(run::CheckArgs),
    /// Show sessions, nodes and policies of a running gateway
    Status(status::StatusArgs),
    Modes(status::ModesArgs),
    Events(events::EventsArgs),
    Changes(events::ChangesArgs),
    Failures(events::FailuresArgs),
    Config(config::ConfigurationArgs),
    Reload(gateway::ReloadArgs),
    LogLevel(gateway::LogLevelArgs),
    Upgrade(gateway::UpgradeArgs),
    Gateway(gateway::GatewayArgs),
    /// List, drain, eject and uneject nodes of a running gateway
    Node(operations::NodeArgs),
    /// List, drain, eject and uneject the zones of a running gateway
    Zone(operations::ZoneArgs),
    /// List and drain regions, and control fail-back
    Region(operations::RegionArgs),
    Breaker(operations::BreakerArgs),
    Alert(alert::AlertArgs),
    Blast(blast::BlastArgs),
    Risk(risk::RiskArgs),
    /// List, explain and move rooms
    Room(operations::RoomArgs),
    Session(session::SessionArgs),
    #[cfg(feature = "lab")]
    Call(call::CallArgs),
    #[cfg(feature = "lab")]
    Probe(probe::ProbeArgs),
    #[cfg(feature = "lab")]
    Drill(lab::DrillArgs),
    /// List, replace and roll back policies of a running gateway
    Policy(policy::PolicyArgs),
    Plugin(plugin::PluginArgs),
    #[command(hide = true)]
    CompilePlugin(run::CompilePluginArgs),
    #[command(hide = true)]
    HoldAddresses(run::HoldAddressesArgs),
}

fn main() -> ExitCode {
    let (json, outcome) = match Cli::parse().verb {
        EvenkeelCommand::Run(run) => (run.json, run.run()),
        #[cfg(feature = "lab")]
        EvenkeelCommand::Demo(options) => (options.json, lab::run_demo(&options)),
        EvenkeelCommand::Agent(agent) => (agent.json, agent.run()),
        EvenkeelCommand::Witness(witness) => (witness.json, witness.run()),
        #[cfg(feature = "lab")]
        EvenkeelCommand::SampleNode(node) => (node.json, node.run()),
        EvenkeelCommand::Check(check) => (check.json, check.run()),
        EvenkeelCommand::Status(status) => (status.json, status.run()),
        EvenkeelCommand::Modes(modes) => (modes.json, modes.run()),
        EvenkeelCommand::Events(events) => (events.json, events.run()),
        EvenkeelCommand::Changes(changes) => (changes.json, changes.run()),
        EvenkeelCommand::Failures(failures) => (failures.json, failures.run()),
        EvenkeelCommand::Config(config) => (config.json, config.run()),
        EvenkeelCommand::Reload(reload) => (reload.json, reload.run()),
        EvenkeelCommand::LogLevel(log) => (log.json, log.run()),
        EvenkeelCommand::Upgrade(upgrade) => (upgrade.json, upgrade.run()),
        EvenkeelCommand::Gateway(gateway) => (gateway.json, gateway.run()),
        EvenkeelCommand::Node(node) => (node.json, node.run()),
        EvenkeelCommand::Zone(zone) => (zone.json, zone.run()),
        EvenkeelCommand::Alert(alert) => (alert.json, alert.run()),
        EvenkeelCommand::Blast(blast) => (blast.json, blast.run()),
        EvenkeelCommand::Risk(risk) => (risk.json, risk.run()),
        EvenkeelCommand::Region(region) => (region.json, region.run()),
        EvenkeelCommand::Breaker(breaker) => (breaker.json, breaker.run()),
        EvenkeelCommand::Room(room) => (room.json, room.run()),
        EvenkeelCommand::Session(session) => (session.json, session.run()),
        #[cfg(feature = "lab")]
        EvenkeelCommand::Call(call) => (call.json, call.run()),
        #[cfg(feature = "lab")]
        EvenkeelCommand::Probe(probe) => (probe.json, probe.run()),
        #[cfg(feature = "lab")]
        EvenkeelCommand::Drill(drill) => (drill.json, drill.run()),
        EvenkeelCommand::Policy(policy) => (policy.json, policy.run()),
        EvenkeelCommand::Plugin(plugin) => plugin.run(),
        EvenkeelCommand::CompilePlugin(compile) => (false, compile.run()),
        EvenkeelCommand::HoldAddresses(hold) => (false, hold.run()),
    };
    let (exit, code, words) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error.parts(),
    };
    let words = words.trim_end();
    match (words.is_empty(), json) {
        (true, _) => {}
        (false, true) => {
            let error = serde_json::json!({"error": {"code": code, "message": words}});
            let _ = writeln!(io::stdout(), "{}", escape(&error.to_string()));
        }
        (false, false) => eprintln!("evenkeel: {}", escape_lines(words)),
    }
    ExitCode::from(exit)
}
