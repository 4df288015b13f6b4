//! The `evenkeel` command.
//!
//! Exit codes: 0 success · 1 failure · 2 wrong command line or configuration · 3 no gateway answers. With `--json` a
//! failure is printed as an object on standard output.

mod agent;
mod api;
mod check;
mod compile_plugin;
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
use evenkeel_server::serve::Place as Served;
use evenkeel_server::settings::{Admin, Compiler};
use evenkeel_server::terminal::{escape, escape_lines};

/// A media gateway that stays on an even keel when nodes, links and regions fail.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// Commands without a line here have their help in their own module.
#[derive(Subcommand)]
enum Verb {
    /// Run the gateway
    Run(run::Run),
    /// Run a gateway and nodes on loopback, inject faults, and check the outcome
    Demo(evenkeel_lab::demo::Options),
    /// Run an agent beside a media server or a gateway
    Agent(agent::Agent),
    /// Run a sample media server for trials and drills
    SampleNode(sample_node::SampleNode),
    /// Check a configuration and print its errors
    Check(check::Check),
    /// Show sessions, nodes and policies of a running gateway
    Status(status::Status),
    Modes(modes::Modes),
    Reload(reload::Reload),
    Upgrade(upgrade::Upgrade),
    Gateway(gateway::Gateway),
    /// List, drain, eject and uneject nodes of a running gateway
    Node(node::Node),
    /// List and drain regions, and control fail-back
    Region(region::Region),
    /// List and move rooms
    Room(room::Room),
    Session(session::Session),
    Drill(drill::Drill),
    /// List, replace and roll back policies of a running gateway
    Policy(policy::Policy),
    Plugin(plugin::Plugin),
    #[command(hide = true)]
    CompilePlugin(compile_plugin::CompilePlugin),
    #[command(hide = true)]
    HoldAddresses(hold_addresses::HoldAddresses),
}

#[derive(Args, Clone)]
pub(crate) struct Place {
    /// Configuration file; without it the gateway runs on loopback without nodes
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of policy sets; each file replaces the embedded set of its name
    #[arg(long, value_name = "FOLDER")]
    pub(crate) policies: Option<PathBuf>,
}

impl Place {
    /// The server's options. The server starts this program to compile plugins.
    pub(crate) fn serve(self) -> Served {
        let Place { config, policies } = self;
        Served { config, policies, compiler: Some(Compiler::this_program()), ..Served::default() }
    }
}

pub(crate) enum Failure {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2: the command line or the configuration is wrong.
    Wrong(String),
    /// Exit code 3: no gateway answers.
    NoGateway(String),
}

impl Verb {
    fn json(&self) -> bool {
        match self {
            Verb::Run(run) => run.json,
            Verb::Agent(agent) => agent.json,
            Verb::SampleNode(node) => node.json,
            Verb::Check(check) => check.json,
            Verb::Status(status) => status.json,
            Verb::Modes(modes) => modes.json,
            Verb::Reload(reload) => reload.json,
            Verb::Upgrade(upgrade) => upgrade.json,
            Verb::Gateway(gateway) => gateway.json,
            Verb::Node(node) => node.json,
            Verb::Region(region) => region.json,
            Verb::Room(room) => room.json,
            Verb::Session(session) => session.json,
            Verb::Drill(drill) => drill.json,
            Verb::Policy(policy) => policy.json,
            Verb::Plugin(plugin) => plugin.json(),
            Verb::Demo(options) => options.json,
            Verb::CompilePlugin(_) | Verb::HoldAddresses(_) => false,
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
        Verb::Run(run) => run.act(),
        Verb::Demo(options) => demo(&options),
        Verb::Agent(agent) => agent.act(),
        Verb::SampleNode(node) => node.act(),
        Verb::Check(check) => check.act(),
        Verb::Status(status) => status.act(),
        Verb::Modes(modes) => modes.act(),
        Verb::Reload(reload) => reload.act(),
        Verb::Upgrade(upgrade) => upgrade.act(),
        Verb::Gateway(gateway) => gateway.act(),
        Verb::Node(node) => node.act(),
        Verb::Region(region) => region.act(),
        Verb::Room(room) => room.act(),
        Verb::Session(session) => session.act(),
        Verb::Drill(drill) => drill.act(),
        Verb::Policy(policy) => policy.act(),
        Verb::Plugin(plugin) => plugin.act(),
        Verb::CompilePlugin(compile) => compile.act(),
        Verb::HoldAddresses(hold) => hold.act(),
    };
    let (exit, code, words) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(words)) => (1, "failed", words),
        Err(Failure::Wrong(words)) => (2, "wrong", words),
        Err(Failure::NoGateway(words)) => (3, "no-gateway", words),
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

fn demo(options: &evenkeel_lab::demo::Options) -> Result<(), Failure> {
    let failed = |error: String| Failure::Failed(error);
    let evenkeel = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let socket = Admin::default_socket();
    if options.serve {
        Admin::prepare_folder(&socket).map_err(|error| failed(error.to_string()))?;
    }
    match evenkeel_lab::demo::run(options, &evenkeel, &socket) {
        Ok(true) => Ok(()),
        // The report is the last line.
        Ok(false) if options.json => Err(failed(String::new())),
        Ok(false) => Err(failed("a check of the demo failed; see FAILED above".into())),
        Err(error) => Err(failed(error.to_string())),
    }
}
