//! The registry's part of a snapshot: identification, home and facts of each session, and the generations of slots.

use std::net::IpAddr;
use std::sync::Arc;

use evenkeel_dataplane::flows::{FlowKey, Home, PackedKey};
use evenkeel_dataplane::worker::{ClientAddressing, SessionPorts, SrtpKeying, Totals};
use evenkeel_model::{Labels, MediaDescription, OfferId, SessionId};
use evenkeel_process::random::draw;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::{Brief, EntryDetails, SessionEntry, SessionRegistry, Slots, flow_from_gateway};
use crate::messages::SnapshotError;
use crate::registry::client_record::{ClientRecord, ScopedAddress};
use crate::registry::ice::IceSecret;
use crate::session_urls::SessionUrlSecret;
use crate::traces::CallerSpan;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RegistryRecord {
    /// The bound addresses of the UDP listeners, by number.
    listeners: Vec<ScopedAddress>,
    /// The generations of each worker's slots.
    generations: Vec<Vec<u32>>,
    /// The address of sessions' own ports, if it is one that another host may have.
    #[serde(default)]
    pub(crate) ports_at: Option<IpAddr>,
    /// The seed of the ids of traces; `None` from an older version.
    #[serde(default)]
    trace_seed: Option<u64>,
    /// The secret of the URLs of sessions; `None` from an older version.
    #[serde(default)]
    pub(crate) url_secret: Option<SessionUrlSecret>,
    pub(crate) sessions: Vec<EntryRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    pub(crate) session: SessionId,
    worker: u16,
    slot: u32,
    generation: u32,
    client: ClientRecord,
    offer: OfferId,
    pub(crate) totals: Totals,
    /// Local ports towards nodes: RTP and, if it has a port of its own, RTCP.
    #[serde(default)]
    pub(crate) ports: Option<(u16, Option<u16>)>,
    /// The client's own addresses at `plain` nodes, by name.
    nodes: Vec<(Arc<str>, ScopedAddress)>,
    /// The session's part of the limit `session_data_mib`, bytes.
    pub(crate) data: u32,
    /// The span of a trusted caller.
    #[serde(default)]
    caller: Option<CallerSpan>,
    /// The keys of the client's SRTP and their origin, if it ends at the gateway.
    #[serde(default)]
    srtp: Option<SrtpKeying>,
}

/// Sessions of another process that this one can serve.
#[derive(Debug)]
pub(crate) struct RestoringSessions {
    /// In the order of the sessions.
    pub(crate) entries: Vec<EntryRecord>,
    /// The numbers that the listeners have here.
    pub(crate) listeners: Vec<Option<u8>>,
}

/// Facts about a session that other parts restored.
pub(crate) struct RestoredParts {
    pub(crate) media: Arc<MediaDescription>,
    pub(crate) ports: Option<Box<SessionPorts>>,
    /// The room's name and the labels.
    pub(crate) brief: Option<(Arc<str>, Labels)>,
    pub(crate) data: Option<OwnedSemaphorePermit>,
    /// The client's port is known. If its IP address was declared, another session may declare it by now.
    pub(crate) has_address: bool,
}

impl RegistryRecord {
    /// With these sessions, and the generations of their slots. Other slots begin anew.
    pub(crate) fn with_sessions(mut self, sessions: Vec<EntryRecord>) -> RegistryRecord {
        self.generations.iter_mut().for_each(Vec::clear);
        for entry in &sessions {
            // The worker is checked by the restore.
            let Some(slots) = self.generations.get_mut(usize::from(entry.worker)) else { continue };
            let place = entry.slot as usize;
            if slots.len() <= place {
                slots.resize(place + 1, 0);
            }
            slots[place] = entry.generation;
        }
        RegistryRecord { sessions, ..self }
    }
}

impl SessionRegistry {
    pub(crate) fn record(&self) -> RegistryRecord {
        RegistryRecord {
            generations: self.workers.iter().map(|slots| slots.generations.clone()).collect(),
            ..self.record_of(self.entries.keys())
        }
    }

    /// The record of these sessions, without generations.
    pub(crate) fn record_of(&self, sessions: impl Iterator<Item = SessionId>) -> RegistryRecord {
        let record = |id| self.entry_record(id, self.entries.get(id)?);
        RegistryRecord {
            listeners: self.udp.iter().map(|listener| ScopedAddress(listener.bound)).collect(),
            generations: vec![Vec::new(); self.workers.len()],
            ports_at: self.port_legs.filter(|at| !at.is_unspecified()),
            trace_seed: Some(self.traces.seed()),
            url_secret: Some(self.session_urls.secret()),
            sessions: sessions.filter_map(record).collect(),
        }
    }

    /// The number of the worker's slots.
    pub(crate) fn slots_of(&self, worker: usize) -> usize {
        self.workers[worker].generations.len()
    }

    /// `None` if the entry has no identification that another process could use; it has one by construction.
    fn entry_record(&self, session: SessionId, entry: &SessionEntry) -> Option<EntryRecord> {
        let Home { worker, slot, generation } = entry.home;
        let more = entry.more.as_deref();
        let first = entry.key.key();
        let client = match first {
            FlowKey::Udp { listener, address } => {
                let rtcp = match more.and_then(|more| more.second_key) {
                    Some(FlowKey::Udp { address, .. }) => Some(ScopedAddress(address)),
                    _ => None,
                };
                ClientRecord::Declared { listener, address: ScopedAddress(address), rtcp }
            }
            FlowKey::DeclaredIp { listener, ip } => ClientRecord::DeclaredIp { listener, ip },
            FlowKey::Ufrag(_) => {
                let earlier = more.and_then(|more| more.second_key.as_ref());
                let earlier = earlier.and_then(|key| self.ice_secret(key));
                let IceSecret { ufrag, password } = self.ice_secret(&first)?;
                ClientRecord::Stun { ufrag, password, earlier }
            }
            FlowKey::Roq(flow_to_gateway) => {
                let flow_from_gateway = more?.flow_from_gateway;
                ClientRecord::Quic { flow_to_gateway, flow_from_gateway }
            }
        };
        let data = entry.data.as_ref().map_or(0, |data| data.num_permits() as u32);
        let nodes = more.into_iter().flat_map(|more| &more.nodes);
        let nodes = nodes.map(|(name, address)| (Arc::clone(name), ScopedAddress(*address)));
        let (offer, totals, nodes) = (entry.offer, entry.totals(), nodes.collect());
        let ports = more.and_then(|more| more.ports);
        Some(EntryRecord {
            session,
            worker,
            slot,
            generation,
            client,
            offer,
            totals,
            ports,
            nodes,
            data,
            caller: self.callers.get(&session).cloned(),
            srtp: entry.srtp().cloned(),
        })
    }

    /// Takes over the slots of another process and returns its sessions, for [`SessionRegistry::restore`]. Fails without
    /// a change if this process cannot serve all of them.
    pub(crate) fn begin_restore(
        &mut self,
        record: RegistryRecord,
    ) -> Result<RestoringSessions, SnapshotError> {
        let RegistryRecord {
            listeners,
            generations,
            sessions,
            ports_at: _,
            trace_seed,
            url_secret,
        } = record;
        let here = |ScopedAddress(bound): &ScopedAddress| {
            let at = self.udp.iter().position(|listener| listener.bound == *bound);
            at.map(|number| number as u8)
        };
        let listeners_here: Vec<Option<u8>> = listeners.iter().map(here).collect();
        let (found, here) = (generations.len(), self.workers.len());
        if found != here {
            return Err(SnapshotError::Workers { found, here });
        }
        let mut used: Vec<Vec<bool>> =
            generations.iter().map(|slots| vec![false; slots.len()]).collect();
        let mut entries = sessions;
        for record in &mut entries {
            let (worker, slot) = (usize::from(record.worker), record.slot as usize);
            let generation = generations.get(worker).and_then(|slots| slots.get(slot));
            let is_own = generation == Some(&record.generation)
                && !std::mem::replace(&mut used[worker][slot], true);
            if !is_own {
                let session = record.session;
                return Err(SnapshotError::malformed(format!("{session} has no slot of its own")));
            }
            self.renumber(&mut record.client, &listeners, &listeners_here)?;
        }
        entries.sort_by_key(|record| record.session);
        for ((slots, generations), used) in self.workers.iter_mut().zip(generations).zip(used) {
            let free = (0..used.len() as u32).rev().filter(|slot| !used[*slot as usize]);
            let free: Vec<u32> = free.collect();
            *slots = Slots { used: used.len() - free.len(), free, generations };
        }
        trace_seed.into_iter().for_each(|seed| self.traces.resume(seed));
        url_secret.into_iter().for_each(|secret| self.session_urls.resume(secret));
        Ok(RestoringSessions { entries, listeners: listeners_here })
    }

    /// Removes the sessions of another process, which goes on with them.
    pub(crate) fn forget_restored(&mut self) {
        // The process that goes on has these numbers and ids.
        self.traces.resume(draw());
        self.callers.clear();
        for entry in std::mem::take(&mut self.entries).into_values() {
            self.remove_keys(&entry);
        }
        self.workers.iter_mut().for_each(|slots| *slots = Slots::default());
    }

    /// Replaces the number of the listener by the number that the same address has here.
    fn renumber(
        &self,
        client: &mut ClientRecord,
        listeners: &[ScopedAddress],
        numbers: &[Option<u8>],
    ) -> Result<(), SnapshotError> {
        match client {
            ClientRecord::Declared { listener, .. } | ClientRecord::DeclaredIp { listener, .. } => {
                let place = usize::from(*listener);
                let known = listeners.get(place).zip(numbers.get(place));
                let (&ScopedAddress(address), number) = known.ok_or_else(|| {
                    SnapshotError::malformed(format!("there is no listener {listener}"))
                })?;
                *listener = number.ok_or(SnapshotError::NoListener(address))?;
                Ok(())
            }
            ClientRecord::Quic { .. } if self.quic.is_none() => Err(SnapshotError::NoQuic),
            ClientRecord::Stun { .. } | ClientRecord::Quic { .. } => Ok(()),
        }
    }

    /// Registers a session of another process. If it has no sockets towards nodes, and nodes now need them, it gets some.
    pub(crate) fn restore(
        &mut self,
        record: EntryRecord,
        beside: RestoredParts,
    ) -> Result<(Home, ClientAddressing, Option<Box<SessionPorts>>), SnapshotError> {
        let EntryRecord { session, worker, slot, generation, offer, totals, nodes, caller, .. } =
            record;
        self.note_caller(session, caller.as_ref());
        let RestoredParts { media, ports, brief, data, has_address } = beside;
        let ports = match ports {
            Some(ports) => Some(ports),
            None => self.ports(&media).map_err(|_| SnapshotError::NoPorts(session))?,
        };
        let home = Home { worker, slot, generation };
        let (client, first, second) = record.client.keys(home).ok_or_else(|| {
            SnapshotError::malformed(format!("the ufrag of {session} is too long"))
        })?;
        let learned = has_address && matches!(first.0, FlowKey::DeclaredIp { .. });
        let held = (!learned).then(|| first.clone());
        for (key, entry) in held.into_iter().chain(second.clone()) {
            self.flows.insert(key, entry).map_err(|refused| {
                SnapshotError::malformed(format!("the address of {session}: {refused}"))
            })?;
        }
        let brief = brief.zip(ports.as_ref()).map(|((room, labels), ports)| {
            let media = Arc::clone(&media);
            Brief { room, labels, media, ports: ports.numbers() }
        });
        let more = EntryDetails {
            nodes: nodes
                .into_iter()
                .map(|(name, ScopedAddress(address))| (name, address))
                .collect(),
            brief,
            flow_from_gateway: flow_from_gateway(&client),
            ports: ports.as_ref().map(|ports| ports.numbers()),
            second_key: second.map(|(key, _)| key),
            srtp: record.srtp,
        };
        let entry = SessionEntry {
            home,
            totals: (totals != Totals::default()).then(|| Box::new(totals)),
            rtcp: media.rtcp,
            client_srtp: media.srtp,
            offer,
            data,
            key: PackedKey::of(&first.0),
            more: more.if_any(),
        };
        self.entries.insert(session, Box::new(entry));
        Ok((home, client, ports))
    }
}

#[cfg(test)]
mod tests;
