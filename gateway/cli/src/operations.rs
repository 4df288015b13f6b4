//! Commands about nodes, zones, regions, breakers and rooms.

use clap::{Args, Subcommand, ValueEnum};
use evenkeel_client::escape;
use evenkeel_contract::nodes::{Node, NodeList, NodePlace, Region, RegionList, Zone, ZoneList};
use evenkeel_contract::operations::{
    BreakerMode, BreakerRequest, DrainRequest, EjectRequest, FailbackRequest, MoveRequest,
};
use evenkeel_contract::sessions::{Room, RoomPage};
use serde::Serialize;
use serde_json::{Value, json};

use crate::command::{
    ApiArgs, CommandError, counted, list, print_accepted, print_done, say, typed,
};
use crate::session::room_lines;

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
    /// List nodes with zone, health, load, carrier, round trip, loss, sessions that the node or the leg to it impairs, and openings in
    /// progress
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let (node, verb, body) = match self.verb {
            NodeCommand::List => {
                let rows = |list: NodeList| list.nodes;
                return list(self.json, &self.api.read("/v1/nodes")?, rows, node_line);
            }
            NodeCommand::Drain { node, deadline, force } => {
                (node, "drain", drain_body(deadline, force))
            }
            NodeCommand::Undrain { node } => (node, "undrain", Value::Null),
            NodeCommand::Eject { node, force } => (node, "eject", eject_body(force)),
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

fn drain_body(deadline: Option<String>, force: bool) -> Value {
    body(&DrainRequest { deadline, force })
}

fn eject_body(force: bool) -> Value {
    body(&EjectRequest { force })
}

/// Null without a key, so that none is sent.
fn body(request: &impl Serialize) -> Value {
    let body = json!(request);
    if body == json!({}) { Value::Null } else { body }
}

const DRAINS: &str = "takes no new rooms and is being emptied; `evenkeel node list` shows how many rooms are \
    left, and the event `drained` reports the end";

fn node_line(node: &Node) -> String {
    let flag = |is: bool, word| if is { word } else { "" };
    let opening = match (node.opening, node.queued) {
        (0, 0) => String::new(),
        (opening, waiting) => format!(", opening {opening}, {waiting} queued"),
    };
    let trip = node.round_trip_us;
    let trip =
        trip.map_or(String::new(), |us| format!(", {}.{} ms away", us / 1_000, us % 1_000 / 100));
    // Below it is shown as zero.
    let loss = match node.loss_ppm {
        0..500 => String::new(),
        ppm => format!(", {:.1} % lost", f64::from(ppm) / 1e4),
    };
    let impaired = match node.impaired_sessions {
        0 => String::new(),
        sessions => format!(", impairs {}", counted(sessions, "session")),
    };
    let NodePlace { node: name, carrier, .. } = &node.hop.place;
    let carrier = carrier.as_ref().map_or(String::new(), |carrier| format!(", carrier {carrier}"));
    let need = node.needed_for.as_ref();
    let need = need.map_or(String::new(), |need| format!(", needed for {need}"));
    format!(
        "{name:<16} {:<16} {:<8} {:>4} rooms, {:>3} % of {} kbit/s{carrier}{trip}{loss}{impaired}{opening}{}{}{}{}{need}",
        node.hop.place.full_zone(),
        node.health,
        node.rooms,
        node.load_permille / 10,
        node.capacity_kbps,
        flag(node.draining, ", draining"),
        flag(node.stopping, ", stopping"),
        flag(node.leaving, ", leaving"),
        flag(node.ejected, ", ejected"),
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let (zone, verb, body) = match self.verb {
            ZoneCommand::List => {
                let rows = |list: ZoneList| list.zones;
                return list(self.json, &self.api.read("/v1/zones")?, rows, zone_line);
            }
            ZoneCommand::Drain { zone, deadline, force } => {
                (zone, "drain", drain_body(deadline, force))
            }
            ZoneCommand::Undrain { zone } => (zone, "undrain", Value::Null),
            ZoneCommand::Eject { zone, force } => (zone, "eject", eject_body(force)),
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

fn zone_line(zone: &Zone) -> String {
    let count = |nodes: usize, word: &str| match nodes {
        0 => String::new(),
        nodes => format!(", {nodes} {word}"),
    };
    format!(
        "{:<24} breaker {}{}, {} of {} nodes take rooms, {} rooms, {} % of {} kbit/s{}{}",
        format!("{}/{}", zone.region, zone.zone),
        zone.breaker.as_deref().unwrap_or_default(),
        held(zone.breaker_mode.as_deref().unwrap_or_default()),
        zone.nodes_up,
        zone.nodes,
        zone.rooms,
        zone.load_permille / 10,
        zone.capacity_kbps,
        count(zone.nodes_draining, "draining"),
        count(zone.nodes_ejected, "ejected"),
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let at = |region: &str, verb| format!("/v1/regions/{}:{verb}", escape(region));
        let (path, body, words) = match self.verb {
            RegionCommand::List => {
                let rows = |list: RegionList| list.regions;
                return list(self.json, &self.api.read("/v1/regions")?, rows, region_line);
            }
            RegionCommand::Drain { region, deadline, force } => {
                self.api.post(&at(&region, "drain"), &drain_body(deadline, force))?;
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
                (path, json!(FailbackRequest { mode: mode.to_owned() }), words)
            }
        };
        self.api.post(&path, &body)?;
        print_done(self.json, words);
        Ok(())
    }
}

fn region_line(region: &Region) -> String {
    let opens = match region.half_open_in_ms {
        Some(ms) => format!(" for {} s", ms.div_ceil(1_000)),
        None => held(&region.breaker_mode).to_owned(),
    };
    format!(
        "{:<16} breaker {}{opens}, {} of {} nodes take rooms, {} rooms, {} displaced, failback {}",
        region.region,
        region.breaker,
        region.nodes_up,
        region.nodes,
        region.rooms,
        region.rooms_displaced,
        region.failback,
    )
}

/// Says that an operator holds a breaker in this mode.
pub(crate) fn held(breaker_mode: &str) -> &'static str {
    match breaker_mode {
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let (owner, mode, how) = match self.verb {
            BreakerCommand::Open(owner) => (owner, BreakerMode::Open, "is held open"),
            BreakerCommand::Close(owner) => (owner, BreakerMode::Closed, "is held closed"),
            BreakerCommand::Auto(owner) => (owner, BreakerMode::Auto, "judges again"),
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
            self.api.post(&path, &BreakerRequest { mode })?;
            print_done(self.json, format!("the breaker of {kind} {name} {how}"));
        }
        Ok(())
    }
}

/// List, explain and move rooms.
#[derive(Args)]
pub(crate) struct RoomArgs {
    #[command(subcommand)]
    verb: RoomCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list` and `explain` as in the API, `move` as `{"accepted": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum RoomCommand {
    /// List rooms with number, node, route and deciding policy
    List,
    /// Explain a room's node: the policies that are asked about it, with revision and arm (`active` or `canary`), their answers, the
    /// alternatives, and past moves
    Explain {
        /// The room's name, as for `move`
        room: String,
    },
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        match self.verb {
            RoomCommand::List => {
                let rooms = self.api.operate(async |admin| admin.list("rooms").await)?;
                let rows = |page: RoomPage| page.rooms;
                list(self.json, &json!({"rooms": rooms}), rows, room_line)?;
            }
            RoomCommand::Explain { room } => {
                let answer = self.api.read(&format!("/v1/rooms/{}/explain", escape(&room)))?;
                if self.json {
                    say(&answer);
                } else {
                    room_lines(&typed(&answer)?).iter().for_each(say);
                }
            }
            RoomCommand::Move { room, node } => {
                let path = format!("/v1/rooms/{}:move", escape(&room));
                self.api.post(&path, &MoveRequest { node: node.as_str().into() })?;
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

fn room_line(room: &Room) -> String {
    let nodes: Vec<&str> = room.route.iter().map(|hop| &*hop.place.node).collect();
    format!(
        "{:<24} {:<6} {:<10} {:>3} sessions at {}, route {}, placed by {}",
        room.room,
        room.id,
        room.scenario,
        room.sessions.len(),
        room.hop.as_ref().map_or("no node", |hop| &hop.place.node),
        nodes.join(" "),
        room.placed_by,
    )
}

#[cfg(test)]
mod tests;
