//! `evenkeel risk`: single points of failure of the fleet as it is, and the redundancy modes compared for it.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use evenkeel_client::{ApiCall, ClientError, escape};
use serde_json::{Value, json};

use crate::command::{ApiArgs, CommandError, number, rows, say, text, texts, verdict};
use crate::status::mode_lines;

/// A gateway plays the losses of nodes and modes within this time.
const PLAYED_WITHIN: Duration = Duration::from_secs(100);

/// Show which single failures would end calls, and compare the redundancy modes
///
/// It asks for the blast radius of the busiest node and of each zone, for the gateways of the group, and for past drills. For each
/// mode it prints what was measured, and what the loss of the busiest node would do if all rooms had the mode.
///
/// Exit code 1: there is a risk. Exit code 3: the gateway did not answer, such as one that is not the owner of its group.
#[derive(Args)]
pub(crate) struct RiskArgs {
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `risks`, each with `risk`, `found` and `remedy`, and `modes` as `evenkeel modes` does, each with `predicted`, the
    /// mode in `GET /v1/blast` with `outage_by`: `measured`, or `settings` of the detection
    #[arg(long)]
    pub(crate) json: bool,
}

/// A single point of failure.
#[derive(PartialEq, Debug)]
struct Risk {
    name: &'static str,
    found: String,
    remedy: &'static str,
}

/// The answers of the gateway.
struct RiskFacts {
    zones: Value,
    status: Value,
    nodes: Value,
    /// Null without a group.
    gateways: Value,
    busiest: Value,
    /// By the name of the zone.
    zone_losses: Vec<(String, Value)>,
    /// `GET /v1/modes`: the modes as measured.
    modes: Value,
}

impl RiskArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let facts = self.api.waiting_longer(PLAYED_WITHIN).operate(async |admin| {
            let zones = admin.read("/v1/zones").await?;
            let mut zone_losses = Vec::new();
            for zone in rows(&zones, "zones") {
                let name = format!("{}/{}", text(zone, "region"), text(zone, "zone"));
                let blast = admin.read(&format!("/v1/blast?zones={}", escape(&name))).await?;
                zone_losses.push((name, blast));
            }
            let status = admin.read("/v1/status").await?;
            let nodes = admin.read("/v1/nodes").await?;
            let gateways = admin.ask(ApiCall::get("/v1/gateways")).await?;
            let gateways =
                if gateways.status == 404 { Value::Null } else { gateways.accepted()? };
            let busiest = match admin.read("/v1/blast?busiest=1&modes=true").await {
                // An earlier gateway, or one that is too busy to play the modes.
                Err(ClientError::Refused { status: 400 | 503, .. }) => {
                    admin.read("/v1/blast?busiest=1").await
                }
                answer => answer,
            };
            let busiest = match busiest {
                // No node runs.
                Err(ClientError::Refused { status: 404, .. }) => Value::Null,
                answer => answer?,
            };
            let modes = admin.read("/v1/modes").await?;
            Ok(RiskFacts { zones, status, nodes, gateways, busiest, zone_losses, modes })
        });
        let facts = facts.map_err(CommandError::unanswered)?;
        let mut risks = facts.risks();
        risks.extend(drilled().map_err(CommandError::unanswered)?);
        if self.json {
            let risks: Vec<Value> = risks
                .iter()
                .map(|Risk { name, found, remedy }| {
                    json!({"risk": name, "found": found, "remedy": remedy})
                })
                .collect();
            say(&json!({"risks": risks, "modes": facts.compared_modes()}));
        } else {
            for Risk { name, found, remedy } in &risks {
                say(&format!("{name:<16} {found}: {remedy}"));
            }
            mode_lines(&facts.modes).iter().for_each(say);
            facts.predicted_lines().iter().for_each(say);
        }
        let count = risks.len();
        verdict(self.json, (count > 0).then(|| format!("{count} risks")))
    }
}

impl RiskFacts {
    fn risks(&self) -> Vec<Risk> {
        let mut risks = Vec::new();
        let mut add = |name, found: String, remedy| risks.push(Risk { name, found, remedy });
        let unplaced = |blast: &Value| number(&blast["unplaced"], "sessions");
        if self.busiest.is_null() {
            add("no-node", "no node runs".to_owned(), "start one");
        } else if unplaced(&self.busiest) > 0 {
            let found = format!(
                "the loss of {} would leave {} sessions without a node",
                texts(&self.busiest, "nodes").join(", "),
                unplaced(&self.busiest)
            );
            add("node", found, "add nodes, or raise `capacity` of those there are");
        }
        for (zone, blast) in self.zone_losses.iter().filter(|(_, blast)| unplaced(blast) > 0) {
            let found = format!(
                "the loss of zone {zone} would leave {} of its {} sessions without a node",
                unplaced(blast),
                number(blast, "sessions")
            );
            add("zone", found, "add nodes in other zones, and set `reserve = \"zone\"`");
        }
        let up = rows(&self.zones, "zones").iter().filter(|zone| number(zone, "nodes_up") > 0);
        let up: Vec<&Value> = up.collect();
        if let [zone] = up[..] {
            let (region, zone) = (text(zone, "region"), text(zone, "zone"));
            let found = format!("all nodes that take rooms are in {region}/{zone}");
            add("one-zone", found, "add nodes in another zone");
        }
        if let Some(carrier) = self.only_carrier() {
            let found = format!("all advertised addresses are of carrier {carrier}");
            add("one-carrier", found, "add an address of another carrier to `advertise`");
        }
        if let Some(carrier) = self.only_carrier_of_nodes() {
            let found = format!("all nodes are of carrier {carrier}");
            add("one-carrier", found, "add nodes of another carrier");
        }
        let unprotected = number(&self.busiest, "unprotected_rooms_before");
        if unprotected > 0 {
            let found = format!("{unprotected} rooms lack the spare that their scenario wants");
            add("no-spare", found, "add capacity; `evenkeel session explain` has the candidates");
        }
        for dependency in texts(&self.busiest, "dependencies_down") {
            let found = format!("dependency {dependency} is down");
            add("dependency", found, "`evenkeel status` has the reason");
        }
        if self.gateways.is_null() {
            let found = "this gateway belongs to no group".to_owned();
            add("one-gateway", found, "add a standby with [cluster]");
        }
        for warning in texts(&self.gateways, "warnings") {
            add("group", warning.to_owned(), "`evenkeel gateway list` has the members");
        }
        risks
    }

    /// The measured modes, each with its prediction. Measured outages replace those that follow from settings.
    fn compared_modes(&self) -> Vec<Value> {
        let compared = |measured: &Value| {
            let mut mode = measured.clone();
            let mut predicted = rows(&self.busiest, "modes").iter();
            let predicted = predicted.find(|predicted| predicted["mode"] == mode["mode"]).cloned();
            mode["predicted"] = predicted.map_or(Value::Null, |mut predicted| {
                let recovery = &measured["recovery_ms"];
                if recovery.is_object() {
                    predicted["outage_ms"] =
                        json!({"p50": recovery["p50"], "max": recovery["max"]});
                }
                let by = if recovery.is_object() { "measured" } else { "settings" };
                predicted["outage_by"] = json!(by);
                predicted
            });
            mode
        };
        rows(&self.modes, "modes").iter().map(compared).collect()
    }

    /// The table of predictions; empty if no node runs.
    fn predicted_lines(&self) -> Vec<String> {
        let mbit = |kbps: u64| format!("{:.1}", kbps as f64 / 1_000.0);
        let line = |mode: &Value| {
            let predicted = &mode["predicted"];
            let ms = |key: &str| {
                let time = predicted["outage_ms"][key].as_f64();
                time.map_or("–".to_owned(), |ms| format!("{ms:.1}"))
            };
            let cost = predicted["bandwidth_cost"].as_f64();
            format!(
                "{:<14} {:>8} {:>9} {:>9} {:>10} {:>9} {:>9} {:>8}  {}",
                text(mode, "mode"),
                number(predicted, "rooms_without_spare"),
                mbit(number(predicted, "needed_kbps")),
                mbit(number(predicted, "free_kbps")),
                cost.map_or("–".to_owned(), |cost| format!("+{:.1} %", cost * 100.0)),
                ms("p50"),
                ms("max"),
                number(predicted, "unplaced_sessions"),
                text(predicted, "outage_by"),
            )
        };
        let modes = self.compared_modes();
        let lines: Vec<String> =
            modes.iter().filter(|mode| mode["predicted"].is_object()).map(line).collect();
        if lines.is_empty() {
            return lines;
        }
        let lost = texts(&self.busiest, "nodes").join(", ");
        let title = format!("with all rooms in one mode, and the loss of {lost} (Mbit/s, ms):");
        let head = format!(
            "{:<14} {:>8} {:>9} {:>9} {:>10} {:>9} {:>9} {:>8}  outage",
            "mode", "no spare", "needed", "free", "bandwidth", "p50", "max", "no node"
        );
        [title, head].into_iter().chain(lines).collect()
    }

    /// The carrier of all advertised addresses; `None` if there are several, or an address without one.
    fn only_carrier(&self) -> Option<&str> {
        let carriers = self.status["carriers"].as_object()?;
        let (carrier, addresses) = carriers.iter().next().filter(|_| carriers.len() == 1)?;
        let own = rows(addresses, "");
        let mut listeners = rows(&self.status["udp"], "").iter().chain(self.status.get("quic"));
        listeners
            .all(|address| address.is_null() || own.contains(address))
            .then_some(carrier.as_str())
    }

    /// The carrier of all nodes that are not down; `None` if there are several, or a node without one.
    fn only_carrier_of_nodes(&self) -> Option<&str> {
        let nodes = rows(&self.nodes, "nodes").iter().filter(|node| text(node, "health") != "down");
        let carriers: BTreeSet<Option<&str>> = nodes.map(|node| node["carrier"].as_str()).collect();
        carriers.first().copied().flatten().filter(|_| carriers.len() == 1)
    }
}

/// The risk that no drill has shown lately what a failure does.
#[cfg(feature = "lab")]
fn drilled() -> Result<Option<Risk>, CommandError> {
    use std::time::{Duration, SystemTime};

    use evenkeel_process::unix_us;

    /// A drill is repeated each quarter.
    const HOLDS: Duration = Duration::from_secs(90 * 86_400);
    let last_us = crate::lab::last_drill_us()?;
    let age_us = last_us.map(|at_us| unix_us(SystemTime::now()).saturating_sub(at_us));
    let found = match age_us {
        Some(age_us) if u128::from(age_us) <= HOLDS.as_micros() => return Ok(None),
        Some(age_us) => format!("the last drill was {} days ago", age_us / 86_400_000_000),
        None => "no drill is recorded on this host".to_owned(),
    };
    let remedy = "`evenkeel drill kill-node` shows what a failure does";
    Ok(Some(Risk { name: "no-drill", found, remedy }))
}

#[cfg(not(feature = "lab"))]
fn drilled() -> Result<Option<Risk>, CommandError> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blast(nodes: &[&str], sessions: u64, unplaced: u64) -> Value {
        json!({
            "nodes": nodes, "sessions": sessions, "unplaced": {"rooms": 1, "sessions": unplaced},
            "unprotected_rooms_before": 0,
        })
    }

    fn zone(name: &str, nodes_up: u64) -> Value {
        json!({"region": "eu", "zone": name, "nodes_up": nodes_up})
    }

    fn sound() -> RiskFacts {
        RiskFacts {
            zones: json!({"zones": [zone("a", 1), zone("b", 2)]}),
            status: json!({"carriers": {}, "udp": ["192.0.2.1:5004"], "quic": null}),
            nodes: json!({"nodes": [{"health": "up", "carrier": "ct"}, {"health": "up"}]}),
            gateways: json!({"gateways": [], "warnings": []}),
            busiest: blast(&["n1"], 9, 0),
            zone_losses: vec![("eu/a".to_owned(), blast(&["n1"], 9, 0))],
            modes: json!({"modes": []}),
        }
    }

    fn names(facts: &RiskFacts) -> Vec<&'static str> {
        facts.risks().iter().map(|risk| risk.name).collect()
    }

    #[test]
    fn sound_fleet_has_no_risk() {
        assert_eq!(sound().risks(), []);
    }

    #[test]
    fn modes_are_compared_by_measures_or_settings() {
        let measured = |mode: &str, recovery: Value| json!({"mode": mode, "recovery_ms": recovery});
        let predicted = |mode: &str, outage: Value| {
            json!({
                "mode": mode, "rooms_without_spare": 2, "needed_kbps": 1_280, "free_kbps": 44_000,
                "bandwidth_cost": 1.0, "unplaced_sessions": 3, "outage_ms": outage,
            })
        };
        let mut facts = sound();
        let recovery = json!({"p50": 21.0, "p99": 30.0, "max": 40.5});
        facts.modes = json!({"modes": [measured("hot", recovery), measured("cold", Value::Null)]});
        assert_eq!(facts.compared_modes()[0]["predicted"], Value::Null, "of an earlier gateway");
        assert_eq!(facts.predicted_lines(), [""; 0]);
        let expected = json!({"p50": 15.0, "max": 16.5});
        facts.busiest["modes"] =
            json!([predicted("cold", expected.clone()), predicted("hot", expected.clone())]);
        let compared = facts.compared_modes();
        let outage = |at: usize| {
            let predicted = &compared[at]["predicted"];
            (predicted["outage_ms"].clone(), predicted["outage_by"].clone())
        };
        assert_eq!(outage(0), (json!({"p50": 21.0, "max": 40.5}), json!("measured")));
        assert_eq!(outage(1), (expected, json!("settings")));
        let lines = facts.predicted_lines();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].contains("the loss of n1"), "{}", lines[0]);
        let cells: Vec<&str> = lines[3].split_whitespace().collect();
        let right = ["cold", "2", "1.3", "44.0", "+100.0", "%", "15.0", "16.5", "3", "settings"];
        assert_eq!(cells, right);
    }

    #[test]
    fn each_single_point_of_failure_is_a_risk() {
        let node = RiskFacts { busiest: blast(&["n1"], 9, 4), ..sound() };
        assert_eq!(node.risks()[0].found, "the loss of n1 would leave 4 sessions without a node");
        let of_zone = vec![("eu/a".to_owned(), blast(&["n1", "n2"], 9, 4))];
        let lost = RiskFacts { zone_losses: of_zone, ..sound() };
        let found = "the loss of zone eu/a would leave 4 of its 9 sessions without a node";
        assert_eq!(lost.risks()[0].found, found);
        let one = RiskFacts { zones: json!({"zones": [zone("a", 0), zone("b", 2)]}), ..sound() };
        assert_eq!(names(&one), ["one-zone"]);
        assert_eq!(one.risks()[0].found, "all nodes that take rooms are in eu/b");
        let mut bare = sound();
        bare.busiest["unprotected_rooms_before"] = json!(3);
        assert_eq!(names(&bare), ["no-spare"]);
        let with_carriers = |carriers| RiskFacts {
            status: json!({"carriers": carriers, "udp": ["192.0.2.1:5004"], "quic": null}),
            ..sound()
        };
        let (own, other) = (json!(["192.0.2.1:5004"]), json!(["192.0.2.2:5004"]));
        assert_eq!(names(&with_carriers(json!({"ct": own}))), ["one-carrier"]);
        assert_eq!(names(&with_carriers(json!({"ct": own, "cu": other}))), [""; 0]);
        assert_eq!(names(&with_carriers(json!({"cu": other}))), [""; 0], "and one unnamed");
        let with_nodes = |nodes| RiskFacts { nodes: json!({"nodes": nodes}), ..sound() };
        let node = |carrier: &str, health: &str| json!({"carrier": carrier, "health": health});
        let of_one = with_nodes(json!([node("ct", "up"), node("ct", "wary"), node("cu", "down")]));
        assert_eq!(of_one.risks()[0].found, "all nodes are of carrier ct");
        assert_eq!(names(&with_nodes(json!([node("ct", "up"), node("cu", "up")]))), [""; 0]);
        let mut without = sound();
        without.busiest["dependencies_down"] = json!(["idp"]);
        assert_eq!(without.risks()[0].found, "dependency idp is down");
        let alone = RiskFacts { gateways: Value::Null, ..sound() };
        assert_eq!(names(&alone), ["one-gateway"]);
        let warned = RiskFacts { gateways: json!({"warnings": ["no standby follows"]}), ..sound() };
        assert_eq!(names(&warned), ["group"]);
        let none = RiskFacts { busiest: Value::Null, zones: json!({"zones": []}), ..sound() };
        assert_eq!(names(&none), ["no-node"]);
    }
}
