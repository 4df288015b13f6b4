//! `evenkeel risk`: single points of failure of the fleet as it is, and the redundancy modes compared for it.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use evenkeel_client::{ApiClient, ClientError, escape};
use evenkeel_contract::Word;
use evenkeel_contract::blast::{Blast, ExpectedOutage, ModePrediction};
use evenkeel_contract::gateway::{GatewayList, Mode, ModeList, Status};
use evenkeel_contract::nodes::{Node, NodeList, Zone, ZoneList};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::command::{ApiArgs, CommandError, say, verdict};
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
    zones: Vec<Zone>,
    status: Status,
    nodes: Vec<Node>,
    /// `None` without a group.
    gateways: Option<GatewayList>,
    /// The loss of the busiest node; `None` if no node runs.
    busiest: Option<Blast>,
    /// By the name of the zone.
    zone_losses: Vec<(String, Blast)>,
    /// The modes as measured.
    modes: Vec<Mode>,
}

/// A mode as measured, with its prediction; `None` if no node runs, or of an earlier gateway.
#[derive(Serialize)]
struct ComparedMode {
    #[serde(flatten)]
    measured: Mode,
    predicted: Option<ComparedPrediction>,
}

#[derive(Serialize)]
struct ComparedPrediction {
    #[serde(flatten)]
    prediction: ModePrediction,
    /// `measured`, or `settings` of the detection.
    outage_by: Word,
}

/// `None`: the gateway answers 404.
async fn found<T: DeserializeOwned>(
    admin: &mut ApiClient,
    path: &str,
) -> Result<Option<T>, ClientError> {
    match admin.get(path).await {
        Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

impl RiskArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let facts = self.api.waiting_longer(PLAYED_WITHIN).operate(async |admin| {
            let ZoneList { zones } = admin.get("/v1/zones").await?;
            let mut zone_losses = Vec::new();
            for zone in &zones {
                let name = format!("{}/{}", zone.region, zone.zone);
                let blast = admin.get(&format!("/v1/blast?zones={}", escape(&name))).await?;
                zone_losses.push((name, blast));
            }
            let status = admin.status().await?;
            let NodeList { nodes } = admin.get("/v1/nodes").await?;
            let gateways = found(admin, "/v1/gateways").await?;
            let busiest = match found(admin, "/v1/blast?busiest=1&modes=true").await {
                // An earlier gateway, or one that is too busy to play the modes.
                Err(ClientError::Refused { status: 400 | 503, .. }) => {
                    found(admin, "/v1/blast?busiest=1").await?
                }
                answer => answer?,
            };
            let ModeList { modes } = admin.get("/v1/modes").await?;
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
        let unplaced = |blast: &Blast| blast.loss.as_ref().map_or(0, |loss| loss.unplaced.sessions);
        match &self.busiest {
            None => add("no-node", "no node runs".to_owned(), "start one"),
            Some(busiest) if unplaced(busiest) > 0 => {
                let found = format!(
                    "the loss of {} would leave {} sessions without a node",
                    self.busiest_nodes(),
                    unplaced(busiest)
                );
                add("node", found, "add nodes, or raise `capacity` of those there are");
            }
            Some(_) => {}
        }
        for (zone, blast) in self.zone_losses.iter().filter(|(_, blast)| unplaced(blast) > 0) {
            let found = format!(
                "the loss of zone {zone} would leave {} of its {} sessions without a node",
                unplaced(blast),
                blast.loss.as_ref().map_or(0, |loss| loss.hit.sessions)
            );
            add(
                "zone",
                found,
                "add capacity in other zones; `reserve = \"node\"` of a scenario reserves none for a zone",
            );
        }
        let has_happened = |blast: &Blast| {
            let loss = blast.loss.as_ref();
            loss.is_some_and(|loss| loss.nodes.is_empty() && !loss.lost_before.is_empty())
        };
        for (zone, _) in self.zone_losses.iter().filter(|(_, blast)| has_happened(blast)) {
            let found = format!("the loss of zone {zone} has happened already: no node runs there");
            add("zone", found, UNAVAILABLE_REMEDY);
        }
        let unavailable = self.nodes.iter().filter_map(|node| {
            let name = &node.hop.place.node;
            unavailable(node).map(|state| format!("{name} ({state})"))
        });
        let unavailable: Vec<String> = unavailable.collect();
        if !unavailable.is_empty() {
            let found = format!("nodes that take no rooms: {}", unavailable.join(", "));
            add("unavailable", found, UNAVAILABLE_REMEDY);
        }
        let up: Vec<&Zone> = self.zones.iter().filter(|zone| zone.nodes_up > 0).collect();
        if let [Zone { region, zone, .. }] = up[..] {
            let found = format!("all nodes that take rooms are in {region}/{zone}");
            add("one-zone", found, "add nodes in another zone");
        }
        if let Some(carrier) = self.only_carrier() {
            let found = format!("all advertised addresses are of carrier {carrier}");
            add("one-carrier", found, "add an address of another carrier to `advertise`");
        }
        if let Some(carrier) = self.only_carrier_of_nodes() {
            let found = format!("all nodes that take rooms are of carrier {carrier}");
            add("one-carrier", found, "add nodes of another carrier");
        }
        let busiest = self.busiest.as_ref();
        let unprotected = busiest.and_then(|it| it.loss.as_ref());
        let unprotected = unprotected.map_or(0, |loss| loss.unprotected_rooms_before);
        if unprotected > 0 {
            let found = format!(
                "{unprotected} rooms lack a standby, or reserve for the death of a node instead of its zone or region"
            );
            add("no-spare", found, "add capacity; `evenkeel session explain` has the candidates");
        }
        for dependency in busiest.iter().flat_map(|it| it.dependencies_down.iter().flatten()) {
            let found = format!("dependency {dependency} is down");
            add("dependency", found, "`evenkeel status` has the reason");
        }
        match &self.gateways {
            None => {
                let found = "this gateway belongs to no group".to_owned();
                add("one-gateway", found, "add a standby with [cluster]");
            }
            Some(GatewayList { warnings, .. }) => {
                for warning in warnings {
                    add("group", warning.to_string(), "`evenkeel gateway list` has the members");
                }
            }
        }
        risks
    }

    fn busiest_nodes(&self) -> String {
        let loss = self.busiest.as_ref().and_then(|blast| blast.loss.as_ref());
        loss.map_or(String::new(), |loss| loss.nodes.join(", "))
    }

    /// The measured modes, each with its prediction. Measured outages replace those that follow from settings.
    fn compared_modes(&self) -> Vec<ComparedMode> {
        let predictions = self.busiest.as_ref().and_then(|blast| blast.modes.as_ref());
        let compared = |measured: &Mode| {
            let mut predicted = predictions.into_iter().flatten();
            let predicted = predicted.find(|predicted| predicted.mode == measured.mode).cloned();
            let predicted = predicted.map(|prediction| match measured.recovery_ms {
                Some(recovery) => {
                    let outage_ms = Some(ExpectedOutage { p50: recovery.p50, max: recovery.max });
                    let prediction = ModePrediction { outage_ms, ..prediction };
                    ComparedPrediction { prediction, outage_by: "measured".into() }
                }
                None => ComparedPrediction { prediction, outage_by: "settings".into() },
            });
            ComparedMode { measured: measured.clone(), predicted }
        };
        self.modes.iter().map(compared).collect()
    }

    /// The table of predictions; empty if no node runs.
    fn predicted_lines(&self) -> Vec<String> {
        let mbit = |kbps: u64| format!("{:.1}", kbps as f64 / 1_000.0);
        let ms = |time: Option<f64>| time.map_or("–".to_owned(), |ms| format!("{ms:.1}"));
        let line = |mode: ComparedMode| {
            let ComparedPrediction { prediction, outage_by } = mode.predicted?;
            let cost = prediction.bandwidth_cost;
            Some(format!(
                "{:<14} {:>8} {:>9} {:>9} {:>10} {:>9} {:>9} {:>8}  {outage_by}",
                mode.measured.mode,
                prediction.rooms_without_spare,
                mbit(prediction.needed_kbps),
                mbit(prediction.free_kbps),
                cost.map_or("–".to_owned(), |cost| format!("+{:.1} %", cost * 100.0)),
                ms(prediction.outage_ms.map(|outage| outage.p50)),
                ms(prediction.outage_ms.map(|outage| outage.max)),
                prediction.unplaced_sessions,
            ))
        };
        let lines: Vec<String> = self.compared_modes().into_iter().filter_map(line).collect();
        if lines.is_empty() {
            return lines;
        }
        let lost = self.busiest_nodes();
        let title = format!("with all rooms in one mode, and the loss of {lost} (Mbit/s, ms):");
        let head = format!(
            "{:<14} {:>8} {:>9} {:>9} {:>10} {:>9} {:>9} {:>8}  outage",
            "mode", "no spare", "needed", "free", "bandwidth", "p50", "max", "no node"
        );
        [title, head].into_iter().chain(lines).collect()
    }

    /// The carrier of all advertised addresses; `None` if there are several, or an address without one.
    fn only_carrier(&self) -> Option<&str> {
        let Status { carriers, udp, quic, .. } = &self.status;
        let (carrier, own) = carriers.iter().next().filter(|_| carriers.len() == 1)?;
        udp.iter().chain(quic).all(|address| own.contains(address)).then_some(&**carrier)
    }

    /// The carrier of all nodes that take rooms; `None` if there are several, or a node without one.
    fn only_carrier_of_nodes(&self) -> Option<&str> {
        let nodes = self.nodes.iter().filter(|node| unavailable(node).is_none() && !node.stopping);
        let carriers: BTreeSet<Option<&str>> =
            nodes.map(|node| node.hop.place.carrier.as_deref()).collect();
        carriers.first().copied().flatten().filter(|_| carriers.len() == 1)
    }
}

const UNAVAILABLE_REMEDY: &str = "`evenkeel node list` has their states";

/// The state for which the node takes no rooms. A cold one is started when rooms need it.
fn unavailable(node: &Node) -> Option<&'static str> {
    match &*node.health {
        _ if node.ejected => Some("ejected"),
        "down" => Some("down"),
        // A node that is stopped because it is not needed.
        _ if node.stopping => None,
        _ if node.draining || node.leaving => Some("draining"),
        _ => None,
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

    fn read<T: DeserializeOwned>(answer: Value) -> T {
        serde_json::from_value(answer).unwrap()
    }

    fn blast(nodes: &[&str], sessions: u64, unplaced: u64) -> Blast {
        read(json!({
            "nodes": nodes, "sessions": sessions, "unplaced": {"rooms": 1, "sessions": unplaced},
            "unprotected_rooms_before": 0,
        }))
    }

    fn zone(name: &str, nodes_up: usize) -> Zone {
        Zone { region: "eu".into(), zone: name.into(), nodes_up, ..Zone::default() }
    }

    fn status(carriers: &Value) -> Status {
        read(json!({"carriers": carriers, "udp": ["192.0.2.1:5004"], "quic": null}))
    }

    fn sound() -> RiskFacts {
        RiskFacts {
            zones: vec![zone("a", 1), zone("b", 2)],
            status: status(&json!({})),
            nodes: read(json!([{"health": "up", "carrier": "ct"}, {"health": "up"}])),
            gateways: Some(GatewayList::default()),
            busiest: Some(blast(&["n1"], 9, 0)),
            zone_losses: vec![("eu/a".to_owned(), blast(&["n1"], 9, 0))],
            modes: Vec::new(),
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
        let predicted = |mode: &str, outage: Value| {
            json!({
                "mode": mode, "rooms_without_spare": 2, "needed_kbps": 1_280, "free_kbps": 44_000,
                "bandwidth_cost": 1.0, "unplaced_sessions": 3, "outage_ms": outage,
            })
        };
        let mut facts = sound();
        facts.modes = read(json!([
            {"mode": "hot", "recovery_ms": {"p50": 21.0, "p99": 30.0, "max": 40.5}},
            {"mode": "cold", "recovery_ms": null},
        ]));
        let compared = json!(facts.compared_modes());
        assert_eq!(compared[0]["predicted"], Value::Null, "of an earlier gateway");
        assert_eq!(facts.predicted_lines(), [""; 0]);
        let expected = json!({"p50": 15.0, "max": 16.5});
        let predicted = [predicted("cold", expected.clone()), predicted("hot", expected.clone())];
        facts.busiest.as_mut().unwrap().modes = read(json!(predicted));
        let compared = json!(facts.compared_modes());
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
    fn nodes_that_take_no_rooms_are_a_risk() {
        let nodes = read(json!([
            {"node": "n1", "health": "up"},
            {"node": "n2", "health": "down", "carrier": "ct"},
            {"node": "n3", "health": "down", "ejected": true},
            {"node": "n4", "health": "up", "draining": true},
            {"node": "n5", "health": "cold"},
        ]));
        let facts = RiskFacts { nodes, ..sound() };
        assert_eq!(
            facts.risks()[0].found,
            "nodes that take no rooms: n2 (down), n3 (ejected), n4 (draining)"
        );
        let lost = json!({"nodes": [], "lost_before": [{"node": "n2", "state": "down"}]});
        let zone_losses = vec![("eu/a".to_owned(), read(lost))];
        let lost = RiskFacts { zone_losses, ..sound() };
        let found = "the loss of zone eu/a has happened already: no node runs there";
        assert_eq!(lost.risks()[0].found, found);
    }

    #[test]
    fn each_single_point_of_failure_is_a_risk() {
        let node = RiskFacts { busiest: Some(blast(&["n1"], 9, 4)), ..sound() };
        assert_eq!(node.risks()[0].found, "the loss of n1 would leave 4 sessions without a node");
        let of_zone = vec![("eu/a".to_owned(), blast(&["n1", "n2"], 9, 4))];
        let lost = RiskFacts { zone_losses: of_zone, ..sound() };
        let found = "the loss of zone eu/a would leave 4 of its 9 sessions without a node";
        assert_eq!(lost.risks()[0].found, found);
        let one = RiskFacts { zones: vec![zone("a", 0), zone("b", 2)], ..sound() };
        assert_eq!(names(&one), ["one-zone"]);
        assert_eq!(one.risks()[0].found, "all nodes that take rooms are in eu/b");
        let bare = json!({"nodes": ["n1"], "unprotected_rooms_before": 3});
        let bare = RiskFacts { busiest: read(bare), ..sound() };
        assert_eq!(names(&bare), ["no-spare"]);
        let with_carriers = |carriers: Value| RiskFacts { status: status(&carriers), ..sound() };
        let (own, other) = (json!(["192.0.2.1:5004"]), json!(["192.0.2.2:5004"]));
        assert_eq!(names(&with_carriers(json!({"ct": own}))), ["one-carrier"]);
        assert_eq!(names(&with_carriers(json!({"ct": own, "cu": other}))), [""; 0]);
        assert_eq!(names(&with_carriers(json!({"cu": other}))), [""; 0], "and one unnamed");
        let with_nodes = |nodes| RiskFacts { nodes: read(nodes), ..sound() };
        let node = |carrier: &str, health: &str| json!({"carrier": carrier, "health": health});
        let of_one = with_nodes(json!([node("ct", "up"), node("ct", "wary"), node("cu", "down")]));
        assert_eq!(names(&of_one), ["unavailable", "one-carrier"]);
        assert_eq!(of_one.risks()[1].found, "all nodes that take rooms are of carrier ct");
        assert_eq!(names(&with_nodes(json!([node("ct", "up"), node("cu", "up")]))), [""; 0]);
        let mut without = sound();
        without.busiest.as_mut().unwrap().dependencies_down = Some(vec!["idp".into()]);
        assert_eq!(without.risks()[0].found, "dependency idp is down");
        let alone = RiskFacts { gateways: None, ..sound() };
        assert_eq!(names(&alone), ["one-gateway"]);
        let warned =
            GatewayList { warnings: vec!["no standby follows".into()], ..GatewayList::default() };
        let warned = RiskFacts { gateways: Some(warned), ..sound() };
        assert_eq!(names(&warned), ["group"]);
        let none = RiskFacts { busiest: None, zones: Vec::new(), ..sound() };
        assert_eq!(names(&none), ["no-node"]);
    }
}
