//! Writes down what policies were asked and what they said, and reads it back: bytes in and out, no I/O, no Wasm.
//!
//! A recording is a [`head`], chunks of [`Record`]s and a [`tail`], one after the other; `FORMAT.md` beside this crate
//! says every byte. A [`Chunk`] is filled and closed; each stands by itself, so that a gateway may drop the oldest ones.
//! A [`Reader`] goes through a whole recording, and where it is cut off or broken it gives what is whole and says what is
//! lost. A [`Redactor`] takes addresses out of records on their way into a file. Who is asked again keeps what it wrote in
//! [`Written`].

mod address;
mod answer;
mod chunk;
mod frame;
mod header;
mod question;
mod reader;
mod record;
mod redaction;
mod revision;
mod table;
mod wire;
mod replay;

pub use chunk::{Chunk, Full, records};
pub use frame::{FORMAT, MAGIC};
pub use header::{Header, head, tail};
pub use reader::{Lost, Reader, Unreadable};
pub use record::{Call, Decided, Record};
pub use redaction::Redactor;
pub use revision::{Catalog, Grant, Revision};
pub use wire::Malformed;
pub use replay::Written;
