//! Counts the instructions of each step of a packet's path under valgrind and compares them with a file: they are the same on
//! all machines of a kind. Exit codes: 0 counted, none grew · 1 a step grew, or counting failed · 2 wrong command line.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::{Args, Parser, Subcommand};
use evenkeel_instructions::{PIECES, Piece};
use evenkeel_report::{self as report, AcceptanceRow};
use evenkeel_testkit::need::Need;

/// Instructions per packet and step, checked in.
const BASELINE: &str = "tests/instructions/baseline.json";

/// These steps are not counted, since their instructions depend on the processor.
const CRYPTOGRAPHY: [&str; 3] = ["verify-stun", "encrypt-datagram", "encrypt-and-decrypt"];

/// A count above the baseline by more than this share fails; one as far below asks for a new baseline.
const TOLERANCE: f64 = 0.05;

/// Instructions by which counts of two compilers differ.
const COMPILER_DIFFERENCE: f64 = 2.0;

/// Hash tables use a random seed in every run, so that the preparation of two runs differs by up to 200,000
/// instructions: 5 per repetition, half a per cent of a forward.
const COUNTED: u32 = 40_000;

/// Count the instructions of each step of a packet's path and compare them with the file
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    /// Write the result as the new baseline
    #[arg(long)]
    renew: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a step of a packet's path repeatedly, for a counter outside
    #[command(hide = true)]
    Piece(Repetition),
}

#[derive(Args)]
struct Repetition {
    piece: String,
    times: u32,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.verb {
        None => compare(cli.renew),
        Some(Verb::Piece(repetition)) => act(&repetition),
    };
    report::end("evenkeel-instructions", outcome)
}

fn act(Repetition { piece: name, times }: &Repetition) -> Result<(), String> {
    let names = || PIECES.map(|piece| piece.name).join(", ");
    let piece = PIECES.iter().find(|piece| piece.name == *name);
    let mut act = piece.ok_or_else(|| format!("unknown step; known are {}", names()))?.prepare();
    (0..*times).for_each(|_| act());
    Ok(())
}

/// Fails if a step exceeds the baseline, or counting failed.
fn compare(renew: bool) -> Result<(), String> {
    Need::Valgrind.require()?;
    let counted = PIECES.iter().filter(|piece| !CRYPTOGRAPHY.contains(&piece.name));
    let counts = counted.map(|piece| Ok((piece.name.to_owned(), count(piece)?)));
    let counts: BTreeMap<_, _> = counts.collect::<Result<_, String>>()?;
    if renew {
        let text = serde_json::to_string_pretty(&counts).map_err(|error| error.to_string())?;
        return std::fs::write(BASELINE, text + "\n").map_err(|error| error.to_string());
    }
    let baseline = read(Path::new(BASELINE))?;
    if let Some(gone) = baseline.keys().find(|name| !counts.contains_key(*name)) {
        return Err(format!(
            "{BASELINE} contains {gone}, which is no longer counted; renew it with make instructions-renew"
        ));
    }
    let (mut grown, mut rows) = (Vec::new(), Vec::new());
    for (name, count) in counts {
        let Some(&before) = baseline.get(&name) else {
            return Err(format!("{BASELINE} has no {name}; renew it: make instructions-renew"));
        };
        let verdict = Verdict::of(count, before);
        println!("{name:20} {count:8.0} instructions, baseline {before:8.0}: {}", verdict.word());
        let map = |value| BTreeMap::from([("instructions".to_owned(), value)]);
        let most = before * (1.0 + TOLERANCE) + COMPILER_DIFFERENCE;
        rows.push(AcceptanceRow::measured(&name, map(count), map(most)));
        grown.extend((verdict == Verdict::Grown).then_some(name));
    }
    write_rows(rows)?;
    if grown.is_empty() {
        return Ok(());
    }
    let grown = grown.join(", ");
    Err(format!(
        "{grown}: more than {:.0} % above the baseline; if intended, run make instructions-renew",
        TOLERANCE * 100.0
    ))
}

fn write_rows(rows: Vec<AcceptanceRow>) -> Result<(), String> {
    report::write(&BTreeMap::from([("rows", rows)]), Path::new("target/instructions/report.json"))
}

/// Comparison of a count with the baseline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Same,
    Grown,
    Shrunk,
}

impl Verdict {
    fn of(count: f64, before: f64) -> Verdict {
        let off = count - before;
        match off.abs() <= before * TOLERANCE + COMPILER_DIFFERENCE {
            true => Verdict::Same,
            false if off > 0.0 => Verdict::Grown,
            false => Verdict::Shrunk,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Verdict::Same => "the same",
            Verdict::Grown => "more",
            Verdict::Shrunk => "less, renew it: make instructions-renew",
        }
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, f64>, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Instructions of one repetition: the difference of two runs divided by the difference of their repetitions.
fn count(piece: &Piece) -> Result<f64, String> {
    let (few, many) = (run(piece, Piece::WARM)?, run(piece, Piece::WARM + COUNTED)?);
    Ok(((many - few) as f64 / f64::from(COUNTED)).round())
}

fn run(piece: &Piece, times: u32) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["piece", piece.name, &times.to_string()])
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said).ok_or_else(|| format!("callgrind counted nothing: {said}"))
}

/// The total that callgrind printed.
fn collected(said: &str) -> Option<u64> {
    let (_, rest) = said.split_once("Collected : ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callgrind_says_is_read() {
        assert_eq!(collected("==7== \n==7== Collected : 123456\n==7==\n"), Some(123_456));
        assert_eq!(collected("==7== nothing"), None);
    }

    #[test]
    fn small_changes_count_as_equal() {
        let verdicts = [1_052.0, 1_053.0, 948.0, 947.0].map(|count| Verdict::of(count, 1_000.0));
        assert_eq!(verdicts, [Verdict::Same, Verdict::Grown, Verdict::Same, Verdict::Shrunk]);
        assert_eq!(Verdict::of(4.0, 2.0), Verdict::Same);
    }
}
