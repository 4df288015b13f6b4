//! States of a question and its answer: created for new rows, migrated from older revisions, and
//! accepted only if every length and row is valid.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_model::{PluginFault, PluginState};

use crate::bindings::evenkeel::policy::types::{BlobsParam, BlobsResult, Keep};
use crate::guest::Guest;
use crate::limits::{LINE_BYTES_MAX, MEMO_BYTES_MAX, STATE_BYTES_MAX};
use crate::log::one_line;

pub(crate) struct States<'a> {
    plugin: Arc<str>,
    schema: u32,
    rows: Vec<Cow<'a, [u8]>>,
    /// Rows without a state of this plugin.
    newcomers: Vec<u32>,
    /// Rows with states of older revisions, by schema.
    older: BTreeMap<u32, Vec<u32>>,
}

impl<'a> States<'a> {
    /// Sorts rows by the work needed before the plugin can read their states.
    ///
    /// A state of a newer schema, left by a rollback, cannot be read, and its row counts as new.
    pub(crate) fn of(
        plugin: &Arc<str>,
        schema: u32,
        states: impl Iterator<Item = Option<&'a PluginState>>,
    ) -> States<'a> {
        let mut rows = Vec::with_capacity(states.size_hint().0);
        let (mut newcomers, mut older) = (Vec::new(), BTreeMap::new());
        for (row, state) in states.enumerate() {
            let row = row as u32;
            let readable = state.filter(|state| readable(state, plugin, schema));
            match readable {
                None => newcomers.push(row),
                Some(state) if state.schema < schema => {
                    older.entry(state.schema).or_insert_with(Vec::new).push(row);
                }
                Some(_) => {}
            }
            rows.push(
                readable.map_or(Cow::Borrowed(&[][..]), |state| Cow::Borrowed(&*state.bytes)),
            );
        }
        States { plugin: Arc::clone(plugin), schema, rows, newcomers, older }
    }

    /// Rows without a state of this plugin.
    pub(crate) fn newcomers(&self) -> &[u32] {
        &self.newcomers
    }

    /// Sets the first states, in the order of [`newcomers`](States::newcomers).
    pub(crate) fn open(&mut self, first: &BlobsResult) -> Result<(), PluginFault> {
        let newcomers = std::mem::take(&mut self.newcomers);
        self.fill(&newcomers, first, "open")?;
        self.newcomers = newcomers;
        Ok(())
    }

    /// Migrates states of older revisions.
    pub(crate) fn migrate(&mut self, guest: &mut Guest) -> Result<(), PluginFault> {
        let older = std::mem::take(&mut self.older);
        for (&from, rows) in &older {
            let blobs = Blobs::of(rows.iter().map(|&row| &*self.rows[row as usize]));
            let (base, budget) = (guest.base(), guest.engine().budgets().migrate);
            let migrated = guest
                .call(budget, rows.len(), |store| base.call_migrate(store, from, blobs.wire()))?
                .map_err(|said| migration_refused("migrate", from, &said))?;
            self.fill(rows, &migrated, "migrate")?;
        }
        self.older = older;
        Ok(())
    }

    fn fill(&mut self, rows: &[u32], blobs: &BlobsResult, call: &str) -> Result<(), PluginFault> {
        for (&row, bytes) in rows.iter().zip(slices(blobs, rows.len(), call)?) {
            self.rows[row as usize] = Cow::Owned(bytes.to_vec());
        }
        Ok(())
    }

    pub(crate) fn blobs(&self) -> Blobs {
        Blobs::of(self.rows.iter().map(|bytes| &**bytes))
    }

    /// The changed states: those replaced by the plugin, and all new ones.
    pub(crate) fn settle(self, keep: &Keep) -> Result<Vec<(u32, PluginState)>, PluginFault> {
        let new = self.newcomers.iter().chain(self.older.values().flatten());
        let state = |bytes: &[u8]| PluginState {
            plugin: Arc::clone(&self.plugin),
            schema: self.schema,
            bytes: bytes.into(),
        };
        let mut changed = Vec::with_capacity(new.clone().count() + keep.rows.len());
        changed.extend(new.map(|&row| (row, state(&self.rows[row as usize]))));
        let slices = slices(&keep.states, keep.rows.len(), "keep")?;
        for (&row, bytes) in keep.rows.iter().zip(slices) {
            if row as usize >= self.rows.len() {
                let said = format!("keep: row {row} of {} rows", self.rows.len());
                return Err(PluginFault::Malformed(said.into()));
            }
            changed.push((row, state(bytes)));
        }
        // Stable sort, so that the last state of a row wins. Usually the list is sorted already.
        changed.sort_by_key(|(row, _)| *row);
        changed.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Ok(changed)
    }
}

pub(crate) struct Memo<'a> {
    bytes: Cow<'a, [u8]>,
}

impl<'a> Memo<'a> {
    /// The memo for this revision. It is empty if another plugin or a newer revision wrote it.
    pub(crate) fn of(
        memo: Option<&'a PluginState>,
        guest: &mut Guest,
    ) -> Result<Memo<'a>, PluginFault> {
        let component = guest.component().clone();
        let (plugin, schema) = (&component.manifest().name, component.manifest().state_schema);
        let Some(memo) = memo.filter(|memo| readable(memo, plugin, schema)) else {
            return Ok(Memo { bytes: Cow::Borrowed(&[]) });
        };
        if memo.schema == schema {
            return Ok(Memo { bytes: Cow::Borrowed(&memo.bytes) });
        }
        let (base, budget) = (guest.base(), guest.engine().budgets().migrate);
        let migrated = guest
            .call(budget, 0, |store| base.call_migrate_memo(store, memo.schema, &memo.bytes))?
            .map_err(|said| migration_refused("migrate-memo", memo.schema, &said))?;
        Ok(Memo { bytes: Cow::Owned(fitting("migrate-memo", migrated)?) })
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.bytes
    }

    /// The new memo: written by the plugin, or migrated and otherwise unchanged.
    pub(crate) fn settle(
        self,
        new: Option<Vec<u8>>,
        guest: &Guest,
    ) -> Result<Option<PluginState>, PluginFault> {
        let migrated = match self.bytes {
            Cow::Owned(bytes) => Some(bytes),
            Cow::Borrowed(_) => None,
        };
        let new = new.map(|new| fitting("memo", new)).transpose()?;
        let Some(bytes) = new.or(migrated) else { return Ok(None) };
        let manifest = guest.component().manifest();
        let plugin = Arc::clone(&manifest.name);
        Ok(Some(PluginState { plugin, schema: manifest.state_schema, bytes: bytes.into() }))
    }
}

pub(crate) struct Blobs {
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

impl Blobs {
    fn of<'a>(states: impl Iterator<Item = &'a [u8]> + Clone) -> Blobs {
        let offsets = Vec::with_capacity(states.size_hint().0 + 1);
        let bytes = Vec::with_capacity(states.clone().map(<[u8]>::len).sum());
        let mut blobs = Blobs { offsets, bytes };
        blobs.offsets.push(0);
        for state in states {
            blobs.bytes.extend_from_slice(state);
            blobs.offsets.push(blobs.bytes.len() as u32);
        }
        blobs
    }

    pub(crate) fn wire(&self) -> BlobsParam<'_> {
        BlobsParam { offsets: &self.offsets, bytes: &self.bytes }
    }
}

/// A single state written by a plugin.
pub(crate) fn single(guest: &Guest, bytes: Vec<u8>) -> Result<PluginState, PluginFault> {
    if bytes.len() > STATE_BYTES_MAX {
        return Err(too_large("state", 0, bytes.len()));
    }
    let manifest = guest.component().manifest();
    let plugin = Arc::clone(&manifest.name);
    Ok(PluginState { plugin, schema: manifest.state_schema, bytes: bytes.into() })
}

/// Checks the size of a memo written by a plugin.
fn fitting(call: &str, memo: Vec<u8>) -> Result<Vec<u8>, PluginFault> {
    if memo.len() > MEMO_BYTES_MAX {
        let said = format!("{call}: {} bytes, at most {MEMO_BYTES_MAX}", memo.len());
        return Err(PluginFault::Malformed(said.into()));
    }
    Ok(memo)
}

fn readable(state: &PluginState, plugin: &Arc<str>, schema: u32) -> bool {
    state.plugin == *plugin && state.schema <= schema
}

/// Splits and checks a list of states.
fn slices<'a>(
    blobs: &'a BlobsResult,
    rows: usize,
    call: &str,
) -> Result<Vec<&'a [u8]>, PluginFault> {
    let BlobsResult { offsets, bytes } = blobs;
    if rows == 0 && offsets.is_empty() && bytes.is_empty() {
        return Ok(Vec::new());
    }
    let malformed = |said: String| PluginFault::Malformed(format!("{call}: {said}").into());
    if offsets.len() != rows + 1 {
        return Err(malformed(format!(
            "{} offsets for {rows} states, one more is right",
            offsets.len()
        )));
    }
    if offsets[0] != 0 || offsets[rows] as usize != bytes.len() {
        return Err(malformed(format!(
            "offsets from {} to {} for {} bytes",
            offsets[0],
            offsets[rows],
            bytes.len()
        )));
    }
    let slice = |(row, pair): (usize, &[u32])| {
        let (from, to) = (pair[0] as usize, pair[1] as usize);
        match bytes.get(from..to) {
            None => Err(malformed(format!("offsets {from} and then {to} of state {row}"))),
            Some(state) if state.len() > STATE_BYTES_MAX => Err(too_large(call, row, state.len())),
            Some(state) => Ok(state),
        }
    };
    offsets.windows(2).enumerate().map(slice).collect()
}

fn too_large(call: &str, row: usize, bytes: usize) -> PluginFault {
    let said = format!("{call}: state {row} has {bytes} bytes, at most {STATE_BYTES_MAX}");
    PluginFault::Malformed(said.into())
}

fn migration_refused(call: &str, from: u32, said: &str) -> PluginFault {
    let said = one_line(said, LINE_BYTES_MAX);
    PluginFault::Malformed(format!("{call} from schema {from}: {said}").into())
}

#[cfg(test)]
mod tests;
