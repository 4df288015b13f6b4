//! Limits of plugins, each with its reason. `plugin-sdk/REFERENCE.md` shows them to authors.

use std::time::Duration;

/// Maximum size of a plugin. One that contains an interpreter has 12 MB.
pub const BINARY_BYTES_MAX: usize = 16 << 20;

/// Size of a manifest, which is parsed before the plugin is trusted. One with a hundred documented
/// settings has 30 KiB.
pub const MANIFEST_BYTES_MAX: usize = 256 << 10;

/// Length of a plugin's or reason's name, which appears in metrics, logs and file names.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// Enough for a version with a date and a commit digest.
pub(crate) const VERSION_BYTES_MAX: usize = 64;

/// A plugin's own reasons.
pub const REASONS_MAX: usize = 256;

/// JSON bytes that defaults may add to settings: defaults of list items repeat for each item, so
/// that a short schema could exhaust memory.
pub const DEFAULTS_BYTES_MAX: usize = 1 << 20;

/// Data documents of a plugin: enough for tenants, devices and carriers, and they bound the body of a push.
pub const DOCUMENTS_MAX: usize = 8;

/// A data document as JSON: 10,000 tenants with 100 bytes each.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// The value that one lookup returns. It is written during the plugin's call, which it could delay otherwise.
pub const LOOKUP_BYTES_MAX: usize = 64 << 10;

/// Parts of a lookup's path: documents are nested no deeper, as `serde_json` reads them.
pub const LOOKUP_PARTS_MAX: usize = 128;

/// Bytes of a lookup's path, which are copied during the plugin's call. The longest names that documents have are far shorter.
pub const LOOKUP_PATH_BYTES_MAX: usize = 64 << 10;

/// Instructions that a lookup counts as, besides one for each byte of its value: about the time that it takes.
pub(crate) const LOOKUP_INSTRUCTIONS: u64 = 1_000;

/// Memory of one instance. States are kept outside, so that a policy needs room for one batch only.
pub const MEMORY_BYTES_MAX: usize = 16 << 20;

/// Entries of a function table: several times those of a large Rust plugin.
pub const TABLE_ENTRIES_MAX: usize = 20_000;

/// Instances at once: 16 sets of four hooks, each with an active revision, a candidate and the last
/// good one. Instances for proving and for the determinism check fit because few policies have all
/// three.
pub(crate) const POLICIES_MAX: u32 = 192;

/// Core modules in a component: the plugin, and two that adapt its imports, with room to spare.
pub(crate) const MODULES_MAX: u32 = 8;

/// Tables in a component: the plugin's own and that of the adapter, with room to spare.
pub(crate) const TABLES_MAX: u32 = 4;

/// State of one session or room.
pub const STATE_BYTES_MAX: usize = 4 << 10;

/// Maximum bytes of a policy's memo.
pub const MEMO_BYTES_MAX: usize = 64 << 10;

/// An answer besides its rows: memo, messages, notes.
pub(crate) const ANSWER_BYTES: usize = 256 << 10;

/// A row of an answer: a state, and a few actions or hops.
pub(crate) const ROW_BYTES: usize = STATE_BYTES_MAX + 512;

/// Calls of `diag` in one call of the plugin.
pub const DIAG_CALLS_MAX: u32 = 10_000;

/// Actions for one session in one answer: each action of the registry, set and cleared, with room
/// for later ones.
pub(crate) const ACTIONS_PER_ROW_MAX: usize = 16;

/// Notes on one decision: a few per row that a person will look at.
pub const NOTES_MAX: usize = 256;

/// Maximum bytes of the key of a note.
pub const NOTE_KEY_BYTES_MAX: usize = 64;

/// A log line; a panic's message fits.
pub const LINE_BYTES_MAX: usize = 1 << 10;

/// Log lines of a policy per second, after [`LINES_BURST`].
pub const LINES_PER_SECOND: u64 = 10;

/// Log lines of a policy at once.
pub const LINES_BURST: u64 = 20;

/// Log lines waiting to be fetched.
pub(crate) const LINES_WAITING_MAX: usize = 64;

/// Time limits of calls, which are stopped at them. `init` and `catalog` are limits of processor time, the others of time
/// on the wall clock, as a session waits for them. A plugin is prepared again after a fault; questions that wait meanwhile
/// are answered by the native default.
///
/// The defaults are the contract's. In virtual time allow much more, so that a slow machine does
/// not change decisions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallBudgets {
    /// Reading settings. Default 250 ms.
    pub init: Duration,
    /// Learning the catalog. Default 20 ms.
    pub catalog: Duration,
    /// Rewriting states, or the memo, of an older revision. Default 20 ms.
    pub migrate: Duration,
    /// First states of new sessions or rooms. Default 5 ms.
    pub open: Duration,
    /// One admission. Default 2 ms.
    pub admit: Duration,
    /// One placement. Default 2 ms.
    pub place: Duration,
    /// One scenario. Default 2 ms.
    pub resolve: Duration,
    /// One batch of rooms. Default 10 ms.
    pub reroute: Duration,
    /// One batch of sessions. Default 5 ms.
    pub tick: Duration,
}

impl CallBudgets {
    /// The same limit for every call.
    pub fn all(limit: Duration) -> CallBudgets {
        CallBudgets {
            init: limit,
            catalog: limit,
            migrate: limit,
            open: limit,
            admit: limit,
            place: limit,
            resolve: limit,
            reroute: limit,
            tick: limit,
        }
    }
}

/// The contract's budget of the call of this name: `tick`.
pub(crate) fn budget_of(call: &str) -> Option<Duration> {
    let budgets = CallBudgets::default();
    match call {
        "start" | "init" => Some(budgets.init),
        "catalog" => Some(budgets.catalog),
        "migrate" | "migrate-memo" => Some(budgets.migrate),
        "open" => Some(budgets.open),
        "admit" => Some(budgets.admit),
        "place" => Some(budgets.place),
        "resolve" => Some(budgets.resolve),
        "reroute" => Some(budgets.reroute),
        "tick" => Some(budgets.tick),
        _ => None,
    }
}

impl Default for CallBudgets {
    fn default() -> Self {
        CallBudgets {
            init: Duration::from_millis(250),
            catalog: Duration::from_millis(20),
            migrate: Duration::from_millis(20),
            open: Duration::from_millis(5),
            admit: Duration::from_millis(2),
            place: Duration::from_millis(2),
            resolve: Duration::from_millis(2),
            reroute: Duration::from_millis(10),
            tick: Duration::from_millis(5),
        }
    }
}
