use evenkeel_media::trunk::message::{Load, Refusal};
use evenkeel_media::trunk::{Bundle, entries};

use super::*;

const START_US: u64 = 1_700_000_000_000_000;

/// What the hands were told, and what they say.
#[derive(Default)]
struct Fake {
    sent: Vec<(u16, Vec<u8>)>,
    handed: Vec<(Place, Packet, Vec<u8>)>,
    opened: Vec<(Place, u64, u64)>,
    closed: Vec<Place>,
    signals: Vec<Break>,
    starts: u32,
    told: Vec<String>,
    /// How openings go.
    opening: Option<Opening>,
    has_process: bool,
}

impl Hands for Fake {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.sent.push((to.port(), datagram.to_vec()));
    }

    fn hand(&mut self, place: Place, kind: Packet, packet: &[u8]) -> bool {
        self.handed.push((place, kind, packet.to_vec()));
        true
    }

    fn open(&mut self, place: Place, room: u64, session: u64) -> Opening {
        self.opened.push((place, room, session));
        self.opening.unwrap_or(Opening::Open)
    }

    fn close(&mut self, place: Place) {
        self.closed.push(place);
    }

    fn start(&mut self, _: Instant) -> bool {
        self.starts += 1;
        self.has_process
    }

    fn signal(&mut self, how: Break) -> bool {
        self.signals.push(how);
        self.has_process
    }

    fn tell(&mut self, words: &str) {
        self.told.push(words.to_owned());
    }
}

struct Scene {
    agent: Agent,
    hands: Fake,
    now: Now,
    nonce: u64,
}

fn secret() -> Secret {
    Secret::new(b"a secret of many bytes").unwrap()
}

fn gateway(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

fn voice(number: u8) -> Vec<u8> {
    [&[0x80, 111, 0, number][..], &[0; 8], b"voice"].concat()
}

/// A receiver report without a block.
const REPORT: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 7];

impl Scene {
    /// An agent that ends trunk legs, watches a process that runs, and may be broken.
    fn new() -> Scene {
        let mut scene = Scene::with(|_| {});
        scene.agent.handle_process(true, scene.now, &mut scene.hands);
        scene
    }

    fn with(twist: impl FnOnce(&mut Rules)) -> Scene {
        let now = Now { instant: Instant::now(), unix_us: START_US };
        let mut rules = Rules {
            secret: secret(),
            drills: true,
            drills_last: Duration::from_secs(60),
            sessions_max: 3,
            watches: true,
            checks: false,
        };
        twist(&mut rules);
        let hands = Fake { has_process: true, ..Fake::default() };
        Scene { agent: Agent::new(rules, now.instant), hands, now, nonce: 0 }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_us += time.as_micros() as u64;
        self.agent.handle_timeout(self.now, &mut self.hands);
    }

    fn receive(&mut self, bytes: &[u8], from: u16) {
        self.agent.handle_datagram(bytes, gateway(from), self.now, &mut self.hands);
    }

    fn ask_from(&mut self, question: &Question, from: u16) -> Option<Answer> {
        self.nonce += 1;
        self.ask_as(question, self.nonce, from)
    }

    fn ask_as(&mut self, question: &Question, nonce: u64, from: u16) -> Option<Answer> {
        self.now.unix_us += 1;
        let mut bytes = Vec::new();
        question.write(&secret(), nonce, self.now.unix_us, &mut bytes);
        self.hands.sent.clear();
        self.receive(&bytes, from);
        let own =
            self.said().into_iter().filter(|(to, answered, _)| (*to, *answered) == (from, nonce));
        let mut answers = own.map(|(_, _, answer)| answer);
        answers.rfind(|answer| !matches!(answer, Answer::Notice { .. }))
    }

    fn ask(&mut self, question: &Question) -> Option<Answer> {
        self.ask_from(question, 1)
    }

    /// What was said to gateways: to whom, with which nonce, what.
    fn said(&mut self) -> Vec<(u16, u64, Answer)> {
        let read = |(to, bytes): &(u16, Vec<u8>)| {
            let answer = Answer::read(bytes, &secret(), self.now.unix_us).ok()?;
            Some((*to, answer.nonce, answer.message))
        };
        self.hands.sent.iter().filter_map(read).collect()
    }

    /// Notices said so far: to whom, and which state.
    fn noticed(&mut self) -> Vec<(u16, State)> {
        let notice = |(to, _, answer)| match answer {
            Answer::Notice { load, .. } => Some((to, load.state)),
            _ => None,
        };
        self.said().into_iter().filter_map(notice).collect()
    }

    fn open(&mut self, tag: u64) -> Option<Status> {
        self.open_in(1, tag)
    }

    fn open_in(&mut self, room: u64, tag: u64) -> Option<Status> {
        let open = Question::Open { room, session: tag, tag: Tag(tag), lease_s: 30 };
        match self.ask(&open)? {
            Answer::Open { status, .. } => Some(status),
            other => panic!("{other:?}"),
        }
    }

    fn probe(&mut self) -> Option<Load> {
        match self.ask(&Question::Probe)? {
            Answer::Probe(load) => Some(load),
            other => panic!("{other:?}"),
        }
    }

    fn bundle(&mut self, tag: u64, packet: &[u8], from: u16) {
        let mut bundle = Bundle::new(1_472);
        assert!(bundle.push(Tag(tag), packet));
        self.receive(bundle.as_bytes(), from);
    }
}

#[test]
fn packets_are_handed_on_both_ways_rtcp_too() {
    let mut scene = Scene::new();
    assert_eq!(scene.open(7), Some(Status::Ok));
    assert_eq!(scene.hands.opened, [(0, 1, 7)]);
    scene.bundle(7, &voice(1), 1);
    scene.bundle(7, &REPORT, 1);
    let handed: Vec<_> = scene.hands.handed.iter().map(|(_, kind, bytes)| (*kind, bytes)).collect();
    assert_eq!(handed, [(Packet::Rtp, &voice(1)), (Packet::Rtcp, &REPORT.to_vec())]);

    scene.hands.sent.clear();
    for packet in [&voice(2)[..], &REPORT] {
        scene.agent.handle_from_server(0, packet, &mut scene.hands);
    }
    assert!(scene.hands.sent.is_empty(), "they leave together");
    scene.agent.flush(&mut scene.hands);
    let [(to, bundle)] = &scene.hands.sent[..] else { panic!("one bundle") };
    let packets: Vec<_> = entries(bundle).map(Result::unwrap).collect();
    assert_eq!((*to, packets), (1, vec![(Tag(7), &voice(2)[..]), (Tag(7), &REPORT[..])]));
    let counters = scene.agent.counters;
    assert_eq!((counters.packets_to_server, counters.packets_to_gateway), (2, 2));
}

#[test]
fn packets_go_where_the_session_spoke_from_last() {
    let mut scene = Scene::new();
    scene.open(7);
    let to = |scene: &mut Scene| {
        scene.hands.sent.clear();
        scene.agent.handle_from_server(0, &voice(2), &mut scene.hands);
        scene.agent.flush(&mut scene.hands);
        scene.hands.sent[0].0
    };
    assert_eq!(to(&mut scene), 1);
    scene.bundle(7, &voice(1), 2);
    assert_eq!(to(&mut scene), 2);
    scene.ask_from(&Question::Keep { lease_s: 30, tags: [Tag(7)].into() }, 3);
    assert_eq!(to(&mut scene), 3);
}

#[test]
fn packets_share_no_more_than_the_path_carries() {
    let mut scene = Scene::new();
    scene.open(7);
    let sent = |scene: &mut Scene| {
        scene.hands.sent.clear();
        for _ in 0..8 {
            scene.agent.handle_from_server(0, &voice(2), &mut scene.hands);
        }
        scene.agent.flush(&mut scene.hands);
        scene.hands.sent.len()
    };
    assert_eq!(sent(&mut scene), 1);
    let room = 1 + 4 * (10 + voice(2).len());
    let path = Question::Path { bundle_max: u16::try_from(room).unwrap(), padding: 100 };
    assert_eq!(scene.ask(&path), Some(Answer::Path { padding: 100 }));
    assert_eq!(sent(&mut scene), 2);
}

#[test]
fn what_is_no_media_or_nobodys_is_counted_and_goes_nowhere() {
    let mut scene = Scene::new();
    scene.open(7);
    scene.hands.sent.clear();
    scene.bundle(8, &voice(1), 1);
    scene.bundle(7, b"\x16dtls, or whatever it is", 1);
    scene.agent.handle_from_server(0, b"\x00\x01 a check", &mut scene.hands);
    scene.agent.handle_from_server(9, &voice(1), &mut scene.hands);
    let mut cut = Bundle::new(1_472);
    assert!(cut.push(Tag(7), &voice(1)));
    scene.receive(&cut.as_bytes()[..20], 1);
    for stranger in [&b""[..], b"x", &voice(1), &[0xE2, 1, 2], &[0; 100]] {
        scene.receive(stranger, 9);
    }
    scene.agent.flush(&mut scene.hands);
    assert!(scene.hands.handed.is_empty() && scene.hands.sent.is_empty());
    let counters = scene.agent.counters;
    assert_eq!((counters.unknown_tag, counters.malformed), (1, 8));
}

#[test]
fn no_datagram_panics() {
    let mut scene = Scene::new();
    scene.open(7);
    let mut state = 1_u64;
    for length in 0..2_000 {
        let mut bytes: Vec<u8> = Vec::with_capacity(length);
        for _ in 0..length % 97 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((state >> 56) as u8);
        }
        if let Some(first) = bytes.first_mut() {
            *first = [0xE0, 0xE1, 0x80, 0x00][length % 4];
        }
        scene.receive(&bytes, 1);
        scene.agent.handle_from_server(0, &bytes, &mut scene.hands);
    }
}

#[test]
fn sessions_are_bounded_renewed_and_end_with_their_lease() {
    let mut scene = Scene::new();
    assert_eq!(
        [1, 2, 3, 4].map(|tag| scene.open(tag)).map(Option::unwrap),
        [Status::Ok, Status::Ok, Status::Ok, Status::Full]
    );
    assert_eq!(scene.open(3), Some(Status::Ok), "said again");
    assert_eq!(scene.hands.opened.len(), 3);
    scene.pass(Duration::from_secs(20));
    let keep = Question::Keep { lease_s: 30, tags: [Tag(1), Tag(9)].into() };
    assert_eq!(scene.ask(&keep), Some(Answer::Keep { unknown: [Tag(9)].into() }));
    scene.pass(Duration::from_secs(11));
    assert_eq!((scene.hands.closed.len(), scene.agent.counters.expired), (2, 2));
    assert_eq!(scene.probe().unwrap().sessions, 1);
    let close = Question::Close { tag: Tag(1) };
    assert_eq!(scene.ask(&close), Some(Answer::Close { tag: Tag(1), status: Status::Ok }));
    let again = Answer::Close { tag: Tag(1), status: Status::UnknownTag };
    assert_eq!(scene.ask(&close), Some(again));
    assert_eq!(scene.hands.closed.len(), 3);
}

#[test]
fn a_tag_in_another_room_is_another_session() {
    let mut scene = Scene::new();
    scene.open_in(1, 7);
    assert_eq!(scene.open_in(2, 7), Some(Status::Ok));
    assert_eq!((scene.hands.opened.len(), scene.hands.closed.len()), (2, 1));
}

#[test]
fn an_opening_is_answered_when_the_server_took_it() {
    let mut scene = Scene::new();
    scene.hands.opening = Some(Opening::Waits);
    let open = |tag: u64| Question::Open { room: 1, session: 1, tag: Tag(tag), lease_s: 30 };
    assert_eq!(scene.ask_as(&open(7), 70, 1), None);
    assert_eq!(scene.ask_as(&open(7), 71, 2), None, "asked again, it still waits");
    assert_eq!(scene.hands.opened.len(), 1);
    scene.bundle(7, &voice(1), 1);
    assert!(scene.hands.handed.is_empty(), "nobody is there yet");
    scene.hands.sent.clear();
    scene.agent.handle_opened(0, true, scene.now, &mut scene.hands);
    let ok = Answer::Open { tag: Tag(7), status: Status::Ok };
    assert_eq!(scene.said(), [(2, 71, ok)]);
    scene.bundle(7, &voice(1), 1);
    assert_eq!(scene.hands.handed.len(), 1);

    scene.ask_as(&open(8), 80, 1);
    scene.hands.sent.clear();
    scene.agent.handle_opened(1, false, scene.now, &mut scene.hands);
    let failed = Answer::Open { tag: Tag(8), status: Status::Failed };
    assert_eq!(scene.said(), [(1, 80, failed)]);
    assert_eq!((scene.hands.closed.clone(), scene.agent.open_sessions()), (vec![1], 1));
}

#[test]
fn the_death_of_the_process_is_told_at_once_to_those_who_probed_and_so_is_its_return() {
    let mut scene = Scene::new();
    scene.ask_from(&Question::Probe, 1);
    scene.ask_from(&Question::Probe, 2);
    scene.ask_from(&Question::Drain, 3);
    scene.agent.handle_drain(false, scene.now, &mut scene.hands);
    scene.hands.sent.clear();
    scene.agent.handle_process(false, scene.now, &mut scene.hands);
    assert_eq!(
        scene.noticed(),
        [(1, State::Gone), (2, State::Gone)],
        "who only drained is no gateway"
    );
    assert_eq!(scene.probe().unwrap().state, State::Gone);
    scene.hands.sent.clear();
    scene.agent.handle_process(true, scene.now, &mut scene.hands);
    assert_eq!(scene.noticed(), [(1, State::Serving), (2, State::Serving)]);
}

#[test]
fn a_notice_is_repeated_until_it_is_noted() {
    let mut scene = Scene::new();
    scene.probe();
    scene.hands.sent.clear();
    scene.agent.handle_process(false, scene.now, &mut scene.hands);
    scene.pass(Duration::from_millis(10));
    assert_eq!(scene.noticed().len(), 2);
    let number = scene.said().into_iter().find_map(|(_, _, answer)| match answer {
        Answer::Notice { number, .. } => Some(number),
        _ => None,
    });
    let noted = Question::Noted { number: number.unwrap() };
    assert_eq!(scene.ask(&noted), None, "that is no question");
    scene.pass(Duration::from_millis(10));
    assert!(scene.noticed().is_empty());
    assert_eq!((scene.agent.counters.notices, scene.agent.counters.noted), (2, 1));
}

#[test]
fn sessions_die_with_the_process_and_gateways_open_them_again() {
    let mut scene = Scene::new();
    scene.open(7);
    scene.agent.handle_process(false, scene.now, &mut scene.hands);
    assert_eq!(scene.hands.closed, [0]);
    assert_eq!(scene.open(7), Some(Status::Failed), "there is nobody to open it at");
    scene.agent.handle_process(true, scene.now, &mut scene.hands);
    let keep = Question::Keep { lease_s: 30, tags: [Tag(7)].into() };
    assert_eq!(scene.ask(&keep), Some(Answer::Keep { unknown: [Tag(7)].into() }));
    assert_eq!(scene.open(7), Some(Status::Ok));
}

#[test]
fn an_agent_vouches_for_a_port_that_it_checks_and_is_silent_where_that_is_mute() {
    let mut scene = Scene::new();
    assert!(!scene.probe().unwrap().vouched, "nobody checks");

    let mut scene = Scene::with(|rules| (rules.checks, rules.watches) = (true, false));
    assert_eq!(scene.probe(), None, "not found to answer yet");
    for (port, answered) in [
        (Port::Answers, Some((State::Serving, true))),
        (Port::Mute, None),
        (Port::Closed, Some((State::Gone, false))),
        (Port::Answers, Some((State::Serving, true))),
    ] {
        scene.agent.handle_port(port, scene.now, &mut scene.hands);
        let load = scene.probe().map(|load| (load.state, load.vouched));
        assert_eq!(load, answered, "{port:?}");
    }
    scene.hands.sent.clear();
    scene.agent.handle_port(Port::Mute, scene.now, &mut scene.hands);
    assert!(scene.noticed().is_empty(), "who hangs may come to himself");
    scene.agent.handle_port(Port::Closed, scene.now, &mut scene.hands);
    assert_eq!(scene.noticed(), [(1, State::Gone)]);
}

#[test]
fn a_port_that_is_bound_anew_is_mute_while_the_process_runs() {
    let mut scene = Scene::with(|rules| rules.checks = true);
    scene.agent.handle_process(true, scene.now, &mut scene.hands);
    scene.agent.handle_port(Port::Answers, scene.now, &mut scene.hands);
    assert_eq!((scene.probe().unwrap().vouched, scene.open(7)), (true, Some(Status::Ok)));
    scene.hands.sent.clear();
    scene.agent.handle_port(Port::Closed, scene.now, &mut scene.hands);
    assert!(scene.noticed().is_empty() && scene.hands.closed.is_empty(), "it runs");
    assert_eq!(scene.probe(), None, "and nobody vouches for it");
    scene.agent.handle_port(Port::Answers, scene.now, &mut scene.hands);
    assert_eq!(scene.probe().unwrap().sessions, 1);
    scene.agent.handle_port(Port::Closed, scene.now, &mut scene.hands);
    scene.agent.handle_process(false, scene.now, &mut scene.hands);
    assert_eq!(scene.noticed().last(), Some(&(1, State::Gone)));
}

#[test]
fn a_process_that_is_gone_is_told_of_though_its_port_is_mute() {
    let mut scene = Scene::with(|rules| rules.checks = true);
    assert_eq!(scene.probe().unwrap().state, State::Gone);
}

#[test]
fn a_draining_node_takes_no_new_sessions_and_says_so() {
    let mut scene = Scene::new();
    scene.open(1);
    scene.probe();
    scene.hands.sent.clear();
    scene.agent.handle_drain(true, scene.now, &mut scene.hands);
    assert_eq!(scene.noticed(), [(1, State::Draining)]);
    assert_eq!((scene.open(2), scene.open(1)), (Some(Status::Draining), Some(Status::Ok)));
    assert_eq!(scene.probe().unwrap().state, State::Draining);
    scene.agent.handle_drain(false, scene.now, &mut scene.hands);
    assert_eq!(scene.open(2), Some(Status::Ok));
    let Some(Answer::Drain(load)) = scene.ask(&Question::Drain) else { panic!() };
    assert_eq!(load.state, State::Draining);
}

#[test]
fn load_is_the_highest_of_what_is_known() {
    let mut scene = Scene::new();
    scene.open(1);
    assert_eq!(scene.probe().unwrap().permille, 333);
    scene.agent.handle_measured(700);
    assert_eq!(scene.probe().unwrap().permille, 700);
    scene.agent.handle_measured(10);
    assert_eq!(scene.probe().unwrap().permille, 333);
}

#[test]
fn without_a_server_behind_it_nothing_is_opened_and_nothing_cut() {
    let mut scene = Scene::with(|rules| (rules.sessions_max, rules.watches) = (0, false));
    assert_eq!(scene.open(1), Some(Status::Failed));
    assert_eq!(scene.probe().unwrap().permille, 0);
    let cut = scene.ask(&Question::Break(Break::Cut));
    assert_eq!(cut, Some(Answer::Break(Outcome::Unable)));
}

#[test]
fn drills_break_only_where_they_are_allowed() {
    let mut scene = Scene::with(|rules| rules.drills = false);
    for how in Break::ALL {
        let forbidden = Some(Answer::Break(Outcome::Forbidden));
        assert_eq!(scene.ask(&Question::Break(how)), forbidden);
    }
    assert!(scene.hands.signals.is_empty());

    let mut scene = Scene::new();
    for how in [Break::Kill, Break::Hang, Break::Wake] {
        assert_eq!(scene.ask(&Question::Break(how)), Some(Answer::Break(Outcome::Done)));
    }
    assert_eq!(scene.hands.signals, [Break::Kill, Break::Hang, Break::Wake]);
    scene.hands.has_process = false;
    let unable = Some(Answer::Break(Outcome::Unable));
    assert_eq!(scene.ask(&Question::Break(Break::Kill)), unable);
}

#[test]
fn a_cut_way_carries_nothing_until_it_is_healed() {
    let mut scene = Scene::new();
    scene.open(7);
    scene.probe();
    assert_eq!(scene.ask(&Question::Break(Break::Cut)), Some(Answer::Break(Outcome::Done)));
    assert_eq!(scene.probe(), None);
    assert_eq!(scene.open(8), None);
    scene.hands.sent.clear();
    scene.bundle(7, &voice(1), 1);
    scene.agent.handle_from_server(0, &voice(1), &mut scene.hands);
    scene.agent.handle_process(false, scene.now, &mut scene.hands);
    scene.agent.handle_process(true, scene.now, &mut scene.hands);
    scene.agent.flush(&mut scene.hands);
    assert!(scene.hands.sent.is_empty() && scene.hands.handed.is_empty());
    assert_eq!(scene.ask(&Question::Break(Break::Heal)), Some(Answer::Break(Outcome::Done)));
    assert!(scene.probe().is_some());
    assert_eq!(scene.open(7), Some(Status::Ok));
}

#[test]
fn an_order_that_is_said_again_is_done_once() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        let done = scene.ask_as(&Question::Break(Break::Kill), 700, 1);
        assert_eq!(done, Some(Answer::Break(Outcome::Done)));
    }
    assert_eq!(scene.hands.signals.len(), 1);
    scene.ask_as(&Question::Break(Break::Kill), 701, 1);
    assert_eq!(scene.hands.signals.len(), 2);
}

#[test]
fn an_order_of_one_gateway_is_not_done_again_after_that_of_another() {
    let mut scene = Scene::new();
    let (kill, wake) = (Question::Break(Break::Kill), Question::Break(Break::Wake));
    scene.ask_as(&kill, 700, 1);
    scene.ask_as(&wake, 800, 2);
    assert_eq!(scene.ask_as(&kill, 700, 1), Some(Answer::Break(Outcome::Done)));
    assert_eq!(scene.hands.signals, [Break::Kill, Break::Wake], "its answer was lost, that is all");
    for nonce in 801..801 + ORDERS_KNOWN_MAX as u64 {
        scene.ask_as(&wake, nonce, 2);
    }
    assert_eq!(scene.agent.ordered.len(), ORDERS_KNOWN_MAX);
    scene.pass(ORDERS_KNOWN_FOR);
    scene.ask_as(&wake, 900, 2);
    assert_eq!(scene.agent.ordered.len(), 1, "nobody says the others again");
}

#[test]
fn a_cut_and_a_stop_that_nobody_takes_back_end_by_themselves() {
    let last = Duration::from_secs(60);
    let mut scene = Scene::new();
    scene.ask(&Question::Break(Break::Cut));
    scene.pass(Duration::from_secs(1));
    scene.ask(&Question::Break(Break::Hang));
    scene.pass(last - Duration::from_secs(1) - Duration::from_millis(1));
    assert_eq!(scene.probe(), None, "not before");
    scene.pass(Duration::from_millis(1));
    assert!(scene.probe().is_some());
    assert_eq!(scene.hands.signals, [Break::Hang], "that came later");
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.hands.signals, [Break::Hang, Break::Wake]);
    assert_eq!(scene.hands.told.len(), 2);

    // Told again, it lasts anew; taken back, or dead, there is nothing to end.
    scene.ask(&Question::Break(Break::Hang));
    scene.pass(last / 2);
    scene.ask(&Question::Break(Break::Hang));
    scene.pass(last / 2);
    assert_eq!(scene.hands.signals.len(), 4);
    scene.ask(&Question::Break(Break::Wake));
    scene.pass(last);
    assert_eq!(scene.hands.signals.len(), 5);
    scene.ask(&Question::Break(Break::Hang));
    scene.agent.handle_process(false, scene.now, &mut scene.hands);
    scene.pass(last);
    assert_eq!(scene.hands.signals.len(), 6);
}

#[test]
fn an_agent_that_ends_leaves_no_process_standing_still() {
    let mut scene = Scene::new();
    scene.agent.mend(&mut scene.hands);
    assert!(scene.hands.signals.is_empty(), "nobody stopped it");
    scene.ask(&Question::Break(Break::Hang));
    scene.agent.mend(&mut scene.hands);
    assert_eq!(scene.hands.signals, [Break::Hang, Break::Wake]);
}

#[test]
fn what_runs_is_not_started_and_what_cannot_be_is_told() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask(&Question::Start), Some(Answer::Start(Outcome::Done)));
    assert_eq!(scene.hands.starts, 0);
    scene.agent.handle_process(false, scene.now, &mut scene.hands);
    assert_eq!(scene.ask(&Question::Start), Some(Answer::Start(Outcome::Done)));
    assert_eq!(scene.hands.starts, 1);
    scene.hands.has_process = false;
    assert_eq!(scene.ask(&Question::Start), Some(Answer::Start(Outcome::Unable)));
}

#[test]
fn the_first_refusal_of_each_kind_is_told_and_one_with_another_secret_or_time_is_told_why() {
    let mut scene = Scene::new();
    let secrets = [secret(), Secret::new(&[7; 32]).unwrap()];
    let ask = |scene: &mut Scene, secret: &Secret, late_us: u64| {
        let (mut probe, now_us) = (Vec::new(), scene.now.unix_us);
        Question::Probe.write(secret, 5, now_us - late_us, &mut probe);
        scene.hands.sent.clear();
        scene.receive(&probe, 1);
        let sent = scene.hands.sent.iter();
        assert!(sent.clone().all(|(_, said)| said.len() < probe.len()));
        sent.filter_map(|(_, said)| Refusal::read(said)).map(|said| said.nonce).next()
    };
    assert_eq!(ask(&mut scene, &secrets[1], 0), None, "a stranger learns nothing");
    assert_eq!(ask(&mut scene, &secrets[0], 6_200_000), Some(5));
    assert_eq!(ask(&mut scene, &secrets[0], 6_200_000), None, "that would be too often");
    scene.pass(Duration::from_millis(100));
    assert_eq!(ask(&mut scene, &secrets[0], 6_200_000), Some(5));
    for _ in 0..9 {
        scene.pass(Duration::from_secs(1));
        ask(&mut scene, &secrets[1], 0);
    }
    let [secret_told, clock_told] = &scene.hands.told[..] else { panic!("{:?}", scene.hands.told) };
    assert!(secret_told.contains("another secret") && secret_told.contains("192.0.2.1:1"));
    assert!(clock_told.contains("6.2 s before now"), "{clock_told}");
    scene.ask(&Question::Break(Break::Cut));
    assert_eq!(ask(&mut scene, &secrets[0], 6_200_000), None, "the way is cut");
}

#[test]
fn who_is_not_believed_gets_no_answer_no_notice_and_is_counted() {
    let mut scene = Scene::new();
    let mut probe = Vec::new();
    Question::Probe.write(&secret(), 1, START_US - 6_000_000, &mut probe);
    scene.receive(&probe, 1);
    probe.clear();
    Question::Probe.write(&secret(), 1, START_US, &mut probe);
    let mut forged = probe.clone();
    forged[40] ^= 1;
    scene.receive(&forged, 2);
    scene.receive(&probe[..40], 3);
    let mut others = Vec::new();
    Question::Probe.write(&Secret::new(&[7; 32]).unwrap(), 1, START_US, &mut others);
    scene.receive(&others, 4);
    assert!(scene.said().is_empty());
    let refusals = scene.hands.sent.drain(..).filter(|(_, said)| Refusal::read(said).is_some());
    assert_eq!(refusals.map(|(to, _)| to).collect::<Vec<_>>(), [1]);
    scene.receive(&probe, 5);
    // A copy from elsewhere: neither answered there, nor told of anything.
    scene.receive(&probe, 6);
    assert_eq!(scene.hands.sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [5]);
    scene.hands.sent.clear();
    scene.agent.handle_process(false, scene.now, &mut scene.hands);
    assert_eq!(scene.noticed(), [(5, State::Gone)]);
    let Counters { refused_forged, refused_time, refused_replayed, malformed, .. } =
        scene.agent.counters;
    assert_eq!((refused_forged, refused_time, refused_replayed, malformed), (2, 1, 1, 1));
}

#[test]
fn nothing_that_is_said_to_a_gateway_is_longer_than_what_it_asked_with() {
    let mut scene = Scene::new();
    scene.open(1);
    let mut probe = Vec::new();
    Question::Probe.write(&secret(), 1, START_US, &mut probe);
    for question in
        [Question::Probe, Question::Drain, Question::Start, Question::Break(Break::Hang)]
    {
        scene.ask(&question);
    }
    scene.agent.handle_process(false, scene.now, &mut scene.hands);
    assert!(scene.hands.sent.iter().all(|(_, said)| said.len() <= probe.len()));
}
