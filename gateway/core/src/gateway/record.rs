//! The record of this gateway, and the sessions of another one's record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::Gateway;
use crate::sessions::{Leg, Phase, Session};
use crate::timer::Timer;
use crate::{
    GatewayRecord, HopMap, LegRecord, Media, MemoRecord, NodeId, NodeRecord, NotRestored,
    RegionRecord, RoomId, RoomRecord, SessionRecord,
};

impl Gateway {
    /// All live sessions with their rooms, and the state of nodes and regions.
    pub fn record(&self, now: Instant) -> GatewayRecord {
        let live = || self.sessions.values().filter(|session| session.phase == Phase::Live);
        let mut places: BTreeMap<&Arc<Media>, u32> = BTreeMap::new();
        let mut media = Vec::new();
        let mut sessions = Vec::new();
        for session in live() {
            let place = *places.entry(&session.request.media).or_insert_with(|| {
                media.push(Arc::clone(&session.request.media));
                media.len() as u32 - 1
            });
            sessions.push(self.session_record(session, place));
        }
        let rooms: BTreeSet<RoomId> = live().map(|session| session.room).collect();
        let waiting = self.questions.waiting();
        let rooms = rooms.iter().filter_map(|id| self.room_record(*id, &waiting, now));
        let memos = self.policies.memos();
        GatewayRecord {
            nodes: self.node_records(),
            regions: self.region_records(),
            rooms: rooms.collect(),
            sessions,
            media,
            memos: memos
                .map(|(policy, memo)| MemoRecord { policy: policy.clone(), memo: memo.clone() })
                .collect(),
            next_session: self.sessions.next_id().0,
            next_room: self.rooms.next_number(),
            started: self.questions.started(),
        }
    }

    fn node_records(&self) -> Vec<NodeRecord> {
        let nodes = self.nodes.iter().map(|node| NodeRecord {
            hop: node.hop(),
            name: node.settings.name.clone(),
            trust: node.trust(),
            drain: self.rooms.drain_of(node.id),
            gauge: self.capacity.ledger().gauge(node.id).clone(),
        });
        nodes.collect()
    }

    fn region_records(&self) -> Vec<RegionRecord> {
        let regions = self.nodes.regions().zip(&self.settings.regions);
        let records = regions.map(|(region, name)| RegionRecord {
            name: name.clone(),
            drained: self.nodes.is_drained(region),
            failback: self.rooms.failback(region),
            breaker: self.capacity.breaker_record(region),
        });
        records.collect()
    }

    fn room_record(
        &self,
        id: RoomId,
        waiting: &BTreeSet<RoomId>,
        now: Instant,
    ) -> Option<RoomRecord> {
        let record = self.rooms.get(&id)?.to_record(now);
        Some(RoomRecord {
            away: self.rooms.is_away(id),
            due: self.effects.timers().due(&Timer::RoomDue(id)),
            waits: record.waits || waiting.contains(&id),
            ..record
        })
    }

    fn session_record(&self, session: &Session, media: u32) -> SessionRecord {
        let legs = session.legs.iter().filter_map(|(hop, leg)| match leg {
            Leg::Waiting => None,
            Leg::Opening(_) => Some(LegRecord { hop: *hop, open: false }),
            Leg::Open => Some(LegRecord { hop: *hop, open: true }),
        });
        SessionRecord {
            id: session.id,
            room: session.room,
            labels: Arc::clone(&session.request.labels),
            media,
            transport: session.transport,
            of_first_packet: session.of_first_packet,
            offered: session.offered,
            bounds: session.bounds,
            close_after: session.close_after,
            plan: session.plan,
            share: session.share,
            reduced: self.capacity.reduced_since(session.id),
            admitted_by: (*session.admitted_by).clone(),
            legs: legs.collect(),
            last_heard: session.last_heard,
            memory: session.memory.clone(),
        }
    }

    /// Continues the sessions of another process's record. For each session an
    /// [`Output::Restore`](crate::Output::Restore) follows, before other outputs about it. `node` finds a listed node
    /// by its name.
    ///
    /// # Errors
    /// If this gateway has sessions, or the record contradicts itself. Nothing has changed then.
    pub fn handle_record(
        &mut self,
        record: GatewayRecord,
        node: impl Fn(&str) -> Option<NodeId>,
        now: Instant,
    ) -> Result<HopMap, NotRestored> {
        if !self.sessions.is_empty() {
            return Err(NotRestored::HasSessions);
        }
        record.check()?;
        let GatewayRecord { nodes, regions, rooms, sessions, media, memos, .. } = record;
        self.sessions.resume_numbers(record.next_session);
        self.rooms.resume_numbers(record.next_room);
        self.questions.resume_time(record.started);
        for MemoRecord { policy, memo } in memos {
            self.policies.restore_memo(policy, memo);
        }
        let older = sessions.iter().any(|session| session.memory.keeps_other())
            || rooms.iter().any(|room| room.memory.keeps_other());
        if older {
            self.policies.expect_older_states();
        }
        Ok(self.route(now, |router| {
            let regions = router.restore_regions(&regions);
            let hops = router.restore_nodes(nodes, node, now);
            router.restore_rooms(rooms, sessions, &media, &hops, &regions, now);
            hops
        }))
    }
}
