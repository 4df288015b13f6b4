//! The rows in memory, in the order of their changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::document::{FollowerCopy, Kind};
use super::exchange::{Follower, KeptPart, KeptRow};

/// An owner that continues a copy leaves out so many numbers: late writes of the process that had the documents are below its own.
const OWNER_GAP: u64 = 1 << 20;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RowPlace {
    /// The name of the kind.
    pub(crate) kind: &'static str,
    pub(crate) key: Arc<str>,
}

#[derive(Clone, Debug)]
pub(crate) struct TableRow {
    pub(crate) change: u64,
    pub(crate) at_us: u64,
    pub(crate) version: u32,
    pub(crate) value: Arc<str>,
    /// The files that it names, as far as this process has them, by their names.
    pub(crate) files: BTreeMap<Arc<str>, Bytes>,
}

/// A row that is to be written.
#[derive(Debug)]
pub(crate) struct BatchRow {
    pub(crate) place: RowPlace,
    pub(crate) row: TableRow,
}

/// The rows of a kind.
#[derive(Debug)]
struct Rows {
    kind: Kind,
    by_key: BTreeMap<Arc<str>, TableRow>,
    /// Keys by change.
    order: BTreeMap<u64, Arc<str>>,
}

impl Rows {
    fn new(kind: Kind) -> Rows {
        Rows { kind, by_key: BTreeMap::new(), order: BTreeMap::new() }
    }

    fn set(&mut self, key: &Arc<str>, row: TableRow) -> Option<TableRow> {
        let change = row.change;
        let earlier = self.by_key.insert(Arc::clone(key), row);
        earlier.iter().for_each(|earlier| _ = self.order.remove(&earlier.change));
        self.order.insert(change, Arc::clone(key));
        earlier
    }

    fn forget(&mut self, key: &str) -> Option<TableRow> {
        let row = self.by_key.remove(key)?;
        self.order.remove(&row.change);
        Some(row)
    }

    /// Drops the row that changed first, if there are too many.
    fn drop_oldest(&mut self) -> Option<TableRow> {
        let is_beyond = self.order.len() > self.kind.rows_max;
        let (_, key) = is_beyond.then(|| self.order.pop_first()).flatten()?;
        self.by_key.remove(&key)
    }

    fn are_sent(&self) -> bool {
        self.kind.copy != FollowerCopy::None
    }

    fn are_replaced(&self) -> bool {
        self.kind.copy == FollowerCopy::Replaces
    }
}

/// The origin of the rows.
#[derive(Debug)]
enum Origin {
    /// This process, and those before it on this disk.
    Own,
    /// The first copy of another process is under way. Rows at these places were not in it yet.
    Copying { not_copied: BTreeSet<RowPlace> },
    /// Another process.
    Copied,
}

/// The rows of a file of an earlier version: keys and values.
#[derive(Debug)]
pub(crate) struct EarlierRows {
    pub(crate) kind: Kind,
    /// They replace the rows of the disk, if the file is newer.
    pub(crate) replaces: bool,
    /// The Unix time at which the file was written, microseconds.
    pub(crate) written_us: u64,
    pub(crate) rows: Vec<EarlierRow>,
}

/// A row of such a file.
#[derive(Debug)]
pub(crate) struct EarlierRow {
    pub(crate) key: Arc<str>,
    pub(crate) value: Arc<str>,
}

/// The disk may drop rows of the kind that changed before this.
#[derive(Debug)]
pub(crate) struct KindBound {
    pub(crate) kind: &'static str,
    pub(crate) oldest: u64,
}

/// The rows that are to be written.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) rows: Vec<BatchRow>,
    /// Rows of these kinds are removed from the disk before.
    pub(crate) replaced: Vec<&'static str>,
    pub(crate) bounds: Vec<KindBound>,
    pub(crate) change: u64,
    copies: u64,
}

/// All rows.
#[derive(Debug)]
pub(crate) struct Table {
    kinds: BTreeMap<&'static str, Rows>,
    /// Rows of the disk of kinds that are not registered: an owner may begin later, or this version lacks the kind.
    unregistered: BTreeMap<Box<str>, Vec<KeptRow>>,
    /// Places by change.
    order: BTreeMap<u64, RowPlace>,
    /// Rows that are not written yet: the disk may lack files that they name.
    held: BTreeSet<RowPlace>,
    newest: u64,
    /// Increased when rows get earlier changes than those that followers have.
    generation: u64,
    origin: Origin,
    /// The disk has the rows up to this change.
    written: u64,
    /// The number of whole copies of other processes, and how many the disk had when it was last written.
    copies: u64,
    copies_written: u64,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            kinds: BTreeMap::new(),
            unregistered: BTreeMap::new(),
            order: BTreeMap::new(),
            held: BTreeSet::new(),
            newest: 0,
            // That of a new follower is 0.
            generation: 1,
            origin: Origin::Own,
            written: 0,
            copies: 0,
            copies_written: 0,
        }
    }
}

impl Table {
    /// Adds a kind, with the rows that the disk has of it.
    pub(crate) fn register(&mut self, kind: Kind) {
        self.kinds.entry(kind.name).or_insert_with(|| Rows::new(kind));
        let Some(rows) = self.unregistered.remove(kind.name) else { return };
        for KeptRow { key, change, at_us, version, value, .. } in rows {
            let is_taken = self.order.contains_key(&change);
            let change = if is_taken { self.newest + 1 } else { change };
            let files = BTreeMap::new();
            self.set(kind.name, &key, TableRow { change, at_us, version, value, files });
        }
        self.generation += 1;
    }

    /// The rows of a kind in the order of their changes.
    pub(crate) fn rows(
        &self,
        kind: &str,
    ) -> impl DoubleEndedIterator<Item = (&Arc<str>, &TableRow)> {
        let rows = self.kinds.get(kind);
        let keys =
            rows.into_iter().flat_map(|rows| rows.order.values().map(move |key| (rows, key)));
        keys.filter_map(|(rows, key)| Some((key, rows.by_key.get(key)?)))
    }

    pub(crate) fn row(&self, kind: &str, key: &str) -> Option<&TableRow> {
        self.kinds.get(kind)?.by_key.get(key)
    }

    /// Puts a row, and returns the number of the change. A row that is equal already keeps its number. It is held if it gets files that
    /// this process did not have: the disk may have lost them.
    pub(crate) fn put(
        &mut self,
        kind: Kind,
        key: &Arc<str>,
        value: Arc<str>,
        files: BTreeMap<Arc<str>, Bytes>,
        at_us: u64,
    ) -> u64 {
        self.register(kind);
        let here = self.kinds.get_mut(kind.name).and_then(|rows| rows.by_key.get_mut(key));
        if let Some(row) = here
            && row.value == value
            && row.version == kind.version
        {
            let known = row.files.len();
            row.files.extend(files);
            if row.files.len() > known {
                self.held.insert(RowPlace { kind: kind.name, key: Arc::clone(key) });
            }
            return row.change;
        }
        let row = TableRow { change: self.newest + 1, at_us, version: kind.version, value, files };
        self.set(kind.name, key, row);
        self.newest
    }

    /// Sets a row that has the newest change. A row with files is held.
    fn set(&mut self, kind: &'static str, key: &Arc<str>, row: TableRow) {
        let Some(rows) = self.kinds.get_mut(kind) else { return };
        self.newest = self.newest.max(row.change);
        let place = RowPlace { kind, key: Arc::clone(key) };
        let is_held = !row.files.is_empty();
        self.order.insert(row.change, place.clone());
        let earlier = rows.set(key, row);
        // Followers drop the oldest rows themselves.
        let dropped = std::iter::from_fn(|| rows.drop_oldest());
        for row in earlier.into_iter().chain(dropped) {
            let gone = self.order.remove(&row.change);
            gone.iter().for_each(|gone| _ = self.held.remove(gone));
        }
        if is_held {
            self.held.insert(place);
        }
    }

    fn forget(&mut self, place: &RowPlace) {
        let row = self.kinds.get_mut(place.kind).and_then(|rows| rows.forget(&place.key));
        row.into_iter().for_each(|row| _ = self.order.remove(&row.change));
        self.held.remove(place);
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    fn after(&self, change: u64) -> impl Iterator<Item = (&RowPlace, &TableRow)> {
        let places = self.order.range(change.saturating_add(1)..);
        places.filter_map(|(_, place)| Some((place, self.row(place.kind, &place.key)?)))
    }

    // The disk.

    /// Adds the rows of the disk, in the order of their changes, and those of files of earlier versions: of a newer file in place of
    /// the disk's, if it replaces them, and otherwise those with other keys. Rows that are here already stand: they are newer, or those
    /// of the process that this one continues.
    pub(crate) fn add_kept(
        &mut self,
        kept: Vec<KeptRow>,
        mut earlier: Vec<EarlierRows>,
        at_us: u64,
    ) {
        let is_copy = matches!(self.origin, Origin::Copied);
        let stands = |rows: &Rows, key: &str| {
            is_copy && rows.are_replaced() || rows.by_key.contains_key(key)
        };
        let here: Vec<(RowPlace, TableRow)> =
            self.after(0).map(|(place, row)| (place.clone(), row.clone())).collect();
        // Kinds that this version lacks keep their numbers.
        let newest = kept.last().map_or(0, |row| row.change);
        let mut of_disk = Vec::new();
        // The rows of an older file were moved into the database before, and may have changed since.
        earlier.retain(|file| {
            let mut of_kind = kept.iter().filter(|row| *row.kind == *file.kind.name);
            !file.replaces || of_kind.all(|row| row.at_us < file.written_us)
        });
        for row in kept {
            let Some(rows) = self.kinds.get(&*row.kind) else {
                self.unregistered.entry(row.kind.clone()).or_default().push(row);
                continue;
            };
            let replaced_by_file = |file: &EarlierRows| {
                file.replaces && !file.rows.is_empty() && *file.kind.name == *row.kind
            };
            if !stands(rows, &row.key) && !earlier.iter().any(replaced_by_file) {
                of_disk.push((rows.kind.name, row));
            }
        }
        let mut of_files = Vec::new();
        for EarlierRows { kind, rows, .. } in earlier {
            let Some(here) = self.kinds.get(kind.name) else { continue };
            let newer = rows.into_iter().filter(|row| !stands(here, &row.key));
            of_files.extend(newer.map(|row| (kind, row)));
        }
        here.iter().for_each(|(place, _)| self.forget(place));
        self.newest = self.newest.max(newest);
        // Two processes that overlapped gave the same number.
        let mut renumbered = Vec::new();
        for (kind, KeptRow { key, change, at_us, version, value, .. }) in of_disk {
            let row = TableRow { change, at_us, version, value, files: BTreeMap::new() };
            match self.order.contains_key(&change) {
                true => renumbered.push((kind, key, row)),
                false => self.set(kind, &key, row),
            }
        }
        self.written = self.newest;
        for (kind, key, row) in renumbered {
            self.set(kind, &key, TableRow { change: self.newest + 1, ..row });
        }
        for (kind, EarlierRow { key, value }) in of_files {
            if self.row(kind.name, &key).is_none() {
                self.put(kind, &key, value, BTreeMap::new(), at_us);
            }
        }
        for (RowPlace { kind, key }, row) in here {
            self.set(kind, &key, TableRow { change: self.newest + 1, ..row });
        }
        self.generation += 1;
        if is_copy {
            self.written = 0;
        }
    }

    /// This process owns the rows from now on.
    pub(crate) fn begin(&mut self) {
        match self.origin {
            Origin::Own => {}
            Origin::Copying { .. } => self.origin = Origin::Own,
            Origin::Copied => self.newest += OWNER_GAP,
        }
    }

    /// All rows came from another process, and hold in place of those of the disk.
    pub(crate) fn is_copied(&self) -> bool {
        matches!(self.origin, Origin::Copied)
    }

    /// The disk has all rows that may be written.
    pub(crate) fn is_written(&self) -> bool {
        self.written == self.newest && !self.is_disk_replaced()
    }

    /// The disk has all rows.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_written() && self.held.is_empty()
    }

    /// The disk has rows of another origin.
    fn is_disk_replaced(&self) -> bool {
        self.copies != self.copies_written
    }

    /// The disk has another file now, whose rows do not count.
    pub(crate) fn note_other_disk(&mut self) {
        self.written = 0;
        self.copies += 1;
        let with_files = self.after(0).filter(|(_, row)| !row.files.is_empty());
        let with_files = with_files.map(|(place, _)| place.clone()).collect();
        self.held = with_files;
    }

    /// The rows that the disk lacks and that may be written.
    fn unwritten(&self) -> impl Iterator<Item = (&RowPlace, &TableRow)> {
        let rows = self.after(if self.is_disk_replaced() { 0 } else { self.written });
        rows.filter(|(place, _)| !self.held.contains(place))
    }

    /// The kinds of rows that the disk lacks.
    pub(crate) fn unwritten_kinds(&self) -> BTreeSet<&'static str> {
        self.unwritten().map(|(place, _)| place.kind).chain(self.held_kinds()).collect()
    }

    /// The kinds of rows that are held.
    pub(crate) fn held_kinds(&self) -> impl Iterator<Item = &'static str> {
        self.held.iter().map(|place| place.kind)
    }

    /// A row that is held.
    pub(crate) fn next_held(&self) -> Option<(&RowPlace, &TableRow)> {
        let place = self.held.first()?;
        Some((place, self.row(place.kind, &place.key)?))
    }

    /// Lets a row be written that was held at this change: the disk has its files. Returns the number of the change that it has now;
    /// `None` if it was put anew meanwhile.
    pub(crate) fn release(&mut self, place: &RowPlace, change: u64) -> Option<u64> {
        let row = self.row(place.kind, &place.key).filter(|row| row.change == change)?.clone();
        self.set(place.kind, &place.key, TableRow { change: self.newest + 1, ..row });
        self.held.remove(place);
        Some(self.newest)
    }

    /// Up to this many rows that the disk lacks.
    pub(crate) fn batch(&self, rows_max: usize) -> Batch {
        let is_replaced = self.is_disk_replaced();
        // Rows of another origin are replaced at once, or not at all.
        let rows_max = if is_replaced { usize::MAX } else { rows_max };
        let rows = self.unwritten().take(rows_max);
        let rows = rows.map(|(place, row)| BatchRow { place: place.clone(), row: row.clone() });
        let rows: Vec<BatchRow> = rows.collect();
        let is_all = rows.len() < rows_max;
        let last = rows.last().map_or(self.newest, |it| it.row.change);
        // A kind without rows has none beyond its bound: another process may have written some.
        // The row before a held one is on the disk until this one is.
        let held: BTreeSet<_> = self.held_kinds().collect();
        let bounds = self.kinds.values().filter(|rows| !held.contains(rows.kind.name));
        let bounds = bounds.filter_map(|rows| {
            Some(KindBound { kind: rows.kind.name, oldest: *rows.order.keys().next()? })
        });
        let replaced = self.kinds.values().filter(|rows| rows.are_replaced());
        let replaced = replaced.map(|rows| rows.kind.name);
        Batch {
            rows,
            replaced: if is_replaced { replaced.collect() } else { Vec::new() },
            bounds: if is_all { bounds.collect() } else { Vec::new() },
            change: if is_all { self.newest } else { last },
            copies: self.copies,
        }
    }

    pub(crate) fn note_written(&mut self, batch: &Batch) {
        self.copies_written = batch.copies;
        self.written = self.written.max(batch.change).min(self.newest);
    }

    // Followers.

    /// The rows that a follower lacks which has those up to this change.
    fn unsent(&self, change: u64) -> impl Iterator<Item = (&RowPlace, &TableRow)> {
        let is_sent = |place: &RowPlace| self.kinds.get(place.kind).is_some_and(Rows::are_sent);
        self.after(change).filter(move |(place, _)| is_sent(place))
    }

    /// The next part for a follower; `None` if it has all rows.
    pub(crate) fn next_part(&self, follower: &mut Follower, bytes_max: usize) -> Option<KeptPart> {
        let first = follower.generation != self.generation;
        if first {
            *follower = Follower { generation: self.generation, ..Follower::default() };
        }
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut left = self.unsent(follower.change).peekable();
        while bytes < bytes_max
            && let Some((RowPlace { kind, key }, row)) = left.next()
        {
            bytes += row_bytes(key, row);
            rows.push(KeptRow {
                kind: (*kind).into(),
                key: Arc::clone(key),
                change: row.change,
                at_us: row.at_us,
                version: row.version,
                value: Arc::clone(&row.value),
            });
        }
        let has_all = left.peek().is_none();
        let whole = has_all && !follower.is_whole;
        let last = rows.last().map_or(follower.change, |row: &KeptRow| row.change);
        follower.change = if has_all { self.newest } else { last };
        follower.is_whole |= has_all;
        (first || whole || !rows.is_empty()).then_some(KeptPart { first, whole, rows })
    }

    /// The number of parts that bring a follower all rows.
    pub(crate) fn parts_left(&self, follower: &Follower, bytes_max: usize) -> usize {
        let is_new = follower.generation != self.generation;
        let (mut parts, mut bytes) = (usize::from(is_new), 0);
        for (place, row) in self.unsent(if is_new { 0 } else { follower.change }) {
            if bytes == 0 {
                parts += 1;
            }
            bytes += row_bytes(&place.key, row);
            if bytes >= bytes_max {
                bytes = 0;
            }
        }
        parts
    }

    pub(crate) fn has_news(&self, follower: &Follower) -> bool {
        let is_newer = |rows: &Rows| {
            let newest = rows.order.last_key_value();
            rows.are_sent() && newest.is_some_and(|(change, _)| *change > follower.change)
        };
        follower.generation != self.generation || self.kinds.values().any(is_newer)
    }

    /// Adds a part of another process.
    pub(crate) fn add_part(&mut self, part: KeptPart) {
        if part.first {
            let replaced = self.kinds.values().filter(|rows| rows.are_replaced());
            let places = replaced.flat_map(|rows| {
                let kind = rows.kind.name;
                rows.order.values().map(move |key| RowPlace { kind, key: Arc::clone(key) })
            });
            self.origin = Origin::Copying { not_copied: places.collect() };
        }
        for KeptRow { kind, key, change, at_us, version, value } in part.rows {
            // A kind that this version lacks ends with the owner.
            let Some(rows) = self.kinds.get(&*kind) else { continue };
            let (name, is_known) =
                (rows.kind.name, rows.by_key.get(&key).is_some_and(|row| row.value == value));
            if let Origin::Copying { not_copied } = &mut self.origin {
                not_copied.remove(&RowPlace { kind: name, key: Arc::clone(&key) });
            }
            if is_known {
                continue;
            }
            // A late write of the process that sent it does not replace it on the disk.
            let change = change.max(self.newest + 1);
            let files = BTreeMap::new();
            self.set(name, &key, TableRow { change, at_us, version, value, files });
        }
        if part.whole {
            if let Origin::Copying { not_copied } =
                std::mem::replace(&mut self.origin, Origin::Copied)
            {
                not_copied.iter().for_each(|place| self.forget(place));
                self.generation += u64::from(!not_copied.is_empty());
            }
            self.copies += 1;
        }
    }
}

fn row_bytes(key: &str, row: &TableRow) -> usize {
    key.len() + row.value.len() + 64
}
