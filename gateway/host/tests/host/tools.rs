//! What policies in other languages are built with, which a machine may not have.

use std::env;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `tests/interop` says where real clients must be there: then so must these.
const REQUIRED: &str = "EVENKEEL_CLIENTS";

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Says and counts that a test is skipped for want of a tool, past the harness, which hides what a test prints as long as
/// it passes.
///
/// # Panics
/// The tool is required.
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
