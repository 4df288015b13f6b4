use std::cell::{Cell, RefCell};
use std::panic::catch_unwind;

use super::*;

#[test]
fn corpus_is_checked_before_its_mutations() {
    let first = RefCell::new(Vec::new());
    let parts: [&[u8]; 3] = [b"two 18446744073709551615", b"twtwo", b"two 2one"];
    let found = parts.map(|_| Cell::new(false));
    Corpus { target: "none", seeds: vec![b"one".into(), b"two 2".into()] }.check(|input| {
        assert!(input.len() <= INPUT_BYTES_MAX);
        if first.borrow().len() < 2 {
            first.borrow_mut().push(input.to_vec());
        }
        for (part, found) in parts.iter().zip(&found) {
            found.set(found.get() || input.windows(part.len()).any(|window| window == *part));
        }
    });
    assert_eq!(first.into_inner(), [b"one".to_vec(), b"two 2".to_vec()]);
    assert_eq!(found.map(Cell::into_inner), [true; 3]);
}

#[test]
fn panic_in_a_check_fails_its_target() {
    let target =
        || Corpus::of("none").with(b"seed".to_vec()).check(|input| assert!(input.len() < 100));
    assert!(catch_unwind(target).is_err());
}

#[test]
fn input_is_printed_for_the_corpus() {
    let shown = format!("{:#?}", Input(b"a\n\xff".into()));
    assert_eq!(shown, "hexadecimal: 610aff\ntext: a\\n\\xff");
}
