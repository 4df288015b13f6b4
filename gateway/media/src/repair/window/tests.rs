use std::collections::BTreeMap;

use evenkeel_fuzz::Corpus;
use fastrand::Rng;

use super::*;
use crate::repair::tests::at;

const MARK: u8 = 0xE5;

/// A source symbol with a length and bytes of its number.
fn source(number: u16) -> Vec<u8> {
    let length = 3 + usize::from(number) * 37 % 200;
    (0..length).map(|place| (place as u8).wrapping_mul(31) ^ number as u8).collect()
}

/// Both ends of a path on which a source symbol is sent each 500 µs.
struct Path {
    encoder: WindowEncoder,
    decoder: WindowDecoder,
    first: u16,
    sent: u16,
    repairs: u32,
    recovered: BTreeMap<u16, Vec<u8>>,
}

impl Path {
    fn new(first: u16, every: u8) -> Path {
        Path {
            encoder: WindowEncoder::new(MARK, every),
            decoder: WindowDecoder::new(first),
            first,
            sent: 0,
            repairs: 0,
            recovered: BTreeMap::new(),
        }
    }

    fn now(&self) -> Instant {
        at(0) + Duration::from_micros(500) * self.sent.into()
    }

    /// Sends a source symbol, and the repair datagram after it. `arrives` says which of both arrive.
    fn send(&mut self, mut arrives: impl FnMut() -> bool) {
        let (number, now) = (self.first.wrapping_add(self.sent), self.now());
        self.sent += 1;
        if arrives() {
            assert!(self.decoder.note_source(number, &source(number), now));
            self.take();
        }
        if let Some(repair) = self.encoder.add(number, &source(number)) {
            self.repairs += 1;
            if arrives() {
                self.decoder.note_repair(repair, now).unwrap();
                self.take();
            }
        }
    }

    fn take(&mut self) {
        while let Some((number, bytes)) = self.decoder.take_recovered() {
            assert_eq!(bytes, source(number), "{number}");
            assert!(self.recovered.insert(number, bytes.to_vec()).is_none(), "{number}: once");
        }
    }

    /// Sends these source symbols, except the lost ones; no repair datagram is lost.
    fn lose(&mut self, count: u16, lost: &[u16]) {
        for place in 0..count {
            let mut is_source = true;
            self.send(|| !std::mem::take(&mut is_source) || !lost.contains(&place));
        }
    }

    fn recovered(&self) -> Vec<u16> {
        self.recovered.keys().map(|number| number.wrapping_sub(self.first)).collect()
    }
}

#[test]
fn factors_are_those_of_rfc_8682() {
    let mut factors = Factors::new(1);
    let numbers = [(); 5].map(|()| factors.number());
    assert_eq!(numbers, [2545341989, 981918433, 3715302833, 2387538352, 3591001365]);
    let mut factors = Factors::new(1);
    assert_eq!([(); 8].map(|()| factors.next()), [37, 225, 177, 176, 21, 246, 54, 139]);
}

#[test]
fn lost_symbol_is_recovered_by_the_next_repair() {
    let mut path = Path::new(10, 5);
    path.lose(5, &[2]);
    assert_eq!((path.recovered(), path.repairs), (vec![2], 1));
    path.lose(5, &[4]);
    assert_eq!((path.recovered(), path.repairs), (vec![2, 9], 2));
}

#[test]
fn burst_is_recovered_across_windows() {
    let mut path = Path::new(10, 5);
    path.lose(40, &[20, 21, 22]);
    assert_eq!(path.recovered(), [20, 21, 22]);
    let mut path = Path::new(10, 3);
    path.lose(40, &[20, 21, 22, 23, 24]);
    assert_eq!(path.recovered(), [20, 21, 22, 23, 24]);
}

#[test]
fn numbers_wrap_around() {
    let mut path = Path::new(u16::MAX - 12, 5);
    path.lose(40, &[5, 11, 12, 13, 20]);
    let mut recovered = path.recovered();
    recovered.sort_unstable();
    assert_eq!(recovered, [5, 11, 12, 13, 20]);
}

#[test]
fn symbol_is_not_recovered_after_10_ms() {
    for (late_us, is_recovered) in [(10_000, true), (10_001, false)] {
        let (mut encoder, mut decoder) = (WindowEncoder::new(MARK, 5), WindowDecoder::new(0));
        for number in 0..4 {
            assert!(encoder.add(number, &source(number)).is_none());
            assert!(number == 2 || decoder.note_source(number, &source(number), at(0)));
        }
        let late = at(0) + Duration::from_micros(late_us);
        assert!(decoder.note_source(4, &source(4), late));
        decoder.note_repair(encoder.add(4, &source(4)).unwrap(), late).unwrap();
        assert_eq!(decoder.take_recovered().is_some(), is_recovered);
        assert_eq!(decoder.note_source(2, &source(2), late), !is_recovered);
    }
}

#[test]
fn late_original_of_a_recovered_symbol_is_refused() {
    let mut path = Path::new(0, 5);
    path.lose(5, &[2]);
    let now = path.now();
    assert!(!path.decoder.note_source(2, &source(2), now));
    assert!(path.decoder.note_source(3, &source(3), now), "a copy of another is not judged");
    assert!(path.decoder.note_source(40_000, &source(7), now), "nor is a number far away");
}

#[test]
fn source_symbol_unlike_the_recovered_one_passes() {
    let (mut forger, mut decoder) = (WindowEncoder::new(MARK, 1), WindowDecoder::new(0));
    decoder.note_repair(forger.add(0, b"forged").unwrap(), at(0)).unwrap();
    assert_eq!(decoder.take_recovered(), Some((0, &b"forged"[..])));
    assert!(decoder.note_source(0, b"sent", at(0)));
    assert_eq!(decoder.take_recovered(), None);
}

#[test]
fn late_source_symbol_completes_an_equation() {
    let (mut encoder, mut decoder) = (WindowEncoder::new(MARK, 5), WindowDecoder::new(0));
    let now = at(0);
    for number in 0..5 {
        if number != 1 && number != 3 {
            assert!(decoder.note_source(number, &source(number), now));
        }
        if let Some(repair) = encoder.add(number, &source(number)) {
            decoder.note_repair(repair, now).unwrap();
        }
    }
    assert_eq!(decoder.take_recovered(), None);
    assert!(decoder.note_source(1, &source(1), now));
    assert_eq!(decoder.take_recovered(), Some((3, &source(3)[..])));
}

#[test]
fn twenty_percent_parity_repairs_five_percent_loss() {
    let mut left = 0;
    for seed in 0..2 {
        let (mut rng, mut path) = (Rng::with_seed(seed), Path::new(0, 5));
        let mut lost = 0;
        for _ in 0..50_000 {
            let mut is_source = true;
            path.send(|| {
                let arrives = rng.u32(..10_000) >= 500;
                lost += usize::from(std::mem::take(&mut is_source) && !arrives);
                arrives
            });
        }
        assert_eq!(path.repairs, 10_000);
        left += lost - path.recovered.len();
    }
    // The bar is 0.16 %.
    assert!(left <= 160, "{left} of 100,000 are left");
}

#[test]
fn invalid_repair_datagrams_are_refused() {
    let mut decoder = WindowDecoder::new(100);
    let now = at(0);
    assert!(decoder.note_source(100, &source(1), now));
    let mut refused = |first: u16, length: u8, symbol: usize| {
        let [high, low] = first.to_be_bytes();
        let datagram = [&[MARK, high, low, length, 0, 1][..], &vec![0; symbol]].concat();
        decoder.note_repair(&datagram, now).err()
    };
    assert_eq!(refused(100, 1, SYMBOL_MAX + 1), Some(RepairError::Length));
    assert_eq!(refused(100, 1, 1), Some(RepairError::Length));
    assert_eq!(refused(100, 0, 10), Some(RepairError::Window));
    assert_eq!(refused(100, WINDOW_MAX as u8 + 1, 10), Some(RepairError::Window));
    assert_eq!(refused(101 + COLUMNS as u16, 1, 10), Some(RepairError::Window));
    assert_eq!(refused(36, 1, 10), Some(RepairError::Window), "too old");
    assert_eq!(refused(100, 1, SYMBOL_MAX), None);
    // The symbol of a number that did not come: no byte is zero, so its length exceeds it.
    let datagram = [&[MARK, 0, 101, 1, 0, 1][..], &[0xff; 10]].concat();
    assert_eq!(decoder.note_repair(&datagram, now), Err(RepairError::Symbol));
    assert_eq!(decoder.note_repair(&[MARK; HEADER_LEN - 1], now), Err(RepairError::Length));
}

#[test]
fn window_of_forgotten_symbols_changes_nothing() {
    let mut decoder = WindowDecoder::new(100);
    assert!(decoder.note_source(100, &source(1), at(0)));
    for first in [90, 99, 101 - COLUMNS as u16] {
        let [high, low] = first.to_be_bytes();
        let datagram = [MARK, high, low, 12, 0, 1, 0, 1, 2];
        assert_eq!(decoder.note_repair(&datagram, at(0)), Ok(()));
        assert_eq!(decoder.take_recovered(), None);
    }
}

/// Each four bytes are a source symbol or a repair datagram, of any number.
#[test]
fn fuzz_window_decoder() {
    let seed: Vec<u8> = (0..200_u8).flat_map(|byte| [byte % 3, byte, 4, byte]).collect();
    Corpus::of("window_decoder").with(seed).check(|input| {
        let mut decoder = WindowDecoder::new(0);
        for (step, &[kind, number, length, content]) in (0..).zip(input.as_chunks::<4>().0) {
            let (now, bytes) = (at(step), vec![content; usize::from(length) * 8]);
            if kind % 3 == 0 {
                decoder.note_source(u16::from(number), &bytes, now);
            } else {
                let header = [MARK, kind / 128 * 255, number, length % 40, content, kind];
                let _result = decoder.note_repair(&[&header[..], &bytes].concat(), now);
            }
            while let Some((number, bytes)) = decoder.take_recovered() {
                assert!(bytes.len() <= SYMBOL_MAX && decoder.age(number).is_some());
            }
            let largest = decoder.symbols.iter().map(|symbol| symbol.bytes.len()).max();
            assert!(largest <= Some(SYMBOL_MAX) && decoder.symbols.len() == COLUMNS);
        }
    });
}
