//! The `evenkeel` command.
//!
//! Exit codes: 0 success · 1 failure · 2 wrong command line or configuration · 3 no gateway answers. With `--json` a
//! failure is printed as an object on standard output.

mod command;
mod gateway;
#[cfg(feature = "lab")]
mod lab;
mod operations;
mod plugin;
mod policy;
mod recording;
mod run;
mod session;
mod status;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command::CommandError;
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
    /// Run a sample media server for trials and drills
    #[cfg(feature = "lab")]
    SampleNode(lab::SampleNodeArgs),
    /// Check a configuration and print its errors
    Check(run::CheckArgs),
    /// Show sessions, nodes and policies of a running gateway
    Status(status::StatusArgs),
    Modes(status::ModesArgs),
    Reload(gateway::ReloadArgs),
    Upgrade(gateway::UpgradeArgs),
    Gateway(gateway::GatewayArgs),
    /// List, drain, eject and uneject nodes of a running gateway
    Node(operations::NodeArgs),
    /// List and drain regions, and control fail-back
    Region(operations::RegionArgs),
    /// List and move rooms
    Room(operations::RoomArgs),
    Session(session::SessionArgs),
    #[cfg(feature = "lab")]
    Drill(lab::DrillArgs),
    /// List, replace and roll back policies of a running gateway
    Policy(policy::PolicyArgs),
    Plugin(plugin::PluginArgs),
    #[command(hide = true)]
    CompilePlugin(run::CompilePlugin),
    #[command(hide = true)]
    HoldAddresses(run::HoldAddresses),
}

impl EvenkeelCommand {
    fn json(&self) -> bool {
        match self {
            EvenkeelCommand::Run(run) => run.json,
            EvenkeelCommand::Agent(agent) => agent.json,
            #[cfg(feature = "lab")]
            EvenkeelCommand::SampleNode(node) => node.json,
            EvenkeelCommand::Check(check) => check.json,
            EvenkeelCommand::Status(status) => status.json,
            EvenkeelCommand::Modes(modes) => modes.json,
            EvenkeelCommand::Reload(reload) => reload.json,
            EvenkeelCommand::Upgrade(upgrade) => upgrade.json,
            EvenkeelCommand::Gateway(gateway) => gateway.json,
            EvenkeelCommand::Node(node) => node.json,
            EvenkeelCommand::Region(region) => region.json,
            EvenkeelCommand::Room(room) => room.json,
            EvenkeelCommand::Session(session) => session.json,
            #[cfg(feature = "lab")]
            EvenkeelCommand::Drill(drill) => drill.json,
            EvenkeelCommand::Policy(policy) => policy.json,
            EvenkeelCommand::Plugin(plugin) => plugin.json(),
            #[cfg(feature = "lab")]
            EvenkeelCommand::Demo(options) => options.json,
            EvenkeelCommand::CompilePlugin(_) | EvenkeelCommand::HoldAddresses(_) => false,
        }
    }
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let json = verb.json();
    let outcome = match verb {
        EvenkeelCommand::Run(run) => run.act(),
        #[cfg(feature = "lab")]
        EvenkeelCommand::Demo(options) => lab::run_demo(&options),
        EvenkeelCommand::Agent(agent) => agent.act(),
        #[cfg(feature = "lab")]
        EvenkeelCommand::SampleNode(node) => node.act(),
        EvenkeelCommand::Check(check) => check.act(),
        EvenkeelCommand::Status(status) => status.act(),
        EvenkeelCommand::Modes(modes) => modes.act(),
        EvenkeelCommand::Reload(reload) => reload.act(),
        EvenkeelCommand::Upgrade(upgrade) => upgrade.act(),
        EvenkeelCommand::Gateway(gateway) => gateway.act(),
        EvenkeelCommand::Node(node) => node.act(),
        EvenkeelCommand::Region(region) => region.act(),
        EvenkeelCommand::Room(room) => room.act(),
        EvenkeelCommand::Session(session) => session.act(),
        #[cfg(feature = "lab")]
        EvenkeelCommand::Drill(drill) => drill.act(),
        EvenkeelCommand::Policy(policy) => policy.act(),
        EvenkeelCommand::Plugin(plugin) => plugin.act(),
        EvenkeelCommand::CompilePlugin(compile) => compile.act(),
        EvenkeelCommand::HoldAddresses(hold) => hold.act(),
    };
    let (exit, code, words) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(CommandError::Failed(words)) => (1, "failed", words),
        Err(CommandError::Wrong(words)) => (2, "wrong", words),
        Err(CommandError::NoGateway(words)) => (3, "no-gateway", words),
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
