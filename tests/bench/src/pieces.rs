//! Time and allocations of a forwarded packet, and instructions of each step, which are the same on all machines of a
//! kind and compared with a file.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use clap::Args;
use evenkeel_testkit::report::{self, AcceptanceRow};

use crate::allocations;
use crate::hot::{PIECES, Piece};

/// Instructions per packet and step, checked in.
const BASELINE: &str = "tests/bench/instructions.json";

/// These steps are not counted, since their instructions depend on the processor.
const CRYPTOGRAPHY: [&str; 3] = ["verify-stun", "encrypt-datagram", "encrypt-and-decrypt"];

/// A count above the baseline by more than this share fails; one as far below asks for a new baseline.
const TOLERANCE: f64 = 0.05;

/// Instructions by which counts of two compilers differ.
const COMPILER_DIFFERENCE: f64 = 2.0;

/// Repetitions before counting, so that tables have grown and every session has sent.
const WARM: u32 = 4_000;

/// Hash tables use a random seed in every run, so that the preparation of two runs differs by up to 200,000
/// instructions: 5 per repetition, half a per cent of a forward.
const COUNTED: u32 = 40_000;

/// Windows of a timing, and repetitions of the step in each window.
const WINDOWS: usize = 15;
const TIMED: u32 = 100_000;

/// Run a step of a packet's path repeatedly
#[derive(Args, Clone, Debug)]
pub(crate) struct Do {
    piece: String,
    times: u32,
}

/// Which count to keep.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// Write the result as the new baseline
    #[arg(long)]
    renew: bool,
}

/// A forward from client to node, without sockets.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Forward {
    /// Nanoseconds, the median of windows.
    pub(crate) ns: f64,
    pub(crate) allocations: f64,
}

/// Times a forward to a node and counts its allocations.
pub(crate) fn forward() -> Forward {
    let mut act = PIECES[0].prepare();
    (0..WARM).for_each(|_| act());
    let before = allocations::so_far();
    let mut windows: Vec<f64> = (0..WINDOWS)
        .map(|_| {
            let began = Instant::now();
            (0..TIMED).for_each(|_| act());
            began.elapsed().as_nanos() as f64 / f64::from(TIMED)
        })
        .collect();
    // The list of windows is one allocation.
    let allocated = (allocations::so_far() - before).saturating_sub(1);
    windows.sort_by(f64::total_cmp);
    let done = f64::from(TIMED) * WINDOWS as f64;
    Forward { ns: windows[WINDOWS / 2], allocations: allocated as f64 / done }
}

/// Runs a step for an external counter.
pub(crate) fn act(order: &Do) -> Result<(), String> {
    let names = || PIECES.map(|piece| piece.name).join(", ");
    let piece = PIECES.iter().find(|piece| piece.name == order.piece);
    let mut act = piece.ok_or_else(|| format!("unknown step; known are {}", names()))?.prepare();
    (0..order.times).for_each(|_| act());
    Ok(())
}

/// Counts the instructions of every step and compares them with the baseline.
///
/// # Errors
/// A step exceeds the baseline, or counting failed.
pub(crate) fn instructions(keep: Keep) -> Result<(), String> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        let why = "instructions are not counted without valgrind";
        // With `EVENKEEL_CLIENTS=required` a missing valgrind is an error.
        if std::env::var_os("EVENKEEL_CLIENTS").is_some_and(|word| word == "required") {
            return Err(why.to_owned());
        }
        println!("skipped: {why}");
        return write_rows(vec![AcceptanceRow::skipped("instructions", why)]);
    }
    let counted = PIECES.iter().filter(|piece| !CRYPTOGRAPHY.contains(&piece.name));
    let counts = counted.map(|piece| Ok((piece.name.to_owned(), count(piece)?)));
    let counts: BTreeMap<_, _> = counts.collect::<Result<_, String>>()?;
    if keep.renew {
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
    let (few, many) = (run(piece, WARM)?, run(piece, WARM + COUNTED)?);
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
