//! The gateway and its nodes, as processes, and the links between.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use evenkeel_client::ApiClient;
use evenkeel_lab::links::Conditions;
use evenkeel_lab::relay::RelayTally;
use evenkeel_lab::relay::link::Link;
use evenkeel_lab::sample_node::number_of;
use evenkeel_testkit::namespace;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::firewall::Firewall;
use crate::gateway::Gateway;
use crate::gateways::{Gateways, write_certificate, write_secret};
use crate::hosts::{CLIENTS, Hosts};
use crate::layout::{ConfiguredNode, Kind, Layout};
use crate::node::Misbehaviour;
use crate::process;
use crate::rtpengine;
use crate::store::Store;
use evenkeel_lab::process::ChildProcess;

const LOOPBACK: &str = "127.0.0.1:0";
const POLL_EVERY: Duration = Duration::from_millis(50);
/// The prefix of the crowd's room names.
pub(crate) const CROWD: &str = "drill";

/// Paths of a run.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) evenkeel: PathBuf,
    /// The program of the first gateway of a row, if it is an earlier one.
    pub(crate) from: Option<PathBuf>,
    pub(crate) own: PathBuf,
    pub(crate) folder: PathBuf,
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) region: &'static str,
    pub(crate) zone: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) process: Option<ChildProcess>,
    pub(crate) link: Option<Link>,
    /// `None` if the layout has none. It outlives the node, unless its zone dies.
    agent: Option<NodeAgent>,
}

/// The agent beside a node.
struct NodeAgent {
    /// `None` only while it is started again.
    process: Option<ChildProcess>,
    address: SocketAddr,
}

/// The name of the group's witness.
pub(crate) const WITNESS: &str = "w1";

/// A witness of the group, behind a link. It outlives the gateways.
pub(crate) struct Witness {
    _process: ChildProcess,
    link: Link,
}

impl Witness {
    /// Starts one on the host of the nodes, this far from the gateways.
    fn start(
        places: &Places,
        hosts: &Hosts,
        delay: Duration,
        seed: u64,
    ) -> Result<Witness, String> {
        let _inside = hosts.nodes.enter()?;
        let config = places.folder.join("witness.toml");
        write_secret(&places.folder, WITNESS)?;
        let at = SocketAddr::from((hosts.nodes.address(), 0));
        write(
            &config,
            &format!(
                "name = \"{WITNESS}\"\nlisten = \"{at}\"\nsecret_file = \"{WITNESS}.secret\"\n"
            ),
        )?;
        let words = ["witness", "--config", &config.display().to_string(), "--json"];
        let mut process = process::start(WITNESS, &places.evenkeel, &words, &places.folder)?;
        let link = Link::start(at, listening(&mut process)?, seed);
        let link = link.map_err(|error| format!("a link to the witness: {error}"))?;
        link.set_both(Conditions { delay, ..Conditions::default() });
        Ok(Witness { _process: process, link })
    }
}

/// All processes except clients. Dropping it ends them.
pub(crate) struct Stage {
    /// The gateways of the first group.
    pub(crate) gateways: Gateways,
    further_groups: Vec<Gateways>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) firewall: Firewall,
    /// Of the shared index.
    pub(crate) store: Option<Store>,
    _witness: Option<Witness>,
    pub(crate) layout: Layout,
    pub(crate) places: Places,
}

impl Stage {
    pub(crate) async fn set(layout: Layout, places: &Places, seed: u64) -> Result<Stage, String> {
        let firewall = Firewall::raise()?;
        let hosts =
            (layout.gateway_hosts > 0).then(|| Hosts::join(layout.gateway_hosts)).transpose()?;
        let hosts = hosts.map(Rc::new);
        let (nodes, told) = {
            let _inside = hosts.as_ref().map(|hosts| hosts.nodes.enter()).transpose()?;
            start_nodes(&layout, places, seed, hosts.as_deref())?
        };
        let witness = match (&hosts, layout.witness) {
            (Some(hosts), Some(delay)) => Some(Witness::start(places, hosts, delay, seed)?),
            _ => None,
        };
        let store = layout.store.then(|| Store::start(&layout, &places.folder)).transpose()?;
        if layout.gateway_hosts > 1 {
            write_certificate(&places.folder)?;
        }
        let witness_at = witness.as_ref().map(|it| it.link.near());
        let start =
            |group| Gateways::start(group, &layout, places, &told, witness_at, hosts.clone());
        let gateways = start(0).await?;
        let mut further_groups = Vec::new();
        for group in 1..layout.group_count() as u8 {
            further_groups.push(start(group).await?);
        }
        Ok(Stage {
            gateways,
            further_groups,
            nodes,
            firewall,
            store,
            _witness: witness,
            layout,
            places: places.clone(),
        })
    }

    /// All groups, the first one first.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Gateways> {
        iter::once(&self.gateways).chain(&self.further_groups)
    }

    pub(crate) fn groups_mut(&mut self) -> impl Iterator<Item = &mut Gateways> {
        iter::once(&mut self.gateways).chain(&mut self.further_groups)
    }

    pub(crate) fn has_several_groups(&self) -> bool {
        !self.further_groups.is_empty()
    }

    /// Hands the addresses of several groups back to their first owners.
    pub(crate) async fn hand_back(&mut self, within: Duration) -> Result<(), String> {
        if !self.has_several_groups() || self.groups().all(Gateways::is_at_home) {
            return Ok(());
        }
        let places = self.places.clone();
        for group in self.groups_mut() {
            group.hand_back(&places).await?;
        }
        self.settled(within).await?;
        // Former owners have sent until they handed back.
        self.count_media_of_standby()?;
        Ok(())
    }

    /// Media packets since the last call from hosts at which no gateway serves.
    pub(crate) fn count_media_of_standby(&self) -> Result<u64, String> {
        let hosts = self.gateways.hosts().filter(|_| self.layout.gateway_hosts > 1);
        let Some(hosts) = hosts else { return Ok(0) };
        let serving: BTreeSet<usize> = self.groups().filter_map(Gateways::host_of_owner).collect();
        let counts = hosts.count_media()?;
        let others = counts.iter().enumerate().filter(|(host, _)| !serving.contains(host));
        Ok(others.map(|(_, count)| count).sum())
    }

    /// Clients of the APIs of all gateways, that of the first group's owner first.
    pub(crate) fn admins(&self) -> Vec<ApiClient> {
        self.groups().flat_map(Gateways::admins).collect()
    }

    /// The gateway of the first group that serves.
    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateways.owner()
    }

    /// The address of clients.
    pub(crate) fn clients_at(&self) -> IpAddr {
        if self.layout.gateway_hosts > 0 { CLIENTS.into() } else { Ipv4Addr::LOCALHOST.into() }
    }

    /// A new client of the admin API.
    pub(crate) fn admin(&self) -> ApiClient {
        self.gateway().admin()
    }

    /// The error of a request to the gateway that serves, with the end of its log.
    pub(crate) fn request_error<E: Display>(&self, action: &str) -> impl FnOnce(E) -> String {
        self.gateway().request_error(action)
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Node, String> {
        self.nodes.iter().find(|node| node.name == name).ok_or(format!("no node {name}"))
    }

    pub(crate) fn signal(&self, name: &str, signal: Signal) -> Result<(), String> {
        let process = self.node(name)?.process.as_ref();
        Ok(process.map_or(Ok(()), |process| process.signal(signal))?)
    }

    /// The sum of the counters of these links.
    pub(crate) fn tally(&self, names: &[String]) -> Result<RelayTally, String> {
        let mut sum = RelayTally::default();
        for name in names {
            let tally = self.node(name)?.link.as_ref().map_or(RelayTally::default(), Link::tally);
            sum.copied += tally.copied;
            sum.dropped += tally.dropped;
            sum.corrupted += tally.corrupted;
        }
        Ok(sum)
    }

    /// The conditions of a link without impairment to a node of this region.
    pub(crate) fn clear(&self, region: &str) -> Conditions {
        clear(&self.layout, region)
    }

    /// Sends a signal to the agents of these nodes.
    pub(crate) fn signal_agents(&self, names: &[String], signal: Signal) -> Result<(), String> {
        for name in names {
            let agent = self.node(name)?.agent.as_ref();
            if let Some(process) = agent.and_then(|agent| agent.process.as_ref()) {
                process.signal(signal)?;
            }
        }
        Ok(())
    }

    /// Restarts nodes and agents that have ended, at their old addresses.
    pub(crate) fn restart_the_dead(&mut self) -> Result<(), String> {
        let _inside = self.gateways.hosts().map(|hosts| hosts.nodes.enter()).transpose()?;
        for node in &mut self.nodes {
            if !node.process.as_mut().is_some_and(ChildProcess::is_running) {
                // The port of the dead process is free once it was waited for.
                node.process = None;
                let at = node.address.to_string();
                node.process = Some(start_node(&self.layout, &self.places, &node.name, &at)?.0);
                if let Some(link) = &node.link {
                    link.reopen().map_err(|error| format!("the link to {}: {error}", node.name))?;
                }
            }
            if let Some(agent) = &mut node.agent
                && !agent.process.as_mut().is_some_and(ChildProcess::is_running)
            {
                agent.process = None;
                let at = agent.address.to_string();
                agent.process = Some(start_agent(&self.places, &node.name, &at)?.0);
            }
        }
        Ok(())
    }

    /// The nodes as the API shows them.
    pub(crate) async fn states(&self) -> Result<Vec<Value>, String> {
        self.gateway().read_list("nodes").await
    }

    pub(crate) async fn are_up(&self, names: &[String]) -> Result<bool, String> {
        let states = self.states().await?;
        let is_up = |name: &String| {
            states.iter().any(|node| node["node"] == name.as_str() && node["health"] == "up")
        };
        Ok(names.iter().all(is_up))
    }

    /// The number of rooms outside their home region.
    pub(crate) async fn away(&self) -> Result<u64, String> {
        let regions = self.gateway().read_list("regions").await?;
        Ok(regions.iter().filter_map(|region| region["rooms_displaced"].as_u64()).sum())
    }

    /// The node that carries most rooms.
    pub(crate) async fn busiest(&self) -> Result<String, String> {
        let states = self.states().await?;
        let busiest = states.iter().max_by_key(|node| node["rooms"].as_u64());
        let name = busiest.and_then(|node| node["node"].as_str());
        name.map(str::to_owned).ok_or("there are no nodes".to_owned())
    }

    /// Sessions of the crowd in rooms on these nodes.
    pub(crate) async fn sessions_on(&self, names: &[String]) -> Result<BTreeSet<u64>, String> {
        let mut sessions = BTreeSet::new();
        for room in self.rooms().await? {
            let Some(members) = members(&room) else { continue };
            let hops = room["route"].as_array().into_iter().flatten().take(self.layout.carry());
            let mut nodes = hops.filter_map(|hop| hop["node"].as_str());
            if nodes.any(|node| names.iter().any(|name| name == node)) {
                sessions.extend(members);
            }
        }
        Ok(sessions)
    }

    /// Sessions of the crowd in rooms without a node.
    pub(crate) async fn sessions_nowhere(&self) -> Result<BTreeSet<u64>, String> {
        let rooms = self.rooms().await?;
        let nowhere = rooms.iter().filter(|room| room["hop"].is_null());
        Ok(nowhere.filter_map(members).flatten().collect())
    }

    /// True if no room is in a region that should be empty.
    pub(crate) async fn is_idle(&self) -> Result<bool, String> {
        let carrying = self.layout.carrying();
        let states = self.states().await?;
        let mut standbys = states.iter().filter(|node| node["region"] != carrying);
        Ok(standbys.all(|node| node["rooms"] == 0))
    }

    /// The number of these sessions that no gateway lists.
    pub(crate) async fn count_missing(
        &self,
        sessions: impl Iterator<Item = &String>,
    ) -> Result<usize, String> {
        let mut missing: BTreeSet<&str> = sessions.map(String::as_str).collect();
        if missing.is_empty() {
            // A gateway without descriptors answers nothing.
            return Ok(0);
        }
        for group in self.groups() {
            let listed = group.owner().admin().list("sessions").await;
            let listed = listed.map_err(group.owner().request_error("listing sessions"))?;
            for id in listed.iter().filter_map(|session| session["id"].as_str()) {
                missing.remove(id);
            }
        }
        Ok(missing.len())
    }

    /// Moves this number of rooms to their standbys through the API, skipping the first `after` rooms.
    pub(crate) async fn move_rooms(&self, rooms: usize, after: usize) -> Result<(), String> {
        let mut admin = self.admin();
        for room in self.rooms().await?.iter().cycle().skip(after).take(rooms) {
            let (Some(name), Some(to)) = (room["room"].as_str(), room["route"][1]["node"].as_str())
            else {
                return Err(format!("a room without a spare: {room}"));
            };
            let asked = admin.post(&format!("/v1/rooms/{name}:move"), &json!({"node": to})).await;
            asked.map_err(|error| format!("moving {name} to {to}: {error}"))?;
        }
        Ok(())
    }

    /// The rooms of the crowd, without those of newcomers.
    pub(crate) async fn rooms(&self) -> Result<Vec<Value>, String> {
        let mut rooms = Vec::new();
        for group in self.groups() {
            rooms.extend(rooms_of(group).await?);
        }
        Ok(rooms)
    }

    /// Waits until every node is up or cold, every region admits sessions, and every room is home with all its hops.
    /// Returns false on timeout.
    pub(crate) async fn settled(&self, within: Duration) -> Result<bool, String> {
        let until = Instant::now() + within;
        loop {
            if self.is_settled().await? {
                return Ok(true);
            }
            if Instant::now() > until {
                return Ok(false);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn is_settled(&self) -> Result<bool, String> {
        let is_up = |node: &Value| node["health"] == "up" || node["health"] == "cold";
        let is_home =
            |region: &Value| region["rooms_displaced"] == 0 && region["breaker"] == "closed";
        for group in self.groups() {
            let owner = group.owner();
            let all_up = owner.read_list("nodes").await?.iter().all(is_up);
            if !all_up || !owner.read_list("regions").await?.iter().all(is_home) {
                return Ok(false);
            }
        }
        let hops = |room: &Value| room["route"].as_array().map_or(0, Vec::len);
        let spares = usize::from(self.layout.spares).min(1);
        Ok(self.rooms().await?.iter().all(|room| hops(room) > spares))
    }
}

/// Sessions of the crowd at a group.
pub(crate) async fn sessions_of(group: &Gateways) -> Result<BTreeSet<u64>, String> {
    Ok(rooms_of(group).await?.iter().filter_map(members).flatten().collect())
}

/// The rooms of the crowd at a group.
async fn rooms_of(group: &Gateways) -> Result<Vec<Value>, String> {
    let rooms = group.owner().admin().list("rooms").await;
    let mut rooms = rooms.map_err(group.owner().request_error("listing rooms"))?;
    rooms.retain(|room| members(room).is_some());
    Ok(rooms)
}

/// The two sessions of a crowd's room, by its name.
fn members(room: &Value) -> Option<[u64; 2]> {
    let (crowd, number) = room["room"].as_str()?.rsplit_once('-')?;
    let number: u64 = number.parse().ok().filter(|&number| number > 0 && crowd == CROWD)?;
    Some([2 * number - 1, 2 * number])
}

/// The numbers in these nodes' stamps.
pub(crate) fn numbers<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeSet<u32> {
    names.into_iter().map(|name| number_of(name)).collect()
}

fn clear(layout: &Layout, region: &str) -> Conditions {
    Conditions { delay: layout.delay(region), ..Conditions::default() }
}

/// Starts all nodes in the network namespace of this thread.
fn start_nodes(
    layout: &Layout,
    places: &Places,
    seed: u64,
    hosts: Option<&Hosts>,
) -> Result<(Vec<Node>, Vec<ConfiguredNode>), String> {
    let listen = hosts.map_or(LOOPBACK.to_owned(), |hosts| format!("{}:0", hosts.nodes.address()));
    let mut nodes = Vec::new();
    let mut told = Vec::new();
    let running = layout.nodes().count() - layout.cold;
    for (name, region, zone) in layout.nodes().skip(running) {
        let (start, address) = cold_start(places, &name)?;
        told.push(ConfiguredNode { name, region, zone, address, agent: None, start: Some(start) });
    }
    for ((name, region, zone), number) in layout.nodes().take(running).zip(1..) {
        let (process, address) = start_node(layout, places, &name, &listen)?;
        let link = layout.is_linked(region).then(|| {
            let at = SocketAddr::from(([127, 0, 0, 1], 0));
            Link::start(at, address, seed.wrapping_add(number))
        });
        let link = link.transpose().map_err(|error| format!("a link to {name}: {error}"))?;
        if let Some(link) = &link {
            link.set_both(clear(layout, region));
        }
        let seen = link.as_ref().map_or(address, Link::near);
        let agent = layout.agents.then(|| start_agent(places, &name, &listen)).transpose()?;
        let agent = agent.map(|(process, address)| NodeAgent { process: Some(process), address });
        told.push(ConfiguredNode {
            name: name.clone(),
            region,
            zone,
            address: seen,
            agent: agent.as_ref().map(|agent| agent.address),
            start: None,
        });
        let process = Some(process);
        nodes.push(Node { name, region, zone, address, process, link, agent });
    }
    let own = nodes.iter().map(|node: &Node| node.address);
    let own = own.chain(told.iter().filter_map(|told| told.agent));
    namespace::reserve(told.iter().map(|told| told.address).chain(own).map(|at| at.port()))?;
    Ok((nodes, told))
}

fn start_node(
    layout: &Layout,
    places: &Places,
    name: &str,
    listen: &str,
) -> Result<(ChildProcess, SocketAddr), String> {
    let (mut process, at) = match layout.kind {
        Kind::Rtpengine => rtpengine::start(places, name, listen)?,
        Kind::Sample | Kind::Plain => start_sample(layout, places, name, listen, None)?,
        Kind::Webhook => start_webhook(places, name, listen)?,
        Kind::Misbehaving(misbehaviour) => {
            start_sample(layout, places, name, listen, Some(misbehaviour))?
        }
    };
    // The agent beside the node, if there is one, reads this file.
    write(&places.folder.join(format!("{name}.pid")), &process.id().to_string())?;
    let address = match at {
        Some(address) => address,
        None => listening(&mut process)?,
    };
    Ok((process, address))
}

/// A sample node, which prints its address.
fn start_sample(
    layout: &Layout,
    places: &Places,
    name: &str,
    listen: &str,
    misbehaviour: Option<Misbehaviour>,
) -> Result<(ChildProcess, Option<SocketAddr>), String> {
    let secret = write_secret(&places.folder, name)?;
    let (program, verb) = match misbehaviour {
        None => (&places.evenkeel, "sample-node"),
        Some(_) => (&places.own, "node"),
    };
    let mut words = vec![verb, "--name", name, "--listen", listen, "--secret", &secret, "--json"];
    match misbehaviour {
        Some(misbehaviour) => words.extend(["--misbehaviour", misbehaviour.name()]),
        None => words.push("--webrtc"),
    }
    if layout.mode == "hitless" {
        words.push("--untouched");
    } else if layout.replay {
        words.extend(["--untouched", "--stamp"]);
    }
    Ok((process::start(name, program, &words, &places.folder)?, None))
}

/// A sample node that answers POSTs of sessions, and prints its address.
fn start_webhook(
    places: &Places,
    name: &str,
    listen: &str,
) -> Result<(ChildProcess, Option<SocketAddr>), String> {
    let words = ["webhook-node", "--name", name, "--listen", listen, "--json"];
    Ok((process::start(name, &places.own, &words, &places.folder)?, None))
}

/// The command with which the gateway starts a cold node, and its address.
fn cold_start(places: &Places, name: &str) -> Result<(Vec<String>, SocketAddr), String> {
    let socket = UdpSocket::bind(LOOPBACK).and_then(|socket| socket.local_addr());
    let at = socket.map_err(|error| format!("no port for {name}: {error}"))?;
    let evenkeel = places.evenkeel.display().to_string();
    let secret = write_secret(&places.folder, name)?;
    let listen = at.to_string();
    // The node ends with the gateway, also if the gateway is killed.
    let words = ["setpriv", "--pdeathsig", "KILL", &evenkeel, "sample-node"];
    let own = ["--name", name, "--listen", &listen, "--secret", &secret];
    Ok((words.iter().chain(&own).map(|&word| word.to_owned()).collect(), at))
}

/// An agent that watches the node of this name, and its address.
fn start_agent(
    places: &Places,
    node: &str,
    listen: &str,
) -> Result<(ChildProcess, SocketAddr), String> {
    let config = places.folder.join(format!("{node}-agent.toml"));
    write_secret(&places.folder, node)?;
    let text = format!(
        "name = \"{node}\"\nlisten = \"{listen}\"\nsecret_file = \"{node}.secret\"\n\n\
         [process]\npid_file = \"{node}.pid\"\n"
    );
    write(&config, &text)?;
    let words = ["agent", "--config", &config.display().to_string(), "--json"];
    let name = format!("{node}-agent");
    let mut process = process::start(&name, &places.evenkeel, &words, &places.folder)?;
    let address = listening(&mut process)?;
    Ok((process, address))
}

fn listening(process: &mut ChildProcess) -> Result<SocketAddr, String> {
    let said = process.json_line(process::FIRST_LINE_WITHIN)?;
    let address = said["listening"].as_str().and_then(|at| at.parse().ok());
    address.ok_or_else(|| process.error(format!("said {said}")).into())
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
