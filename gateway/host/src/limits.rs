//! What a plugin may use, each bound with its reason. `plugin-sdk/REFERENCE.md` shows them to authors.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// Bytes of a plugin. An engine that interprets a language inside a plugin has 12 MB; nothing honest is larger.
pub const BINARY_BYTES_MAX: usize = 16 << 20;

/// Bytes of a manifest. One with a hundred settings that explain themselves has 30 KiB; it is parsed before anything of the
/// plugin is believed.
pub const MANIFEST_BYTES_MAX: usize = 256 << 10;

/// A name, of a plugin or of a reason, is a word in metrics, logs and file names.
pub const NAME_BYTES_MAX: usize = 64;

/// A version with a date and the digest of a commit fits.
pub const VERSION_BYTES_MAX: usize = 64;

/// Reasons of a plugin's own: far more than people tell apart.
pub const REASONS_MAX: usize = 256;

/// What defaults may add to settings, bytes of JSON: those of a list stand once for each of its items, so that a schema of a
/// few lines could ask for more than there is memory.
pub const DEFAULTS_BYTES_MAX: usize = 1 << 20;

/// Memory of one instance. States live outside, so that a policy needs room for one batch only.
pub const MEMORY_BYTES_MAX: usize = 16 << 20;

/// Entries of a function table: several times what a large Rust plugin has.
pub const TABLE_ENTRIES_MAX: usize = 20_000;

/// Policies alive at once: 16 sets of four hooks, each with a revision in force, one that is tried and the last good one. The
/// one that is proved, and the fresh one that is asked the same, find room where some policy has fewer, as most have.
pub const POLICIES_MAX: u32 = 192;

/// Core modules in a component: the plugin, and the two that adapt its imports, with room to spare.
pub const MODULES_MAX: u32 = 8;

/// Tables in a component: the plugin's own and that of the adapter, with room to spare.
pub const TABLES_MAX: u32 = 4;

/// State of one session or room.
pub const STATE_BYTES_MAX: usize = 4 << 10;

/// What a plugin may remember of itself.
pub const MEMO_BYTES_MAX: usize = 64 << 10;

/// What one answer may bring besides its rows: memo, messages, notes.
const ANSWER_BYTES: usize = 256 << 10;

/// What one row of an answer may bring: a state, and a few actions or hops.
const ROW_BYTES: usize = STATE_BYTES_MAX + 512;

/// Calls of `diag` in one call of the plugin. One that talks more than that does nothing else.
pub const DIAG_CALLS_MAX: u32 = 10_000;

/// Actions for one session in one answer: each action the registry has, done and undone, with room for what it will have.
pub(crate) const ACTIONS_PER_ROW_MAX: usize = 16;

/// Explanations kept of one decision: a few for each row that a person will look at.
pub const NOTES_MAX: usize = 256;

/// A key is a word, not a text.
pub const NOTE_KEY_BYTES_MAX: usize = 64;

/// A line for people; a panic's message fits.
pub const LINE_BYTES_MAX: usize = 1 << 10;

/// Log lines a policy may write in one second, after [`LINES_BURST`].
pub const LINES_PER_SECOND: u64 = 10;

/// Log lines a policy may write at once.
pub const LINES_BURST: u64 = 20;

/// Log lines that wait to be fetched.
pub const LINES_WAITING_MAX: usize = 64;

/// Bytes a plugin may hand over while it answers for so many rows.
pub(crate) fn answer_bytes(rows: usize) -> usize {
    ANSWER_BYTES.saturating_add(rows.saturating_mul(ROW_BYTES))
}

/// How long a plugin may take, by call. Past it the call is stopped.
///
/// The defaults are those of the contract. Whoever runs policies in virtual time allows much more, since there a
/// slow machine must not change what is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budgets {
    /// Reading settings. Default 250 ms.
    pub init: Duration,
    /// Learning the catalog. Default 20 ms.
    pub catalog: Duration,
    /// Rewriting states, or the memo, of an older revision. Default 20 ms.
    pub migrate: Duration,
    /// First states of newcomers. Default 5 ms.
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

impl Default for Budgets {
    fn default() -> Self {
        Budgets {
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

/// Guards the memory and tables of one instance, and remembers whether it asked for too much.
#[derive(Default)]
pub(crate) struct Limiter {
    /// Whether memory, or a place in a table, was refused since this was last cleared.
    pub(crate) refused: bool,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= maximum.unwrap_or(MEMORY_BYTES_MAX).min(MEMORY_BYTES_MAX);
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= maximum.unwrap_or(TABLE_ENTRIES_MAX).min(TABLE_ENTRIES_MAX);
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        MODULES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        1
    }
}
