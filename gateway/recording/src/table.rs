//! The string table of a chunk: repeated texts, label sets and states are written once; records refer to them by
//! number.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_model::{Labels, PluginState};

use crate::wire::{FrameInput, InvalidFrame, malformed, put, put_bytes};

/// The table of a chunk being filled.
#[derive(Default)]
pub(crate) struct ChunkTable {
    numbers: HashMap<Box<[u8]>, u64>,
    bytes: Vec<u8>,
    /// Label sets of the current question, by pointer: rows share them.
    labels: HashMap<usize, u64>,
}

impl ChunkTable {
    /// Starts a question. Label pointers of the last one are now invalid.
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
        let pointer = labels.as_ptr() as usize;
        let number = match self.labels.get(&pointer) {
            // All empty label sets share one dangling pointer.
            Some(&number) if !labels.is_empty() => number,
            _ => {
                let mut written = Vec::new();
                write_labels(&mut written, labels);
                let number = self.number_of(&written);
                self.labels.insert(pointer, number);
                number
            }
        };
        put(out, number);
    }

    /// Appends a state: 0 for none; otherwise the number of the plugin's name plus 1, the schema and the bytes.
    pub(crate) fn put_state(&mut self, out: &mut Vec<u8>, state: Option<&PluginState>) {
        let Some(PluginState { plugin, schema, bytes }) = state else {
            put(out, 0);
            return;
        };
        let plugin = self.number_of(plugin.as_bytes());
        put(out, plugin + 1);
        put(out, u64::from(*schema));
        self.put(out, bytes);
    }

    /// Returns the current size, for [`ChunkTable::truncate`].
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.numbers.len(), self.bytes.len())
    }

    /// Removes the entries added since [`ChunkTable::mark`].
    pub(crate) fn truncate(&mut self, (count, bytes): (usize, usize)) {
        self.numbers.retain(|_, number| *number < count as u64);
        self.bytes.truncate(bytes);
        self.labels.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the table, which precedes the records.
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

type LabelPairs = Vec<(Box<str>, Box<str>)>;

pub(crate) fn read_labels(read: &mut FrameInput<'_>) -> Result<LabelPairs, InvalidFrame> {
    let count = read.count("labels")?;
    let mut labels = Vec::with_capacity(count);
    for _ in 0..count {
        labels.push((read.text("label")?.into(), read.text("label")?.into()));
    }
    Ok(labels)
}

/// The table of a chunk being read.
pub(crate) struct TableReader<'a> {
    all: Vec<&'a [u8]>,
    texts: HashMap<u64, Arc<str>>,
    labels: HashMap<u64, Labels>,
}

impl<'a> TableReader<'a> {
    pub(crate) fn read(read: &mut FrameInput<'a>) -> Result<TableReader<'a>, InvalidFrame> {
        let count = read.count("table")?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(read.bytes("table")?);
        }
        Ok(TableReader { all, texts: HashMap::new(), labels: HashMap::new() })
    }

    fn at(&self, number: u64, part: &'static str) -> Result<&'a [u8], InvalidFrame> {
        let index = usize::try_from(number).ok();
        index.and_then(|index| self.all.get(index)).copied().ok_or_else(|| {
            malformed(part, format!("number {number} of a table of {}", self.all.len()))
        })
    }

    pub(crate) fn bytes(
        &self,
        read: &mut FrameInput<'_>,
        part: &'static str,
    ) -> Result<Box<[u8]>, InvalidFrame> {
        let bytes = self.at(read.number(part)?, part)?;
        read.charge(part, bytes.len())?;
        Ok(bytes.into())
    }

    /// Returns a text that all references share.
    pub(crate) fn text(
        &mut self,
        read: &mut FrameInput<'_>,
        part: &'static str,
    ) -> Result<Arc<str>, InvalidFrame> {
        let number = read.number(part)?;
        self.text_at(number, part)
    }

    fn text_at(&mut self, number: u64, part: &'static str) -> Result<Arc<str>, InvalidFrame> {
        if let Some(text) = self.texts.get(&number) {
            return Ok(Arc::clone(text));
        }
        let bytes = self.at(number, part)?;
        let text = std::str::from_utf8(bytes).map_err(|_| malformed(part, "invalid UTF-8"))?;
        let text: Arc<str> = text.into();
        self.texts.insert(number, Arc::clone(&text));
        Ok(text)
    }

    pub(crate) fn own_text(
        &mut self,
        read: &mut FrameInput<'_>,
        part: &'static str,
    ) -> Result<Box<str>, InvalidFrame> {
        let text = self.text(read, part)?;
        read.charge(part, text.len())?;
        Ok((*text).into())
    }

    pub(crate) fn labels(&mut self, read: &mut FrameInput<'_>) -> Result<Labels, InvalidFrame> {
        let number = read.number("labels")?;
        if let Some(labels) = self.labels.get(&number) {
            return Ok(Arc::clone(labels));
        }
        let mut inside = FrameInput::new(self.at(number, "labels")?);
        let labels: Labels = read_labels(&mut inside)?.into();
        if !inside.is_empty() {
            return Err(malformed("labels", "bytes after the labels"));
        }
        self.labels.insert(number, Arc::clone(&labels));
        Ok(labels)
    }

    pub(crate) fn state(
        &mut self,
        read: &mut FrameInput<'_>,
    ) -> Result<Option<PluginState>, InvalidFrame> {
        let Some(plugin) = read.number("state")?.checked_sub(1) else { return Ok(None) };
        let plugin = self.text_at(plugin, "state")?;
        let schema = read.small("state")?;
        let bytes = self.bytes(read, "state")?;
        Ok(Some(PluginState { plugin, schema, bytes }))
    }

    pub(crate) fn some_state(
        &mut self,
        read: &mut FrameInput<'_>,
    ) -> Result<PluginState, InvalidFrame> {
        self.state(read)?.ok_or_else(|| malformed("state", "missing"))
    }
}
