//! A room as another process continues it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{Hop, HopGrant, RegionId, Route};

use super::{Room, RoomHistory, Stranded};
use crate::capacity::Holding;
use crate::record::{RecordedInstant, Struck};
use crate::small::SmallSet;
use crate::{HopMap, MoveRecord, RoomRecord};

impl Room {
    /// The room's record, without the facts that `RoomTable` and the timers hold.
    pub(crate) fn to_record(&self, now: Instant) -> RoomRecord {
        let route = self.route();
        let history = self.history.as_deref();
        let struck = history.into_iter().flat_map(|history| &history.struck);
        RoomRecord {
            id: self.id,
            name: Arc::clone(&self.name),
            scenario: Arc::clone(&self.scenario),
            labels: Arc::clone(&self.labels),
            region: self.region,
            spares: self.spares,
            mode: self.mode,
            call: self.call,
            priority: self.priority,
            version: route.version,
            hops: route.hops.clone(),
            leaving: route.leaving.filter(|(_, until)| now < *until),
            placed_by: (*self.placed_by).clone(),
            stranded: self.stranded,
            away: false,
            memory: self.memory.clone(),
            ttl_ms: self.ttl_ms,
            due: None,
            waits: self.pending.is_some(),
            struck: struck.map(|(hop, until)| Struck { hop: *hop, until: *until }).collect(),
            unalike: history.and_then(|history| history.unalike),
            counted: history
                .into_iter()
                .flat_map(|it| &it.moves)
                .map(|at| RecordedInstant(*at))
                .collect(),
            moves: self.records().cloned().collect(),
        }
    }

    /// The room of a record. Hops that lead nowhere any more are dropped; without its first hop, the room is stranded.
    pub(crate) fn of_record(
        record: RoomRecord,
        region: RegionId,
        hops: &HopMap,
        now: Instant,
    ) -> Room {
        let stranded = match (record.stranded, record.hops.first()) {
            (Some(stranded), _) => Some(Stranded { lost: hops.past(stranded.lost), ..stranded }),
            (None, Some((first, _))) if hops.map(*first).is_none() => {
                Some(Stranded { lost: hops.past(*first), since: now, attempts: 0 })
            }
            (None, _) => None,
        };
        let history = RoomHistory {
            struck: (record.struck.iter())
                .filter_map(|struck| Some((hops.map(struck.hop)?, struck.until)))
                .collect(),
            moves: record.counted.iter().map(|RecordedInstant(at)| *at).collect(),
            unalike: record
                .unalike
                .and_then(|[one, other]| Some([hops.map(one)?, hops.map(other)?])),
            record: (record.moves.into_iter())
                .map(|it| MoveRecord {
                    from: hops.past(it.from),
                    to: it.to.map(|to| hops.past(to)),
                    ..it
                })
                .collect(),
        };
        let room = Room {
            id: record.id,
            name: record.name,
            scenario: record.scenario,
            labels: record.labels,
            region,
            spares: record.spares,
            mode: record.mode,
            call: record.call,
            priority: record.priority,
            sessions: SmallSet::default(),
            cell: Arc::default(),
            placed_by: Arc::new(record.placed_by),
            holding: Holding::default(),
            stranded,
            pending: None,
            placing: false,
            memory: record.memory,
            ttl_ms: record.ttl_ms,
            tally: None,
            listed: SmallSet::default(),
            history: (history != RoomHistory::default()).then(|| Box::new(history)),
        };
        let stay = |(hop, grant): &(Hop, HopGrant)| Some((hops.map(*hop)?, *grant));
        let route: Vec<(Hop, HopGrant)> = record.hops.iter().filter_map(stay).collect();
        let order: Vec<Hop> = route.iter().map(|(hop, _)| *hop).collect();
        room.cell.publish(Route {
            version: record.version,
            mode: room.mode_over(&order),
            hops: route,
            leaving: record.leaving.and_then(|(hop, until)| Some((hops.map(hop)?, until))),
            lead: Duration::ZERO,
        });
        room
    }

    /// The capacity that the grants of the room's route say it uses.
    pub(crate) fn granted(&self, kbps: u64) -> Holding {
        let route = self.route();
        let (on, second) = match self.stranded {
            Some(_) => (None, None),
            None => (route.hops.first(), route.hops.get(1)),
        };
        let second_if = |wanted| second.filter(|(_, grant)| *grant == wanted);
        Holding {
            on: on.map(|(hop, _)| hop.node),
            reserve: second_if(HopGrant::Reserved).map(|(hop, _)| hop.node),
            heading: None,
            twin: second_if(HopGrant::Admitted).map(|(hop, _)| hop.node),
            kbps,
        }
    }
}
