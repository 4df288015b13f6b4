//! Random numbers that nobody can predict.

use ring::rand::{SecureRandom, SystemRandom};

/// Fills the bytes from the system's random source.
///
/// # Panics
/// The system has no random source.
pub fn fill(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the system's random source works once it is there");
}

/// Draws a number.
pub fn draw() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
