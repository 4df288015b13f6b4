//! What a panic said, and where.

use std::any::Any;
use std::cell::Cell;
use std::sync::Once;

thread_local! {
    /// Whether panics of this thread are caught, and told of by who catches them.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// Where this thread panicked last, if they are.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// From now on panics of this thread are told of by who catches them, who is not told where they were: that is noted for
/// him, and nothing else done. What is done with others' panics takes the time that it takes to name every function on the
/// stack, hundreds of milliseconds in which all sessions of a worker would stand still.
pub fn are_caught_here() {
    static NOTED: Once = Once::new();
    CAUGHT.set(true);
    NOTED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A thread that is ending catches none any more.
            if CAUGHT.try_with(Cell::get).unwrap_or(false) {
                let place = panic.location().map(ToString::to_string);
                let _ = PLACE.try_with(|last| last.set(place));
            } else {
                before(panic);
            }
        }));
    });
}

/// File, line and column of this thread's last panic, told once.
pub fn take_place() -> Option<String> {
    PLACE.take()
}

/// What a panic said.
pub fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_catches_a_panic_learns_what_it_said_and_where() {
        are_caught_here();
        let line = line!() + 1;
        let panic = std::panic::catch_unwind(|| panic!("number {}", 7)).unwrap_err();
        assert_eq!(words(&*panic), "number 7");
        let place = take_place().unwrap();
        assert!(place.contains(&format!("panics.rs:{line}:")), "{place}");
        assert_eq!(take_place(), None, "once");
    }
}
