//! Memory per idle session: resident memory of the gateway before and after 100,000 sessions are opened.

use std::time::Duration;

use super::crowd::{Crowd, Listener};
use crate::process::Metered;
use crate::relay::Places;
use crate::report::Memory;

const SESSIONS: u32 = 100_000;

/// Sessions opened before the measurement, which cause one-time allocations.
const FIRST: u32 = 100;

/// Time until queued work of the new sessions is done.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// # Errors
/// A measurement failed.
pub(crate) fn measure(places: &Places) -> Result<Memory, String> {
    let mut crowd = Crowd::start("memory", Listener::Declared, places)?;
    crowd.grow(FIRST)?;
    std::thread::sleep(SETTLED_AFTER);
    let before = crowd.process.resident_mib()?;
    crowd.grow(SESSIONS - FIRST)?;
    std::thread::sleep(SETTLED_AFTER);
    let after = crowd.process.resident_mib()?;
    let per_session = (after - before) * f64::from(1 << 20) / f64::from(SESSIONS - FIRST);
    println!("memory: {before:.0} MiB with {FIRST} sessions, {after:.0} with {SESSIONS}");
    Ok(Memory { per_session_bytes: per_session, rss_100k_mib: after })
}
