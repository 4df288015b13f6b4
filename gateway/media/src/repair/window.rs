//! A sliding-window code: random linear combinations of the last symbols over GF(256), in the form of RFC 8681.
//!
//! Each repair symbol covers a window of source symbols. Its factors are those of TinyMT32 (RFC 8682), seeded with its key, without
//! zeros (density 15). A source symbol is its length in two bytes, its bytes, and zeros as far as a longer one of the window reaches.

use std::time::{Duration, Instant};

use super::gf256::{self, COLUMNS, LinearSystem};

/// Source symbols of a window: 10 ms of a leg with 2,000 bundles per second. Longer windows leave as much unrepaired, since what they
/// add is recovered too late.
const WINDOW: usize = 20;

/// Longest window that is decoded.
const WINDOW_MAX: u16 = 32;

/// A symbol that is recovered later is of no use: the receiver waits for nothing else.
const RECOVERED_WITHIN: Duration = Duration::from_millis(10);

/// The length of a source symbol.
const LENGTH_LEN: usize = 2;

/// Limit of a symbol: the longest bundle that a gateway sends, and its length.
const SYMBOL_MAX: usize = 2_048 + LENGTH_LEN;

/// Bytes of a repair datagram before its symbol: a mark, the number of the first source symbol, the length of the window, the key.
const HEADER_LEN: usize = 6;

/// Bytes of a repair datagram besides the longest source symbol of its window.
pub(crate) const REPAIR_OVERHEAD: usize = HEADER_LEN + LENGTH_LEN;

/// The factors of a repair symbol, in the order of its window: TinyMT32.
#[derive(Clone, Debug)]
struct Factors([u32; 4]);

impl Factors {
    fn new(key: u16) -> Factors {
        let mut state = [key.into(), 0x8f70_11ee, 0xfc78_ff1f, 0x3793_fdff];
        for step in 1..8 {
            let before = state[(step - 1) & 3];
            let mixed = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30));
            state[step & 3] ^= mixed.wrapping_add(step as u32);
        }
        let mut factors = Factors(state);
        (0..8).for_each(|_| factors.step());
        factors
    }

    fn step(&mut self) {
        let [s0, s1, s2, s3] = self.0;
        let x = (s0 & 0x7fff_ffff) ^ s1 ^ s2;
        let x = x ^ (x << 1);
        let y = s3 ^ (s3 >> 1) ^ x;
        let odd = (y & 1).wrapping_neg();
        self.0 = [s1, s2 ^ (odd & 0x8f70_11ee), x ^ (y << 10) ^ (odd & 0xfc78_ff1f), y];
    }

    fn number(&mut self) -> u32 {
        self.step();
        let [s0, _, s2, s3] = self.0;
        let sum = s0.wrapping_add(s2 >> 8);
        s3 ^ sum ^ ((sum & 1).wrapping_neg() & 0x3793_fdff)
    }

    fn next(&mut self) -> u8 {
        loop {
            let factor = self.number() as u8;
            if factor != 0 {
                return factor;
            }
        }
    }
}

/// A repair symbol that grows with each source symbol of its window.
#[derive(Debug)]
struct OpenRepair {
    first: u16,
    length: u8,
    key: u16,
    factors: Factors,
    /// The datagram: header and symbol.
    datagram: Vec<u8>,
}

impl OpenRepair {
    fn begin(mut datagram: Vec<u8>, mark: u8, first: u16, key: u16) -> OpenRepair {
        datagram.clear();
        datagram.resize(REPAIR_OVERHEAD, 0);
        datagram[0] = mark;
        OpenRepair { first, length: 0, key, factors: Factors::new(key), datagram }
    }

    fn add(&mut self, source: &[u8]) {
        let factor = self.factors.next();
        let end = self.datagram.len().max(REPAIR_OVERHEAD + source.len());
        self.datagram.resize(end, 0);
        let (head, rest) = self.datagram.split_at_mut(REPAIR_OVERHEAD);
        let length = (source.len() as u16).to_be_bytes();
        gf256::add_multiple(&mut head[HEADER_LEN..], factor, &length);
        gf256::add_multiple(rest, factor, source);
        self.length += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        self.datagram[1..3].copy_from_slice(&self.first.to_be_bytes());
        self.datagram[3] = self.length;
        self.datagram[4..HEADER_LEN].copy_from_slice(&self.key.to_be_bytes());
        self.datagram
    }
}

/// Makes a repair datagram after each `every` source symbols. Windows overlap: several repair symbols are open at a time, so no source
/// symbol is kept. No allocation per symbol: buffers are used again.
#[derive(Debug)]
pub(crate) struct WindowEncoder {
    mark: u8,
    every: u8,
    since: u8,
    next_key: u16,
    /// The oldest one first.
    open: Vec<OpenRepair>,
    finished: Vec<u8>,
}

impl WindowEncoder {
    /// The datagrams begin with `mark`.
    pub(crate) fn new(mark: u8, every: u8) -> WindowEncoder {
        let (open, finished) = (Vec::new(), Vec::new());
        WindowEncoder { mark, every, since: 0, next_key: 0, open, finished }
    }

    /// Source symbols between two repair datagrams.
    pub(crate) fn every(&self) -> u8 {
        self.every
    }

    /// Adds the source symbol with this number: the successor of the one before. Returns the repair datagram that follows it.
    pub(crate) fn add(&mut self, number: u16, source: &[u8]) -> Option<&[u8]> {
        if self.open.is_empty() {
            (0..WINDOW.div_ceil(self.every.into())).for_each(|_| self.begin(Vec::new(), number));
        }
        self.open.iter_mut().for_each(|repair| repair.add(source));
        self.since += 1;
        if self.since < self.every {
            return None;
        }
        self.since = 0;
        let finished = self.open.remove(0).finish();
        let buffer = std::mem::replace(&mut self.finished, finished);
        self.begin(buffer, number.wrapping_add(1));
        Some(&self.finished)
    }

    fn begin(&mut self, buffer: Vec<u8>, first: u16) {
        self.open.push(OpenRepair::begin(buffer, self.mark, first, self.next_key));
        self.next_key = self.next_key.wrapping_add(1);
    }
}

/// The fault of a repair datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RepairError {
    /// Shorter than its header, or longer than any repair symbol.
    #[error("invalid length")]
    Length,
    /// Its window is empty or too long, or far from the numbers that have come.
    #[error("invalid window")]
    Window,
    /// The length of a recovered symbol exceeds its bytes.
    #[error("recovered symbol is invalid")]
    Symbol,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SymbolState {
    /// It came before symbols were kept, or cannot be recovered.
    Unknown,
    /// Found to be missing at this time.
    Missing(Instant),
    Known,
    /// Recovered in time.
    Recovered,
}

#[derive(Debug)]
struct SourceSymbol {
    state: SymbolState,
    /// Length and bytes, if known.
    bytes: Vec<u8>,
}

/// Recovers source symbols. Bounded: it keeps the last [`COLUMNS`] of them, and a few equations. No allocation per symbol: buffers are
/// used again.
#[derive(Debug)]
pub(crate) struct WindowDecoder {
    /// By number, in a circle.
    symbols: Vec<SourceSymbol>,
    /// The number after the highest one.
    next: u16,
    system: LinearSystem,
    /// Numbers of recovered symbols that were not taken.
    recovered: Vec<u16>,
}

fn column(number: u16) -> usize {
    usize::from(number) % COLUMNS
}

impl WindowDecoder {
    /// Begins before the source symbol with this number.
    pub(crate) fn new(next: u16) -> WindowDecoder {
        let unknown = || SourceSymbol { state: SymbolState::Unknown, bytes: Vec::new() };
        let symbols = std::iter::repeat_with(unknown).take(COLUMNS).collect();
        WindowDecoder { symbols, next, system: LinearSystem::default(), recovered: Vec::new() }
    }

    /// Distance from the highest number: 0 for that one, 1 for the one before it; `None` for one that is not kept.
    fn age(&self, number: u16) -> Option<u16> {
        Some(self.next.wrapping_sub(1).wrapping_sub(number)).filter(|age| *age < COLUMNS as u16)
    }

    /// Counts all numbers up to this one as missing. Does nothing for an earlier number.
    fn advance(&mut self, last: u16, now: Instant) {
        let ahead = last.wrapping_sub(self.next);
        if ahead >= 1 << 15 {
            return;
        }
        self.next = self.next.wrapping_add(ahead.saturating_sub(COLUMNS as u16));
        while self.next != last.wrapping_add(1) {
            let oldest = column(self.next);
            self.system.forget(oldest);
            self.symbols[oldest].state = SymbolState::Missing(now);
            self.next = self.next.wrapping_add(1);
        }
    }

    /// Notes a source symbol. Returns false if the same one was recovered before.
    pub(crate) fn note_source(&mut self, number: u16, source: &[u8], now: Instant) -> bool {
        self.recovered.clear();
        self.advance(number, now);
        if self.age(number).is_none() {
            return true;
        }
        let oldest = column(self.next);
        let symbol = &mut self.symbols[column(number)];
        match symbol.state {
            SymbolState::Recovered if symbol.bytes[LENGTH_LEN..] == *source => return false,
            SymbolState::Known => return true,
            // A symbol that differs from the recovered one: the sender began anew, or a repair datagram was forged.
            SymbolState::Recovered | SymbolState::Unknown | SymbolState::Missing(_) => {}
        }
        if LENGTH_LEN + source.len() > SYMBOL_MAX {
            symbol.state = SymbolState::Unknown;
            return true;
        }
        symbol.state = SymbolState::Known;
        symbol.bytes.clear();
        symbol.bytes.extend_from_slice(&(source.len() as u16).to_be_bytes());
        symbol.bytes.extend_from_slice(source);
        self.system.substitute(column(number), &symbol.bytes, oldest);
        // An invalid symbol is the fault of an earlier repair datagram, not of this source symbol.
        let _fault_of_another = self.recover(now);
        true
    }

    /// Notes a repair datagram.
    pub(crate) fn note_repair(&mut self, datagram: &[u8], now: Instant) -> Result<(), RepairError> {
        self.recovered.clear();
        let (header, symbol) =
            datagram.split_first_chunk::<HEADER_LEN>().ok_or(RepairError::Length)?;
        if !(LENGTH_LEN..=SYMBOL_MAX).contains(&symbol.len()) {
            return Err(RepairError::Length);
        }
        let [_, first_high, first_low, length, key @ ..] = *header;
        let (first, length) = (u16::from_be_bytes([first_high, first_low]), u16::from(length));
        let last = first.wrapping_add(length).wrapping_sub(1);
        let is_near = last.wrapping_sub(self.next) < COLUMNS as u16 || self.age(last).is_some();
        if !(1..=WINDOW_MAX).contains(&length) || !is_near {
            return Err(RepairError::Window);
        }
        self.advance(last, now);
        // The oldest symbols may be forgotten already.
        if self.age(first).is_none() {
            return Ok(());
        }
        let mut factors = Factors::new(u16::from_be_bytes(key));
        let mut equation = self.system.equation(symbol);
        for number in (0..length).map(|place| first.wrapping_add(place)) {
            let (column, factor) = (column(number), factors.next());
            match self.symbols[column].state {
                SymbolState::Missing(_) => equation.factors[column] = factor,
                SymbolState::Known | SymbolState::Recovered => {
                    let bytes = &self.symbols[column].bytes;
                    gf256::add_multiple_growing(&mut equation.value, factor, bytes);
                }
                SymbolState::Unknown => {
                    self.system.recycle(equation.value);
                    return Ok(());
                }
            }
        }
        self.system.insert(equation, column(self.next));
        self.recover(now)
    }

    /// Moves solved unknowns to the source symbols.
    fn recover(&mut self, now: Instant) -> Result<(), RepairError> {
        let mut result = Ok(());
        while let Some((column, value)) = self.system.take_solved() {
            let age = usize::from(self.next.wrapping_sub(1)).wrapping_sub(column) % COLUMNS;
            let number = self.next.wrapping_sub(1).wrapping_sub(age as u16);
            let symbol = &mut self.symbols[column];
            let length = value.first_chunk().map_or(usize::MAX, |length: &[u8; LENGTH_LEN]| {
                usize::from(u16::from_be_bytes(*length)) + LENGTH_LEN
            });
            let SymbolState::Missing(since) = symbol.state else { continue };
            let Some(bytes) = value.get(..length) else {
                symbol.state = SymbolState::Unknown;
                self.system.recycle(value);
                result = Err(RepairError::Symbol);
                continue;
            };
            symbol.bytes.clear();
            symbol.bytes.extend_from_slice(bytes);
            symbol.state = SymbolState::Known;
            if now.saturating_duration_since(since) <= RECOVERED_WITHIN {
                symbol.state = SymbolState::Recovered;
                self.recovered.push(number);
            }
            self.system.recycle(value);
        }
        result
    }

    /// Takes a source symbol that the last call recovered, with its number.
    pub(crate) fn take_recovered(&mut self) -> Option<(u16, &[u8])> {
        let number = self.recovered.pop()?;
        Some((number, &self.symbols[column(number)].bytes[LENGTH_LEN..]))
    }
}

#[cfg(test)]
mod tests;
