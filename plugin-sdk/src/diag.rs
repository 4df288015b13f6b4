//! Log lines and notes. They are a policy's only output besides answers.

/// Severity of a log line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Details for the author, in tests.
    Trace = 0,
    /// Information for the author.
    Debug = 1,
    /// Information for operators.
    Info = 2,
    /// A condition that needs attention.
    Warn = 3,
    /// An error that prevents the policy from working.
    Error = 4,
}

/// Writes a line to the gateway's log, which is rate-limited.
///
/// In a native test the line is written to standard error, and kept for `trial::lines`.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::wit::diag::log(level as u8, message);
    #[cfg(not(target_arch = "wasm32"))]
    crate::trial::keep_line(level, message);
}

/// Adds a value to the present decision's trace span, to explain the decision. Values are integers: put the unit into
/// the key (`delay_us`).
///
/// `row` is 0 for a question about one room or session. Builders of batched answers have their own `note`, which sets
/// the row. In a native test notes are kept for `trial::notes`.
pub fn note(row: u32, key: &str, value: i64) {
    #[cfg(target_arch = "wasm32")]
    crate::wit::diag::note(row, key, value);
    #[cfg(not(target_arch = "wasm32"))]
    crate::trial::keep_note(row, key, value);
}

/// Sends a panic's message to the log, because a trap carries none.
pub(crate) fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}
