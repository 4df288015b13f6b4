//! A hasher that costs nothing worth naming: keys are the bench's own.

use std::hash::{BuildHasherDefault, Hasher};

/// For maps of addresses, tags and SSRCs.
pub(super) type Fast = BuildHasherDefault<Multiply>;

/// Multiplies and rotates word by word, as Firefox's does.
#[derive(Default)]
pub(super) struct Multiply(u64);

const FACTOR: u64 = 0x517c_c1b7_2722_0a95;

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}
