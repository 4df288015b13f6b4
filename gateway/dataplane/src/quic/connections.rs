//! All connections by quinn's handle, their timers, and the queue of connections with pending work.

use std::collections::VecDeque;
use std::time::Instant;

use quinn_proto::ConnectionHandle;

use super::connection::ClientConnection;
use super::sources::{ClientNetwork, SourceConnections, Sources};
use super::timers::ConnectionTimers;

#[derive(Default)]
pub(super) struct Connections {
    places: Vec<Option<ConnectionSlot>>,
    count: usize,
    sources: Sources,
    /// First in, first out, so that every connection is driven even if the socket is often full.
    touched: VecDeque<ConnectionHandle>,
    /// A time per connection that is no later than its next timer.
    timers: ConnectionTimers,
    /// The connection that was accessed last.
    accessed: Option<ConnectionHandle>,
}

struct ConnectionSlot {
    client: ClientConnection,
    /// The client's first address; it may migrate.
    source: ClientNetwork,
    was_open: bool,
    touched: bool,
}

impl Connections {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn held(&self, source: ClientNetwork) -> SourceConnections {
        self.sources.held(source)
    }

    pub(super) fn insert(&mut self, client: ClientConnection) {
        let handle = client.handle;
        if self.places.len() <= handle.0 {
            self.places.resize_with(handle.0 + 1, || None);
        }
        let source = ClientNetwork::of(client.connection.remote_address());
        self.places[handle.0] =
            Some(ConnectionSlot { client, source, was_open: false, touched: false });
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

    /// Takes the connection that was accessed last.
    pub(super) fn take_accessed(&mut self) -> Option<ConnectionHandle> {
        self.accessed.take()
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

    pub(super) fn next_due(&mut self) -> Option<Instant> {
        self.timers.next_due()
    }

    /// Takes a connection with a timer that may be due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<ConnectionHandle> {
        self.timers.take(now).map(ConnectionHandle)
    }
}
