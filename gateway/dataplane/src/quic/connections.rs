//! All connections by quinn's handle and by source, their timers, and the queue of connections with pending work.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use quinn_proto::ConnectionHandle;

use super::connection::ClientConnection;

/// Limit of heap entries per active timer; beyond it outdated entries are removed.
const ENTRIES: usize = 4;

#[derive(Default)]
pub(super) struct Connections {
    places: Vec<Option<ConnectionSlot>>,
    /// Connections so far.
    admitted: u64,
    pub(super) count: usize,
    pub(super) sources: Sources,
    /// First in, first out, so that every connection is driven even if the socket is often full.
    touched: VecDeque<ConnectionHandle>,
    /// A time per connection that is no later than its next timer.
    pub(super) timers: ConnectionTimers,
    /// The connection that was accessed last.
    pub(super) accessed: Option<ConnectionHandle>,
}

struct ConnectionSlot {
    client: ClientConnection,
    /// Orders connections by age.
    number: u64,
    /// The client's first address; it may migrate.
    source: ClientNetwork,
    was_open: bool,
    touched: bool,
}

impl Connections {
    pub(super) fn insert(&mut self, client: ClientConnection) {
        let handle = client.handle;
        if self.places.len() <= handle.0 {
            self.places.resize_with(handle.0 + 1, || None);
        }
        let source = ClientNetwork::of(client.connection.remote_address());
        let number = self.admitted;
        self.places[handle.0] =
            Some(ConnectionSlot { client, number, source, was_open: false, touched: false });
        self.admitted += 1;
        self.count += 1;
        self.sources.begin(source);
        self.touch(handle);
    }

    pub(super) fn remove(&mut self, handle: ConnectionHandle) {
        if let Some(ConnectionSlot { source, was_open, .. }) = self.places[handle.0].take() {
            self.count -= 1;
            if !was_open {
                self.sources.end_handshake(source);
            }
            self.sources.end(source);
            self.timers.forget(handle.0);
        }
    }

    /// Returns the connection that gives way to a new one at the limit: of the source with the most connections that carry no session, the
    /// oldest of these. Among such sources it is the one with the oldest connection. `None` if all carry sessions.
    ///
    /// This visits all connections, which takes less time than the handshake that follows.
    pub(super) fn oldest_of_largest_source(
        &self,
        carries_session: impl Fn(ConnectionHandle) -> bool,
    ) -> Option<ConnectionHandle> {
        let mut sources = HashMap::<ClientNetwork, (usize, &ConnectionSlot)>::new();
        let idle = self.places.iter().flatten().filter(|it| !carries_session(it.client.handle));
        for place in idle {
            let (count, oldest) = sources.entry(place.source).or_insert((0, place));
            *count += 1;
            if place.number < oldest.number {
                *oldest = place;
            }
        }
        let largest = sources.values().max_by_key(|(count, it)| (*count, Reverse(it.number)));
        largest.map(|(_, oldest)| oldest.client.handle)
    }

    /// Counts the handshake as ended.
    pub(super) fn opened(&mut self, handle: ConnectionHandle) {
        if let Some(Some(place)) = self.places.get_mut(handle.0)
            && !std::mem::replace(&mut place.was_open, true)
        {
            self.sources.end_handshake(place.source);
        }
    }

    pub(super) fn get_mut(&mut self, handle: ConnectionHandle) -> Option<&mut ClientConnection> {
        let place = self.places.get_mut(handle.0)?.as_mut()?;
        self.accessed = Some(handle);
        Some(&mut place.client)
    }

    pub(super) fn handles(&self) -> impl Iterator<Item = ConnectionHandle> + use<> {
        let places: Vec<ConnectionHandle> =
            self.places.iter().flatten().map(|place| place.client.handle).collect();
        places.into_iter()
    }

    /// Marks a connection that has events; the endpoint drives it before the turn ends.
    pub(super) fn touch(&mut self, handle: ConnectionHandle) {
        if let Some(Some(place)) = self.places.get_mut(handle.0)
            && !std::mem::replace(&mut place.touched, true)
        {
            self.touched.push_back(handle);
        }
    }

    /// Marks an interrupted connection; the endpoint drives it next.
    pub(super) fn touch_first(&mut self, handle: ConnectionHandle) {
        if let Some(Some(place)) = self.places.get_mut(handle.0)
            && !std::mem::replace(&mut place.touched, true)
        {
            self.touched.push_front(handle);
        }
    }

    pub(super) fn next_touched(&mut self) -> Option<ConnectionHandle> {
        loop {
            let handle = self.touched.pop_front()?;
            if let Some(place) = &mut self.places[handle.0]
                && std::mem::take(&mut place.touched)
            {
                return Some(handle);
            }
        }
    }

    pub(super) fn schedule(&mut self, handle: ConnectionHandle) {
        if let Some(due) = self.get_mut(handle).and_then(ClientConnection::due) {
            self.timers.note(handle.0, due);
        }
    }
}

/// A client's IPv4 address or IPv6 /56: a site usually has a /56 (RFC 6177), and each host any number of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ClientNetwork(IpAddr);

impl ClientNetwork {
    pub(super) fn of(address: SocketAddr) -> ClientNetwork {
        ClientNetwork(match address.ip().to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & u128::MAX << 72)),
        })
    }
}

/// The connections of a source.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct SourceConnections {
    /// All connections, including handshakes and those that are closed but not forgotten.
    pub(super) connections: usize,
    /// Connections that were never open.
    pub(super) handshakes: usize,
}

/// Only sources with connections are kept, so the limit of connections bounds the table.
#[derive(Default)]
pub(super) struct Sources(HashMap<ClientNetwork, SourceConnections>);

impl Sources {
    pub(super) fn of(&self, source: ClientNetwork) -> SourceConnections {
        self.0.get(&source).copied().unwrap_or_default()
    }

    /// Counts a connection that begins its handshake.
    pub(super) fn begin(&mut self, source: ClientNetwork) {
        let held = self.0.entry(source).or_default();
        held.connections += 1;
        held.handshakes += 1;
    }

    /// Counts the end of a handshake, by success or with its connection.
    pub(super) fn end_handshake(&mut self, source: ClientNetwork) {
        if let Some(held) = self.0.get_mut(&source) {
            held.handshakes -= 1;
        }
    }

    /// Counts the end of a connection, after [`end_handshake`](Sources::end_handshake).
    pub(super) fn end(&mut self, source: ClientNetwork) {
        if let Entry::Occupied(mut held) = self.0.entry(source) {
            held.get_mut().connections -= 1;
            if held.get().connections == 0 {
                held.remove();
            }
        }
    }
}

/// One timer per connection, by number.
#[derive(Default)]
pub(super) struct ConnectionTimers {
    /// The earliest set time by number.
    due: Vec<Option<Instant>>,
    count: usize,
    /// Includes outdated entries, which were replaced by an earlier time.
    entries: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl ConnectionTimers {
    /// Sets a timer, unless an earlier time is set. A timer that each packet postpones therefore costs nothing until
    /// its first time has passed.
    pub(super) fn note(&mut self, number: usize, due: Instant) {
        if self.due.len() <= number {
            self.due.resize(number + 1, None);
        }
        let noted = &mut self.due[number];
        if noted.is_some_and(|noted| noted <= due) {
            return;
        }
        self.count += usize::from(noted.is_none());
        *noted = Some(due);
        self.entries.push(Reverse((due, number)));
        if self.entries.len() > ENTRIES * self.count {
            let due = &self.due;
            self.entries.retain(|Reverse((time, number))| due[*number] == Some(*time));
        }
    }

    pub(super) fn forget(&mut self, number: usize) {
        if let Some(due) = self.due.get_mut(number) {
            self.count -= usize::from(due.take().is_some());
        }
    }

    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some(&Reverse((due, number))) = self.entries.peek() {
            if self.due[number] == Some(due) {
                return Some(due);
            }
            self.entries.pop();
        }
        None
    }

    /// Takes a connection whose timer may be due.
    pub(super) fn take(&mut self, now: Instant) -> Option<ConnectionHandle> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse((_, number)) = self.entries.pop()?;
        self.forget(number);
        Some(ConnectionHandle(number))
    }
}

#[cfg(test)]
mod tests;
