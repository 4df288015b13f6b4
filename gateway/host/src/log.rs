//! Log lines of a plugin, rate-limited, and notes on its decisions.

use std::collections::VecDeque;

use evenkeel_model::DecisionNote;

use crate::limits::{
    LINE_BYTES_MAX, LINES_BURST, LINES_PER_SECOND, LINES_WAITING_MAX, NOTE_KEY_BYTES_MAX, NOTES_MAX,
};

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
    lines: VecDeque<GuestLogLine>,
    suppressed_lines: u64,
    credit: u64,
    credited_us: u64,
    notes: Vec<DecisionNote>,
    last_words: Option<Box<str>>,
}

impl Default for PluginLog {
    fn default() -> Self {
        PluginLog {
            lines: VecDeque::new(),
            suppressed_lines: 0,
            credit: LINES_BURST * US_PER_LINE,
            credited_us: 0,
            notes: Vec::new(),
            last_words: None,
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
        self.last_words = None;
    }

    pub(crate) fn log(&mut self, level: u8, message: &str) {
        let level = LogLevel::from_number(level);
        let words = one_line(message, LINE_BYTES_MAX);
        if level == LogLevel::Error {
            self.last_words = Some(words.clone());
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

    /// The last error logged in this call: the panic's message after a panic.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_words.as_deref()
    }

    pub(crate) fn take_notes(&mut self) -> Vec<DecisionNote> {
        std::mem::take(&mut self.notes)
    }

    pub(crate) fn poll_line(&mut self) -> Option<GuestLogLine> {
        self.lines.pop_front()
    }

    pub(crate) fn suppressed_lines(&self) -> u64 {
        self.suppressed_lines
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

#[cfg(test)]
mod tests;
