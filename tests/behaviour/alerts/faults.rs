//! Faults, each as it happens outside of tests, and the rules that are to notice them.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_media::trunk::message::{ClockRefusal, MessageError};
use evenkeel_testkit::http::http_get;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::fleet::{
    ALONE_IN_REGION, BEHIND_LINKS, BUSY, CUT_OFF, FULL, Fleet, LATER, LOSSY, REMOTE, STANDBY, came,
    offer, open_silent,
};
use super::servers::{Noticed, Servers};
use crate::harness::{
    Behaviour, GATEWAYS, GatewayProcess, NODE, id_of_rule, limit_s, routing_plugin, wait_until,
};
use crate::index::at;

/// Clients that offer sessions at the same time. An offer that no node answers takes 2 s.
const CLIENTS: u16 = 8;

/// Rules without a fault here. Their proof is the test of each rule by `promtool`, in tests/interop/promql.rs.
pub(super) const NOT_PLAYED: [(&str, &str); 8] = [
    (
        "EvenkeelSessionPanicked",
        "a panic is a bug of the gateway, and its binary has no way to cause one",
    ),
    ("EvenkeelOtherNodesImpair", "the fleet has fewer than 33 nodes"),
    ("EvenkeelGatewayImpairs", "a gateway without processor time delays the notices of its faults"),
    ("EvenkeelHandshakesFail", "the fleet has no WebRTC clients"),
    ("EvenkeelSrtpRefused", "the fleet has no clients with SRTP"),
    ("EvenkeelNodeDecays", "a decay is a trend of three hours"),
    ("EvenkeelDocumentUnwritten", "the disk of the fleet is that of the host"),
    ("EvenkeelLossReduces", "the clients send voice, whose bit rate no loss reduces"),
];

/// The rule whose alert the busy gateway sends to Alertmanager itself, too, by its own times.
pub(super) const SENT: &str = "EvenkeelClientBreakerOpen";

/// A played fault that this rule has to notice.
pub(super) struct PlayedFault {
    pub(super) rule: &'static str,
    /// Gateways of which one notices it.
    instances: Vec<&'static str>,
    pub(super) began: Instant,
}

impl PlayedFault {
    /// The time after which the rule noticed the fault.
    pub(super) fn noticed_after(&self, noticed: &[Noticed]) -> Option<Duration> {
        let mut of_fault = noticed.iter().filter(|it| {
            it.is_firing
                && it.alert() == self.rule
                && it.instance().is_some_and(|instance| self.instances.contains(&instance))
                && it.at >= self.began
        });
        of_fault.next().map(|it| it.at - self.began)
    }
}

/// The faults that were played so far.
pub(super) struct FaultPlay<'a, 'b> {
    fleet: &'b mut Fleet<'a>,
    servers: &'b Servers<'a>,
    pub(super) faults: Vec<PlayedFault>,
    /// When Alertmanager listed the alert that a gateway sent.
    pub(super) sent_at: Option<Instant>,
}

impl<'a, 'b> FaultPlay<'a, 'b> {
    pub(super) fn new(fleet: &'b mut Fleet<'a>, servers: &'b Servers<'a>) -> FaultPlay<'a, 'b> {
        FaultPlay { fleet, servers, faults: Vec::new(), sent_at: None }
    }

    /// A fault begins, which these rules are to notice at this gateway.
    fn begin(&mut self, instance: &'static str, rules: &[&'static str]) {
        let began = Instant::now();
        let fault = |rule: &&'static str| PlayedFault { rule, instances: vec![instance], began };
        self.faults.extend(rules.iter().map(fault));
    }

    /// Waits until these rules have noticed their faults. If one does not, its row says so.
    fn await_noticed(&self, rules: &[&str]) {
        // Forecasts and checks of losses see it after a minute.
        let within = rules.iter().map(|rule| limit_s(&id_of_rule(rule), "noticed_within")).max();
        came(within.expect("rules"), || {
            let noticed = self.servers.noticed();
            let mut of_rules = self.faults.iter().filter(|fault| rules.contains(&fault.rule));
            of_rules.all(|fault| fault.noticed_after(&noticed).is_some())
        });
    }

    /// Plays all faults, and returns when all were noticed or are late.
    pub(super) fn play(&mut self) {
        let began = Instant::now();
        let offers = self.start_another();
        self.fail_services();
        self.lose_owner();
        self.break_policy();
        let clock = self.break_nodes();
        self.impair_links();
        self.refuse_beats();
        self.roll_back();
        self.duplicate_room();
        self.fill();
        self.end_loss();
        self.stall();
        self.cut_links();
        let rules: Vec<&str> = self.faults.iter().map(|fault| fault.rule).collect();
        self.await_noticed(&rules);
        drop((clock, offers));
        println!("alerts: all faults took {:?}", began.elapsed());
    }

    /// Services around the busy gateway fail, clients lose packets, and a request has a wrong token.
    fn fail_services(&mut self) {
        self.begin(BUSY, &["EvenkeelDependencyDown", "EvenkeelTelemetryDropped"]);
        (self.fleet.dependency, self.fleet.otlp) = (None, None);
        self.begin(BUSY, &["EvenkeelVoiceBad", "EvenkeelClientBreakerOpen"]);
        self.fleet.callers.lose(LOSSY, 25);
        self.begin(BUSY, &["EvenkeelThreadsBehind"]);
        let cut = format!("route add unreachable {CUT_OFF}/32");
        self.fleet.place.gateways[2].ip(&cut).unwrap();
        self.begin(BUSY, &["EvenkeelTokensRefused"]);
        let api: SocketAddr = BUSY.parse().unwrap();
        let headers = ["Authorization: Bearer another one"];
        let asked = at(&self.fleet.place.client, || http_get(api, "/v1/status", &headers));
        assert_eq!(asked.map(|answer| answer.status), Some(401));
        at(&self.fleet.place.client, || self.fleet.store.kill());
        self.begin(BUSY, &["EvenkeelIndexBehind"]);
    }

    /// Another gateway starts. Its certificate ends soon, and its only node does not start while clients offer sessions.
    fn start_another(&mut self) -> OfferingClients {
        let rules =
            ["EvenkeelCredentialEndsSoon", "EvenkeelCredentialEnds", "EvenkeelProviderBreakerOpen"];
        self.begin(LATER, &rules);
        OfferingClients::start(self.fleet.start_another(), 1)
    }

    /// The owner of the group stops, and its standby cannot ask the agents for their votes. Then it can and the owner dies, so that
    /// the standby takes over and is alone.
    fn lose_owner(&mut self) {
        let place = self.fleet.place;
        let route = |verb: &str| {
            let way = format!("route {verb} unreachable {NODE}/32");
            place.gateways[1].ip(&way).unwrap();
        };
        let of_stopped = [
            "EvenkeelTakeoverBlocked",
            "EvenkeelGroupWithoutOwner",
            "EvenkeelGatewayDown",
            "EvenkeelRedundancyLost",
        ];
        self.begin(STANDBY, &of_stopped);
        route("add");
        self.fleet.group[0].process.signal(Signal::SIGSTOP).unwrap();
        self.await_noticed(&of_stopped);
        self.begin(STANDBY, &["EvenkeelRoleChanged"]);
        route("del");
        self.fleet.group[0].process.signal(Signal::SIGKILL).unwrap();
    }

    /// Something else speaks from the address of the dead owner.
    fn refuse_beats(&mut self) {
        let [(_, own), (_, peer), _] = GATEWAYS;
        let port = 7_100;
        self.begin(STANDBY, &["EvenkeelGroupRefused"]);
        at(&self.fleet.place.gateways[0], || {
            let socket = UdpSocket::bind((own, port)).unwrap();
            for _ in 0..5 {
                socket.send_to(b"no beat", (peer, port)).unwrap();
            }
        });
    }

    /// A pushed revision faults on the next room.
    fn break_policy(&mut self) {
        let full = &mut self.fleet.full;
        open_silent(full, "newest", 100);
        let rooms = full.read("/v1/rooms");
        let rooms = rooms["rooms"].as_array().unwrap().iter();
        let ids = rooms.map(|room| room["id"].as_str().unwrap()[1..].parse::<u64>().unwrap());
        let newest = ids.max().unwrap();
        // A plugin that traps on a room so far is refused, also if the room was closed or refused.
        let is_activated = |room: &u64| {
            let plugin = routing_plugin(Behaviour::TrapsFromRoom(0, *room));
            full.push("routing", &plugin)["outcome"] == "activated"
        };
        let next = (newest + 1..newest + 10).find(is_activated);
        assert!(next.is_some());
        open_silent(full, "trap", 101);
        self.begin(FULL, &["EvenkeelPolicyFailing"]);
    }

    /// The revision faults on more rooms than a revision may.
    fn roll_back(&mut self) {
        self.await_noticed(&["EvenkeelPolicyFailing"]);
        self.begin(FULL, &["EvenkeelRevisionRolledBack"]);
        for number in 0..10 {
            open_silent(&mut self.fleet.full, &format!("rolled-{number}"), 300 + number);
        }
    }

    /// A node flaps, one is drained, and one has another clock.
    fn break_nodes(&mut self) -> WrongClock {
        self.begin(BUSY, &["EvenkeelNodeStaysDrained"]);
        self.fleet.busy.post("/v1/nodes/east-c1:drain", &Value::Null);
        self.begin(BUSY, &["EvenkeelNodeFlaps"]);
        for _ in 0..5 {
            let place = self.fleet.place;
            at(&place.node, || self.fleet.busy_nodes[0].kill());
            came(Duration::from_secs(3), || self.fleet.health(0) == "down");
            at(&place.node, || self.fleet.busy_nodes[0].revive());
            came(Duration::from_secs(3), || self.fleet.health(0) != "down");
        }
        self.begin(BUSY, &["EvenkeelNodeMessagesRefused"]);
        let node = &mut self.fleet.busy_nodes[2];
        node.kill();
        let address = node.address;
        at(&self.fleet.place.node, || WrongClock::start(address))
    }

    /// The link to the node of the only session delays and loses packets: first in a region with another zone, then in one
    /// without.
    fn impair_links(&mut self) {
        let of_link =
            ["EvenkeelNodeDelayRose", "EvenkeelSessionsImpaired", "EvenkeelZoneBreakerOpen"];
        self.begin(REMOTE, &of_link);
        let used = self.used_link();
        assert_ne!(BEHIND_LINKS[used], ALONE_IN_REGION);
        self.fleet.links[used].set(12, Duration::from_millis(60));
        self.await_noticed(&of_link);
        self.fleet.links[used].set(0, Duration::ZERO);
        self.fleet.remote.post("/v1/rooms/room:move", &json!({"node": ALONE_IN_REGION}));
        wait_until("the room has moved", || BEHIND_LINKS[self.used_link()] == ALONE_IN_REGION);
        self.begin(REMOTE, &["EvenkeelRegionBreakerOpen"]);
        let used = self.used_link();
        self.fleet.links[used].set(12, Duration::from_millis(60));
    }

    /// The link that the remote gateway's room uses.
    fn used_link(&mut self) -> usize {
        let rooms = self.fleet.remote.read("/v1/rooms");
        let used = &rooms["rooms"][0]["hop"]["node"];
        BEHIND_LINKS.iter().position(|node| used == *node).unwrap()
    }

    /// The links to all nodes are cut, while clients offer sessions.
    fn cut_links(&mut self) {
        let rules = [
            "EvenkeelUplinkSuspect",
            "EvenkeelOffersRefused",
            "EvenkeelSloBurnsFast",
            "EvenkeelSloBurnsSlowly",
            "EvenkeelNodeDown",
            "EvenkeelNodeFailed",
            "EvenkeelRoomsStranded",
        ];
        self.await_noticed(&["EvenkeelRegionBreakerOpen"]);
        self.begin(REMOTE, &rules);
        self.fleet.links.iter().for_each(|link| link.set(100, Duration::ZERO));
        let offers = OfferingClients::start(&self.fleet.remote, CLIENTS);
        self.await_noticed(&rules);
        drop(offers);
    }

    /// The client's uplink loses nothing any more, so that the alerts end.
    fn end_loss(&mut self) {
        self.await_noticed(&["EvenkeelVoiceBad", SENT]);
        let is_listed =
            came(limit_s(&id_of_rule(SENT), "noticed_within"), || self.servers.sends(SENT));
        self.sent_at = is_listed.then(Instant::now);
        self.fleet.callers.lose(LOSSY, 0);
    }

    /// Sessions use all capacity, and one of the two nodes dies. Forecasts and losses are looked at once a minute.
    fn fill(&mut self) {
        self.begin(FULL, &["EvenkeelLossUncovered", "EvenkeelCapacityRunsOut"]);
        let mut refused = 0;
        for number in 0..200 {
            let room = format!("fill-{number}");
            match open_silent(&mut self.fleet.full, &room, 400 + number) {
                Some(_) => refused = 0,
                None => refused += 1,
            }
            if refused == 5 {
                break;
            }
        }
        self.fleet.full_nodes[0].kill();
    }

    /// Another gateway opens a room of the busy one while the index is away.
    fn duplicate_room(&mut self) {
        self.await_noticed(&["EvenkeelIndexBehind"]);
        assert!(open_silent(&mut self.fleet.full, "pair", 700).is_some());
        let (rule, began) = ("EvenkeelRoomDuplicate", Instant::now());
        // The claims end while the index is away, and the second one to claim the room notices it.
        let instances = vec![FULL, BUSY];
        self.faults.push(PlayedFault { rule, instances, began });
        at(&self.fleet.place.client, || self.fleet.store.start());
    }

    /// The process gets no processor time again and again.
    fn stall(&mut self) {
        self.begin(FULL, &["EvenkeelControlLate"]);
        for _ in 0..40 {
            for (signal, time) in [(Signal::SIGSTOP, 60), (Signal::SIGCONT, 40)] {
                self.fleet.full.process.signal(signal).unwrap();
                std::thread::park_timeout(Duration::from_millis(time));
            }
        }
    }
}

/// Clients that offer sessions in one room after another refusal, until this is dropped.
struct OfferingClients {
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl OfferingClients {
    fn start(gateway: &GatewayProcess, clients: u16) -> OfferingClients {
        let ending = Arc::<AtomicBool>::default();
        let threads = (0..clients).map(|thread| {
            let (mut client, ends) = (gateway.client(), Arc::clone(&ending));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.unwrap();
                for number in 0.. {
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                    let port = 20_000 + thread * 1_000 + number % 1_000;
                    let offer = offer("room", ([10, 77, 0, 10], port).into());
                    // Most are refused.
                    let _ = runtime.block_on(client.open(&offer));
                    std::thread::park_timeout(Duration::from_millis(100));
                }
            })
        });
        OfferingClients { threads: threads.collect(), ending }
    }
}

impl Drop for OfferingClients {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// A node whose clock is a minute ahead: it refuses all messages.
struct WrongClock {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WrongClock {
    fn start(address: SocketAddr) -> WrongClock {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let ending = Arc::<AtomicBool>::default();
        let ends = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            let (mut buffer, mut answer) = ([0; 2_048], Vec::new());
            while !ends.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let ahead = Duration::from_secs(60);
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
                let now_us = (now + ahead).as_micros() as u64;
                let late = MessageError::Time { ahead_us: -(ahead.as_micros() as i64) };
                if let Some(refusal) = ClockRefusal::of(&buffer[..length], late, now_us) {
                    answer.clear();
                    refusal.write(&mut answer);
                    let _lost_at_worst = socket.send_to(&answer, from);
                }
            }
        });
        WrongClock { ending, thread: Some(thread) }
    }
}

impl Drop for WrongClock {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
