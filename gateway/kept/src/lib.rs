//! Documents that outlive the process: one table in memory, and its followers.
//!
//! Each change of a row gets the next number. A follower has all rows up to a number, and gets those with later ones: the disk, the
//! standby of a group, and the process that replaces this one. A row that changes twice meanwhile is sent once.
//!
//! Records (`records.rs`) are on the disk only, each a row of a table with a column for each field. A document may name files
//! (`files.rs`), which are beside the database.
//!
//! A caller puts a row into the table and goes on. One thread writes the rows to an SQLite database, and
//! acknowledges those for which a caller waits. A disk that is full, slow or broken is reported, and delays no other thread.
//!
//! The database is in WAL mode with `synchronous = FULL`: a transaction is on the disk once it is acknowledged, also after a loss of
//! power. `kill -9` or a loss of power lose the changes of the last [`GATHERED_FOR`], or those that a slow disk has not taken yet,
//! and none of these was acknowledged. Rows without an acknowledgement are gathered, so that they synchronize the disk ten times a
//! second at most. A row with one is written at once, with those that came during the transaction before; a disk that fails is tried
//! ten times a second at most for these.

mod disk;
mod document;
mod exchange;
mod files;
mod records;
mod store;
mod table;

pub use self::disk::{DiskError, GATHERED_FOR, move_aside};
pub use self::document::{Document, EarlierDocument, Encoded, FollowerCopy, Kind, NotDecoded, Row};
pub use self::exchange::{Follower, KeptPart, KeptRow};
pub use self::records::{
    Column, ColumnType, Record, RecordBatch, RecordKeeper, RecordReader, RecordTable,
};
pub use self::store::{Documents, EarlierRead, Store, StoreThread};
