//! Commands about nodes, zones, regions, breakers and rooms.

use clap::{Args, Subcommand, ValueEnum};
use evenkeel_client::escape;
use serde_json::{Value, json};

use crate::command::{ApiArgs, CommandError, list, number, print_accepted, print_done, rows, text};

/// List, drain, eject and return nodes.
#[derive(Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    verb: NodeCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list` as in the API, `drain` as `{"accepted": true}`, others as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum NodeCommand {
    /// List nodes with zone, health, load, carrier, round trip and openings in progress
    List,
    /// Move all rooms off a node without loss, and give it no new ones. The command returns at once; `node list` shows how
    /// many rooms are left, and the event `drained` reports the end
    #[command(verbatim_doc_comment)]
    Drain {
        /// The node's name
        node: String,
        /// Time limit, as `60s`; rooms left by then are reported and move once there is capacity
        #[arg(long)]
        deadline: Option<String>,
        /// Drain the last node that takes rooms, too: offers are refused then
        #[arg(long)]
        force: bool,
    },
    /// End a drain. A node that its agent drains (SIGUSR1) keeps draining
    Undrain {
        /// The node's name
        node: String,
    },
    /// Mark a node down whatever its health: its rooms fail over at once, and it stays down until `uneject`
    Eject {
        /// The node's name
        node: String,
        /// Eject the last node that takes rooms, too: offers are refused then
        #[arg(long)]
        force: bool,
    },
    /// End a node's ejection: it is used again as soon as it answers
    Uneject {
        /// The node's name
        node: String,
    },
}

impl NodeArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let (node, verb, body) = match self.verb {
            NodeCommand::List => {
                list(self.json, &self.api.read("/v1/nodes")?, "nodes", node_line);
                return Ok(());
            }
            NodeCommand::Drain { node, deadline, force } => {
                (node, "drain", body_of(deadline.as_deref(), force))
            }
            NodeCommand::Undrain { node } => (node, "undrain", Value::Null),
            NodeCommand::Eject { node, force } => (node, "eject", body_of(None, force)),
            NodeCommand::Uneject { node } => (node, "uneject", Value::Null),
        };
        self.api.post(&format!("/v1/nodes/{}:{verb}", escape(&node)), &body)?;
        match verb {
            "drain" => print_accepted(self.json, format!("{node} {DRAINS}")),
            "undrain" => print_done(self.json, format!("{node} takes rooms again")),
            "eject" => print_done(
                self.json,
                format!(
                    "{node} is ejected: its rooms fail over at once, and it stays down until `evenkeel node uneject {node}`"
                ),
            ),
            _ => print_done(self.json, format!("{node} is used again as soon as it answers")),
        }
        Ok(())
    }
}

/// Without the keys at their defaults, which a gateway of the last release may not know.
fn body_of(deadline: Option<&str>, force: bool) -> Value {
    let mut body = serde_json::Map::new();
    body.extend(deadline.map(|deadline| ("deadline".to_owned(), deadline.into())));
    body.extend(force.then(|| ("force".to_owned(), true.into())));
    if body.is_empty() { Value::Null } else { body.into() }
}

const DRAINS: &str = "takes no new rooms and is being emptied; `evenkeel node list` shows how many rooms are \
    left, and the event `drained` reports the end";

fn node_line(node: &Value) -> String {
    let flag = |key: &str, word| if node[key] == Value::Bool(true) { word } else { "" };
    let opening = match (number(node, "opening"), number(node, "queued")) {
        (0, 0) => String::new(),
        (opening, waiting) => format!(", opening {opening}, {waiting} queued"),
    };
    let trip = node["round_trip_us"].as_u64();
    let trip =
        trip.map_or(String::new(), |us| format!(", {}.{} ms away", us / 1_000, us % 1_000 / 100));
    let carrier = node["carrier"].as_str();
    let carrier = carrier.map_or(String::new(), |carrier| format!(", carrier {carrier}"));
    let need = node["needed_for"].as_str();
    let need = need.map_or(String::new(), |need| format!(", needed for {need}"));
    format!(
        "{:<16} {:<16} {:<8} {:>4} rooms, {:>3} % of {} kbit/s{carrier}{trip}{opening}{}{}{}{}{need}",
        text(node, "node"),
        format!("{}/{}", text(node, "region"), text(node, "zone")),
        text(node, "health"),
        number(node, "rooms"),
        number(node, "load_permille") / 10,
        number(node, "capacity_kbps"),
        flag("draining", ", draining"),
        flag("stopping", ", stopping"),
        flag("leaving", ", leaving"),
        flag("ejected", ", ejected"),
    )
}

/// List, drain, eject and uneject zones.
#[derive(Args)]
pub(crate) struct ZoneArgs {
    #[command(subcommand)]
    verb: ZoneCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list` as in the API, `drain` as `{"accepted": true}`, others as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum ZoneCommand {
    /// List zones with their nodes, rooms and load
    List,
    /// Move all rooms out of a zone, and give its present and future nodes no new ones. The command returns at once;
    /// `zone list` shows how many rooms are left, and the event `drained` reports the end for each node
    #[command(verbatim_doc_comment)]
    Drain {
        /// The zone: `eu/a`, or `a` if one region alone has a zone of this name
        zone: String,
        /// Time limit, as `60s`; rooms left by then are reported and move once there is capacity
        #[arg(long)]
        deadline: Option<String>,
        /// Drain the last zone with a node that takes rooms, too: offers are refused then
        #[arg(long)]
        force: bool,
    },
    /// End a drain
    Undrain {
        /// The zone, as for `drain`
        zone: String,
    },
    /// Mark all nodes of a zone down in one moment, whatever their health: their rooms fail over to other zones at once. They
    /// stay down until `zone uneject` or `node uneject`
    #[command(verbatim_doc_comment)]
    Eject {
        /// The zone, as for `drain`
        zone: String,
        /// Eject the last zone with a node that takes rooms, too: offers are refused then
        #[arg(long)]
        force: bool,
    },
    /// End the ejection of a zone's nodes: they are used again as soon as they answer
    Uneject {
        /// The zone, as for `drain`
        zone: String,
    },
}

impl ZoneArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let (zone, verb, body) = match self.verb {
            ZoneCommand::List => {
                list(self.json, &self.api.read("/v1/zones")?, "zones", zone_line);
                return Ok(());
            }
            ZoneCommand::Drain { zone, deadline, force } => {
                (zone, "drain", body_of(deadline.as_deref(), force))
            }
            ZoneCommand::Undrain { zone } => (zone, "undrain", Value::Null),
            ZoneCommand::Eject { zone, force } => (zone, "eject", body_of(None, force)),
            ZoneCommand::Uneject { zone } => (zone, "uneject", Value::Null),
        };
        self.api.post(&format!("/v1/zones/{}:{verb}", escape(&zone)), &body)?;
        let words = match verb {
            "drain" => {
                print_accepted(self.json, format!("{zone} {DRAINS}"));
                return Ok(());
            }
            "undrain" => format!("the nodes of {zone} take rooms again"),
            "eject" => format!(
                "the nodes of {zone} are ejected: their rooms fail over at once, and they stay down until `evenkeel zone uneject {zone}`"
            ),
            _ => format!("the nodes of {zone} are used again as soon as they answer"),
        };
        print_done(self.json, words);
        Ok(())
    }
}

fn zone_line(zone: &Value) -> String {
    let count = |key: &str, word: &str| match number(zone, key) {
        0 => String::new(),
        nodes => format!(", {nodes} {word}"),
    };
    format!(
        "{:<24} breaker {}{}, {} of {} nodes take rooms, {} rooms, {} % of {} kbit/s{}{}",
        format!("{}/{}", text(zone, "region"), text(zone, "zone")),
        text(zone, "breaker"),
        held(zone),
        number(zone, "nodes_up"),
        number(zone, "nodes"),
        number(zone, "rooms"),
        number(zone, "load_permille") / 10,
        number(zone, "capacity_kbps"),
        count("nodes_draining", "draining"),
        count("nodes_ejected", "ejected"),
    )
}

/// List and drain regions, and control fail-back.
#[derive(Args)]
pub(crate) struct RegionArgs {
    #[command(subcommand)]
    verb: RegionCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list` as in the API, `drain` as `{"accepted": true}`, others as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum RegionCommand {
    /// List regions with breaker, nodes and home rooms
    List,
    /// Move all rooms out of a region, and give its present and future nodes no new ones. The command returns at once;
    /// `node list` shows how many rooms are left, and the event `drained` reports the end for each node
    #[command(verbatim_doc_comment)]
    Drain {
        /// The region's name
        region: String,
        /// Time limit, as `60s`; rooms left by then are reported and move once there is capacity
        #[arg(long)]
        deadline: Option<String>,
        /// Drain the last region with a node that takes rooms, too: offers are refused then
        #[arg(long)]
        force: bool,
    },
    /// End a drain
    Undrain {
        /// The region's name
        region: String,
    },
    /// Set whether rooms return to their home region once its nodes are trusted
    Failback {
        /// `auto`: return automatically, a few per second; `force`: also to nodes that are not trusted yet; `forbid`: stay
        mode: FailbackModeArg,
        /// The region's name; default: all regions
        region: Option<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum FailbackModeArg {
    Auto,
    Force,
    Forbid,
}

impl FailbackModeArg {
    /// The name in the API, and what rooms do then.
    fn facts(self) -> (&'static str, &'static str) {
        match self {
            FailbackModeArg::Auto => {
                ("auto", "return automatically once its nodes are trusted, a few per second")
            }
            FailbackModeArg::Force => {
                ("force", "return, a few per second, also to nodes that are not trusted yet")
            }
            FailbackModeArg::Forbid => ("forbid", "do not return"),
        }
    }
}

impl RegionArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let at = |region: &str, verb| format!("/v1/regions/{}:{verb}", escape(region));
        let (path, body, words) = match self.verb {
            RegionCommand::List => {
                list(self.json, &self.api.read("/v1/regions")?, "regions", region_line);
                return Ok(());
            }
            RegionCommand::Drain { region, deadline, force } => {
                self.api.post(&at(&region, "drain"), &body_of(deadline.as_deref(), force))?;
                print_accepted(self.json, format!("{region} {DRAINS}"));
                return Ok(());
            }
            RegionCommand::Undrain { region } => {
                let words = format!("the nodes of {region} take rooms again");
                (at(&region, "undrain"), Value::Null, words)
            }
            RegionCommand::Failback { mode, region } => {
                let (mode, how) = mode.facts();
                let words =
                    format!("rooms of {} {how}", region.as_deref().unwrap_or("all regions"));
                let all = || "/v1/regions:failback".to_owned();
                let path = region.map_or_else(all, |region| at(&region, "failback"));
                (path, json!({"mode": mode}), words)
            }
        };
        self.api.post(&path, &body)?;
        print_done(self.json, words);
        Ok(())
    }
}

fn region_line(region: &Value) -> String {
    let opens = match region["half_open_in_ms"].as_u64() {
        Some(ms) => format!(" for {} s", ms.div_ceil(1_000)),
        None => held(region).to_owned(),
    };
    format!(
        "{:<16} breaker {}{opens}, {} of {} nodes take rooms, {} rooms, {} displaced, failback {}",
        text(region, "region"),
        text(region, "breaker"),
        number(region, "nodes_up"),
        number(region, "nodes"),
        number(region, "rooms"),
        number(region, "rooms_displaced"),
        text(region, "failback"),
    )
}

/// Says that an operator holds a breaker.
pub(crate) fn held(breaker: &Value) -> &'static str {
    match text(breaker, "breaker_mode") {
        "open" | "closed" => ", held by an operator",
        _ => "",
    }
}

/// Hold circuit breakers of regions, zones and clients open or closed
///
/// `evenkeel region list` and `zone list` show the breakers of regions and zones, `evenkeel status` those of clients that are held or not closed. A hold
/// lasts until `auto`, also across restarts, upgrades and takeovers.
#[derive(Args)]
pub(crate) struct BreakerArgs {
    #[command(subcommand)]
    verb: BreakerCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum BreakerCommand {
    /// Hold a breaker open: new rooms are placed elsewhere or refused, or `action` in `[breaker.clients]` decides
    /// about newcomers of the clients
    #[command(verbatim_doc_comment)]
    Open(BreakerOwner),
    /// Hold a breaker closed, whatever the evidence
    Close(BreakerOwner),
    /// Let a breaker judge again. One that was held open is half-open first
    Auto(BreakerOwner),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct BreakerOwner {
    /// Nodes of this region
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Nodes of this zone: `eu/a`, or `a` if one region alone has a zone of this name
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Clients with this value of the label `carrier`
    #[arg(long, value_name = "NAME")]
    carrier: Option<String>,
    /// Clients with this value of the label `region`
    #[arg(long, value_name = "NAME")]
    client_region: Option<String>,
}

impl BreakerArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let (owner, mode, how) = match self.verb {
            BreakerCommand::Open(owner) => (owner, "open", "is held open"),
            BreakerCommand::Close(owner) => (owner, "closed", "is held closed"),
            BreakerCommand::Auto(owner) => (owner, "auto", "judges again"),
        };
        let BreakerOwner { region, zone, carrier, client_region } = owner;
        let owners = [
            ("regions", "region", region),
            ("zones", "zone", zone),
            ("clients/carrier", "clients with carrier", carrier),
            ("clients/region", "clients with region", client_region),
        ];
        for (folder, kind, name) in owners {
            let Some(name) = name else { continue };
            let path = format!("/v1/{folder}/{}:breaker", escape(&name));
            self.api.post(&path, &json!({"mode": mode}))?;
            print_done(self.json, format!("the breaker of {kind} {name} {how}"));
        }
        Ok(())
    }
}

/// List and move rooms.
#[derive(Args)]
pub(crate) struct RoomArgs {
    #[command(subcommand)]
    verb: RoomCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list` as in the API, `move` as `{"accepted": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum RoomCommand {
    /// List rooms with number, node, route and deciding policy
    List,
    /// Move a room to a node, make-before-break and without loss. The command returns before the move, which begins once the
    /// room's sessions are open at the node: the event `moved` reports success, `move-ended` failure; `session explain` shows both
    #[command(verbatim_doc_comment)]
    Move {
        /// The room's name; with `affinity = "session"` each session is a room of its own: `conf~s7`
        room: String,
        /// The node's name
        node: String,
    },
}

impl RoomArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        match self.verb {
            RoomCommand::List => {
                let rooms = self.api.operate(async |admin| admin.list("rooms").await)?;
                list(self.json, &json!({"rooms": rooms}), "rooms", room_line);
            }
            RoomCommand::Move { room, node } => {
                let path = format!("/v1/rooms/{}:move", escape(&room));
                self.api.post(&path, &json!({"node": node}))?;
                print_accepted(
                    self.json,
                    format!(
                        "{room} moves to {node} once its sessions are open there; `evenkeel room list` shows its node, and `evenkeel session explain` the outcome"
                    ),
                );
            }
        }
        Ok(())
    }
}

fn room_line(room: &Value) -> String {
    let route = rows(&room["route"], "");
    let nodes: Vec<&str> = route.iter().map(|hop| text(hop, "node")).collect();
    format!(
        "{:<24} {:<6} {:<10} {:>3} sessions at {}, route {}, placed by {}",
        text(room, "room"),
        text(room, "id"),
        text(room, "scenario"),
        rows(&room["sessions"], "").len(),
        room["hop"]["node"].as_str().unwrap_or("no node"),
        nodes.join(" "),
        text(room, "placed_by"),
    )
}

#[cfg(test)]
mod tests;
