//! Log lines and notes: a policy's only output besides answers.

/// Severity of a log line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// For the author, in tests.
    Trace = 0,
    /// For the author.
    Debug = 1,
    /// Of interest to operators.
    Info = 2,
    /// Needs attention.
    Warn = 3,
    /// The policy cannot work.
    Error = 4,
}

/// Writes a line to the gateway's log, which is rate-limited.
///
/// In a native test it goes to standard error, and is kept for `trial::lines`.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::wit::diag::log(level as u8, message);
    #[cfg(not(target_arch = "wasm32"))]
    crate::trial::keep_line(level, message);
}

/// Explains the present decision on its trace span. Values are integers: put the unit into the key
/// (`delay_us`).
///
/// `row` is 0 for a question about one room or session; builders of batched answers have a `note`
/// of their own with the row. In a native test notes are kept for `trial::notes`.
pub fn note(row: u32, key: &str, value: i64) {
    #[cfg(target_arch = "wasm32")]
    crate::wit::diag::note(row, key, value);
    #[cfg(not(target_arch = "wasm32"))]
    crate::trial::keep_note(row, key, value);
}

/// Sends a panic's message to the log, as a trap carries none.
pub(crate) fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}
