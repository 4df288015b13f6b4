//! Reads and writes recordings of policy calls: bytes in and out, no I/O, no Wasm.
//!
//! A recording is a [`head`], chunks of [`Record`]s and a [`tail`]; `FORMAT.md` beside this crate specifies it. Each
//! [`Chunk`] can be read alone, so that a gateway may drop the oldest ones. A [`Reader`] returns the records of all
//! complete chunks and reports the missing rest. A [`Redactor`] removes addresses from records. [`ReplayState`] holds
//! the states that a replayed plugin writes.

mod address;
mod answer;
mod chunk;
mod frame;
mod header;
mod question;
mod reader;
mod record;
mod redaction;
mod replay;
mod revision;
mod table;
mod wire;

pub use chunk::{Chunk, Full, records};
pub use frame::{FORMAT, MAGIC};
pub use header::{Header, head, tail};
pub use reader::{Lost, Reader, Unreadable};
pub use record::{Call, Decided, Record};
pub use redaction::Redactor;
pub use replay::ReplayState;
pub use revision::{Catalog, Grant, Revision};
pub use wire::Malformed;
