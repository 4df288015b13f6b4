//! Fuzz targets as tests.
//!
//! A target replays its corpus, then checks mutations of it and random bytes for a second, or for the time that
//! `make fuzz` grants. Targets stand beside the code that they check; their names begin with `fuzz_`.

use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use std::{fmt, fs};

use bolero::{Driver, ValueGenerator};

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
        let tally = Tally { target, since: Instant::now(), inputs: AtomicU64::new(0) };
        let check = AssertUnwindSafe(|input: &[u8]| {
            tally.inputs.fetch_add(1, Ordering::Relaxed);
            check(input);
        });
        seeds.iter().for_each(|seed| (*check)(seed));
        bolero::check!(name = target).with_generator(Mutations { seeds }).for_each(
            |input: &Input| {
                // Captures the whole, which a panic may cross.
                let check = &check;
                (**check)(&input.0);
            },
        );
    }
}

/// Counts the inputs of a target. Prints the result when dropped, also after a panic.
struct Tally {
    target: &'static str,
    since: Instant,
    inputs: AtomicU64,
}

impl Drop for Tally {
    fn drop(&mut self) {
        let Tally { target, since, inputs } = self;
        let (inputs, seconds) = (inputs.load(Ordering::Relaxed), since.elapsed().as_secs_f64());
        let panics = u8::from(std::thread::panicking());
        println!("fuzz {target}: {inputs} inputs, {seconds:.1} s, {panics} panics");
    }
}

/// An input, printed so that it can be saved in the corpus.
struct Input(Vec<u8>);

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

impl ValueGenerator for Mutations {
    type Output = Input;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Input> {
        let Some(seed) = self.seeds.get(below(driver, self.seeds.len() + 1)?) else {
            return random(driver, RANDOM_BYTES_MAX).map(Input);
        };
        let mut bytes = seed.clone();
        for _ in 0..1 << below(driver, 4)? {
            self.edit(&mut bytes, driver)?;
            bytes.truncate(INPUT_BYTES_MAX);
        }
        Some(Input(bytes))
    }
}

impl Mutations {
    fn edit<D: Driver>(&self, bytes: &mut Vec<u8>, driver: &mut D) -> Option<()> {
        let start = below(driver, bytes.len() + 1)?;
        let end = start + below(driver, bytes.len() - start + 1)?;
        match below(driver, 9)? {
            0 => {
                let bit = 1 << below(driver, 8)?;
                bytes.get_mut(start).into_iter().for_each(|byte| *byte ^= bit);
            }
            1 => {
                let value = driver.produce()?;
                bytes.get_mut(start).into_iter().for_each(|byte| *byte = value);
            }
            2 => {
                // A field of 1, 2, 4 or 8 bytes.
                let width = 1 << below(driver, 4)?;
                let mut field = number(driver)?.to_be_bytes()[8 - width..].to_vec();
                if driver.produce()? {
                    field.reverse();
                }
                let places = bytes[start..].iter_mut();
                places.zip(field).for_each(|(place, byte)| *place = byte);
            }
            3 => bytes.truncate(start),
            4 => drop(bytes.drain(start..end)),
            5 => {
                let inserted = random(driver, INSERTED_BYTES_MAX)?;
                drop(bytes.splice(start..start, inserted));
            }
            6 => {
                let copy = bytes[start..end].to_vec();
                drop(bytes.splice(start..start, copy));
            }
            7 => {
                let other = &self.seeds[below(driver, self.seeds.len())?];
                let from = below(driver, other.len() + 1)?;
                let until = from + below(driver, other.len() - from + 1)?;
                drop(bytes.splice(start..end, other[from..until].iter().copied()));
            }
            _ => {
                // The next decimal number in a text.
                let count = |bytes: &[u8], digits: bool| {
                    bytes.iter().take_while(|byte| byte.is_ascii_digit() == digits).count()
                };
                let from = start + count(&bytes[start..], false);
                let until = from + count(&bytes[from..], true);
                let number = number(driver)?;
                let text = match driver.produce()? {
                    true => number.to_string(),
                    false => number.cast_signed().to_string(),
                };
                drop(bytes.splice(from..until, text.into_bytes()));
            }
        }
        Some(())
    }
}

fn random<D: Driver>(driver: &mut D, bytes_max: usize) -> Option<Vec<u8>> {
    let length = below(driver, bytes_max + 1)?;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(driver.produce::<u64>()?.to_le_bytes());
    }
    bytes.truncate(length);
    Some(bytes)
}

fn number<D: Driver>(driver: &mut D) -> Option<u64> {
    Some(NUMBERS[below(driver, NUMBERS.len())?])
}

/// A number below `end`, which is at least 1.
fn below<D: Driver>(driver: &mut D, end: usize) -> Option<usize> {
    driver.gen_usize(Bound::Included(&0), Bound::Excluded(&end))
}

#[cfg(test)]
mod tests;
