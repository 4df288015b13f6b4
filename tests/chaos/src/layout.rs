//! Regions, nodes, failover mode and links of a stage.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_testkit::need::Need;

use crate::hosts::{GATEWAYS, QUIC, UDP, shared_by};
use crate::node::Misbehaviour;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Sample,
    /// A sample node with this misbehaviour.
    Misbehaving(Misbehaviour),
    /// rtpengine, in user space.
    Rtpengine,
    /// A sample node that returns packets to their source, by driver `plain`.
    Plain,
    /// The same, by driver `webhook`. It answers POSTs at the TCP port of the number of its media port.
    Webhook,
}

/// The setup of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) scenario: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) home: &'static str,
    /// Each region with its number of nodes, in two zones.
    pub(crate) regions: &'static [(&'static str, usize)],
    /// The number of hosts of gateways, with nodes and clients on further hosts; 0 for one gateway with everything on loopback.
    pub(crate) gateway_hosts: usize,
    /// The groups, if there are several; else the gateways on all hosts are one.
    pub(crate) groups: &'static [[Member; 2]],
    /// True if there is a link in front of each node.
    pub(crate) linked: bool,
    /// The one-way delay to another region, made by links.
    pub(crate) far: Duration,
    pub(crate) kind: Kind,
    /// True if the gateways of a group have a certificate for QUIC in a file.
    pub(crate) certificate: bool,
    /// True if sessions' own ports are bound to the group's address.
    pub(crate) port_legs: bool,
    /// The number of nodes, counted from the end, that the gateway has to start.
    pub(crate) cold: usize,
    pub(crate) agents: bool,
    /// The one-way delay to a witness of the group; `None` without one.
    pub(crate) witness: Option<Duration>,
    /// True if the gateways write a shared index.
    pub(crate) store: bool,
    /// True if the store of the index votes on the ownership of the group.
    pub(crate) store_votes: bool,
    /// The one-way delay to the store, before a fault; `None` without a link to it.
    pub(crate) store_delay: Option<Duration>,
    /// True if loss counts as a cost in the routing policy.
    pub(crate) quality: bool,
    pub(crate) spares: u8,
    /// The number of zones of a region.
    pub(crate) zones: usize,
    /// The deaths that the reserved capacity covers.
    pub(crate) reserve: &'static str,
    /// The capacity of each node of a region, kbit/s; other regions have enough for all.
    pub(crate) narrow: Option<(&'static str, u64)>,
    /// Time that a region's breaker stays open, seconds.
    pub(crate) breaker_open_s: u64,
    /// True if nodes keep the numbers of senders, and get the packets that a dead one swallowed.
    pub(crate) replay: bool,
}

/// A gateway of a group. The first member of a group owns its address first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    /// The number of its host.
    pub(crate) host: usize,
    /// The zone of its host. Only rows that kill a zone look at it.
    pub(crate) zone: &'static str,
}

/// A node in the gateway's configuration.
pub(crate) struct ConfiguredNode {
    pub(crate) name: String,
    pub(crate) region: &'static str,
    pub(crate) zone: &'static str,
    /// The node's address, or the near end of its link.
    pub(crate) address: SocketAddr,
    pub(crate) agent: Option<SocketAddr>,
    /// The command that starts the node; `None` if the node already runs.
    pub(crate) start: Option<Vec<String>>,
}

/// Capacity of nodes outside the narrow region, kbit/s: many times that of all sessions.
const WIDE: u64 = 10_000_000;

/// The scenarios, each of the plugin `scenario-NAME`.
const CALL: &str = "call";
const LIVE: &str = "live";

/// The bandwidth of a room with two voices, kbit/s.
pub(crate) const ROOM_KBPS: u64 = 128;

/// A gateway's cache, beside its configuration. It lasts for a stage: a gateway continues the decisions and revisions that lie
/// there, which are those of another row.
pub(crate) const CACHE: &str = "cache";

/// Files of a group's certificate, beside the folders of its gateways.
pub(crate) const CERTIFICATE: &str = "quic.pem";
pub(crate) const KEY: &str = "quic.key";

/// Default detection, but returning nodes are trusted sooner and rooms fail back faster, so that many kills fit in a
/// row.
const HASTE: &str = "\n[detector]\nbase_ejection_time = \"200ms\"\nmax_ejection_time = \"200ms\"\nwary_for = \"200ms\"\n\
     \n[limits]\nfailbacks_per_second = 200\n";

impl Layout {
    /// Three nodes in the gateway's region.
    pub(crate) const HOT: Layout = Layout {
        scenario: CALL,
        mode: "hot",
        home: "east",
        regions: &[("east", 3)],
        gateway_hosts: 0,
        groups: &[],
        linked: false,
        far: Duration::ZERO,
        kind: Kind::Sample,
        certificate: true,
        port_legs: false,
        cold: 0,
        agents: false,
        witness: None,
        store: false,
        store_votes: false,
        store_delay: None,
        quality: false,
        spares: 2,
        zones: 2,
        reserve: "node",
        narrow: None,
        breaker_open_s: 10,
        replay: false,
    };

    /// A live stream, with hosts for the gateway, the nodes and the clients.
    pub(crate) const LIVE: Layout = Layout { scenario: LIVE, ..Layout::HOSTS };

    /// Swallowed packets are sent again.
    pub(crate) const REPLAY: Layout = Layout { replay: true, ..Layout::HOT };

    /// Both hops carry everything.
    pub(crate) const HITLESS: Layout = Layout { mode: "hitless", ..Layout::HOT };

    /// All nodes carry rooms equally.
    pub(crate) const ACTIVE: Layout = Layout { mode: "active-active", ..Layout::HOT };

    /// One node, and a cold one that the gateway starts when the first one is down.
    pub(crate) const COLD: Layout =
        Layout { mode: "cold", regions: &[("east", 2)], cold: 1, spares: 0, ..Layout::HOT };

    /// [`HOT`](Layout::HOT) with a link before each node.
    pub(crate) const LINKED: Layout = Layout { linked: true, ..Layout::HOT };

    /// [`HOT`](Layout::HOT) with hosts for the gateway, the nodes and the clients.
    pub(crate) const HOSTS: Layout = Layout { gateway_hosts: 1, agents: true, ..Layout::HOT };

    /// Two gateways of a group, each on a host of its own.
    pub(crate) const GROUP: Layout = Layout { gateway_hosts: 2, ..Layout::HOSTS };

    /// Two zones of a city, with two nodes each, and two groups: each owner is in another zone, and its standby across. A witness is at a third
    /// site, so that the voters of the zone that stays are a majority.
    pub(crate) const TWO_GROUPS: Layout = Layout {
        regions: &[("east", 4)],
        reserve: "zone",
        witness: Some(Duration::ZERO),
        gateway_hosts: 4,
        groups: &[
            [
                Member { name: "edge-1", host: 0, zone: "a" },
                Member { name: "edge-2", host: 1, zone: "b" },
            ],
            [
                Member { name: "edge-3", host: 2, zone: "b" },
                Member { name: "edge-4", host: 3, zone: "a" },
            ],
        ],
        ..Layout::GROUP
    };

    /// Two owners on hosts of their own, and one host of both standbys, each of which is a process of its own (N + 1).
    pub(crate) const ONE_STANDBY_HOST: Layout = Layout {
        gateway_hosts: 3,
        groups: &[
            [
                Member { name: "edge-1", host: 0, zone: "a" },
                Member { name: "edge-3", host: 2, zone: "b" },
            ],
            [
                Member { name: "edge-2", host: 1, zone: "a" },
                Member { name: "edge-4", host: 2, zone: "b" },
            ],
        ],
        ..Layout::GROUP
    };

    /// All nodes in another region than the gateway, 40 ms away each way.
    pub(crate) const ACROSS: Layout = Layout {
        home: "west",
        regions: &[("west", 0), ("east", 3)],
        far: Duration::from_millis(40),
        ..Layout::HOT
    };

    /// Two regions of two nodes each.
    pub(crate) const REGIONS: Layout =
        Layout { regions: &[("east", 2), ("west", 2)], ..Layout::HOT };

    /// Three zones of two nodes, any of which may die.
    pub(crate) const ZONES: Layout =
        Layout { regions: &[("east", 6)], zones: 3, reserve: "zone", ..Layout::HOT };

    /// Hops in order, without reserved standbys.
    pub(crate) const REGIONAL: Layout = Layout { mode: "regional", spares: 0, ..Layout::REGIONS };

    /// Names, regions and zones of all nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (String, &'static str, &'static str)> {
        let zones = self.zones;
        self.regions.iter().flat_map(move |&(region, count)| {
            (0..count).map(move |number| {
                let zone = ["a", "b", "c"][number % zones];
                (format!("{region}-{zone}{}", number / zones + 1), region, zone)
            })
        })
    }

    /// The number of groups; 1 also for a gateway without one.
    pub(crate) fn group_count(&self) -> usize {
        self.groups.len().max(1)
    }

    /// The members of a group.
    pub(crate) fn members(&self, group: usize) -> Vec<Member> {
        let of_all_hosts = || {
            let hosts = GATEWAYS.iter().take(self.gateway_hosts).enumerate();
            hosts.map(|(host, &(name, _))| Member { name, host, zone: "a" }).collect()
        };
        self.groups.get(group).map_or_else(of_all_hosts, |members| members.to_vec())
    }

    /// The sessions of each group, of this number in all: whole rooms, as equal as possible.
    pub(crate) fn shares(&self, sessions: u32) -> Vec<u32> {
        let groups = self.group_count() as u32;
        let mut left = sessions;
        let share = |group: u32| {
            let rooms = left.div_ceil(2).div_ceil(groups - group);
            let share = left.min(2 * rooms);
            left -= share;
            share
        };
        (0..groups).map(share).collect()
    }

    /// True if all sessions are in one room, a publisher and its viewers.
    pub(crate) fn is_live(&self) -> bool {
        self.scenario == LIVE
    }

    /// The first region with nodes, which sessions ask for.
    pub(crate) fn carrying(&self) -> &'static str {
        self.regions.iter().find(|(_, nodes)| *nodes > 0).map_or(self.home, |(region, _)| *region)
    }

    /// Capacity of a node of this region, kbit/s.
    fn capacity(&self, region: &str) -> u64 {
        self.narrow.filter(|(narrow, _)| *narrow == region).map_or(WIDE, |(_, kbps)| kbps)
    }

    /// The number of rooms that the nodes of the narrow region can carry; `u64::MAX` without a narrow region.
    pub(crate) fn fits(&self) -> u64 {
        let Some((narrow, kbps)) = self.narrow else { return u64::MAX };
        let there = self.nodes().filter(|(_, region, _)| *region == narrow).count() as u64;
        there * (kbps / ROOM_KBPS)
    }

    /// The reason why the row cannot run here.
    pub(crate) fn requirement(&self) -> Result<(), String> {
        if self.store { Need::Nats.require() } else { Ok(()) }
    }

    /// The one-way delay to nodes of this region.
    pub(crate) fn delay(&self, region: &str) -> Duration {
        if region == self.home { Duration::ZERO } else { self.far }
    }

    /// True if packets carry the stamp of their node. They carry none if nodes keep payloads unchanged.
    pub(crate) fn stamps(&self) -> bool {
        self.kind != Kind::Rtpengine && self.mode != "hitless"
    }

    /// Number of a room's hops that carry its packets.
    pub(crate) fn carry(&self) -> usize {
        if self.mode == "hitless" { 2 } else { 1 }
    }

    /// True if nodes return each session's packets to itself.
    pub(crate) fn echoes(&self) -> bool {
        matches!(self.kind, Kind::Plain | Kind::Webhook)
    }

    pub(crate) fn is_linked(&self, region: &str) -> bool {
        self.linked || !self.delay(region).is_zero()
    }

    /// The addresses of the listeners of a group's gateways, by UDP and by QUIC.
    fn listeners(&self, group: u8) -> [SocketAddr; 2] {
        if self.gateway_hosts == 0 {
            [SocketAddr::from(([127, 0, 0, 1], 0)); 2]
        } else {
            [UDP, QUIC].map(|port| (shared_by(group), port).into())
        }
    }

    /// The configuration file of a group's gateways.
    pub(crate) fn configuration(&self, group: u8, nodes: &[ConfiguredNode]) -> String {
        let [udp, quic] = self.listeners(group);
        // The members of a group need the same certificate, except for WebTransport.
        let certificate = if self.gateway_hosts > 1 && self.certificate {
            format!("certificate = \"../{CERTIFICATE}\"\nkey = \"../{KEY}\"\n")
        } else {
            String::new()
        };
        let mut text = format!(
            "[gateway]\nregion = \"{}\"\npolicies = \"policies\"\ncache = \"{CACHE}\"\ndrain_timeout = \"0s\"\n\n\
             [[listen]]\nudp = \"{udp}\"\nidentity = [\"declared\", \"stun\"]\n\n\
             [[listen]]\nquic = \"{quic}\"\n{certificate}\n\
             [admin]\nsocket = \"admin.sock\"\ndrills = true\n{HASTE}\n[breaker]\nopen_for = \"{}s\"\n",
            self.home, self.breaker_open_s
        );
        for (region, _) in self.regions {
            let _whole = write!(text, "\n[[region]]\nname = \"{region}\"\n");
        }
        for ConfiguredNode { name, region, zone, address, agent, start } in nodes {
            let _whole = write!(
                text,
                "\n[[node]]\nname = \"{name}\"\nregion = \"{region}\"\nzone = \"{zone}\"\ncapacity = \"{} kbit/s\"\n",
                self.capacity(region)
            );
            let _whole = match self.kind {
                Kind::Rtpengine => writeln!(text, "driver = \"rtpengine\"\nng = \"{address}\""),
                Kind::Plain => {
                    writeln!(text, "driver = \"plain\"\naddress = \"{address}\"\nprobe = \"echo\"")
                }
                Kind::Webhook => writeln!(
                    text,
                    "driver = \"webhook\"\naddress = \"{address}\"\nprobe = \"echo\"\nwebhook = \"http://{address}/sessions\""
                ),
                Kind::Sample | Kind::Misbehaving(_) => {
                    writeln!(
                        text,
                        "driver = \"agent\"\naddress = \"{address}\"\nsecret_file = \"{name}.secret\""
                    )
                }
            };
            if self.replay && self.kind != Kind::Rtpengine {
                let _whole = writeln!(text, "keeps_ssrc = true");
            }
            if self.gateway_hosts > 1 && self.kind != Kind::Rtpengine {
                // The media packets of a standby are counted.
                let _whole = writeln!(text, "canary = false");
            }
            if let Some(agent) = agent {
                let _whole = writeln!(text, "agent = \"{agent}\"");
                if self.kind == Kind::Rtpengine {
                    let _whole = writeln!(text, "secret_file = \"{name}.secret\"");
                }
            }
            if let Some(start) = start {
                // An array of strings is the same in JSON and TOML.
                let command = serde_json::json!(start);
                let _whole =
                    writeln!(text, "start = {{ command = {command}, stop_with_gateway = true }}");
            }
        }
        text
    }

    /// The configuration of the failover mode, and of packets that are sent again.
    fn survival(&self) -> String {
        let replay = if self.replay { "replay = \"all\"\n" } else { "" };
        let mode = if self.mode == "regional" {
            let regions: Vec<&str> = self.regions.iter().map(|(region, _)| *region).collect();
            format!("regions = {regions:?}\n")
        } else if self.spares > 0 {
            format!("spares = {}\nreserve = \"{}\"\n", self.spares, self.reserve)
        } else {
            String::new()
        };
        mode + replay
    }

    /// The policies of the scenario. They are those of the shipped set `call` with equal node costs, so that rooms spread and stay
    /// unless quality counts, and with spares reviewed soon.
    pub(crate) fn policies(&self) -> String {
        format!(
            r#"
[scenario.{}]
mode = "{}"
{}bitrate = {{ floor = "24 kbit/s", ceiling = "2 Mbit/s" }}
close_after = "60s"

[resolve]
plugin = "scenario-{}"
settings = {{ floor = 24, ceiling = 2000, priority = 20 }}
on_fault = "builtin"

[admission]
plugin = "admit-capacity"
settings = {{ cap_above = 0.8, cap = 300, full_above = 0.95, redirect_below = 0.7, retry_after = "5s" }}
on_fault = "admit-capped"

[routing]
plugin = "route-nearest"
settings = {{ delay_weight = 0.0, loss_weight = {}, load_weight = 0.0, zone_cost = 0.0, wary_cost = 0.0, region_cost = 40.0, spares = {}, min_stay = "{}", review_interval = "1s" }}
on_fault = "native"

[degradation]
plugin = "degrade-ladder"
settings = {{ steps = {}, down_at_loss = 0.03, down_after = "600ms", hysteresis = 0.5, up_after = "5s", cap_factor = 0.5 }}
on_fault = "hold"
"#,
            self.scenario,
            self.mode,
            self.survival(),
            self.scenario,
            if self.quality { "8.0" } else { "0.0" },
            self.spares.max(1),
            if self.quality { "1s" } else { "1h" },
            // As shipped: viewers of a live stream keep its video.
            if self.is_live() { r#"["cap"]"# } else { r#"["cap", "voice-only"]"# },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn narrow_region_fits_whole_rooms_per_node() {
        assert_eq!(Layout::REGIONS.fits(), u64::MAX);
        let fits = |kbps| Layout { narrow: Some(("west", kbps)), ..Layout::REGIONS }.fits();
        assert_eq!([127, 128, 255, 256].map(fits), [0, 2, 2, 4]);
    }

    #[test]
    fn members_are_named_once_and_standby_is_elsewhere() {
        let [zones, spare] = [Layout::TWO_GROUPS, Layout::ONE_STANDBY_HOST];
        for layout in [zones, spare] {
            let members: Vec<Member> = (0..2).flat_map(|group| layout.members(group)).collect();
            let names: BTreeSet<&str> = members.iter().map(|member| member.name).collect();
            assert_eq!(names.len(), 4, "a group is known by the names of its members");
            let last = members.iter().map(|member| member.host).max();
            assert_eq!(last, Some(layout.gateway_hosts - 1));
            for [owner, standby] in layout.groups {
                assert!(owner.host != standby.host && owner.zone != standby.zone);
            }
        }
        let [owners, standbys] =
            [0, 1].map(|number| [0, 1].map(|group| zones.groups[group][number].zone));
        assert_eq!((owners, standbys), (["a", "b"], ["b", "a"]));
        assert_eq!([0, 1].map(|group| spare.groups[group][1].host), [2, 2]);
    }

    #[test]
    fn zone_without_its_nodes_has_a_majority_of_voters() {
        let layout = Layout::TWO_GROUPS;
        let lost = layout.nodes().filter(|(.., zone)| *zone == "a").count();
        let voters = layout.nodes().count() + usize::from(layout.witness.is_some());
        assert!(voters % 2 == 1 && 2 * lost < voters, "{lost} of {voters}");
    }

    #[test]
    fn group_of_all_hosts_has_their_names() {
        let names = |layout: Layout| -> Vec<&str> {
            layout.members(0).iter().map(|member| member.name).collect()
        };
        assert_eq!(names(Layout::GROUP), ["edge-1", "edge-2"]);
        assert_eq!(names(Layout::HOSTS), ["edge-1"]);
        assert_eq!(names(Layout::HOT), [""; 0]);
    }

    #[test]
    fn groups_share_sessions_by_whole_rooms() {
        assert_eq!(Layout::GROUP.shares(301), [301]);
        assert_eq!(Layout::TWO_GROUPS.shares(500), [250, 250]);
        assert_eq!(Layout::TWO_GROUPS.shares(250), [126, 124]);
    }

    #[test]
    fn groups_listen_at_addresses_of_their_own() {
        let listens = |group| Layout::TWO_GROUPS.configuration(group, &[]);
        assert!(listens(0).contains("udp = \"10.77.0.100:7000\""));
        assert!(listens(1).contains("udp = \"10.77.0.101:7000\""));
    }

    #[test]
    fn viewers_of_a_live_stream_keep_its_video() {
        let [call, live] = [Layout::HOT, Layout::LIVE].map(|layout| layout.policies());
        for (text, scenario) in [(&call, "call"), (&live, "live")] {
            assert!(text.contains(&format!("[scenario.{scenario}]\nmode = \"hot\"\n")), "{text}");
            assert!(text.contains(&format!("plugin = \"scenario-{scenario}\"\n")), "{text}");
        }
        assert!(call.contains("voice-only") && !live.contains("voice-only"), "{live}");
    }

    #[test]
    fn replay_needs_nodes_that_keep_numbers() {
        let node = |name: &str| ConfiguredNode {
            name: name.to_owned(),
            region: "east",
            zone: "a",
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            agent: None,
            start: None,
        };
        let rtpengine = Layout { kind: Kind::Rtpengine, ..Layout::REPLAY };
        for (layout, keeps, replay) in [
            (Layout::HOT, false, false),
            (Layout::REPLAY, true, true),
            // Its driver states it.
            (rtpengine, false, true),
        ] {
            let text = layout.configuration(0, &[node("east-a1")]);
            assert_eq!(text.contains("keeps_ssrc = true\n"), keeps, "{text}");
            assert_eq!(layout.policies().contains("\nreplay = \"all\"\n"), replay);
        }
    }

    #[test]
    fn only_the_narrow_region_is_narrow() {
        let layout = Layout { narrow: Some(("west", 1_280)), ..Layout::REGIONS };
        assert_eq!((layout.capacity("west"), layout.capacity("east")), (1_280, WIDE));
    }
}
