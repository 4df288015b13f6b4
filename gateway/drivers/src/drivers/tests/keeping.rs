//! Sessions stay open at a node that forgets sessions without a refresh.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::*;

const SESSIONS: u64 = 400;

/// A node and the gateway under a virtual clock.
struct Pair {
    drivers: Drivers,
    start: Instant,
    ms: u64,
    /// Sessions of the node and their expiry.
    known: BTreeMap<Tag, Instant>,
    expired: usize,
    takes_new: bool,
    opens: usize,
    keeps: usize,
    /// Milliseconds during which questions are lost.
    questions_lost: Range<u64>,
    answers_lost: Range<u64>,
    openings_to_lose: usize,
    told: VecDeque<DriverAction>,
}

impl Pair {
    /// Starts with all sessions open.
    fn new() -> Pair {
        let mut pair = Pair {
            drivers: driven(&[agent()]),
            start: Instant::now(),
            ms: 0,
            known: BTreeMap::new(),
            expired: 0,
            takes_new: true,
            opens: 0,
            keeps: 0,
            questions_lost: 0..0,
            answers_lost: 0..0,
            openings_to_lose: 0,
            told: VecDeque::new(),
        };
        for session in 0..SESSIONS {
            let wish = OpenRequest { session: SessionId(session), ..wish() };
            let mut drawn = session << 8;
            let mut draw = || {
                drawn += 1;
                drawn
            };
            let act = pair.drivers.open(&wish, &mut draw, at(pair.start, 0)).unwrap();
            pair.act(act);
        }
        assert_eq!((pair.known.len(), pair.opens), (SESSIONS as usize, SESSIONS as usize));
        assert!(pair.told.drain(..).all(|act| matches!(act, DriverAction::Opened { .. })));
        pair
    }

    /// Calls `poll` as often as control does, until this time.
    fn run_until(&mut self, ms: u64) {
        while self.ms < ms {
            self.ms += 2;
            while let Some(act) = self.drivers.poll(self.clock()) {
                self.act(act);
            }
            let now = self.clock().now;
            let before = self.known.len();
            self.known.retain(|_, until| *until > now);
            self.expired += before - self.known.len();
        }
    }

    fn clock(&self) -> Clock {
        at(self.start, self.ms)
    }

    fn act(&mut self, act: DriverAction) {
        let DriverAction::Send { bytes: message, .. } = act else {
            return self.told.push_back(act);
        };
        assert!(message.len() <= 1_200);
        if self.questions_lost.contains(&self.ms) {
            return;
        }
        let clock = self.clock();
        let asked = TrunkQuestion::read(&message, &secret(), clock.unix_us).unwrap();
        if self.openings_to_lose > 0 && matches!(asked.message, TrunkQuestion::Open { .. }) {
            self.openings_to_lose -= 1;
            return;
        }
        let mut answer = Vec::new();
        self.reply(asked.message).write(&secret(), asked.nonce, clock.unix_us, &mut answer);
        assert!(answer.len() <= message.len());
        if !self.answers_lost.contains(&self.ms) {
            let act = signed(&mut self.drivers, HOP.node, &answer, clock);
            act.into_iter().for_each(|act| self.act(act));
        }
    }

    fn reply(&mut self, question: TrunkQuestion) -> TrunkAnswer {
        let now = self.clock().now;
        let until = |lease_s: u16| now + Duration::from_secs(lease_s.into());
        match question {
            TrunkQuestion::Open { tag, lease_s, .. } => {
                self.opens += 1;
                if !self.takes_new && !self.known.contains_key(&tag) {
                    return TrunkAnswer::Open { tag, status: OpenStatus::Full };
                }
                self.known.insert(tag, until(lease_s));
                TrunkAnswer::Open { tag, status: OpenStatus::Ok }
            }
            TrunkQuestion::Keep { lease_s, numbered: true, tags } => {
                self.keeps += 1;
                let until = until(lease_s);
                let (known, unknown): (Vec<Tag>, Vec<Tag>) =
                    tags.iter().partition(|&tag| self.known.contains_key(tag));
                self.known.extend(known.into_iter().map(|tag| (tag, until)));
                TrunkAnswer::Keep { unknown: unknown.into() }
            }
            question => panic!("{question:?}"),
        }
    }

    /// All sessions are open, and control received no action.
    fn all_are_open(&self) {
        assert_eq!(self.known.len(), SESSIONS as usize);
        assert!(self.told.is_empty(), "{:?}", self.told);
    }
}

#[test]
fn few_messages_keep_sessions_open() {
    let mut pair = Pair::new();
    pair.run_until(300_000);
    pair.all_are_open();
    assert_eq!((pair.expired, pair.opens), (0, SESSIONS as usize));
    // One request per second would suffice for 1,136 sessions.
    assert!((200..=400).contains(&pair.keeps), "{}", pair.keeps);
}

#[test]
fn two_lost_rounds_are_tolerated() {
    let mut pair = Pair::new();
    // At most two refreshes of each lease are lost.
    pair.questions_lost = 20_000..35_000;
    pair.answers_lost = 40_000..120_000;
    pair.run_until(120_000);
    pair.all_are_open();
    assert_eq!((pair.expired, pair.opens), (0, SESSIONS as usize));
}

#[test]
fn forgotten_session_is_reopened_silently() {
    let mut pair = Pair::new();
    pair.run_until(40_000);
    pair.known.retain(|tag, _| tag.0 % 3 == 0);
    let forgotten = SESSIONS as usize - pair.known.len();
    assert!(forgotten > 200);
    pair.run_until(50_000);
    pair.all_are_open();
    assert_eq!(pair.opens, SESSIONS as usize + forgotten);
    pair.run_until(120_000);
    pair.all_are_open();
    assert_eq!(pair.expired, 0);
}

#[test]
fn reopening_is_retried_until_answered() {
    let mut pair = Pair::new();
    pair.run_until(40_000);
    pair.known.clear();
    pair.openings_to_lose = 500;
    pair.run_until(50_000);
    pair.all_are_open();
    assert_eq!((pair.openings_to_lose, pair.opens), (0, 2 * SESSIONS as usize));
}

#[test]
fn failed_reopening_is_reported() {
    let mut pair = Pair::new();
    pair.run_until(40_000);
    pair.known.pop_first().unwrap();
    pair.takes_new = false;
    pair.run_until(50_000);
    assert_eq!(pair.told.len(), 1);
    let told = pair.told.pop_front();
    let first = SessionId(0);
    assert!(
        matches!(told, Some(DriverAction::Refused { session, unwilling: true, .. }) if session == first)
    );
    let (opens, keeps) = (pair.opens, pair.keeps);
    pair.run_until(120_000);
    assert_eq!((pair.opens, pair.known.len()), (opens, SESSIONS as usize - 1));
    assert!(pair.keeps > keeps);
}

#[test]
fn leases_of_another_process_are_refreshed() {
    let mut pair = Pair::new();
    pair.run_until(40_000);
    let wish = OpenRequest { session: SessionId(SESSIONS), ..wish() };
    // The answer is lost, so the core opens this one again.
    assert!(pair.drivers.open(&wish, &mut || 1 << 50, pair.clock()).is_some());
    let record = pair.drivers.record();
    pair.drivers = driven(&[agent()]);
    let known = ContinuedSession { hop: &|_, hop| Some(hop), facts: &|_| None };
    let now = pair.clock().now;
    pair.drivers.restore(record, &known, &mut || 1, now);
    let keeps = pair.keeps;
    pair.run_until(pair.ms + 2);
    assert_eq!(pair.keeps - keeps, 3, "142 tags in a message, at once");
    pair.run_until(pair.ms + 900);
    assert_eq!(pair.keeps - keeps, 3, "each is answered");
    pair.run_until(160_000);
    pair.all_are_open();
    assert_eq!((pair.expired, pair.opens), (0, SESSIONS as usize));
    let closed = pair.drivers.close(SessionId(7), HOP, pair.clock());
    assert!(matches!(question(closed, pair.clock()).0, TrunkQuestion::Close { .. }));
    assert!(pair.drivers.close(SessionId(SESSIONS), HOP, pair.clock()).is_none());
}

#[test]
fn lost_refresh_of_another_process_is_repeated() {
    let mut pair = Pair::new();
    pair.run_until(40_000);
    let record = pair.drivers.record();
    pair.drivers = driven(&[agent()]);
    let known = ContinuedSession { hop: &|_, hop| Some(hop), facts: &|_| None };
    pair.questions_lost = pair.ms..pair.ms + 3;
    pair.drivers.restore(record, &known, &mut || 1, pair.clock().now);
    let keeps = pair.keeps;
    pair.run_until(pair.ms + 40);
    assert_eq!(pair.keeps - keeps, 0);
    pair.run_until(pair.ms + 20);
    assert_eq!(pair.keeps - keeps, 3);
}

#[test]
fn leases_follow_the_number_of_their_node() {
    let start = Instant::now();
    let (mut before, tag, nonce) = opening(start);
    let opened = answer(OpenStatus::Ok, tag, nonce, at(start, 1));
    signed(&mut before, HOP.node, &opened, at(start, 1)).unwrap();
    let moved = Hop { node: NodeId(1), incarnation: Incarnation(5) };
    for hop in [Some(moved), None] {
        let mut now = driven(&[plain(([10, 0, 0, 1], 9).into()), agent()]);
        let known = ContinuedSession { hop: &|_, _| hop, facts: &|_| None };
        now.restore(before.record(), &known, &mut || 1, start);
        let closed = now.close(SESSION, moved, at(start, 2));
        assert_eq!(closed.is_some(), hop.is_some());
        if closed.is_some() {
            assert_eq!(question(closed, at(start, 2)).0, TrunkQuestion::Close { tag });
        }
    }
}
