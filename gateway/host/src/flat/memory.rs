//! Records of the canonical ABI in a plugin's memory: arguments are written, answers are read, and each access is checked.

use std::iter::StepBy;
use std::ops::Range;

use crate::store::bindings::evenkeel::policy::types::{BlobsParam, BlobsResult, Frame, Label};

/// Breaks of the flat calling convention.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlatError {
    #[error("it has no export `{0}`")]
    NoExport(Box<str>),
    #[error("it has no such function")]
    NoFunction,
    #[error("an address outside of its memory")]
    OutOfBounds,
    #[error("its buffer begins at {0}, which is no multiple of 8")]
    Misaligned(u32),
    #[error("a variant has no case {0}")]
    Tag(u8),
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
}

/// The buffer for arguments. A position counts from its start, where the record of the arguments begins.
pub(super) struct ArgumentWriter<'m> {
    buffer: &'m mut [u8],
    address: u32,
    used: usize,
}

// Every method returns `None` if the buffer is too small.
impl<'m> ArgumentWriter<'m> {
    pub(super) fn new(buffer: &'m mut [u8], address: u32) -> ArgumentWriter<'m> {
        ArgumentWriter { buffer, address, used: 0 }
    }

    /// Takes room, and returns its position.
    pub(super) fn take(&mut self, size: usize, align: usize) -> Option<usize> {
        let at = self.used.next_multiple_of(align);
        let used = at.checked_add(size)?;
        (used <= self.buffer.len()).then(|| {
            self.used = used;
            at
        })
    }

    fn put<const N: usize>(&mut self, at: usize, value: [u8; N]) -> Option<()> {
        *self.buffer.get_mut(at..)?.first_chunk_mut()? = value;
        Some(())
    }

    pub(super) fn word(&mut self, at: usize, value: u32) -> Option<()> {
        self.put(at, value.to_le_bytes())
    }

    pub(super) fn long(&mut self, at: usize, value: u64) -> Option<()> {
        self.put(at, value.to_le_bytes())
    }

    /// Writes address and length of a list at `field`, and returns the position of its items.
    pub(super) fn list(
        &mut self,
        field: usize,
        count: usize,
        item: usize,
        align: usize,
    ) -> Option<usize> {
        let at = self.take(count.checked_mul(item)?, align)?;
        // Positions and counts are below the size of the buffer.
        self.word(field, self.address.wrapping_add(at as u32))?;
        self.word(field + 4, count as u32)?;
        Some(at)
    }

    pub(super) fn bytes(&mut self, field: usize, bytes: &[u8]) -> Option<()> {
        let at = self.list(field, bytes.len(), 1, 1)?;
        self.buffer.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        Some(())
    }

    pub(super) fn words(&mut self, field: usize, words: &[u32]) -> Option<()> {
        let at = self.list(field, words.len(), 4, 4)?;
        let (items, _) = self.buffer.get_mut(at..)?.as_chunks_mut::<4>();
        items.iter_mut().zip(words).for_each(|(item, word)| *item = word.to_le_bytes());
        Some(())
    }

    fn longs(&mut self, field: usize, longs: &[u64]) -> Option<()> {
        let at = self.list(field, longs.len(), 8, 8)?;
        let (items, _) = self.buffer.get_mut(at..)?.as_chunks_mut::<8>();
        items.iter_mut().zip(longs).for_each(|(item, long)| *item = long.to_le_bytes());
        Some(())
    }

    pub(super) fn frame(&mut self, field: usize, frame: &Frame<'_>) -> Option<()> {
        self.longs(field, frame.ids)?;
        self.words(field + 8, frame.cells)
    }

    pub(super) fn blobs(&mut self, field: usize, blobs: &BlobsParam<'_>) -> Option<()> {
        self.words(field, blobs.offsets)?;
        self.bytes(field + 8, blobs.bytes)
    }

    pub(super) fn labels(&mut self, field: usize, labels: &[Label<'_>]) -> Option<()> {
        let list = self.list(field, labels.len(), 16, 4)?;
        for (at, label) in (list..).step_by(16).zip(labels) {
            self.bytes(at, label.key.as_bytes())?;
            self.bytes(at + 8, label.value.as_bytes())?;
        }
        Some(())
    }
}

/// The plugin's memory with an answer. A field is given by the address of its record and its offset there.
pub(super) struct AnswerReader<'m> {
    memory: &'m [u8],
    /// Bytes that the lists of the answer may still have.
    left: usize,
    most: usize,
}

impl<'m> AnswerReader<'m> {
    pub(super) fn new(memory: &'m [u8], most: usize) -> AnswerReader<'m> {
        AnswerReader { memory, left: most, most }
    }

    fn at<const N: usize>(&self, record: u32, field: u32) -> wasmtime::Result<[u8; N]> {
        let at = record as usize + field as usize;
        let found = self.memory.get(at..).and_then(|from| from.first_chunk());
        Ok(*found.ok_or(FlatError::OutOfBounds)?)
    }

    pub(super) fn tag(&self, record: u32, field: u32) -> wasmtime::Result<u8> {
        Ok(u8::from_le_bytes(self.at(record, field)?))
    }

    pub(super) fn word(&self, record: u32, field: u32) -> wasmtime::Result<u32> {
        Ok(u32::from_le_bytes(self.at(record, field)?))
    }

    pub(super) fn long(&self, record: u32, field: u32) -> wasmtime::Result<u64> {
        Ok(u64::from_le_bytes(self.at(record, field)?))
    }

    /// Reads the tag of a `result`.
    pub(super) fn is_err(&self, record: u32) -> wasmtime::Result<bool> {
        match self.tag(record, 0)? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(FlatError::Tag(tag).into()),
        }
    }

    /// The bytes at an address.
    pub(super) fn bytes_at(&mut self, address: u32, size: usize) -> wasmtime::Result<&'m [u8]> {
        self.left = self.left.checked_sub(size).ok_or(FlatError::TooLarge(self.most))?;
        if size == 0 {
            // The address of an empty list means nothing.
            return Ok(&[]);
        }
        let from = self.memory.get(address as usize..);
        Ok(from.and_then(|from| from.get(..size)).ok_or(FlatError::OutOfBounds)?)
    }

    /// The bytes of a list's items.
    fn list(&mut self, record: u32, field: u32, item: usize) -> wasmtime::Result<&'m [u8]> {
        let (address, count) = (self.word(record, field)?, self.word(record, field + 4)?);
        let size = (count as usize).checked_mul(item).ok_or(FlatError::TooLarge(self.most))?;
        self.bytes_at(address, size)
    }

    /// The addresses of a list's records.
    pub(super) fn records(
        &mut self,
        record: u32,
        field: u32,
        item: usize,
    ) -> wasmtime::Result<StepBy<Range<u32>>> {
        let size = self.list(record, field, item)?.len();
        let address = if size == 0 { 0 } else { self.word(record, field)? };
        // The list lies within the memory, whose addresses have 32 bits.
        Ok((address..address + size as u32).step_by(item))
    }

    pub(super) fn bytes(&mut self, record: u32, field: u32) -> wasmtime::Result<Vec<u8>> {
        Ok(self.list(record, field, 1)?.to_vec())
    }

    pub(super) fn text(&mut self, record: u32, field: u32) -> wasmtime::Result<String> {
        Ok(String::from_utf8(self.bytes(record, field)?)?)
    }

    pub(super) fn words(&mut self, record: u32, field: u32) -> wasmtime::Result<Vec<u32>> {
        let (words, _) = self.list(record, field, 4)?.as_chunks::<4>();
        Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    pub(super) fn blobs(&mut self, record: u32, field: u32) -> wasmtime::Result<BlobsResult> {
        let offsets = self.words(record, field)?;
        Ok(BlobsResult { offsets, bytes: self.bytes(record, field + 8)? })
    }
}
