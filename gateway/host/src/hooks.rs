//! Translates questions of the core to calls of the contract, and the answers back.

use std::time::Duration;

use evenkeel_model::{
    AdmitVerdict, DegradationAction, HookAnswer, Labels, Metric, NodeId, Op, PluginFault,
    PluginState, PolicyQuestion, RegionId, RoomId, RoomRow, RoutingMove, Row, SessionRow,
};

use crate::bindings::evenkeel::policy::types;
use crate::bindings::exports::evenkeel::policy::{admission, degradation, routing};
use crate::guest::Guest;
use crate::limits::ACTIONS_PER_ROW_MAX;
use crate::states::{Memo, States, single};

/// Padding in a table of routes, for rooms with fewer hops than the widest.
const NO_NODE: u32 = u32::MAX;

/// A table of measurements with the granted columns only.
struct GrantedTable {
    ids: Vec<u64>,
    cells: Vec<u32>,
}

impl GrantedTable {
    /// Column-major, with the columns in the order of the grant.
    fn of<'a>(columns: &[Metric], rows: impl ExactSizeIterator<Item = &'a Row>) -> GrantedTable {
        let length = rows.len();
        let mut ids = Vec::with_capacity(length);
        let mut cells = vec![0; columns.len() * length];
        // Iterates by row, since rows are far apart in memory and the table is not.
        for (at, row) in rows.enumerate() {
            ids.push(row.id);
            for (column, &metric) in columns.iter().enumerate() {
                cells[column * length + at] = row.measures.value(metric);
            }
        }
        GrantedTable { ids, cells }
    }

    fn wire(&self) -> types::Frame<'_> {
        types::Frame { ids: &self.ids, cells: &self.cells }
    }
}

/// Labels in the contract's type.
pub(crate) fn labels(labels: &[(Box<str>, Box<str>)]) -> Vec<types::Label<'_>> {
    labels.iter().map(|(key, value)| types::Label { key, value }).collect()
}

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
                self.reroute(now_us, nodes, &rooms, memo.as_ref(), self.engine().budgets().reroute)
            }
            PolicyQuestion::Tick { sessions, memo } => {
                let sessions: Vec<&SessionRow> = sessions.iter().collect();
                self.tick(now_us, &sessions, memo.as_ref(), self.engine().budgets().tick)
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
            PolicyQuestion::Resolve { .. }
            | PolicyQuestion::Admit { .. }
            | PolicyQuestion::Place { .. } => self.answer(question, now_us),
        }
    }

    fn resolve(&mut self, scenario: &str, of: &Labels) -> Result<HookAnswer, PluginFault> {
        let hook = self.scenario()?;
        let budget = self.engine().budgets().resolve;
        let of = labels(of);
        let params = self.call(budget, 0, |store| hook.call_resolve(store, scenario, &of))?;
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
        let hook = self.admission()?;
        let budget = self.engine().budgets().admit;
        let frame = GrantedTable::of(&self.grant().node_metrics, regions.iter());
        let of = labels(of);
        let standing = standing.map(|region| u64::from(region.0));
        let answer = self.call(budget, 0, |store| {
            hook.call_admit(store, now_us, session, room.0, standing, scenario, &of, frame.wire())
        })?;
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
        let hook = self.routing()?;
        let budget = self.engine().budgets().place;
        let frame = GrantedTable::of(&self.grant().node_metrics, nodes.iter());
        let of = labels(of);
        let placement = self.call(budget, nodes.len(), |store| {
            hook.call_place(store, now_us, room.0, scenario, &of, frame.wire())
        })?;
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
        let hook = self.routing()?;
        let component = self.component().clone();
        let manifest = component.manifest();
        let before = rooms.iter().map(|room| room.state.as_ref());
        let mut states = States::of(&manifest.name, manifest.state_schema, before);
        states.migrate(self)?;
        if !states.newcomers().is_empty() {
            let rows = || states.newcomers().iter().map(|&row| rooms[row as usize]);
            let known: Vec<_> = rows().map(|room| labels(&room.labels)).collect();
            let newcomers: Vec<_> = rows()
                .zip(&known)
                .map(|(room, labels)| routing::Newcomer {
                    room: room.row.id,
                    scenario: &room.scenario,
                    labels,
                })
                .collect();
            let open = self.engine().budgets().open;
            let first =
                self.call(open, newcomers.len(), |store| hook.call_open(store, &newcomers))?;
            states.open(&first)?;
        }
        let memo = Memo::of(memo, self)?;

        let width = rooms.iter().map(|room| room.standing.len()).max().unwrap_or(0);
        let mut standing = Vec::with_capacity(width * rooms.len());
        for room in rooms {
            standing.extend(room.standing.iter().map(|node| node.0));
            standing.resize(standing.len() + width - room.standing.len(), NO_NODE);
        }
        let node_frame = GrantedTable::of(&self.grant().node_metrics, nodes.iter());
        let room_frame =
            GrantedTable::of(&self.grant().subject_metrics, rooms.iter().map(|room| &room.row));
        let blobs = states.blobs();
        let answer = self.call(budget, rooms.len(), |store| {
            let (nodes, rooms) = (node_frame.wire(), room_frame.wire());
            let width = width as u32;
            hook.call_reroute(
                store,
                now_us,
                nodes,
                rooms,
                width,
                &standing,
                blobs.wire(),
                memo.wire(),
            )
        })?;
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
        let hook = self.degradation()?;
        let component = self.component().clone();
        let manifest = component.manifest();
        let before = sessions.iter().map(|session| session.state.as_ref());
        let mut states = States::of(&manifest.name, manifest.state_schema, before);
        states.migrate(self)?;
        if !states.newcomers().is_empty() {
            let rows = || states.newcomers().iter().map(|&row| sessions[row as usize]);
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
            let open = self.engine().budgets().open;
            let first =
                self.call(open, newcomers.len(), |store| hook.call_open(store, &newcomers))?;
            states.open(&first)?;
        }
        let memo = Memo::of(memo, self)?;

        let frame = GrantedTable::of(
            &self.grant().subject_metrics,
            sessions.iter().map(|session| &session.row),
        );
        let blobs = states.blobs();
        let answer = self.call(budget, sessions.len(), |store| {
            hook.call_tick(store, now_us, frame.wire(), blobs.wire(), memo.wire())
        })?;
        let most = ACTIONS_PER_ROW_MAX * sessions.len();
        proportionate("tick", "actions", answer.actions.len(), most)?;
        let mut actions = Vec::with_capacity(answer.actions.len());
        for degradation::Action { row, op, arg, reason } in answer.actions {
            // Actions without a grant are dropped here. The core counts unknown actions.
            match Op::from_number(op) {
                Some(known) if !self.grant().ops.contains(&known) => self.count_ungranted(known),
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

#[cfg(test)]
mod tests;
