//! All connections by quinn's number for them, those that something is to be done with, and when.

use std::collections::VecDeque;
use std::time::Instant;

use quinn_proto::ConnectionHandle;

use super::connection::Line;
use super::timers::Timetable;

#[derive(Default)]
pub(super) struct Lines {
    places: Vec<Option<Place>>,
    count: usize,
    /// Who was touched first is first, so that everybody has a turn also where the kernel has no room for all.
    touched: VecDeque<ConnectionHandle>,
    /// Of each line a time that is not later than it is due.
    timetable: Timetable,
}

struct Place {
    line: Line,
    touched: bool,
}

impl Lines {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, line: Line) {
        let handle = line.handle;
        if self.places.len() <= handle.0 {
            self.places.resize_with(handle.0 + 1, || None);
        }
        self.places[handle.0] = Some(Place { line, touched: false });
        self.count += 1;
        self.touch(handle);
    }

    pub(super) fn remove(&mut self, handle: ConnectionHandle) {
        if self.places[handle.0].take().is_some() {
            self.count -= 1;
            self.timetable.forget(handle.0);
        }
    }

    pub(super) fn get_mut(&mut self, handle: ConnectionHandle) -> Option<&mut Line> {
        self.places.get_mut(handle.0)?.as_mut().map(|place| &mut place.line)
    }

    /// All of them.
    pub(super) fn handles(&self) -> impl Iterator<Item = ConnectionHandle> + use<> {
        let places: Vec<ConnectionHandle> =
            self.places.iter().flatten().map(|place| place.line.handle).collect();
        places.into_iter()
    }

    /// Something happened on it: it is looked after before the turn ends.
    pub(super) fn touch(&mut self, handle: ConnectionHandle) {
        if let Some(Some(place)) = self.places.get_mut(handle.0)
            && !std::mem::replace(&mut place.touched, true)
        {
            self.touched.push_back(handle);
        }
    }

    /// It was looked after, but not to the end: it is the next.
    pub(super) fn touch_first(&mut self, handle: ConnectionHandle) {
        if let Some(Some(place)) = self.places.get_mut(handle.0)
            && !std::mem::replace(&mut place.touched, true)
        {
            self.touched.push_front(handle);
        }
    }

    /// One that something happened on.
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

    /// Notes when it is due next.
    pub(super) fn schedule(&mut self, handle: ConnectionHandle) {
        if let Some(due) = self.get_mut(handle).and_then(Line::due) {
            self.timetable.note(handle.0, due);
        }
    }

    /// When one may be due.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        self.timetable.next_due()
    }

    /// One that may be due now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<ConnectionHandle> {
        self.timetable.take(now).map(ConnectionHandle)
    }
}
