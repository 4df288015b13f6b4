//! What an idle session costs in memory: resident memory of the gateway before and after 100,000 of them came in.

use std::time::Duration;

use super::crowd::{Crowd, Listener};
use crate::process::Metered;
use crate::relay::Places;
use crate::report::Memory;

/// Sessions.
const SESSIONS: u32 = 100_000;

/// What was allocated once for all is there after these.
const FIRST: u32 = 100;

/// How long what sessions' coming left in queues may take to be worked on.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// # Errors
/// What could not be measured, in a sentence.
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
