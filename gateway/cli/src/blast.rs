//! `evenkeel blast`: the rooms that a loss would hit.

use clap::Args;
use evenkeel_client::escape;
use serde_json::Value;

use crate::command::{ApiArgs, CommandError, number, rows, say, say_lines, text, texts, verdict};

/// Show which rooms a loss of nodes would hit, and where they would go
///
/// The gateway copies its state and loses the nodes in the copy, in virtual time. Nothing changes at the gateway. The copy asks
/// no policies: rooms go where the core puts them, and a routing policy may move them later.
///
/// Exit code 1: some rooms would have no node, sessions would end with the gateway, or the clients of a lost carrier would have no
/// other address. Exit code 3: the gateway did not answer, such as one that is not the owner of its group.
#[derive(Args)]
pub(crate) struct BlastArgs {
    /// Lose this node; may be repeated
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
    /// Lose all nodes of this zone, `eu/a` or `a`; may be repeated
    #[arg(long, value_name = "NAME")]
    zone: Vec<String>,
    /// Lose all nodes of this region; may be repeated
    #[arg(long, value_name = "NAME")]
    region: Vec<String>,
    /// Lose the network of this carrier, with its nodes and advertised addresses; may be repeated
    ///
    /// Its clients are the sessions with this name as label `carrier`.
    #[arg(long, value_name = "NAME")]
    carrier: Vec<String>,
    /// Lose the NODES nodes with most load, beside those that are named
    #[arg(long, value_name = "NODES", default_value_t = 0)]
    busiest: u32,
    /// Lose several at once, as one list: `nodes=-1,zone=b` is the busiest node beside a zone
    ///
    /// Keys: `nodes`, the number of busiest nodes after a minus sign; `node`, `zone`, `region` and `carrier`, names.
    #[arg(long, value_name = "SPEC")]
    what_if: Option<String>,
    /// Lose the gateway that answers, or this member of its group, with its host
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    gateway: Option<String>,
    /// Lose a policy such as `call/routing`, so that the native default decides; may be repeated
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
    /// List every room with its next node, and the rooms that would lose their spare
    #[arg(long)]
    rooms: bool,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON as in the API
    #[arg(long)]
    pub(crate) json: bool,
}

impl BlastArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let lists = [
            ("nodes", &self.node),
            ("zones", &self.zone),
            ("regions", &self.region),
            ("carriers", &self.carrier),
            ("policies", &self.policy),
        ];
        let others = [&self.what_if, &self.gateway];
        if lists.iter().all(|(_, names)| names.is_empty())
            && others.iter().all(|other| other.is_none())
            && self.busiest == 0
        {
            let found = "found no loss; expected --node, --zone, --region, --carrier, --busiest, --what-if, --gateway or --policy";
            return Err(CommandError::Wrong(found.to_owned()));
        }
        let lists = lists.map(|(key, names)| {
            let names: Vec<String> = names.iter().map(|name| escape(name)).collect();
            format!("{key}={}", names.join(","))
        });
        let (busiest, rooms) = (self.busiest, self.rooms);
        let mut path = format!("/v1/blast?{}&busiest={busiest}&rooms={rooms}", lists.join("&"));
        for (key, value) in [("what_if", &self.what_if), ("gateway", &self.gateway)] {
            if let Some(value) = value {
                path += &format!("&{key}={}", escape(value));
            }
        }
        let blast = self.api.read(&path).map_err(CommandError::unanswered)?;
        if self.json {
            say(&blast);
        } else {
            say_lines(&shown(&blast));
        }
        let unplaced = number(&blast["unplaced"], "rooms");
        let is_cut_off = |loss: &&Value| {
            number(loss, "sessions") > 0 && rows(&loss["other_addresses"], "").is_empty()
        };
        let cut_off = rows(&blast["carriers"], "").iter().find(is_cut_off);
        let found = match (unplaced, cut_off) {
            (0, None) => blast["gateway"]["continues"]
                .as_bool()
                .filter(|continues| !continues)
                .map(|_| format!("{} sessions would end", number(&blast["gateway"], "sessions"))),
            (0, Some(loss)) => {
                Some(format!("clients of {} would have no other address", text(loss, "carrier")))
            }
            (unplaced, _) => Some(format!("{unplaced} rooms would have no node")),
        };
        verdict(self.json, found)
    }
}

/// The loss of a carrier.
fn carrier(loss: &Value) -> Vec<String> {
    let or_none = |texts: Vec<&str>| match texts.is_empty() {
        true => "none".to_owned(),
        false => texts.join(", "),
    };
    let mut lines = vec![
        format!(
            "loss of carrier {}: clients of {} sessions in {} rooms",
            text(loss, "carrier"),
            number(loss, "sessions"),
            number(loss, "rooms"),
        ),
        format!(
            "  lost nodes: {}; lost addresses: {}; other addresses: {}",
            or_none(texts(loss, "nodes")),
            or_none(texts(loss, "addresses")),
            or_none(texts(loss, "other_addresses")),
        ),
    ];
    let sessions = texts(loss, "details");
    if !sessions.is_empty() {
        lines.push(format!("  sessions: {}", sessions.join(", ")));
    }
    lines
}

/// The loss of a gateway.
fn gateway(loss: &Value) -> Vec<String> {
    let name = loss["gateway"].as_str().unwrap_or("this gateway");
    let mut lines = vec![format!(
        "loss of {name}, {}: {} sessions",
        text(loss, "role"),
        number(loss, "sessions")
    )];
    for listener in rows(&loss["listeners"], "") {
        let addresses = texts(listener, "addresses").join(", ");
        let (kind, sessions) = (text(listener, "listener"), number(listener, "sessions"));
        lines.push(format!("  {kind} {addresses}: {sessions} sessions"));
    }
    for (scenario, sessions) in loss["scenarios"].as_object().into_iter().flatten() {
        lines.push(format!("  {scenario}: {sessions} sessions"));
    }
    if let Some(successor) = loss["successor"].as_str() {
        let copies = number(loss, "copied_sessions");
        lines.push(format!("  {successor} holds copies of {copies} sessions"));
    }
    lines.push(match loss["continues"].as_bool() {
        Some(true) => "  no session would end".to_owned(),
        _ => format!("  sessions would end: {}", texts(loss, "reasons").join("; ")),
    });
    lines.extend(texts(loss, "warnings").into_iter().map(|warning| format!("  {warning}")));
    lines
}

/// The loss of a policy.
fn policy(loss: &Value) -> Vec<String> {
    let count = |loss: &Value| {
        format!("{} rooms, {} sessions", number(loss, "rooms"), number(loss, "sessions"))
    };
    let mut lines = vec![format!(
        "loss of policy {}: the native default would decide about {}",
        text(loss, "policy"),
        count(loss)
    )];
    for (scenario, hit) in loss["scenarios"].as_object().into_iter().flatten() {
        lines.push(format!("  {scenario}: {}", count(hit)));
    }
    for revision in rows(&loss["revisions"], "") {
        let name = revision["revision"].as_str().unwrap_or("native default");
        let (arm, sessions) = (text(revision, "arm"), number(revision, "sessions"));
        lines.push(format!("  {arm} {name}: {sessions} sessions"));
    }
    lines
}

fn shown(blast: &Value) -> String {
    let mut lines: Vec<String> = rows(&blast["carriers"], "").iter().flat_map(carrier).collect();
    if blast["gateway"].is_object() {
        lines.extend(gateway(&blast["gateway"]));
    }
    lines.extend(rows(&blast["policies"], "").iter().flat_map(policy));
    for name in texts(blast, "dependencies_down") {
        lines.push(format!("dependency {name} is down already"));
    }
    if rows(&blast["nodes"], "").is_empty() && !lines.is_empty() {
        return lines.join("\n");
    }
    lines.push(format!(
        "loss of {}: {} rooms, {} sessions",
        texts(blast, "nodes").join(", "),
        number(blast, "rooms"),
        number(blast, "sessions"),
    ));
    let unplaced = &blast["unplaced"];
    lines.push(format!(
        "  without a node: {} rooms, {} sessions; with a lower bit rate: {} sessions",
        number(unplaced, "rooms"),
        number(unplaced, "sessions"),
        number(blast, "reduced_sessions"),
    ));
    lines.push(format!(
        "  without a spare afterwards: {} rooms (now {})",
        number(blast, "unprotected_rooms"),
        number(blast, "unprotected_rooms_before"),
    ));
    for (scenario, loss) in blast["scenarios"].as_object().into_iter().flatten() {
        lines.push(format!(
            "  {scenario}: {} rooms, {} sessions, {} rooms without a node, {} sessions with a lower bit rate",
            number(loss, "rooms"),
            number(loss, "sessions"),
            number(&loss["unplaced"], "rooms"),
            number(loss, "reduced_sessions"),
        ));
    }
    for load in rows(&blast["loads"], "") {
        lines.push(format!(
            "  {:<16} takes {} rooms, {} sessions: {} % of its capacity, now {} %",
            text(load, "node"),
            number(load, "rooms"),
            number(load, "sessions"),
            number(load, "load_permille") / 10,
            number(load, "load_permille_before") / 10,
        ));
    }
    let labels: Vec<String> = rows(&blast["labels"], "")
        .iter()
        .map(|row| {
            format!("{}={} {}", text(row, "label"), text(row, "value"), number(row, "sessions"))
        })
        .collect();
    if !labels.is_empty() {
        lines.push(format!("  sessions by label: {}", labels.join(", ")));
    }
    let started = texts(blast, "started_nodes");
    if !started.is_empty() {
        lines.push(format!("  nodes to start: {}", started.join(", ")));
    }
    for room in rows(&blast["details"], "") {
        lines.push(format!(
            "  {:<24} {:<10} {:>3} sessions, {} to {}",
            text(room, "room"),
            text(room, "scenario"),
            number(room, "sessions"),
            text(room, "from"),
            room["to"].as_str().unwrap_or("no node"),
        ));
    }
    for room in texts(blast, "without_spare") {
        lines.push(format!("  {room:<24} without a spare"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rooms_that_lose_their_spare_are_listed() {
        let blast = json!({"nodes": ["n1"], "unprotected_rooms": 1, "without_spare": ["r"]});
        let shown = shown(&blast);
        let last: Vec<&str> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last, ["r", "without", "a", "spare"]);
    }

    #[test]
    fn carrier_loss_shows_dependencies_that_are_down() {
        let lost = json!({
            "carrier": "ct", "nodes": ["n1"], "sessions": 2, "rooms": 1,
            "other_addresses": ["192.0.2.2:5004"],
        });
        let blast = json!({"carriers": [lost], "dependencies_down": ["idp"]});
        let right = [
            "loss of carrier ct: clients of 2 sessions in 1 rooms",
            "  lost nodes: n1; lost addresses: none; other addresses: 192.0.2.2:5004",
            "dependency idp is down already",
        ];
        assert_eq!(shown(&blast).lines().collect::<Vec<_>>(), right);
    }
}
