//! What policies may read: every metric of the registry, as a number in a fixed unit.
//!
//! `plugin-sdk/wit/registry.toml` is the registry; a test of the host holds this table against it.

/// The value of a metric that nobody measured.
pub const UNMEASURED: u32 = u32::MAX;

macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $key:literal, $unit:literal;)*) => {
        /// A metric of the registry. Its number is what plugins and recordings carry.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u32)]
        pub enum Metric { $($(#[$doc])* $name = $number,)* }

        impl Metric {
            /// All of them, by number.
            pub const ALL: &[Metric] = &[$(Metric::$name,)*];

            /// The registry's name: `loss-up`.
            pub fn key(self) -> &'static str {
                match self { $(Metric::$name => $key,)* }
            }

            /// The registry's unit: `ppm`.
            pub fn unit(self) -> &'static str {
                match self { $(Metric::$name => $unit,)* }
            }

            /// The metric with this number, if this gateway knows it.
            pub fn from_number(number: u32) -> Option<Metric> {
                match number { $($number => Some(Metric::$name),)* _ => None }
            }
        }

        $(const _: () = assert!(has_place($number), "no room is kept for this number");)*
    };
}

metrics! {
    /// Packets of the session lost on the way to the gateway.
    LossUp = 1, "loss-up", "ppm";
    /// Packets lost on the way from the gateway to the session, as its receiver reports.
    LossDown = 2, "loss-down", "ppm";
    /// Interarrival jitter of what the session sends (RFC 3550, 6.4.1).
    JitterUp = 3, "jitter-up", "us";
    /// Interarrival jitter as the session's receiver reports it.
    JitterDown = 4, "jitter-down", "us";
    /// Round trip between gateway and session.
    RttClient = 5, "rtt-client", "us";
    /// What the session sends.
    BitrateUp = 6, "bitrate-up", "kbps";
    /// What the session is sent.
    BitrateDown = 7, "bitrate-down", "kbps";
    /// The degradation rung in force; 0 is undegraded.
    Rung = 8, "rung", "count";
    /// The cap in force; 0 where there is none.
    Cap = 9, "cap", "kbps";
    /// E-model R-factor of the session's voice times 100 (ITU-T G.107).
    RFactor = 10, "r-factor", "centi";
    /// Since the session or room opened.
    Age = 11, "age", "ms";
    /// 1 where the session carries video.
    Video = 12, "video", "count";
    /// Sessions of the room.
    Sessions = 13, "sessions", "count";
    /// The lowest cap the session's scenario allows; its ceiling where nobody would obey a cap.
    Floor = 14, "floor", "kbps";
    /// The highest rate the session's scenario allows.
    Ceiling = 15, "ceiling", "kbps";
    /// One-way delay to the node: half of the measured round trip.
    Delay = 32, "delay", "us";
    /// Probes of the node that went unanswered, smoothed.
    LossNode = 33, "loss-node", "ppm";
    /// Jitter of the node's round trip.
    JitterNode = 34, "jitter-node", "us";
    /// Admitted load and reserves against capacity.
    Load = 35, "load", "permille";
    /// Health of the node: 0 Up, 1 Suspect, 2 Wary, 3 Down.
    Health = 36, "health", "count";
    /// 1 where the node is being drained.
    Draining = 37, "draining", "count";
    /// What the node can carry.
    Capacity = 38, "capacity", "kbps";
    /// Rooms on the node.
    Rooms = 39, "rooms", "count";
    /// Breaker of the region: 0 closed, 1 open, 2 half-open.
    Breaker = 40, "breaker", "count";
    /// Nodes of the region that may take a room.
    NodesUp = 41, "nodes-up", "count";
}

/// Sessions' and rooms' metrics have numbers below this, those of nodes and regions begin at [`NODES_FROM`].
const SESSIONS_UNTIL: usize = 16;
const NODES_FROM: usize = 32;

/// Room for every metric up to the registry's highest number, without the gap between the two kinds.
const WIDTH: usize = 42 - NODES_FROM + SESSIONS_UNTIL;

/// Whether there is room for a metric of this number.
const fn has_place(number: usize) -> bool {
    number < SESSIONS_UNTIL
        || (number >= NODES_FROM && number - NODES_FROM + SESSIONS_UNTIL < WIDTH)
}

/// Where a metric has its room.
const fn place(metric: Metric) -> usize {
    let number = metric as usize;
    if number < SESSIONS_UNTIL { number } else { number - NODES_FROM + SESSIONS_UNTIL }
}

/// What was measured of one session, room, node or region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measures([u32; WIDTH]);

impl Default for Measures {
    fn default() -> Self {
        Measures([UNMEASURED; WIDTH])
    }
}

impl Measures {
    /// The value, or [`UNMEASURED`].
    pub fn value(&self, metric: Metric) -> u32 {
        self.0[place(metric)]
    }

    /// The value, if there is one.
    pub fn measured(&self, metric: Metric) -> Option<u32> {
        Some(self.value(metric)).filter(|&value| value != UNMEASURED)
    }

    /// Sets a value; one too large for the wire becomes the largest that fits.
    pub fn set(&mut self, metric: Metric, value: u64) -> &mut Self {
        self.0[place(metric)] = value.min(u64::from(UNMEASURED - 1)) as u32;
        self
    }
}

/// A row of a table of measurements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The session, room, node or region, by the number of its id.
    pub id: u64,
    /// What is known of it.
    pub measures: Measures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_room_in_the_gap_and_past_the_end() {
        let without = (0..=100).filter(|number| !has_place(*number));
        assert!(without.eq((16..32).chain(42..=100)));
    }
}
