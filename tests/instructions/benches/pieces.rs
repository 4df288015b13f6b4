//! Time of each step of a packet's path: `cargo bench -p evenkeel-instructions`.

use divan::Bencher;
use evenkeel_instructions::{PIECES, Piece};

fn main() {
    divan::main();
}

#[divan::bench(args = PIECES)]
fn piece(bencher: Bencher<'_, '_>, piece: &Piece) {
    let mut act = piece.prepare();
    bencher.bench_local(&mut *act);
}
