//! Values of the last slots.

/// Slots for which values are recalled: two intervals of receiver reports (RFC 3550, 6.2: 5 s).
const RECALLED: usize = 12;

/// The last two values that a receiver reported, with their slots.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct LastReports([Option<(u64, u32)>; 2]);

impl LastReports {
    pub(crate) fn add(&mut self, slot: u64, value: Option<u32>) {
        if let Some(value) = value {
            self.0 = [Some((slot, value)), self.0[0]];
        }
    }

    /// The lower one: one report of few packets may be chance.
    pub(crate) fn lower(&self, slot: u64) -> Option<u32> {
        let recent = |(at, _): &(u64, u32)| at + RECALLED as u64 >= slot;
        let [last, before] = self.0.map(|report| report.filter(recent));
        last.zip(before).map(|((_, last), (_, before))| last.min(before))
    }
}

/// The values of the last slots.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Recalled {
    values: [u32; RECALLED],
    next: usize,
}

impl Recalled {
    pub(crate) fn push(&mut self, value: u32) {
        self.values[self.next] = value;
        self.next = (self.next + 1) % RECALLED;
    }

    pub(crate) fn worst(&self) -> u32 {
        self.values.into_iter().max().unwrap_or(0)
    }
}

/// A value for each of the last slots.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Slots<T>([(u64, T); 4]);

impl<T: Copy + Default> Slots<T> {
    pub(crate) fn at(&mut self, slot: u64) -> &mut T {
        let place = &mut self.0[slot as usize % 4];
        if place.0 != slot {
            *place = (slot, T::default());
        }
        &mut place.1
    }

    pub(crate) fn get(&self, slot: u64) -> Option<&T> {
        let (at, value) = &self.0[slot as usize % 4];
        (*at == slot).then_some(value)
    }

    /// No value was set since this slot.
    pub(crate) fn is_idle_since(&self, slot: u64) -> bool {
        self.0.iter().all(|(at, _)| *at < slot)
    }
}
