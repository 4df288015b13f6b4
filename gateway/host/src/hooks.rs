//! Translates questions of the core to calls of the contract, and the answers back, with their states.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{
    AdmitVerdict, DegradationAction, Hook, HookAnswer, Labels, NodeId, Op, PluginFault,
    PluginState, PolicyQuestion, RegionId, RoomId, RoomRow, RoutingMove, Row, SessionRow,
};

use crate::arguments::{AdmitArguments, Blobs, PlaceArguments, RerouteArguments, TickArguments};
use crate::guest::{Guest, labels};
use crate::limits::{ACTIONS_PER_ROW_MAX, LINE_BYTES_MAX, MEMO_BYTES_MAX, STATE_BYTES_MAX};
use crate::manifest::Manifest;
use crate::store::bindings::evenkeel::policy::types::{BlobsResult, Keep};
use crate::store::bindings::exports::evenkeel::policy::{admission, degradation, routing};
use crate::store::one_line;

/// Padding in a table of routes, for rooms with fewer hops than the widest.
const NO_NODE: u32 = u32::MAX;

impl Guest {
    /// Asks the plugin. A question of a hook that this instance does not implement is
    /// [`PluginFault::Absent`].
    pub(crate) fn answer(
        &mut self,
        question: &PolicyQuestion,
        now_us: u64,
    ) -> Result<HookAnswer, PluginFault> {
        match question {
            PolicyQuestion::Resolve { scenario, labels } => self.resolve(scenario, labels),
            PolicyQuestion::Admit { session, room, standing, scenario, labels, regions } => {
                let newcomer = (session.0, *room, *standing);
                self.admit(now_us, newcomer, scenario, labels, regions)
            }
            PolicyQuestion::Place { room, scenario, labels, nodes } => {
                self.place(now_us, *room, scenario, labels, nodes)
            }
            PolicyQuestion::Reroute { nodes, rooms, memo } => {
                let rooms: Vec<&RoomRow> = rooms.iter().collect();
                self.reroute(now_us, nodes, &rooms, memo.as_ref(), self.engine.0.budgets.reroute)
            }
            PolicyQuestion::Tick { sessions, memo } => {
                let sessions: Vec<&SessionRow> = sessions.iter().collect();
                self.tick(now_us, &sessions, memo.as_ref(), self.engine.0.budgets.tick)
            }
        }
    }

    /// Asks about some rows of a batch as if the batch had no others. Row numbers in the answer are relative to them.
    /// Only batches have rows.
    pub(crate) fn answer_part(
        &mut self,
        question: &PolicyQuestion,
        part: &[u32],
        memo: Option<&PluginState>,
        budget: Duration,
        now_us: u64,
    ) -> Result<HookAnswer, PluginFault> {
        match question {
            PolicyQuestion::Reroute { nodes, rooms, .. } => {
                let rooms: Vec<&RoomRow> = part.iter().map(|&row| &rooms[row as usize]).collect();
                self.reroute(now_us, nodes, &rooms, memo, budget)
            }
            PolicyQuestion::Tick { sessions, .. } => {
                let rows = part.iter().map(|&row| &sessions[row as usize]);
                self.tick(now_us, &rows.collect::<Vec<_>>(), memo, budget)
            }
            _ => self.answer(question, now_us),
        }
    }

    /// A state of this revision.
    fn state(&self, bytes: Vec<u8>) -> PluginState {
        let Manifest { name, state_schema: schema, .. } = &self.component.0.manifest;
        PluginState { plugin: Arc::clone(name), schema: *schema, bytes: bytes.into() }
    }

    fn resolve(&mut self, scenario: &str, of: &Labels) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Scenario)?;
        let budget = self.engine.0.budgets.resolve;
        let of = labels(of);
        let params =
            self.call("resolve", budget, 0, |calls, store| calls.resolve(store, scenario, &of))?;
        Ok(HookAnswer::Params(
            params.into_iter().map(|param| (param.key.into(), param.value)).collect(),
        ))
    }

    fn admit(
        &mut self,
        now_us: u64,
        (session, room, standing): (u64, RoomId, Option<RegionId>),
        scenario: &str,
        of: &Labels,
        regions: &[Row],
    ) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Admission)?;
        let budget = self.engine.0.budgets.admit;
        let mut frame = std::mem::take(&mut self.tables[0]);
        frame.fill(&self.grant.node_metrics, regions.iter());
        let labels = &labels(of);
        let standing = standing.map(|region| u64::from(region.0));
        let regions = frame.wire();
        let asked =
            AdmitArguments { now_us, session, room: room.0, standing, scenario, labels, regions };
        let answer = self.call("admit", budget, 0, |calls, store| calls.admit(store, asked));
        self.tables[0] = frame;
        let answer = answer?;
        let verdict = match answer.verdict {
            admission::Verdict::Abstain => AdmitVerdict::Abstain,
            admission::Verdict::Accept => AdmitVerdict::Accept,
            admission::Verdict::AcceptCapped(kbps) => AdmitVerdict::AcceptCapped(kbps),
            admission::Verdict::Redirect(region) => match u32::try_from(region) {
                Ok(region) => AdmitVerdict::Redirect(RegionId(region)),
                Err(_) => {
                    return Err(PluginFault::Malformed(format!("admit: region {region}").into()));
                }
            },
            admission::Verdict::Reject(retry_ms) => AdmitVerdict::Reject(retry_ms),
        };
        Ok(HookAnswer::Admit { verdict, reason: answer.reason })
    }

    fn place(
        &mut self,
        now_us: u64,
        room: RoomId,
        scenario: &str,
        of: &Labels,
        nodes: &[Row],
    ) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Routing)?;
        let budget = self.engine.0.budgets.place;
        let mut frame = std::mem::take(&mut self.tables[0]);
        frame.fill(&self.grant.node_metrics, nodes.iter());
        let labels = &labels(of);
        let asked = PlaceArguments { now_us, room: room.0, scenario, labels, nodes: frame.wire() };
        let rows = nodes.len();
        let placement = self.call("place", budget, rows, |calls, store| calls.place(store, asked));
        self.tables[0] = frame;
        let placement = placement?;
        Ok(HookAnswer::Placed {
            hops: placement.hops.into_iter().map(NodeId).collect(),
            ttl_ms: placement.ttl_ms,
            reason: placement.reason,
            state: single(self, placement.state)?,
        })
    }

    fn reroute(
        &mut self,
        now_us: u64,
        nodes: &[Row],
        rooms: &[&RoomRow],
        memo: Option<&PluginState>,
        budget: Duration,
    ) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Routing)?;
        let manifest = &self.component.0.manifest;
        let before = rooms.iter().map(|room| room.state.as_ref());
        let mut states = QuestionStates::of(&manifest.name, manifest.state_schema, before);
        states.migrate(self)?;
        if !states.newcomers.is_empty() {
            let rows = || states.newcomers.iter().map(|&row| rooms[row as usize]);
            let known: Vec<_> = rows().map(|room| labels(&room.labels)).collect();
            let newcomers: Vec<_> = rows()
                .zip(&known)
                .map(|(room, labels)| routing::Newcomer {
                    room: room.row.id,
                    scenario: &room.scenario,
                    labels,
                })
                .collect();
            let open = self.engine.0.budgets.open;
            let first = self.call("open", open, newcomers.len(), |calls, store| {
                calls.open_rooms(store, &newcomers)
            })?;
            states.open(&first)?;
        }
        let memo = Memo::of(memo, self)?;

        let width = rooms.iter().map(|room| room.standing.len()).max().unwrap_or(0);
        let mut standing = Vec::with_capacity(width * rooms.len());
        for room in rooms {
            standing.extend(room.standing.iter().map(|node| node.0));
            standing.resize(standing.len() + width - room.standing.len(), NO_NODE);
        }
        let [mut node_frame, mut room_frame] = std::mem::take(&mut self.tables);
        node_frame.fill(&self.grant.node_metrics, nodes.iter());
        room_frame.fill(&self.grant.subject_metrics, rooms.iter().map(|room| &room.row));
        let mut blobs = std::mem::take(&mut self.blobs);
        blobs.fill(states.bytes());
        let asked = RerouteArguments {
            now_us,
            nodes: node_frame.wire(),
            rooms: room_frame.wire(),
            width: width as u32,
            standing: &standing,
            states: blobs.wire(),
            memo: memo.wire(),
        };
        let answer =
            self.call("reroute", budget, rooms.len(), |calls, store| calls.reroute(store, asked));
        (self.tables, self.blobs) = ([node_frame, room_frame], blobs);
        let answer = answer?;
        // Each room moves once. The core counts repetitions, up to a limit.
        proportionate("reroute", "moves", answer.moves.len(), 2 * rooms.len())?;
        let moves = answer.moves.into_iter().map(|routing::Move { row, hops, ttl_ms, reason }| {
            RoutingMove { row, hops: hops.into_iter().map(NodeId).collect(), ttl_ms, reason }
        });
        Ok(HookAnswer::Moves {
            moves: moves.collect(),
            states: states.settle(&answer.keep)?,
            memo: memo.settle(answer.keep.memo, self)?,
        })
    }

    fn tick(
        &mut self,
        now_us: u64,
        sessions: &[&SessionRow],
        memo: Option<&PluginState>,
        budget: Duration,
    ) -> Result<HookAnswer, PluginFault> {
        self.answers(Hook::Degradation)?;
        let manifest = &self.component.0.manifest;
        let before = sessions.iter().map(|session| session.state.as_ref());
        let mut states = QuestionStates::of(&manifest.name, manifest.state_schema, before);
        states.migrate(self)?;
        if !states.newcomers.is_empty() {
            let rows = || states.newcomers.iter().map(|&row| sessions[row as usize]);
            let known: Vec<_> = rows().map(|session| labels(&session.labels)).collect();
            let newcomers: Vec<_> = rows()
                .zip(&known)
                .map(|(session, labels)| degradation::Newcomer {
                    session: session.row.id,
                    room: session.room.0,
                    scenario: &session.scenario,
                    labels,
                })
                .collect();
            let open = self.engine.0.budgets.open;
            let first = self.call("open", open, newcomers.len(), |calls, store| {
                calls.open_sessions(store, &newcomers)
            })?;
            states.open(&first)?;
        }
        let memo = Memo::of(memo, self)?;

        let mut frame = std::mem::take(&mut self.tables[0]);
        frame.fill(&self.grant.subject_metrics, sessions.iter().map(|session| &session.row));
        let mut blobs = std::mem::take(&mut self.blobs);
        blobs.fill(states.bytes());
        let asked = TickArguments {
            now_us,
            sessions: frame.wire(),
            states: blobs.wire(),
            memo: memo.wire(),
        };
        let answer =
            self.call("tick", budget, sessions.len(), |calls, store| calls.tick(store, asked));
        (self.tables[0], self.blobs) = (frame, blobs);
        let answer = answer?;
        let most = ACTIONS_PER_ROW_MAX * sessions.len();
        proportionate("tick", "actions", answer.actions.len(), most)?;
        let mut actions = Vec::with_capacity(answer.actions.len());
        for degradation::Action { row, op, arg, reason } in answer.actions {
            // Actions without a grant are dropped here. The core counts unknown actions.
            match Op::from_number(op) {
                Some(known) if !self.grant.ops.contains(&known) => self.count_ungranted(known),
                Some(_) | None => actions.push(DegradationAction { row, op, arg, reason }),
            }
        }
        Ok(HookAnswer::Actions {
            actions,
            states: states.settle(&answer.keep)?,
            memo: memo.settle(answer.keep.memo, self)?,
        })
    }
}

/// Bounds lists that the core processes one by one, so that one answer cannot stall it.
fn proportionate(call: &str, what: &str, found: usize, most: usize) -> Result<(), PluginFault> {
    if found <= most {
        return Ok(());
    }
    Err(PluginFault::Malformed(
        format!("{call}: {found} {what}, at most {most} for so many rows").into(),
    ))
}

/// States of a question and its answer: created for new rows, migrated from older revisions, and accepted only if every
/// length and row is valid.
struct QuestionStates<'a> {
    plugin: Arc<str>,
    schema: u32,
    rows: Vec<Cow<'a, [u8]>>,
    /// Rows without a state of this plugin.
    newcomers: Vec<u32>,
    /// Rows with states of older revisions, by schema.
    older: BTreeMap<u32, Vec<u32>>,
}

impl<'a> QuestionStates<'a> {
    /// Sorts rows by the work needed before the plugin can read their states.
    ///
    /// A state of a newer schema, left by a rollback, cannot be read, and its row counts as new.
    fn of(
        plugin: &Arc<str>,
        schema: u32,
        states: impl Iterator<Item = Option<&'a PluginState>>,
    ) -> QuestionStates<'a> {
        let (mut newcomers, mut older) = (Vec::new(), BTreeMap::new());
        let rows = states.enumerate().map(|(row, state)| {
            let row = row as u32;
            let readable = state.filter(|state| readable(state, plugin, schema));
            match readable {
                None => newcomers.push(row),
                Some(state) if state.schema < schema => {
                    older.entry(state.schema).or_insert_with(Vec::new).push(row);
                }
                Some(_) => {}
            }
            readable.map_or(Cow::Borrowed(&[][..]), |state| Cow::Borrowed(&*state.bytes))
        });
        let rows = rows.collect();
        QuestionStates { plugin: Arc::clone(plugin), schema, rows, newcomers, older }
    }

    /// Sets the first states, in the order of `newcomers`.
    fn open(&mut self, first: &BlobsResult) -> Result<(), PluginFault> {
        fill(&mut self.rows, &self.newcomers, first, "open")
    }

    /// Migrates states of older revisions.
    fn migrate(&mut self, guest: &mut Guest) -> Result<(), PluginFault> {
        for (&from, rows) in &self.older {
            let mut blobs = Blobs::default();
            blobs.fill(rows.iter().map(|&row| &*self.rows[row as usize]));
            let budget = guest.engine.0.budgets.migrate;
            let migrated = guest
                .call("migrate", budget, rows.len(), |calls, store| {
                    calls.migrate(store, from, blobs.wire())
                })?
                .map_err(|said| migration_refused("migrate", from, &said))?;
            fill(&mut self.rows, rows, &migrated, "migrate")?;
        }
        Ok(())
    }

    fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|bytes| &**bytes)
    }

    /// The changed states: those replaced by the plugin, and all new ones.
    fn settle(self, keep: &Keep) -> Result<Vec<(u32, PluginState)>, PluginFault> {
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
        if changed.is_sorted_by(|(row, _), (next, _)| row < next) {
            return Ok(changed);
        }
        // Stable sort, so that the last state of a row wins.
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

/// Replaces the states of some rows.
fn fill(
    states: &mut [Cow<'_, [u8]>],
    rows: &[u32],
    blobs: &BlobsResult,
    call: &str,
) -> Result<(), PluginFault> {
    for (&row, bytes) in rows.iter().zip(slices(blobs, rows.len(), call)?) {
        states[row as usize] = Cow::Owned(bytes.to_vec());
    }
    Ok(())
}

struct Memo<'a> {
    bytes: Cow<'a, [u8]>,
}

impl<'a> Memo<'a> {
    /// The memo for this revision. It is empty if another plugin or a newer revision wrote it.
    fn of(memo: Option<&'a PluginState>, guest: &mut Guest) -> Result<Memo<'a>, PluginFault> {
        let component = guest.component.clone();
        let Manifest { name: plugin, state_schema, .. } = &component.0.manifest;
        let schema = *state_schema;
        let Some(memo) = memo.filter(|memo| readable(memo, plugin, schema)) else {
            return Ok(Memo { bytes: Cow::Borrowed(&[]) });
        };
        if memo.schema == schema {
            return Ok(Memo { bytes: Cow::Borrowed(&memo.bytes) });
        }
        let budget = guest.engine.0.budgets.migrate;
        let migrated = guest
            .call("migrate-memo", budget, 0, |calls, store| {
                calls.migrate_memo(store, memo.schema, &memo.bytes)
            })?
            .map_err(|said| migration_refused("migrate-memo", memo.schema, &said))?;
        Ok(Memo { bytes: Cow::Owned(fitting("migrate-memo", migrated)?) })
    }

    fn wire(&self) -> &[u8] {
        &self.bytes
    }

    /// The new memo: written by the plugin, or migrated and otherwise unchanged.
    fn settle(
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
        Ok(Some(guest.state(bytes)))
    }
}

/// A single state written by a plugin.
fn single(guest: &Guest, bytes: Vec<u8>) -> Result<PluginState, PluginFault> {
    if bytes.len() > STATE_BYTES_MAX {
        return Err(too_large("state", 0, bytes.len()));
    }
    Ok(guest.state(bytes))
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
    // Most states were written by this revision, and share its name.
    let is_own = Arc::ptr_eq(&state.plugin, plugin) || state.plugin == *plugin;
    is_own && state.schema <= schema
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
