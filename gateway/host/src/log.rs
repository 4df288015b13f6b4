//! What a plugin says: log lines, a few per second, and notes on the decision being made.

use std::collections::VecDeque;

use evenkeel_core::Note;

use crate::limits::{
    LINE_BYTES_MAX, LINES_BURST, LINES_PER_SECOND, LINES_WAITING_MAX, NOTE_KEY_BYTES_MAX, NOTES_MAX,
};

/// How much a log line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Every step.
    Trace,
    /// What an author wants to see.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed; a panic's message comes as one.
    Error,
}

impl Level {
    fn from_number(number: u8) -> Level {
        match number {
            0 => Level::Trace,
            1 => Level::Debug,
            2 => Level::Info,
            3 => Level::Warn,
            _ => Level::Error,
        }
    }
}

/// A log line of a plugin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// One line of at most 1 KiB, without control characters.
    pub words: Box<str>,
}

/// What a policy has said; it outlives the instance that said it.
pub(crate) struct Diary {
    lines: VecDeque<Line>,
    unsaid: u64,
    credit: u64,
    credited_us: u64,
    notes: Vec<Note>,
    last_words: Option<Box<str>>,
}

impl Default for Diary {
    fn default() -> Self {
        Diary {
            lines: VecDeque::new(),
            unsaid: 0,
            credit: LINES_BURST * US_PER_LINE,
            credited_us: 0,
            notes: Vec::new(),
            last_words: None,
        }
    }
}

/// The credit that one line costs.
const US_PER_LINE: u64 = 1_000_000 / LINES_PER_SECOND;

impl Diary {
    /// A new question: notes on the last one go, and time earns credit for lines.
    pub(crate) fn begin(&mut self, now_us: u64) {
        self.notes.clear();
        let earned = now_us.saturating_sub(self.credited_us);
        self.credited_us = self.credited_us.max(now_us);
        self.credit = self.credit.saturating_add(earned).min(LINES_BURST * US_PER_LINE);
    }

    /// A new call of the plugin. Only notes of the last call of a question explain the decision.
    pub(crate) fn begin_call(&mut self) {
        self.notes.clear();
        self.last_words = None;
    }

    pub(crate) fn log(&mut self, level: u8, message: &str) {
        let level = Level::from_number(level);
        let words = one_line(message, LINE_BYTES_MAX);
        if level == Level::Error {
            self.last_words = Some(words.clone());
        }
        if self.credit < US_PER_LINE || self.lines.len() == LINES_WAITING_MAX {
            self.unsaid += 1;
            return;
        }
        self.credit -= US_PER_LINE;
        self.lines.push_back(Line { level, words });
    }

    pub(crate) fn note(&mut self, row: u32, key: &str, value: i64) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(Note { row, key: one_line(key, NOTE_KEY_BYTES_MAX), value });
        }
    }

    /// The last error that the plugin told of in this call: a panic's message, if it panicked.
    pub(crate) fn last_words(&self) -> Option<&str> {
        self.last_words.as_deref()
    }

    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(crate) fn poll_line(&mut self) -> Option<Line> {
        self.lines.pop_front()
    }

    pub(crate) fn unsaid(&self) -> u64 {
        self.unsaid
    }
}

/// The beginning of a text, with nothing in it that could look like another line of a log.
pub(crate) fn one_line(text: &str, bytes_max: usize) -> Box<str> {
    let text = &text[..text.floor_char_boundary(bytes_max)];
    // Keys of notes are such words, and come with every decision.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.into();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(diary: &mut Diary) -> usize {
        std::iter::from_fn(|| diary.poll_line()).count()
    }

    #[test]
    fn a_talkative_plugin_is_cut_short_and_heard_again_later() {
        let mut diary = Diary::default();
        diary.begin(1_000_000);
        for _ in 0..LINES_BURST + 5 {
            diary.log(2, "again");
        }
        assert_eq!(said(&mut diary) as u64, LINES_BURST);
        assert_eq!(diary.unsaid(), 5);

        diary.begin(1_000_000 + US_PER_LINE - 1);
        diary.log(2, "too early");
        assert_eq!(said(&mut diary), 0);

        diary.begin(1_000_000 + US_PER_LINE);
        diary.log(2, "now");
        diary.log(2, "and no more");
        assert_eq!(said(&mut diary), 1);
    }

    #[test]
    fn lines_that_nobody_fetches_do_not_pile_up() {
        let mut diary = Diary::default();
        for second in 0..100 {
            diary.begin(second * 10_000_000);
            diary.log(4, "alone");
        }
        assert_eq!(said(&mut diary), LINES_WAITING_MAX);
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(&*one_line("a\nb\u{1b}[2Jc", 100), "a b [2Jc");
        assert_eq!(&*one_line("aé", 2), "a");
    }

    #[test]
    fn notes_of_one_decision_are_bounded_and_do_not_reach_the_next() {
        let mut diary = Diary::default();
        for row in 0..NOTES_MAX as u32 + 1 {
            diary.note(row, "why", 1);
        }
        assert_eq!(diary.take_notes().len(), NOTES_MAX);
        diary.note(0, "why", 1);
        diary.begin_call();
        assert!(diary.take_notes().is_empty());
    }
}
