//! Words for people: the only thing a policy may do to the world besides answering.

/// How much a log line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// For the author, in a test.
    Trace = 0,
    /// For the author.
    Debug = 1,
    /// What an operator feels.
    Info = 2,
    /// What should wake someone.
    Warn = 3,
    /// The policy cannot do its work.
    Error = 4,
}

/// Writes a line to the gateway's log. Rate-limited there.
///
/// In a native test it goes to standard error, and is kept for `trial::lines`.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::wit::diag::log(level as u8, message);
    #[cfg(not(target_arch = "wasm32"))]
    crate::trial::keep_line(level, message);
}

/// Explains the decision being made; shown on its trace span. Values are whole numbers: say the unit
/// in the key (`delay_us`).
///
/// `row` is 0 for a question about one room or session; the builders of batched answers know their row and have a
/// `note` of their own. In a native test notes are kept for `trial::notes`.
pub fn note(row: u32, key: &str, value: i64) {
    #[cfg(target_arch = "wasm32")]
    crate::wit::diag::note(row, key, value);
    #[cfg(not(target_arch = "wasm32"))]
    crate::trial::keep_note(row, key, value);
}

/// Sends a panic's message to the log, where it is all that a trap leaves behind.
pub(crate) fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}
