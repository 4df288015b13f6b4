//! Message and location of a caught panic.

use std::any::Any;
use std::cell::Cell;
use std::sync::Once;

thread_local! {
    /// True if this thread catches its panics and reports them itself.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// The location of this thread's last panic, if the thread catches panics.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Makes the panic hook only record the location on this thread, which catches and logs its panics. The default hook
/// symbolises a backtrace, which would block all sessions of a worker for hundreds of milliseconds.
pub fn capture_here() {
    static NOTED: Once = Once::new();
    CAUGHT.set(true);
    NOTED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The thread-local is gone on a thread that is ending; such a thread catches no panic.
            if CAUGHT.try_with(Cell::get).unwrap_or(false) {
                let place = panic.location().map(ToString::to_string);
                let _ = PLACE.try_with(|last| last.set(place));
            } else {
                before(panic);
            }
        }));
    });
}

/// Takes file, line and column of this thread's last panic, and returns them with the text of the panic.
pub fn describe(panic: &(dyn Any + Send)) -> (String, &str) {
    (PLACE.take().unwrap_or_default(), message(panic))
}

/// Returns the text of a caught panic.
pub fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests;
