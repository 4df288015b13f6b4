//! The `evenkeel` command.
//!
//! Exit codes: 0 success · 1 failure · 2 wrong command line or configuration · 3 no gateway answers. With `--json` a
//! failure is printed as an object on standard output.

mod agent;
mod api;
mod check;
mod compile_plugin;
#[cfg(feature = "lab")]
mod demo;
#[cfg(feature = "lab")]
mod drill;
mod gateway;
mod hold_addresses;
mod modes;
mod node;
mod plugin;
mod policy;
mod recording;
mod region;
mod reload;
mod room;
mod run;
#[cfg(feature = "lab")]
mod sample_node;
mod session;
mod signing;
mod status;
mod upgrade;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use evenkeel_config::Compiler;
use evenkeel_process::terminal::{escape, escape_lines};
use evenkeel_server::serve::ServePaths as Served;

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
    Agent(agent::AgentArgs),
    /// Run a sample media server for trials and drills
    #[cfg(feature = "lab")]
    SampleNode(sample_node::SampleNodeArgs),
    /// Check a configuration and print its errors
    Check(check::CheckArgs),
    /// Show sessions, nodes and policies of a running gateway
    Status(status::StatusArgs),
    Modes(modes::ModesArgs),
    Reload(reload::ReloadArgs),
    Upgrade(upgrade::UpgradeArgs),
    Gateway(gateway::GatewayArgs),
    /// List, drain, eject and uneject nodes of a running gateway
    Node(node::NodeArgs),
    /// List and drain regions, and control fail-back
    Region(region::RegionArgs),
    /// List and move rooms
    Room(room::RoomArgs),
    Session(session::SessionArgs),
    #[cfg(feature = "lab")]
    Drill(drill::DrillArgs),
    /// List, replace and roll back policies of a running gateway
    Policy(policy::PolicyArgs),
    Plugin(plugin::PluginArgs),
    #[command(hide = true)]
    CompilePlugin(compile_plugin::CompilePlugin),
    #[command(hide = true)]
    HoldAddresses(hold_addresses::HoldAddresses),
}

#[derive(Args, Clone)]
pub(crate) struct ConfigArgs {
    /// Configuration file; without it the gateway runs on loopback without nodes
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of policy sets; each file replaces the embedded set of its name
    #[arg(long, value_name = "FOLDER")]
    pub(crate) policies: Option<PathBuf>,
}

impl ConfigArgs {
    /// The server's options. The server starts this program to compile plugins.
    pub(crate) fn serve(self) -> Served {
        let ConfigArgs { config, policies } = self;
        Served { config, policies, compiler: Some(Compiler::this_program()), ..Served::default() }
    }
}

pub(crate) enum CommandError {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2: the command line or the configuration is wrong.
    Wrong(String),
    /// Exit code 3: no gateway answers.
    NoGateway(String),
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

/// Prints a line on standard output; control characters in it are escaped, because text may come from outside.
pub(crate) fn say(line: &impl Display) {
    print(&escape(&line.to_string()));
}

/// Like [`say`], for text of several lines.
pub(crate) fn say_lines(lines: &impl Display) {
    print(&escape_lines(&lines.to_string()));
}

/// A reader that closed the pipe ends the program successfully.
fn print(text: &str) {
    if let Err(error) = writeln!(io::stdout(), "{text}") {
        let is_closed = error.kind() == io::ErrorKind::BrokenPipe;
        if !is_closed {
            eprintln!("evenkeel: standard output: {error}");
        }
        std::process::exit(i32::from(!is_closed));
    }
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let json = verb.json();
    let outcome = match verb {
        EvenkeelCommand::Run(run) => run.act(),
        #[cfg(feature = "lab")]
        EvenkeelCommand::Demo(options) => demo::run(&options),
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
