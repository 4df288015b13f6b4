//! Build tools of policies in other languages, which may be missing.

use std::env;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Set by `tests/interop` if real clients, and so these tools, are required.
const REQUIRED: &str = "EVENKEEL_CLIENTS";

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Reports and counts a skipped test, past the harness, which hides the output of passing tests.
///
/// # Panics
/// If the tool is required.
pub(crate) fn skip(test: &str, absent: &str) {
    assert!(
        env::var_os(REQUIRED).is_none_or(|wish| wish != "required"),
        "{test}: not installed: {absent} (run make clients), and required"
    );
    let skipped = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let line = format!(
        "skipped: {test}: not installed: {absent} (run make clients); {skipped} skipped so far\n"
    );
    let _nobody_reads = std::io::stderr().write_all(line.as_bytes());
}
