//! Faults, each as it happens outside of tests, and the rules that are to notice them.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_contract::offers::OfferIngress;
use evenkeel_media::trunk::message::{ClockRefusal, MessageError};
use evenkeel_telemetry::alerts::{DOWN, rules_of_file};
use evenkeel_testkit::http::http_get;
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use super::fleet::{
    ALONE_IN_REGION, BEHIND_LINKS, BUSY, CALLS, CUT_OFF, FULL, Fleet, LATER, LOSSY, OF_FULL, OWNER,
    REMOTE, STANDBY, came, offer, open_silent,
};
use super::servers::{Noticed, Servers};
use crate::harness::{
    Behaviour, GATEWAYS, GatewayProcess, NODE, WebrtcPhone, id_of_rule, limit_s, routing_plugin,
    wait_until,
};
use crate::index::at;
use crate::revisions::fill_disk;

/// Clients that offer sessions at the same time. An offer that no node answers takes 2 s.
const CLIENTS: u16 = 8;

/// Handshakes that fail. The rule waits for more than ten.
const HANDSHAKES: u32 = 15;

/// A key of SDES.
const SDES: &str = "1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

/// The rule of the round trip compares it with the mean of an hour that ended so long ago.
const USUAL_BEFORE: Duration = Duration::from_secs(300);

/// Faults that `make test` plays are those of rules that wait for at most this long.
pub(super) const SHORT: Duration = Duration::from_secs(60);

/// Rules without a fault here. Their proof is the test of each rule by `promtool`, in tests/interop/promql.rs, by the rule's own times.
pub(super) const NOT_PLAYED: [(&str, &str); 5] = [
    (
        "EvenkeelSessionPanicked",
        "a panic is a bug of the gateway, and its binary has no way to cause one",
    ),
    ("EvenkeelOtherNodesImpair", "the fleet has fewer than 33 nodes"),
    ("EvenkeelNodeDecays", "a decay is a trend of three hours"),
    ("EvenkeelLossReduces", "it waits for ten minutes"),
    ("EvenkeelNodeStaysDrained", "it waits for an hour"),
];

/// The time for which the condition of this rule has to hold.
pub(super) fn lasts(rule: &str) -> Duration {
    rules_of_file().find(|it| it.name == rule).expect("a rule of the file").lasts
}

/// The rule whose alert the busy gateway sends to Alertmanager itself, too, by its own times.
pub(super) const SENT: &str = "EvenkeelClientBreakerOpen";

/// The rule of the impaired leg. A gateway that is late itself is at fault for as long, so that the rule begins anew.
pub(super) const LEG_IMPAIRED: &str = "EvenkeelSessionsImpaired";

/// A played fault that this rule has to notice.
pub(super) struct PlayedFault {
    pub(super) rule: &'static str,
    /// Gateways of which one notices it.
    instances: Vec<&'static str>,
    pub(super) began: Instant,
}

impl PlayedFault {
    /// The time from the fault to the notice of the rule.
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
    /// A rule is waited for this many times the limit of its row.
    patience: u32,
    pub(super) faults: Vec<PlayedFault>,
    /// When Alertmanager listed the alert that a gateway sent.
    pub(super) sent_at: Option<Instant>,
    /// Faults that last until the end.
    lasting: Vec<BackgroundThreads>,
}

impl<'a, 'b> FaultPlay<'a, 'b> {
    pub(super) fn new(
        fleet: &'b mut Fleet<'a>,
        servers: &'b Servers<'a>,
        patience: u32,
    ) -> FaultPlay<'a, 'b> {
        let (faults, lasting) = (Vec::new(), Vec::new());
        FaultPlay { fleet, servers, patience, faults, sent_at: None, lasting }
    }

    /// The longest time from a fault to the notice of this rule.
    fn noticed_within(&self, rule: &str) -> Duration {
        lasts(rule) + self.patience * limit_s(&id_of_rule(rule), "noticed_within")
    }

    /// A fault begins, which these rules are to notice at this gateway.
    fn begin(&mut self, instance: &'static str, rules: &[&'static str]) {
        let began = Instant::now();
        let fault = |rule: &&'static str| PlayedFault { rule, instances: vec![instance], began };
        self.faults.extend(rules.iter().map(fault));
    }

    /// Waits until these rules have noticed their faults. If one does not, its row says so.
    fn await_noticed(&self, rules: &[&str]) {
        let of_rules = self.faults.iter().filter(|fault| rules.contains(&fault.rule));
        let of_rules: Vec<&PlayedFault> = of_rules.collect();
        let late = of_rules.iter().map(|fault| fault.began + self.noticed_within(fault.rule)).max();
        let late = late.expect("faults of the rules");
        came(late.saturating_duration_since(Instant::now()), || {
            let noticed = self.servers.noticed();
            of_rules.iter().all(|fault| fault.noticed_after(&noticed).is_some())
        });
    }

    /// Begins faults of all gateways at once, and returns when the rules that wait for a minute at most have noticed theirs, or are late.
    pub(super) fn play_short(&mut self) {
        self.start_another();
        self.fail_services();
        self.break_nodes();
        self.stop_owner();
        self.break_policy();
        self.impair_zone();
        self.break_calls();
        self.stall();
        let rules = self.faults.iter().map(|fault| fault.rule);
        let short: Vec<&str> = rules.filter(|rule| lasts(rule) <= SHORT).collect();
        self.await_noticed(&short);
    }

    /// Plays all faults, and returns when all were noticed or are late. Faults of rules that wait for five minutes begin first.
    pub(super) fn play(&mut self) {
        let began = Instant::now();
        self.begin(FULL, &["EvenkeelVoiceBad"]);
        self.fleet.callers.lose(OF_FULL, 25);
        self.play_short();
        self.kill_owner();
        self.refuse_beats();
        self.end_loss();
        self.impair_region();
        self.roll_back();
        self.open_elsewhere();
        self.fill();
        self.cut_links();
        self.slow_link();
        self.end_outage_of_index();
        let rules: Vec<&str> = self.faults.iter().map(|fault| fault.rule).collect();
        self.await_noticed(&rules);
        self.lasting.clear();
        println!("alerts: all faults took {:?}", began.elapsed());
    }

    /// Services around the busy gateway fail, clients lose packets, and a request has a wrong token.
    fn fail_services(&mut self) {
        self.begin(BUSY, &["EvenkeelDependencyDown", "EvenkeelTelemetryDropped"]);
        (self.fleet.dependency, self.fleet.otlp) = (None, None);
        self.begin(BUSY, &[SENT]);
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
    fn start_another(&mut self) {
        let rules =
            ["EvenkeelCredentialEndsSoon", "EvenkeelCredentialEnds", "EvenkeelProviderBreakerOpen"];
        self.begin(LATER, &rules);
        let offers = offer_sessions(self.fleet.start_another(), 1);
        self.lasting.push(offers);
    }

    /// The owner of the group stops, and its standby cannot ask the agents for their votes.
    fn stop_owner(&mut self) {
        self.begin(OWNER, &[DOWN.name]);
        self.begin(
            STANDBY,
            &[
                "EvenkeelTakeoverBlocked",
                "EvenkeelGroupWithoutOwner",
                "EvenkeelGatewayDown",
                "EvenkeelRedundancyLost",
            ],
        );
        self.route_of_standby("add");
        self.fleet.group[0].process.signal(Signal::SIGSTOP).unwrap();
    }

    /// The standby can ask again, and the owner dies, so that the standby takes over and is alone.
    fn kill_owner(&mut self) {
        self.begin(STANDBY, &["EvenkeelRoleChanged"]);
        self.route_of_standby("del");
        self.fleet.group[0].process.signal(Signal::SIGKILL).unwrap();
    }

    /// Adds or deletes the route on which the standby reaches no agent.
    fn route_of_standby(&self, verb: &str) {
        let way = format!("route {verb} unreachable {NODE}/32");
        self.fleet.place.gateways[1].ip(&way).unwrap();
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
        self.begin(FULL, &["EvenkeelRevisionRolledBack"]);
        for number in 0..10 {
            open_silent(&mut self.fleet.full, &format!("rolled-{number}"), 300 + number);
        }
    }

    /// A node flaps, and one has another clock.
    fn break_nodes(&mut self) {
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
        self.lasting.push(at(&self.fleet.place.node, || refuse_by_clock(address)));
    }

    /// The link to the node of the only session delays and loses packets, in a region with another zone.
    fn impair_zone(&mut self) {
        self.begin(REMOTE, &[LEG_IMPAIRED, "EvenkeelZoneBreakerOpen"]);
        let used = self.used_link();
        assert_ne!(BEHIND_LINKS[used], ALONE_IN_REGION);
        // The leg restores a part of it.
        self.fleet.links[used].set(25, Duration::from_millis(60));
    }

    /// That link is well again, and the session is at the only node of another region, to which the link impairs it.
    fn impair_region(&mut self) {
        self.fleet.links.iter().for_each(|link| link.set(0, Duration::ZERO));
        self.fleet.remote.post("/v1/rooms/room:move", &json!({"node": ALONE_IN_REGION}));
        wait_until("the room has moved", || BEHIND_LINKS[self.used_link()] == ALONE_IN_REGION);
        self.begin(REMOTE, &["EvenkeelRegionBreakerOpen"]);
        let used = self.used_link();
        self.fleet.links[used].set(12, Duration::from_millis(60));
    }

    /// The link to another node delays packets, long enough after its usual round trip was measured.
    fn slow_link(&mut self) {
        let measured = self.servers.began + USUAL_BEFORE;
        came(measured.saturating_duration_since(Instant::now()), || false);
        self.begin(BUSY, &["EvenkeelNodeDelayRose"]);
        self.fleet.slow.set(0, Duration::from_millis(60));
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
        let offers = offer_sessions(&self.fleet.remote, CLIENTS);
        self.await_noticed(&rules);
        drop(offers);
    }

    /// The client's uplink loses nothing any more, so that the alerts end.
    fn end_loss(&mut self) {
        let is_listed = came(self.noticed_within(SENT), || self.servers.sends(SENT));
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

    /// Another gateway opens a room of the busy one while the index is away. The claims end meanwhile.
    fn open_elsewhere(&mut self) {
        assert!(open_silent(&mut self.fleet.full, "pair", 700).is_some());
    }

    /// The second gateway to claim the room notices that the other one has it.
    fn end_outage_of_index(&mut self) {
        self.await_noticed(&["EvenkeelIndexBehind"]);
        let (rule, began) = ("EvenkeelRoomDuplicate", Instant::now());
        let instances = vec![FULL, BUSY];
        self.faults.push(PlayedFault { rule, instances, began });
        at(&self.fleet.place.client, || self.fleet.store.start());
    }

    /// Handshakes fail because the clients offered another certificate, a client sends packets without encryption, and the disk is full.
    fn break_calls(&mut self) {
        self.begin(CALLS, &["EvenkeelHandshakesFail"]);
        let place = self.fleet.place;
        for _ in 0..HANDSHAKES {
            let [mut offers, mut connects] =
                [20, 21].map(|number| WebrtcPhone::on(place.phone_of(number)));
            let (address, credentials) = offers.open(&mut self.fleet.calls, "handshakes");
            connects.connect(address, &credentials).unwrap_err();
        }
        let mut forger = place.phone_of(22);
        let offer = GatewayProcess::offer("forged", OfferIngress::declared(forger.address()));
        let mut offer = serde_json::to_value(offer).unwrap();
        offer["srtp"] = json!({"crypto": [SDES]});
        let opened = self.fleet.calls.post("/v1/sessions", &offer);
        let address = opened["udp"]["addresses"][0].as_str();
        forger.set_target(address.unwrap_or_else(|| panic!("{opened}")).parse().unwrap());
        self.begin(CALLS, &["EvenkeelSrtpRefused"]);
        self.lasting.push(BackgroundThreads::start([move |ends: &AtomicBool| {
            while !ends.load(Ordering::Relaxed) {
                forger.send_media();
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }]));
        self.begin(CALLS, &["EvenkeelDocumentUnwritten"]);
        let _stays = fill_disk(&self.fleet.calls);
        let undrain = "/v1/nodes/east-l1:undrain";
        // It is executed, but not acknowledged.
        let _full = self.fleet.calls.ask(async |client| client.post(undrain, &json!({})).await);
    }

    /// The process gets no processor time again and again, until the rules notice it. A scrape may fail meanwhile, and rules that hold for longer
    /// begin anew.
    fn stall(&mut self) {
        let rules = ["EvenkeelControlLate", "EvenkeelGatewayImpairs"];
        self.begin(CALLS, &rules);
        let process = self.fleet.calls.pid();
        let stalled = BackgroundThreads::start([move |ends: &AtomicBool| {
            while !ends.load(Ordering::Relaxed) {
                for (signal, time) in [(Signal::SIGSTOP, 60), (Signal::SIGCONT, 40)] {
                    kill(process, signal).unwrap();
                    std::thread::park_timeout(Duration::from_millis(time));
                }
            }
        }]);
        self.await_noticed(&rules);
        drop(stalled);
    }
}

/// Threads that go on until this is dropped.
struct BackgroundThreads {
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl BackgroundThreads {
    /// Each ends soon after its argument is set.
    fn start<T: FnOnce(&AtomicBool) + Send + 'static>(
        work: impl IntoIterator<Item = T>,
    ) -> BackgroundThreads {
        let ending = Arc::<AtomicBool>::default();
        let threads = work.into_iter().map(|work| {
            let ends = Arc::clone(&ending);
            std::thread::spawn(move || work(&ends))
        });
        let threads = threads.collect();
        BackgroundThreads { ending, threads }
    }
}

impl Drop for BackgroundThreads {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// Clients offer sessions in one room after another refusal.
fn offer_sessions(gateway: &GatewayProcess, clients: u16) -> BackgroundThreads {
    BackgroundThreads::start((0..clients).map(|thread| {
        let mut client = gateway.client();
        move |ends: &AtomicBool| {
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
        }
    }))
}

/// Answers as a node whose clock is a minute ahead: it refuses all messages.
fn refuse_by_clock(address: SocketAddr) -> BackgroundThreads {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    BackgroundThreads::start([move |ends: &AtomicBool| {
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
    }])
}
