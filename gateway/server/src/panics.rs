//! What a panic said, and where.

use std::any::Any;
use std::cell::Cell;
use std::sync::Once;

thread_local! {
    /// Where this thread panicked last.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// From now on each thread knows where it panicked: whoever catches a panic is told what it said, and not where.
/// Beside that, what was to be done with panics before is done with them.
pub(crate) fn note_places() {
    static NOTED: Once = Once::new();
    NOTED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A thread that is ending has no place to note it in.
            let place = panic.location().map(ToString::to_string);
            let _ = PLACE.try_with(|last| last.set(place));
            before(panic);
        }));
    });
}

/// File, line and column of this thread's last panic, told once.
pub(crate) fn take_place() -> Option<String> {
    PLACE.take()
}

/// What a panic said.
pub(crate) fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_catches_a_panic_learns_what_it_said_and_where() {
        note_places();
        let line = line!() + 1;
        let panic = std::panic::catch_unwind(|| panic!("number {}", 7)).unwrap_err();
        assert_eq!(words(&*panic), "number 7");
        let place = take_place().unwrap();
        assert!(place.contains(&format!("panics.rs:{line}:")), "{place}");
        assert_eq!(take_place(), None, "once");
    }
}
