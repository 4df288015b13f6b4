//! `evenkeel blast`: the rooms that a loss would hit.

use clap::Args;
use evenkeel_client::escape;
use evenkeel_contract::blast::{
    Blast, CarrierLoss, GatewayLoss, NodesLoss, PolicyLoss, UnavailableNode,
};

use crate::command::{ApiArgs, CommandError, say, say_lines, typed, verdict};

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
    pub(crate) fn run(self) -> Result<(), CommandError> {
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
        let answer = self.api.read(&path).map_err(CommandError::unanswered)?;
        let blast: Blast = typed(&answer)?;
        if self.json {
            say(&answer);
        } else {
            say_lines(&shown(&blast));
        }
        let unplaced = blast.loss.as_ref().map_or(0, |loss| loss.unplaced.rooms);
        let is_cut_off = |loss: &&CarrierLoss| loss.sessions > 0 && loss.other_addresses.is_empty();
        let found = match (unplaced, blast.carriers.iter().flatten().find(is_cut_off)) {
            (0, None) => blast
                .gateway
                .filter(|loss| !loss.continues)
                .map(|loss| format!("{} sessions would end", loss.sessions)),
            (0, Some(loss)) => {
                Some(format!("clients of {} would have no other address", loss.carrier))
            }
            (unplaced, _) => Some(format!("{unplaced} rooms would have no node")),
        };
        verdict(self.json, found)
    }
}

fn joined<T: ToString>(all: impl IntoIterator<Item = T>, separator: &str) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(separator)
}

/// The loss of a carrier.
fn carrier(loss: &CarrierLoss) -> Vec<String> {
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let mut lines = vec![
        format!(
            "loss of carrier {}: clients of {} sessions in {} rooms",
            loss.carrier, loss.sessions, loss.rooms,
        ),
        format!(
            "  lost nodes: {}; lost addresses: {}; other addresses: {}",
            or_none(joined(&loss.nodes, ", ")),
            or_none(joined(&loss.addresses, ", ")),
            or_none(joined(&loss.other_addresses, ", ")),
        ),
    ];
    if let Some(sessions) = loss.details.as_ref().filter(|sessions| !sessions.is_empty()) {
        lines.push(format!("  sessions: {}", sessions.join(", ")));
    }
    lines
}

/// The loss of a gateway.
fn gateway(loss: &GatewayLoss) -> Vec<String> {
    let name = loss.gateway.as_deref().unwrap_or("this gateway");
    let mut lines = vec![format!("loss of {name}, {}: {} sessions", loss.role, loss.sessions)];
    if let Some(served) = &loss.served {
        for listener in &served.listeners {
            let addresses = joined(&listener.addresses, ", ");
            let (kind, sessions) = (&listener.listener, listener.sessions);
            lines.push(format!("  {kind} {addresses}: {sessions} sessions"));
        }
        for (scenario, sessions) in &served.scenarios {
            lines.push(format!("  {scenario}: {sessions} sessions"));
        }
    }
    if let Some(successor) = &loss.successor {
        lines.push(format!("  {successor} holds copies of {} sessions", loss.copied_sessions));
    }
    lines.push(match loss.continues {
        true => "  no session would end".to_owned(),
        false => format!("  sessions would end: {}", loss.reasons.join("; ")),
    });
    lines.extend(loss.warnings.iter().map(|warning| format!("  {warning}")));
    lines
}

/// The loss of a policy.
fn policy(loss: &PolicyLoss) -> Vec<String> {
    let mut lines = vec![format!(
        "loss of policy {}: the native default would decide about {} rooms, {} sessions",
        loss.policy, loss.hit.rooms, loss.hit.sessions
    )];
    for (scenario, hit) in &loss.scenarios {
        lines.push(format!("  {scenario}: {} rooms, {} sessions", hit.rooms, hit.sessions));
    }
    for revision in &loss.revisions {
        let name = revision.revision.as_deref().unwrap_or("native default");
        lines.push(format!("  {} {name}: {} sessions", revision.arm, revision.sessions));
    }
    lines
}

fn shown(blast: &Blast) -> String {
    let mut lines: Vec<String> = blast.carriers.iter().flatten().flat_map(carrier).collect();
    lines.extend(blast.gateway.iter().flat_map(gateway));
    lines.extend(blast.policies.iter().flatten().flat_map(policy));
    for name in blast.dependencies_down.iter().flatten() {
        lines.push(format!("dependency {name} is down already"));
    }
    // Absent members are empty.
    let names_nodes = |loss: &NodesLoss| !loss.nodes.is_empty() || !loss.lost_before.is_empty();
    let loss = blast.loss.as_ref().filter(|loss| names_nodes(loss) || lines.is_empty());
    lines.extend(loss.into_iter().flat_map(nodes));
    lines.join("\n")
}

/// The loss of nodes.
fn nodes(loss: &NodesLoss) -> Vec<String> {
    let lost_before = loss.lost_before.iter().map(|UnavailableNode { node, state }| {
        format!("loss of {node}: has happened already, the node is {state}")
    });
    let mut lines: Vec<String> = lost_before.collect();
    if loss.nodes.is_empty() && !lines.is_empty() {
        return lines;
    }
    lines.extend([
        format!(
            "loss of {}: {} rooms, {} sessions",
            joined(&loss.nodes, ", "),
            loss.hit.rooms,
            loss.hit.sessions,
        ),
        format!(
            "  without a node: {} rooms, {} sessions; with a lower bit rate: {} sessions",
            loss.unplaced.rooms, loss.unplaced.sessions, loss.reduced_sessions,
        ),
        format!(
            "  without a spare afterwards: {} rooms (now {})",
            loss.unprotected_rooms, loss.unprotected_rooms_before,
        ),
    ]);
    for (scenario, loss) in &loss.scenarios {
        lines.push(format!(
            "  {scenario}: {} rooms, {} sessions, {} rooms without a node, {} sessions with a lower bit rate",
            loss.hit.rooms, loss.hit.sessions, loss.unplaced.rooms, loss.reduced_sessions,
        ));
    }
    for load in &loss.loads {
        lines.push(format!(
            "  {:<16} takes {} rooms, {} sessions: {} % of its capacity, now {} %",
            load.place.node,
            load.takes.rooms,
            load.takes.sessions,
            load.load_permille / 10,
            load.load_permille_before / 10,
        ));
    }
    for UnavailableNode { node, state } in &loss.unavailable {
        lines.push(format!("  {node:<16} takes no rooms: it is {state}"));
    }
    let labels =
        loss.labels.iter().map(|row| format!("{}={} {}", row.label, row.value, row.sessions));
    let labels: Vec<String> = labels.collect();
    if !labels.is_empty() {
        lines.push(format!("  sessions by label: {}", labels.join(", ")));
    }
    if !loss.started_nodes.is_empty() {
        lines.push(format!("  nodes to start: {}", joined(&loss.started_nodes, ", ")));
    }
    for room in loss.details.iter().flatten() {
        lines.push(format!(
            "  {:<24} {:<10} {:>3} sessions, {} to {}",
            room.room,
            room.scenario,
            room.sessions,
            room.from,
            room.to.as_deref().unwrap_or("no node"),
        ));
    }
    for room in loss.without_spare.iter().flatten() {
        lines.push(format!("  {room:<24} without a spare"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn rooms_that_lose_their_spare_are_listed() {
        let blast = json!({"nodes": ["n1"], "unprotected_rooms": 1, "without_spare": ["r"]});
        let shown = shown(&typed(&blast).ok().unwrap());
        let last: Vec<&str> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last, ["r", "without", "a", "spare"]);
    }

    #[test]
    fn nodes_that_take_no_rooms_are_named() {
        let (down, draining) =
            (json!({"node": "n2", "state": "down"}), json!({"node": "n3", "state": "draining"}));
        let shown = |blast: Value| shown(&typed(&blast).ok().unwrap());
        let lines = shown(json!({"nodes": ["n1"], "unavailable": [down, draining]}));
        assert!(lines.contains("\n  n2               takes no rooms: it is down\n"), "{lines}");
        assert!(lines.ends_with("\n  n3               takes no rooms: it is draining"), "{lines}");
        let happened = "loss of n2: has happened already, the node is down";
        let lines = shown(json!({"nodes": [], "lost_before": [down], "unavailable": [draining]}));
        assert_eq!(lines, happened);
        let lines = shown(json!({"nodes": ["n1"], "lost_before": [down]}));
        assert!(lines.starts_with(&format!("{happened}\nloss of n1: 0 rooms")), "{lines}");
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
        assert_eq!(shown(&typed(&blast).ok().unwrap()).lines().collect::<Vec<_>>(), right);
    }
}
