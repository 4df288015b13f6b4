//! Extensible parts of the policy contract as numbers: metrics, actions, reasons, parameters and kinds of catalog
//! entries. Generated from `plugin-sdk/wit/registry.toml`.

include!(concat!(env!("OUT_DIR"), "/registry.rs"));

impl Param {
    /// Returns the parameter with this key in the contract.
    pub fn from_key(key: &str) -> Option<Param> {
        Param::ALL.into_iter().find(|param| param.key() == key)
    }

    /// The effective value of the parameter if it is set to `value`: the nearest valid one.
    pub fn within(self, value: i64) -> i64 {
        self.bounds().map_or(value, |(low, high)| value.clamp(low, high))
    }
}

/// The value of a metric without a measurement.
pub const UNMEASURED: u32 = u32::MAX;

/// The values of all metrics of one subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measures([u32; WIDTH]);

impl Default for Measures {
    fn default() -> Self {
        Measures([UNMEASURED; WIDTH])
    }
}

impl Measures {
    /// Returns the value, or [`UNMEASURED`].
    #[inline]
    pub fn value(&self, metric: Metric) -> u32 {
        self.0[place(metric)]
    }

    /// The value; `None` if it is [`UNMEASURED`].
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        Some(self.value(metric)).filter(|&value| value != UNMEASURED)
    }

    /// Returns the loss from a session and that to it, ppm, each after repair. A direction that nothing repairs has one loss.
    pub fn losses_after_repair(&self) -> [Option<u32>; 2] {
        let left = |after, before| self.measured(after).or(self.measured(before));
        [
            left(Metric::LossUpAfterRepair, Metric::LossUp),
            left(Metric::LossDownAfterRepair, Metric::LossDown),
        ]
    }

    /// Sets a value, limited to the largest that the wire format holds.
    pub fn set(&mut self, metric: Metric, value: u64) -> &mut Self {
        self.0[place(metric)] = value.min(u64::from(UNMEASURED - 1)) as u32;
        self
    }
}

/// A subject of a question with its measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The session, room, node or region, by the number of its id.
    pub id: u64,
    /// The values of the metrics.
    pub measures: Measures,
}

/// An entry of the catalog: a named object that questions refer to by number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogEntry {
    pub kind: EntryKind,
    /// The entry's number, unique within its kind.
    pub id: u64,
    /// The zone of a node, the region of a zone; 0 for a region.
    pub parent: u64,
    /// The entry's name in the configuration.
    pub name: Box<str>,
    /// Labels of the entry, by key.
    pub labels: Vec<(Box<str>, Box<str>)>,
}

#[cfg(test)]
mod tests;
