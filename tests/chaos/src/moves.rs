//! Moves per room in a minute, except off a dead node or by an operator (failover.md, I5).

use std::collections::BTreeMap;

use evenkeel_client::ServerEvent;
use evenkeel_lab::watch::at_ns;

use crate::word;

/// Slightly below a minute, since a move may be reported late.
const MINUTE_NS: u64 = 59_900_000_000;

/// Moves of each room, except off a dead node or by an operator: nanoseconds since the Unix epoch, in order.
#[derive(Default, Debug)]
pub(crate) struct Moves(BTreeMap<String, Vec<u64>>);

impl Moves {
    /// Adds the moves among these events.
    pub(crate) fn note(&mut self, events: &[ServerEvent]) {
        let moved = |event: &&ServerEvent| {
            event.name == "moved"
                && event.data["cause"] != "node-down"
                && event.data["by"] != "operator"
        };
        for event in events.iter().filter(moved) {
            self.0.entry(word(&event.data["room"])).or_default().push(at_ns(event));
        }
    }

    /// The largest number of moves of one room within a minute.
    pub(crate) fn most(&self) -> usize {
        let within = |times: &[u64]| {
            let follow = |first: &u64| {
                times.iter().filter(|at| (*first..first + MINUTE_NS).contains(at)).count()
            };
            times.iter().map(follow).max().unwrap_or(0)
        };
        self.0.values().map(|times| within(times)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn moved(room: &str, cause: &str, second: u64) -> ServerEvent {
        let by = if cause == "drain" { "operator" } else { "native" };
        let data = json!({"room": room, "cause": cause, "by": by, "at_us": second * 1_000_000});
        ServerEvent { name: "moved".to_owned(), data }
    }

    #[test]
    fn own_moves_are_counted_across_windows() {
        let mut moves = Moves::default();
        assert_eq!(moves.most(), 0);
        moves.note(&[moved("a", "quality", 0), moved("b", "link", 1), moved("a", "link", 30)]);
        assert_eq!(moves.most(), 2);
        moves.note(&[moved("a", "node-down", 40), moved("a", "failback", 59)]);
        assert_eq!(moves.most(), 3);
        moves.note(&[moved("a", "drain", 59)]);
        assert_eq!(moves.most(), 3, "an operator's move does not count");
        moves.note(&[moved("a", "quality", 60), moved("b", "quality", 62)]);
        assert_eq!(moves.most(), 3, "the first was a minute ago");
    }
}
