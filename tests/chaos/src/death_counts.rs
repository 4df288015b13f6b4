//! The rooms and sessions of a node's death as the gateway counts them, compared with the receivers that heard by the node.

use std::collections::BTreeMap;

use evenkeel_client::{ApiCall, ServerEvent};
use evenkeel_lab::crowd::FaultEffect;

use crate::stage::Stage;
use crate::word;

/// The words of the log's line about a death.
const LOGGED: &str = "node marked down";

/// The gateway's counts before a death.
pub(crate) struct DeathCounts {
    moved: Moved,
    /// The length of the log, bytes.
    logged: usize,
}

/// Counters of moves off dead nodes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Moved {
    rooms: u64,
    sessions: u64,
}

impl DeathCounts {
    pub(crate) async fn before(stage: &Stage) -> Result<DeathCounts, String> {
        let logged = stage.gateway().process.log().len();
        Ok(DeathCounts { moved: Moved::of(stage).await?, logged })
    }

    /// The counts that differ from those of the receivers. Both sessions of each room receive.
    pub(crate) async fn differences(
        self,
        stage: &Stage,
        nodes: &[String],
        events: &[ServerEvent],
        effect: &FaultEffect,
    ) -> Result<Vec<String>, String> {
        let moved = Moved::of(stage).await?;
        let log = stage.gateway().process.log();
        let (rooms, sessions) = (effect.rooms_hit, effect.hit as u64);
        let counts = [
            ("rooms of the events `node`", rooms_of_deaths(events, nodes), rooms),
            ("rooms of the log", rooms_of_log(&log[self.logged..], nodes), rooms),
            ("rooms of `loss-compared`", compared(events, "rooms"), rooms),
            ("sessions of `loss-compared`", compared(events, "sessions"), sessions),
            ("evenkeel_rooms_moved_total", moved.rooms - self.moved.rooms, rooms),
            ("evenkeel_sessions_moved_total", moved.sessions - self.moved.sessions, sessions),
        ];
        let differing = counts.into_iter().filter(|(_, count, heard)| count != heard);
        let tell = |(what, count, heard)| format!("{what}: {count}, by receivers {heard}");
        Ok(differing.map(tell).collect())
    }
}

impl Moved {
    async fn of(stage: &Stage) -> Result<Moved, String> {
        let answer = stage.admin().ask(ApiCall::get("/metrics")).await;
        let answer = answer.map_err(stage.request_error("reading metrics"))?;
        Moved::parse(&String::from_utf8_lossy(&answer.body))
    }

    /// The counters of moves off dead nodes. Moves that are counted as those of a link are missing here.
    fn parse(text: &str) -> Result<Moved, String> {
        let mut moved = Moved::default();
        for line in text.lines() {
            let count = match line.split('{').next() {
                Some("evenkeel_rooms_moved_total") => &mut moved.rooms,
                Some("evenkeel_sessions_moved_total") => &mut moved.sessions,
                _ => continue,
            };
            if !line.contains("evenkeel_cause=\"node-down\"") {
                continue;
            }
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            *count += value.ok_or_else(|| format!("a metric without a number: {line}"))? as u64;
        }
        Ok(moved)
    }
}

/// The rooms that the events of these nodes' deaths name.
fn rooms_of_deaths(events: &[ServerEvent], nodes: &[String]) -> u64 {
    let deaths = events.iter().filter(|event| {
        event.name == "node"
            && event.data["to"] == "down"
            && nodes.contains(&word(&event.data["node"]))
    });
    deaths.filter_map(|event| event.data["rooms"].as_u64()).sum()
}

/// The figure of the real losses under this key.
fn compared(events: &[ServerEvent], key: &str) -> u64 {
    let compared = events.iter().filter(|event| event.name == "loss-compared");
    compared.filter_map(|event| event.data["actual"][key].as_u64()).sum()
}

/// The rooms that the log's lines about these nodes' deaths name.
fn rooms_of_log(log: &str, nodes: &[String]) -> u64 {
    let deaths = log.lines().filter(|line| line.contains(LOGGED)).map(fields);
    let of_nodes = deaths.filter(|fields| {
        fields.get("node").is_some_and(|node| nodes.iter().any(|name| name == node))
    });
    of_nodes.filter_map(|fields| fields.get("rooms")?.parse::<u64>().ok()).sum()
}

/// The fields `KEY=VALUE` of a line.
fn fields(line: &str) -> BTreeMap<&str, &str> {
    line.split(' ').filter_map(|word| word.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, data: serde_json::Value) -> ServerEvent {
        ServerEvent { name: name.to_owned(), data }
    }

    #[test]
    fn moves_of_other_causes_are_not_summed() {
        let text = "# TYPE evenkeel_rooms_moved counter\n\
             evenkeel_rooms_moved_total{evenkeel_cause=\"node-down\",evenkeel_region=\"east\"} 5\n\
             evenkeel_rooms_moved_total{evenkeel_cause=\"node-down\",evenkeel_region=\"west\"} 1\n\
             evenkeel_rooms_moved_total{evenkeel_cause=\"link\"} 2\n\
             evenkeel_rooms_moved_total{evenkeel_cause=\"drain\"} 9\n\
             evenkeel_sessions_moved_total{evenkeel_cause=\"node-down\"} 10\n";
        assert_eq!(Moved::parse(text), Ok(Moved { rooms: 6, sessions: 10 }));
    }

    #[test]
    fn events_of_other_nodes_are_not_summed() {
        let nodes = ["east-a1".to_owned()];
        let events = [
            event("node", json!({"node": "east-a1", "to": "down", "rooms": 4})),
            event("node", json!({"node": "east-b1", "to": "down", "rooms": 3})),
            event("node", json!({"node": "east-a1", "to": "up", "rooms": 9})),
            event("loss-compared", json!({"actual": {"rooms": 4, "sessions": 8}})),
        ];
        assert_eq!(rooms_of_deaths(&events, &nodes), 4);
        assert_eq!([compared(&events, "rooms"), compared(&events, "sessions")], [4, 8]);
    }

    #[test]
    fn log_names_node_and_rooms() {
        let log = "12:00 WARN node marked down node=east-a1 incarnation=1 rooms=4\n\
             12:00 WARN node marked down node=east-b1 incarnation=1 rooms=3\n";
        assert_eq!(rooms_of_log(log, &["east-a1".to_owned()]), 4);
    }
}
