//! Message and location of a caught panic.

use std::any::Any;
use std::cell::Cell;
use std::sync::Once;

thread_local! {
    /// Whether this thread catches its panics and reports them itself.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// The location of this thread's last panic, if it catches them.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Makes the panic hook only note the location on this thread, which catches its panics and logs them. The default hook
/// symbolises a backtrace, which takes hundreds of milliseconds: all sessions of a worker would stand still.
pub fn capture_here() {
    static NOTED: Once = Once::new();
    CAUGHT.set(true);
    NOTED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A thread that is ending catches no panic.
            if CAUGHT.try_with(Cell::get).unwrap_or(false) {
                let place = panic.location().map(ToString::to_string);
                let _ = PLACE.try_with(|last| last.set(place));
            } else {
                before(panic);
            }
        }));
    });
}

/// File, line and column of this thread's last panic, once.
pub fn take_location() -> Option<String> {
    PLACE.take()
}

pub fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests;
