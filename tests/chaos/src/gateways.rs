//! The gateways of a group: one that serves, and its standby and spares. A gateway without a group has none.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use evenkeel_client::ApiClient;
use evenkeel_lab::network::{Host, INTERFACE, PREFIX};
use evenkeel_lab::process::ChildProcess;
use nix::sys::signal::Signal;

use crate::firewall;
use crate::gateway::Gateway;
use crate::hosts::{Addresses, Hosts, MEMBER, Passed, SHARED, shared_by};
use crate::layout::{CACHE, CERTIFICATE, ConfiguredNode, KEY, Layout, Member};
use crate::stage::{Places, WITNESS, write};
use crate::store::Store;

/// A group without an owner for longer does not work.
const OWNED_WITHIN: Duration = Duration::from_secs(10);
/// A gateway that returns is the standby within this time.
const JOINED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Both members know it.
const SECRET: &str = "a secret of two gateways and of no others";

pub(crate) struct Gateways {
    /// Ended before its hosts.
    gateways: Vec<Gateway>,
    /// The gateway that serves.
    owner: usize,
    /// The one that takes over from it.
    standby: usize,
    /// The last owner before, or the standby.
    former: usize,
    /// Of each gateway in the order of `gateways`; none if everything is on loopback.
    members: Vec<Member>,
    /// `None` if everything is on loopback, as `hosts`.
    addresses: Option<Addresses>,
    hosts: Option<Rc<Hosts>>,
}

/// The place of a gateway among others.
struct Membership<'a> {
    hosts: &'a Hosts,
    /// The number of the group.
    group: u8,
    members: &'a [Member],
    /// The number of the gateway among the members.
    number: usize,
}

impl Gateways {
    /// Starts all gateways of the group with this number, and waits until one owns the group's address.
    pub(crate) async fn start(
        group: u8,
        layout: &Layout,
        places: &Places,
        told: &[ConfiguredNode],
        witness: Option<SocketAddr>,
        hosts: Option<Rc<Hosts>>,
    ) -> Result<Gateways, String> {
        let members = layout.members(group.into());
        let (gateways, addresses) = match &hosts {
            None => (vec![start("gateway", layout, places, told, None, None)?], None),
            Some(hosts) => {
                let host_of = |member: &Member| &hosts.gateways[member.host];
                let addresses = Addresses::watch(members.iter().map(host_of), shared_by(group))?;
                let gateways = members.iter().enumerate().map(|(number, member)| {
                    let host = host_of(member);
                    if layout.gateway_hosts == 1 {
                        host.ip(&format!("addr add {SHARED}/{PREFIX} dev {INTERFACE}"))?;
                    }
                    let _inside = host.enter()?;
                    let membership = Membership { hosts, group, members: &members, number };
                    start(member.name, layout, places, told, witness, Some(membership))
                });
                (gateways.collect::<Result<_, String>>()?, Some(addresses))
            }
        };
        let standby = 1 % gateways.len();
        let mut group =
            Gateways { gateways, owner: 0, standby, former: standby, members, addresses, hosts };
        if layout.gateway_hosts > 0 {
            group.expect_owner(0).await?;
        }
        if layout.gateway_hosts > 1 {
            group.await_standby(places).await?;
        }
        Ok(group)
    }

    /// The gateway that serves.
    pub(crate) fn owner(&self) -> &Gateway {
        &self.gateways[self.owner]
    }

    /// Clients of the APIs of all gateways, that of the owner first.
    pub(crate) fn admins(&self) -> Vec<ApiClient> {
        let count = self.gateways.len();
        (0..count).map(|at| self.gateways[(self.owner + at) % count].admin()).collect()
    }

    /// The media packets of all groups that reached the nodes since the last call; none without hosts.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.hosts().map(Hosts::passed).unwrap_or_default()
    }

    /// Replaces the gateway that serves by a new process.
    pub(crate) async fn upgrade(&mut self, places: &Places) -> Result<(), String> {
        self.gateways[self.owner].upgrade(places).await
    }

    /// Fails if the gateway that serves has ended.
    pub(crate) fn require(&mut self) -> Result<(), String> {
        let gateway = &mut self.gateways[self.owner];
        if gateway.is_running() { Ok(()) } else { Err(gateway.process.error("ended").into()) }
    }

    /// The hosts of this stage; `None` if everything is on loopback.
    pub(crate) fn hosts(&self) -> Option<&Hosts> {
        self.hosts.as_deref()
    }

    /// True if the first member serves.
    pub(crate) fn is_at_home(&self) -> bool {
        self.owner == 0
    }

    /// The number of the host of the gateway that serves; `None` without hosts.
    pub(crate) fn host_of_owner(&self) -> Option<usize> {
        self.members.get(self.owner).map(|member| member.host)
    }

    /// True if the gateway that serves is in this zone.
    pub(crate) fn owner_is_in(&self, zone: &str) -> bool {
        self.members.get(self.owner).is_some_and(|member| member.zone == zone)
    }

    /// The processes of the gateways in this zone.
    pub(crate) fn processes_in(&self, zone: &str) -> impl Iterator<Item = &ChildProcess> {
        let all = self.members.iter().zip(&self.gateways);
        all.filter(move |(member, _)| member.zone == zone).map(|(_, gateway)| &gateway.process)
    }

    /// Cuts the links of the hosts in this zone, or restores them.
    pub(crate) fn set_links_in(&self, zone: &str, is_up: bool) -> Result<(), String> {
        let hosts = self.own_hosts()?;
        let mut members = self.members.iter().filter(|member| member.zone == zone);
        members.try_for_each(|member| hosts.set_link(member.host, is_up))
    }

    fn own_hosts(&self) -> Result<&Hosts, String> {
        self.hosts().ok_or_else(|| "the gateway has no host of its own".to_owned())
    }

    fn own_addresses(&self) -> Result<&Addresses, String> {
        let addresses = self.addresses.as_ref();
        addresses.ok_or_else(|| "the gateway has no host of its own".to_owned())
    }

    pub(crate) fn signal_owner(&self, signal: Signal) -> Result<(), String> {
        Ok(self.owner().process.signal(signal)?)
    }

    pub(crate) fn signal_former(&self, signal: Signal) -> Result<(), String> {
        Ok(self.gateways[self.former].process.signal(signal)?)
    }

    pub(crate) fn cut_owner(&self) -> Result<(), String> {
        self.own_hosts()?.set_link(self.members[self.owner].host, false)
    }

    pub(crate) fn restore_former_link(&self) -> Result<(), String> {
        self.own_hosts()?.set_link(self.members[self.former].host, true)
    }

    /// Drops all packets between the members from now on.
    pub(crate) fn part(&self) -> Result<(), String> {
        let hosts = &self.own_hosts()?.gateways;
        for host in hosts {
            let others = hosts.iter().filter(|other| other.address() != host.address());
            let others: Vec<String> = others.map(|other| other.address().to_string()).collect();
            drop_at(host, "input", &format!("ip saddr {{ {} }}", others.join(", ")))?;
        }
        Ok(())
    }

    /// Drops all packets from the gateways to the store from now on.
    pub(crate) fn part_from_store(&self) -> Result<(), String> {
        let to = Store::address();
        let rule = format!("ip daddr {} tcp dport {}", to.ip(), to.port());
        self.own_hosts()?.gateways.iter().try_for_each(|host| drop_at(host, "output", &rule))
    }

    pub(crate) fn join(&self) -> Result<(), String> {
        for host in &self.own_hosts()?.gateways {
            let _inside = host.enter()?;
            firewall::load("delete table ip parted\n")?;
        }
        Ok(())
    }

    /// Waits until the standby's host has the address. It is the owner from then on.
    pub(crate) async fn expect_takeover(&mut self) -> Result<(), String> {
        self.former = self.owner;
        self.expect_owner(self.standby).await
    }

    async fn expect_owner(&mut self, gateway: usize) -> Result<(), String> {
        let until = Instant::now() + OWNED_WITHIN;
        while !self.own_addresses()?.has_it(gateway) {
            if Instant::now() > until {
                let problem = format!("does not own the address within {OWNED_WITHIN:?}");
                return Err(self.gateways[gateway].process.error(problem).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.owner = gateway;
        Ok(())
    }

    /// The time from which the owner's host has the address; `None` without hosts.
    pub(crate) fn owned_since(&self) -> Option<u64> {
        self.addresses.as_ref()?.since(self.owner)
    }

    /// Fails unless one gateway owned the shared address in this span, the one that was the owner before.
    pub(crate) async fn check_one_owner(&self, from_ns: u64, until_ns: u64) -> Result<(), String> {
        let addresses = self.own_addresses()?;
        let shared_ns = addresses.shared_ns(from_ns, until_ns);
        if shared_ns > 0 {
            return Err(format!("two hosts had {SHARED} for {:.1} ms", shared_ns as f64 / 1e6));
        }
        if !addresses.has_it(self.owner) {
            return Err(format!("{} has lost {SHARED}", self.owner().name()));
        }
        self.check_roles().await
    }

    /// Waits until a former owner ends, as it does when it learns that another gateway has taken over.
    pub(crate) async fn await_end_of_former(&mut self) -> Result<(), String> {
        let (former, until) = (self.former, Instant::now() + JOINED_WITHIN);
        while self.gateways[former].is_running() {
            if Instant::now() > until {
                let problem = format!("was replaced, and does not end within {JOINED_WITHIN:?}");
                return Err(self.gateways[former].process.error(problem).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Starts the former owner again, if it has ended.
    fn restart_former(&mut self, places: &Places) -> Result<(), String> {
        let former = self.former;
        if self.gateways[former].is_running() {
            return Ok(());
        }
        let _inside = self.own_hosts()?.gateways[self.members[former].host].enter()?;
        self.gateways[former].start_again(places)
    }

    /// Hands the address back to the first member, unless it has it. The gateway that served becomes the standby.
    pub(crate) async fn hand_back(&mut self, places: &Places) -> Result<(), String> {
        if self.is_at_home() {
            return Ok(());
        }
        self.signal_owner(Signal::SIGTERM)?;
        self.expect_takeover().await?;
        self.await_end_of_former().await?;
        self.await_standby(places).await
    }

    /// Waits until the standby has the records of all sessions, and may replace a silent owner. A former owner that ends on its return is started again.
    pub(crate) async fn await_standby(&mut self, places: &Places) -> Result<(), String> {
        let until = Instant::now() + JOINED_WITHIN;
        loop {
            self.restart_former(places)?;
            let seen = self.owner().admin().read("/v1/gateways").await;
            let seen = seen.map_err(|error| format!("listing gateways: {error}"))?;
            let listed = seen["gateways"].as_array().into_iter().flatten();
            let role = |name: &str, role: &str| {
                let mut listed = listed.clone();
                listed.find(|gateway| gateway["gateway"] == name && gateway["role"] == role)
            };
            let is_ready = |gateway: &Gateway| {
                let standby = role(gateway.name(), "standby");
                standby.is_some_and(|it| it["in_sync"] == true && it["armed"] == true)
            };
            let all_run = !listed.clone().any(|gateway| gateway["role"] == "silent");
            let standby = self.gateways.iter().position(is_ready).filter(|_| all_run);
            if let Some(standby) = standby {
                self.standby = standby;
                return self.gateways[standby].raise();
            }
            if Instant::now() > until {
                let problem = format!("is no standby in sync within {JOINED_WITHIN:?}: {seen}");
                return Err(self.gateways[self.standby].process.error(problem).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Fails unless exactly one member takes itself for the owner, the one that was it before.
    async fn check_roles(&self) -> Result<(), String> {
        for (number, gateway) in self.gateways.iter().enumerate() {
            let name = gateway.name();
            let seen = gateway.admin().read("/v1/gateways").await;
            let seen = seen.map_err(|error| format!("listing gateways at {name}: {error}"))?;
            let mut gateways = seen["gateways"].as_array().into_iter().flatten();
            let is_owner =
                gateways.any(|gateway| gateway["here"] == true && gateway["role"] == "owner");
            if is_owner != (number == self.owner) {
                return Err(format!("{name} is the owner: {is_owner}"));
            }
        }
        Ok(())
    }
}

fn drop_at(host: &Host, hook: &str, packets: &str) -> Result<(), String> {
    let _inside = host.enter()?;
    firewall::load(&format!(
        "add table ip parted\nflush table ip parted\n\
         add chain ip parted cut {{ type filter hook {hook} priority 0; }}\n\
         add rule ip parted cut {packets} drop\n"
    ))
}

/// Starts a gateway with files of its own in the network namespace of this thread.
fn start(
    name: &'static str,
    layout: &Layout,
    places: &Places,
    told: &[ConfiguredNode],
    witness: Option<SocketAddr>,
    membership: Option<Membership<'_>>,
) -> Result<Gateway, String> {
    let folder = places.folder.join(name);
    let policies = folder.join("policies");
    for earlier in [&policies, &folder.join(CACHE)] {
        // There is none before the first row.
        let _ = fs::remove_dir_all(earlier);
    }
    fs::create_dir_all(&policies).map_err(|error| format!("{}: {error}", policies.display()))?;
    write(&policies.join(format!("{}.toml", layout.scenario)), &layout.policies())?;
    for told in told {
        write_secret(&folder, &told.name)?;
    }
    let is_first = membership.as_ref().is_none_or(|membership| membership.number == 0);
    let group = membership.as_ref().map_or(0, |membership| membership.group);
    let mut text = layout.configuration(group, told);
    if let Some(membership) = membership.filter(|_| layout.gateway_hosts > 1) {
        write(&folder.join("cluster.secret"), SECRET)?;
        let Membership { hosts, members, .. } = membership;
        let address = |member: &Member| hosts.gateways[member.host].address();
        let (own, port) = (&members[membership.number], MEMBER + u16::from(group));
        let others = members.iter().filter(|other| other.name != own.name);
        let peer = |peer: &Member| {
            let (name, address) = (peer.name, address(peer));
            format!("[[cluster.peer]]\nname = \"{name}\"\naddress = \"{address}:{port}\"\n\n")
        };
        let peers: String = others.map(peer).collect();
        text += &format!(
            "\n[cluster]\nname = \"{name}\"\nsecret_file = \"cluster.secret\"\nlisten = \"{}:{port}\"\n\
             preferred = {is_first}\nhold_down = \"0s\"\n\n{peers}\
             [[cluster.address]]\naddress = \"{}/{PREFIX}\"\ninterface = \"{INTERFACE}\"\nport_legs = {}\n",
            address(own),
            shared_by(group),
            layout.port_legs,
        );
    }
    if let Some(witness) = witness {
        write_secret(&folder, WITNESS)?;
        text += &format!(
            "\n[[cluster.witness]]\nname = \"{WITNESS}\"\naddress = \"{witness}\"\nsecret_file = \"{WITNESS}.secret\"\n"
        );
    }
    if layout.store {
        let (store, votes) = (Store::seen_by_gateways(layout), layout.store_votes);
        text += &format!("\n[index]\nservers = [\"nats://{store}\"]\nvotes = {votes}\n");
    }
    write(&folder.join("evenkeel.toml"), &text)?;
    let program = places.from.as_ref().filter(|_| is_first).unwrap_or(&places.evenkeel);
    Gateway::start(name, folder, program, places, layout.gateway_hosts > 0)
}

/// Writes the certificate that the gateways of all groups have in common.
pub(crate) fn write_certificate(folder: &Path) -> Result<(), String> {
    let made = rcgen::generate_simple_self_signed(vec!["evenkeel".to_owned()]);
    let made = made.map_err(|error| format!("making a certificate: {error}"))?;
    write(&folder.join(CERTIFICATE), &made.cert.pem())?;
    write(&folder.join(KEY), &made.signing_key.serialize_pem())
}

/// Writes the node's secret and returns the file's path. Each node has its own, as drills require.
pub(crate) fn write_secret(folder: &Path, node: &str) -> Result<String, String> {
    let file = folder.join(format!("{node}.secret"));
    write(&file, &format!("secret of {node} and the gateway"))?;
    Ok(file.display().to_string())
}
