//! What a chunk says more than once is written once: words, labels, states, by number.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_core::{Labels, State};

use crate::wire::{In, Malformed, malformed, put, put_bytes};

/// The words and bytes of a chunk that is being filled.
#[derive(Default)]
pub(crate) struct Table {
    numbers: HashMap<Box<[u8]>, u64>,
    bytes: Vec<u8>,
    /// Labels by where they are, for as long as one question lasts: rows share them.
    labels: HashMap<usize, u64>,
}

impl Table {
    /// A new question: labels may be elsewhere.
    pub(crate) fn begin(&mut self) {
        self.labels.clear();
    }

    pub(crate) fn number_of(&mut self, bytes: &[u8]) -> u64 {
        if let Some(&number) = self.numbers.get(bytes) {
            return number;
        }
        let number = self.numbers.len() as u64;
        self.numbers.insert(bytes.into(), number);
        put_bytes(&mut self.bytes, bytes);
        number
    }

    pub(crate) fn put(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let number = self.number_of(bytes);
        put(out, number);
    }

    pub(crate) fn put_labels(&mut self, out: &mut Vec<u8>, labels: &Labels) {
        let place = labels.as_ptr() as usize;
        let number = match self.labels.get(&place) {
            // No labels at all are nowhere.
            Some(&number) if !labels.is_empty() => number,
            _ => {
                let mut written = Vec::new();
                write_labels(&mut written, labels);
                let number = self.number_of(&written);
                self.labels.insert(place, number);
                number
            }
        };
        put(out, number);
    }

    /// 0 is none; else the plugin's name and one more, its schema, its bytes.
    pub(crate) fn put_state(&mut self, out: &mut Vec<u8>, state: Option<&State>) {
        let Some(State { plugin, schema, bytes }) = state else {
            put(out, 0);
            return;
        };
        let plugin = self.number_of(plugin.as_bytes());
        put(out, plugin + 1);
        put(out, u64::from(*schema));
        self.put(out, bytes);
    }

    /// How far it is, for [`Table::go_back`].
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.numbers.len(), self.bytes.len())
    }

    /// What was put in since is gone.
    pub(crate) fn go_back(&mut self, (count, bytes): (usize, usize)) {
        self.numbers.retain(|_, number| *number < count as u64);
        self.bytes.truncate(bytes);
        self.labels.clear();
    }

    /// How many bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The table as it stands before the records.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put(out, self.numbers.len() as u64);
        out.extend_from_slice(&self.bytes);
    }
}

pub(crate) fn write_labels(out: &mut Vec<u8>, labels: &[(Box<str>, Box<str>)]) {
    put(out, labels.len() as u64);
    for (key, value) in labels {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

/// Keys and values.
type Pairs = Vec<(Box<str>, Box<str>)>;

pub(crate) fn read_labels(read: &mut In<'_>) -> Result<Pairs, Malformed> {
    let count = read.count("labels")?;
    let mut labels = Vec::with_capacity(count);
    for _ in 0..count {
        labels.push((read.text("label")?.into(), read.text("label")?.into()));
    }
    Ok(labels)
}

/// The words and bytes of a chunk that is read.
pub(crate) struct Words<'a> {
    all: Vec<&'a [u8]>,
    texts: HashMap<u64, Arc<str>>,
    labels: HashMap<u64, Labels>,
}

impl<'a> Words<'a> {
    pub(crate) fn read(read: &mut In<'a>) -> Result<Words<'a>, Malformed> {
        let count = read.count("table")?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(read.bytes("table")?);
        }
        Ok(Words { all, texts: HashMap::new(), labels: HashMap::new() })
    }

    fn at(&self, number: u64, part: &'static str) -> Result<&'a [u8], Malformed> {
        let place = usize::try_from(number).ok();
        place.and_then(|place| self.all.get(place)).copied().ok_or_else(|| {
            malformed(part, format!("number {number} of a table of {}", self.all.len()))
        })
    }

    pub(crate) fn bytes(
        &self,
        read: &mut In<'_>,
        part: &'static str,
    ) -> Result<Box<[u8]>, Malformed> {
        let bytes = self.at(read.number(part)?, part)?;
        read.weigh(part, bytes.len())?;
        Ok(bytes.into())
    }

    /// A word, shared with all that say the same.
    pub(crate) fn text(
        &mut self,
        read: &mut In<'_>,
        part: &'static str,
    ) -> Result<Arc<str>, Malformed> {
        let number = read.number(part)?;
        self.text_at(number, part)
    }

    fn text_at(&mut self, number: u64, part: &'static str) -> Result<Arc<str>, Malformed> {
        if let Some(text) = self.texts.get(&number) {
            return Ok(Arc::clone(text));
        }
        let bytes = self.at(number, part)?;
        let text = std::str::from_utf8(bytes).map_err(|_| malformed(part, "what is no UTF-8"))?;
        let text: Arc<str> = text.into();
        self.texts.insert(number, Arc::clone(&text));
        Ok(text)
    }

    /// A word that is not shared.
    pub(crate) fn own_text(
        &mut self,
        read: &mut In<'_>,
        part: &'static str,
    ) -> Result<Box<str>, Malformed> {
        let text = self.text(read, part)?;
        read.weigh(part, text.len())?;
        Ok((*text).into())
    }

    pub(crate) fn labels(&mut self, read: &mut In<'_>) -> Result<Labels, Malformed> {
        let number = read.number("labels")?;
        if let Some(labels) = self.labels.get(&number) {
            return Ok(Arc::clone(labels));
        }
        let mut inside = In::new(self.at(number, "labels")?);
        let labels: Labels = read_labels(&mut inside)?.into();
        if !inside.is_empty() {
            return Err(malformed("labels", "more than labels"));
        }
        self.labels.insert(number, Arc::clone(&labels));
        Ok(labels)
    }

    pub(crate) fn state(&mut self, read: &mut In<'_>) -> Result<Option<State>, Malformed> {
        let Some(plugin) = read.number("state")?.checked_sub(1) else { return Ok(None) };
        let plugin = self.text_at(plugin, "state")?;
        let schema = read.small("state")?;
        let bytes = self.bytes(read, "state")?;
        Ok(Some(State { plugin, schema, bytes }))
    }

    pub(crate) fn some_state(&mut self, read: &mut In<'_>) -> Result<State, Malformed> {
        self.state(read)?.ok_or_else(|| malformed("state", "none, where there is always one"))
    }
}
