//! Fuzz targets as tests.
//!
//! A target replays its corpus, then checks mutations of it and random bytes for a second, or for the time that
//! `make fuzz` grants. Targets stand beside the code that they check; their names begin with `fuzz_`.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fmt, fs, thread};

use fastrand::Rng;

/// Time for the mutations of one target.
const TIME: Duration = Duration::from_secs(1);

/// Environment variable that sets another time, in milliseconds.
const TIME_MS: &str = "EVENKEEL_FUZZ_MS";

/// Length limit of mutated inputs: a UDP datagram.
pub const INPUT_BYTES_MAX: usize = 65_535;

/// Length limit of inputs that are random altogether; parsers refuse most of them within the first bytes.
const RANDOM_BYTES_MAX: usize = 256;

/// Length limit of inserted random bytes.
const INSERTED_BYTES_MAX: usize = 16;

/// Numbers at the limits of types and of length fields.
const NUMBERS: [u64; 14] = [
    0,
    1,
    4,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// The inputs that a target begins with.
#[derive(Debug)]
pub struct Corpus {
    target: &'static str,
    seeds: Vec<Vec<u8>>,
}

impl Corpus {
    /// Reads the files in `tests/fuzz/corpus/TARGET`, if there are any.
    ///
    /// # Panics
    /// If a file cannot be read.
    #[must_use]
    pub fn of(target: &'static str) -> Corpus {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let entries = fs::read_dir(&folder).into_iter().flatten();
        let mut files: Vec<_> =
            entries.map(|entry| entry.expect("the folder is readable").path()).collect();
        files.sort();
        let read = |file: &Path| {
            fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        };
        Corpus { target, seeds: files.iter().map(|file| read(file)).collect() }
    }

    /// Adds an input that code writes.
    #[must_use]
    pub fn with(mut self, seed: impl Into<Vec<u8>>) -> Corpus {
        self.seeds.push(seed.into());
        self
    }

    /// Runs the target; `check` panics for an input that breaks a rule.
    ///
    /// # Panics
    /// If `check` panics, or the corpus is empty.
    pub fn check(self, check: impl Fn(&[u8])) {
        let Corpus { target, seeds } = self;
        assert!(!seeds.is_empty(), "{target}: the corpus is empty");
        let tally = Tally { target, since: Instant::now(), inputs: Cell::new(0) };
        let check = |input: Input| {
            tally.inputs.set(tally.inputs.get() + 1);
            check(&input.0);
        };
        seeds.iter().for_each(|seed| check(Input(seed.clone())));
        let time = env::var(TIME_MS).map_or(TIME, |ms| {
            Duration::from_millis(ms.parse().expect("the variable has milliseconds"))
        });
        let (mutations, mut rng, until) = (Mutations { seeds }, Rng::new(), Instant::now() + time);
        while Instant::now() < until {
            check(mutations.generate(&mut rng));
        }
    }
}

/// Counts the inputs of a target. Prints the result when dropped, also after a panic.
struct Tally {
    target: &'static str,
    since: Instant,
    inputs: Cell<u64>,
}

impl Drop for Tally {
    fn drop(&mut self) {
        let Tally { target, since, inputs } = self;
        let (inputs, seconds) = (inputs.get(), since.elapsed().as_secs_f64());
        let panics = u8::from(thread::panicking());
        println!("fuzz {target}: {inputs} inputs, {seconds:.1} s, {panics} panics");
    }
}

/// An input, printed if a check of it panics, so that it can be saved in the corpus.
struct Input(Vec<u8>);

impl Drop for Input {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{self:?}");
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = data_encoding::HEXLOWER.encode(&self.0);
        write!(f, "hexadecimal: {hex}\ntext: {}", self.0.escape_ascii())
    }
}

/// Generates inputs from seeds by a few edits each, and some random bytes.
struct Mutations {
    seeds: Vec<Vec<u8>>,
}

impl Mutations {
    fn generate(&self, rng: &mut Rng) -> Input {
        let Some(seed) = self.seeds.get(rng.usize(..=self.seeds.len())) else {
            return Input(random(rng, RANDOM_BYTES_MAX));
        };
        let mut bytes = seed.clone();
        for _ in 0..1 << rng.usize(..4) {
            self.edit(&mut bytes, rng);
            bytes.truncate(INPUT_BYTES_MAX);
        }
        Input(bytes)
    }

    fn edit(&self, bytes: &mut Vec<u8>, rng: &mut Rng) {
        let start = rng.usize(..=bytes.len());
        let end = rng.usize(start..=bytes.len());
        match rng.usize(..9) {
            0 => {
                let bit = 1 << rng.usize(..8);
                bytes.get_mut(start).into_iter().for_each(|byte| *byte ^= bit);
            }
            1 => {
                let value = rng.u8(..);
                bytes.get_mut(start).into_iter().for_each(|byte| *byte = value);
            }
            2 => {
                // A field of 1, 2, 4 or 8 bytes.
                let width = 1 << rng.usize(..4);
                let mut field = number(rng).to_be_bytes()[8 - width..].to_vec();
                if rng.bool() {
                    field.reverse();
                }
                let places = bytes[start..].iter_mut();
                places.zip(field).for_each(|(place, byte)| *place = byte);
            }
            3 => bytes.truncate(start),
            4 => drop(bytes.drain(start..end)),
            5 => {
                let inserted = random(rng, INSERTED_BYTES_MAX);
                drop(bytes.splice(start..start, inserted));
            }
            6 => {
                let copy = bytes[start..end].to_vec();
                drop(bytes.splice(start..start, copy));
            }
            7 => {
                let other = &self.seeds[rng.usize(..self.seeds.len())];
                let from = rng.usize(..=other.len());
                let until = rng.usize(from..=other.len());
                drop(bytes.splice(start..end, other[from..until].iter().copied()));
            }
            _ => {
                // The next decimal number in a text.
                let count = |bytes: &[u8], digits: bool| {
                    bytes.iter().take_while(|byte| byte.is_ascii_digit() == digits).count()
                };
                let from = start + count(&bytes[start..], false);
                let until = from + count(&bytes[from..], true);
                let number = number(rng);
                let text = match rng.bool() {
                    true => number.to_string(),
                    false => number.cast_signed().to_string(),
                };
                drop(bytes.splice(from..until, text.into_bytes()));
            }
        }
    }
}

fn random(rng: &mut Rng, bytes_max: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.usize(..=bytes_max)];
    rng.fill(&mut bytes);
    bytes
}

fn number(rng: &mut Rng) -> u64 {
    NUMBERS[rng.usize(..NUMBERS.len())]
}

#[cfg(test)]
mod tests;
