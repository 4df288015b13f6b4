//! Reads and writes recordings of policy calls: bytes in and out, no I/O, no Wasm.
//!
//! A recording is a [`head`], chunks of [`RecordingEntry`]s and a [`tail`]; `FORMAT.md` beside this crate specifies it. Each
//! [`Chunk`] can be read alone, so that a gateway may drop the oldest ones. A [`RecordingReader`] returns the records of all
//! complete chunks and reports the missing rest. A [`Redactor`] removes addresses from records. [`ReplayState`] holds
//! the states that a replayed plugin writes.

mod call;
mod reader;
mod record;
mod redaction;
mod replay;
mod wire;

pub use call::RecordedGrant;
pub use reader::{LostChunks, ReadError, RecordingReader};
pub use record::{
    Chunk, ChunkFull, RecordedCall, RecordedCatalog, RecordedDecision, RecordedRevision,
    RecordingEntry, RecordingHeader, head, records, tail,
};
pub use redaction::Redactor;
pub use replay::ReplayState;
pub use wire::{FORMAT, InvalidFrame};
