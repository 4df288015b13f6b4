//! `evenkeel-mutants`: writes the plugins with switches, and labels mutants and sound revisions.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Parser, Subcommand, ValueEnum};
use evenkeel_mutants::corpus::{Corpus, Label};
use evenkeel_mutants::label::{Extent, label};
use evenkeel_mutants::plugins::Side;
use evenkeel_mutants::sources;

/// Make mutants of the plugins, and label them by simulated worlds
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Write a workspace of all plugins with a switch at each point
    Write {
        #[command(flatten)]
        folders: Folders,
    },
    /// Play mutants and other settings of the built plugins, and write them with their labels to corpus.json
    Label {
        #[command(flatten)]
        folders: Folders,
        /// Folder of the plugins that were built
        #[arg(long, value_name = "FOLDER")]
        built: PathBuf,
        /// Plugins to play; those for judging are not looked at while a judge is built
        #[arg(long, value_enum, default_value_t = Of::Building)]
        of: Of,
        /// Number of mutants; of sound revisions a third
        #[arg(long, default_value_t = 120)]
        n: usize,
        /// Seed of mutants, settings and worlds; default: the time
        #[arg(long)]
        seed: Option<u64>,
        /// Number of worlds for each revision
        #[arg(long, default_value_t = 20)]
        worlds: u64,
    },
}

#[derive(Args)]
struct Folders {
    /// The repository
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    root: PathBuf,
    /// Folder that is written
    #[arg(long, value_name = "FOLDER", default_value = "target/mutants")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Of {
    Building,
    Judging,
    All,
}

impl Of {
    fn sides(self) -> Vec<Side> {
        match self {
            Of::Building => vec![Side::Building],
            Of::Judging => vec![Side::Judging],
            Of::All => Side::ALL.to_vec(),
        }
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Write { folders: Folders { root, out } } => sources::write(&root, &out),
        Verb::Label { folders: Folders { root, out }, built, of, n, seed, worlds } => {
            let extent = Extent {
                seed: seed.unwrap_or_else(now),
                sides: of.sides(),
                mutants: n,
                sound: n.div_ceil(3),
                worlds,
                threads: std::thread::available_parallelism().map_or(1, usize::from),
            };
            label(&root, &built, &extent).and_then(|corpus| {
                print(&corpus, &extent);
                corpus.write(&out.join("corpus.json"))
            })
        }
    };
    evenkeel_report::end("evenkeel-mutants", outcome)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn print(corpus: &Corpus, extent: &Extent) {
    println!("seed {}, {} worlds for each revision", corpus.seed, corpus.worlds);
    for &side in &extent.sides {
        let count = |label| corpus.count(side, label);
        println!(
            "{}: {} harmful, {} harmless, {} equal mutants; {} sound revisions",
            side.name(),
            count(Label::Harmful),
            count(Label::Harmless),
            count(Label::Equal),
            count(Label::Sound),
        );
    }
}
