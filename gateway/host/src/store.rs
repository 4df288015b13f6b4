//! The state of the host inside a plugin's store: its log lines and notes, and its limits.

use std::collections::VecDeque;
use std::time::Duration;

use evenkeel_model::DecisionNote;
use wasmtime::{Memory, ResourceLimiter};

use crate::limits::{
    DIAG_CALLS_MAX, LINE_BYTES_MAX, LINES_BURST, LINES_PER_SECOND, LINES_WAITING_MAX,
    LOOKUP_INSTRUCTIONS, MEMORY_BYTES_MAX, MODULES_MAX, NOTE_KEY_BYTES_MAX, NOTES_MAX,
    TABLE_ENTRIES_MAX, TABLES_MAX,
};
use crate::lookup::{DocumentTable, InvalidLookup};

/// The host's side of the contract, generated from `plugin-sdk/wit/policy.wit`.
///
/// The world below exists on this side only: it makes the generator write every hook once. A plugin exports the hooks of
/// its manifest, and each is looked up by name.
#[allow(warnings, reason = "generated")]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        inline: "
            package evenkeel:host;
            world every-hook {
                import evenkeel:policy/diag@0.1.1;
                import evenkeel:policy/data@0.1.1;
                export evenkeel:policy/guest@0.1.1;
                export evenkeel:policy/admission@0.1.1;
                export evenkeel:policy/routing@0.1.1;
                export evenkeel:policy/degradation@0.1.1;
                export evenkeel:policy/scenario@0.1.1;
            }
        ",
        path: "../../plugin-sdk/wit",
        imports: { default: trappable },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use bindings::evenkeel::policy::{data, diag};

/// The level of a plugin's line, as in the contract.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LogLevel {
    /// Details of a decision.
    Trace,
    /// For the plugin's author.
    Debug,
    /// A usual event.
    Info,
    /// The plugin continues, but an operator should look.
    Warn,
    /// Errors include the message of a panic.
    Error,
}

impl LogLevel {
    fn from_number(number: u8) -> LogLevel {
        match number {
            0 => LogLevel::Trace,
            1 => LogLevel::Debug,
            2 => LogLevel::Info,
            3 => LogLevel::Warn,
            _ => LogLevel::Error,
        }
    }
}

/// A line that a plugin logged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestLogLine {
    /// As the plugin gave it.
    pub level: LogLevel,
    /// One line of at most 1 KiB, without control characters.
    pub words: Box<str>,
}

/// Lines and notes of a policy, kept across instances.
pub(crate) struct PluginLog {
    pub(crate) lines: VecDeque<GuestLogLine>,
    pub(crate) suppressed_lines: u64,
    credit: u64,
    credited_us: u64,
    pub(crate) notes: Vec<DecisionNote>,
    /// The last error logged in this call: the panic's message after a panic.
    pub(crate) last_error: Option<Box<str>>,
}

impl Default for PluginLog {
    fn default() -> Self {
        PluginLog {
            lines: VecDeque::new(),
            suppressed_lines: 0,
            credit: LINES_BURST * US_PER_LINE,
            credited_us: 0,
            notes: Vec::new(),
            last_error: None,
        }
    }
}

/// Credit that one line costs.
const US_PER_LINE: u64 = 1_000_000 / LINES_PER_SECOND;

impl PluginLog {
    /// Starts a question: discards the notes of the previous one and adds credit for the time passed.
    pub(crate) fn begin(&mut self, now_us: u64) {
        self.notes.clear();
        let earned = now_us.saturating_sub(self.credited_us);
        self.credited_us = self.credited_us.max(now_us);
        self.credit = self.credit.saturating_add(earned).min(LINES_BURST * US_PER_LINE);
    }

    /// Starts a call. Only notes of a question's last call explain the decision.
    pub(crate) fn begin_call(&mut self) {
        self.notes.clear();
        self.last_error = None;
    }

    pub(crate) fn log(&mut self, level: u8, message: &str) {
        let level = LogLevel::from_number(level);
        let words = one_line(message, LINE_BYTES_MAX);
        if level == LogLevel::Error {
            self.last_error = Some(words.clone());
        }
        if self.credit < US_PER_LINE || self.lines.len() == LINES_WAITING_MAX {
            self.suppressed_lines += 1;
            return;
        }
        self.credit -= US_PER_LINE;
        self.lines.push_back(GuestLogLine { level, words });
    }

    pub(crate) fn note(&mut self, row: u32, key: &str, value: i64) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(DecisionNote { row, key: one_line(key, NOTE_KEY_BYTES_MAX), value });
        }
    }
}

/// The start of a text, with control characters replaced, so that it cannot fake another log line.
pub(crate) fn one_line(text: &str, bytes_max: usize) -> Box<str> {
    let text = &text[..text.floor_char_boundary(bytes_max)];
    // Fast path: keys of notes come with every decision.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.into();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Default)]
pub(crate) struct StoreData {
    pub(crate) log: PluginLog,
    /// Set if memory or a table entry was refused since this was last cleared.
    pub(crate) memory_refused: bool,
    /// Size of the instance's one memory.
    pub(crate) memory_bytes: usize,
    pub(crate) diag_calls: u32,
    pub(crate) documents: DocumentTable,
    /// Instructions that lookups count as, since the instance was created.
    pub(crate) lookup_instructions: u64,
    /// The memory of an instance that is called flat, once it exists.
    pub(crate) memory: Option<Memory>,
    /// Bytes that the plugin may return in one answer.
    pub(crate) answer_bytes: usize,
    /// The thread's processor time at which the call is stopped, if its budget is [`CallBudget::Processor`].
    pub(crate) processor_until: Option<Duration>,
    /// Processor time that the call gets at its deadline, if its budget is [`CallBudget::Patient`].
    pub(crate) patience: Option<Duration>,
}

impl StoreData {
    pub(crate) fn count_diag(&mut self) -> wasmtime::Result<()> {
        self.diag_calls += 1;
        if self.diag_calls > DIAG_CALLS_MAX { Err(TooManyDiagCalls.into()) } else { Ok(()) }
    }
}

impl diag::Host for StoreData {
    fn log(&mut self, level: u8, message: String) -> wasmtime::Result<()> {
        self.count_diag()?;
        self.log.log(level, &message);
        Ok(())
    }

    fn note(&mut self, row: u32, key: String, value: i64) -> wasmtime::Result<()> {
        self.count_diag()?;
        self.log.note(row, &key, value);
        Ok(())
    }
}

impl data::Host for StoreData {
    fn lookup(&mut self, document: String, path: Vec<String>) -> wasmtime::Result<Option<String>> {
        InvalidLookup::check(path.len(), path.iter().map(String::len).sum())?;
        let found = self.documents.lookup(&document, &path)?;
        let bytes = found.as_ref().map_or(0, String::len) as u64;
        self.lookup_instructions += LOOKUP_INSTRUCTIONS + bytes;
        Ok(found)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("more than {DIAG_CALLS_MAX} calls of `diag` in one call")]
pub(crate) struct TooManyDiagCalls;

/// Limits memory and tables of one instance.
impl ResourceLimiter for StoreData {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= maximum.unwrap_or(MEMORY_BYTES_MAX).min(MEMORY_BYTES_MAX);
        self.memory_refused |= !allowed;
        if allowed {
            self.memory_bytes = desired;
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= maximum.unwrap_or(TABLE_ENTRIES_MAX).min(TABLE_ENTRIES_MAX);
        self.memory_refused |= !allowed;
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

#[cfg(test)]
mod tests;
