//! The members of a group in virtual time: the owner, its standby, and one that was the standby before.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_media::rtp::RtpHeader;
use evenkeel_media::srtp::SrtpError;
use fastrand::Rng;

use super::IndicesOutcome;
use super::link::{Link, Replica};
use super::process::{Clock, Process, SessionId, UsedIndex};
use crate::check::Violation;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const TICK: Duration = ms(2);

/// Time after a fault until the next one, at most.
const CALM_MS: u64 = 2_500;

/// A stream of a node to a client.
struct Stream {
    session: SessionId,
    ssrc: u32,
    /// It has this rate since then.
    since: Instant,
    per_second: u64,
    /// Packets since then.
    packets: u64,
    sequence: u16,
    timestamp: u32,
}

/// Rates of streams per second: voice, video, and more than a lease lasts.
const RATES: [u64; 6] = [50, 50, 50, 300, 1_500, 2_500];

/// A member that has copies.
struct Standby {
    clock: Clock,
    replica: Replica,
    /// It runs again then.
    paused_until: Instant,
}

pub(super) struct World {
    rng: Rng,
    start: Instant,
    now: Instant,
    owner: Process,
    /// It runs again then, unless it is replaced before.
    owner_paused_until: Instant,
    control_stalled_until: Instant,
    /// The owner was killed.
    is_owner_dead: bool,
    standby: Option<Standby>,
    /// Was the standby before, and is cut off.
    former: Option<Standby>,
    link: Option<Link>,
    /// When a standby starts, and when it is connected.
    standby_at: Option<Instant>,
    connects_at: Instant,
    /// Another member than the last follower connects next.
    is_other: bool,
    take_over_at: Option<Instant>,
    next_fault: Instant,
    /// The next fault is the death of the owner: its copies have just been held back.
    dies_next: bool,
    streams: Vec<Stream>,
    used: BTreeSet<UsedIndex>,
    wants_copy: bool,
    clean: bool,
    traced: bool,
    outcome: IndicesOutcome,
}

impl World {
    pub(super) fn draw(seed: u64, traced: bool) -> World {
        let mut rng = Rng::with_seed(seed ^ 0x6969_6e64_6578);
        let start = Instant::now();
        let clock = Clock { base: start, permille: rng.u32(960..1_040) };
        let mut owner = Process::new(clock, start);
        let sessions = rng.u8(2..5);
        (1..=sessions).for_each(|session| owner.open(session));
        let mut streams = Vec::new();
        for session in 1..=sessions {
            for number in 0..rng.u32(2..6) {
                streams.push(Stream {
                    session,
                    // A new stream adds 2^16.
                    ssrc: u32::from(session) << 8 | number,
                    since: start + ms(rng.u64(0..15_000)),
                    per_second: RATES[rng.usize(0..RATES.len())],
                    packets: 0,
                    sequence: rng.u16(..),
                    timestamp: rng.u32(..),
                });
            }
        }
        let clean = rng.u8(0..8) == 0;
        let next_fault = start + ms(rng.u64(200..CALM_MS));
        World {
            start,
            now: start,
            owner,
            owner_paused_until: start,
            control_stalled_until: start,
            is_owner_dead: false,
            standby: None,
            former: None,
            link: None,
            standby_at: Some(start + ms(rng.u64(0..2_000))),
            connects_at: start,
            is_other: false,
            take_over_at: None,
            next_fault,
            dies_next: false,
            streams,
            used: BTreeSet::new(),
            wants_copy: false,
            clean,
            traced,
            outcome: IndicesOutcome::default(),
            rng,
        }
    }

    pub(super) fn play(mut self, lasts: Duration) -> IndicesOutcome {
        while self.now < self.start + lasts && self.outcome.violations.is_empty() {
            self.now += TICK;
            self.start_standby();
            if self.rng.bool() {
                self.run_link();
                self.run_owner();
            } else {
                self.run_owner();
                self.run_link();
            }
            if self.take_over_at.is_some_and(|at| at <= self.now) {
                self.take_over();
            }
            if self.now >= self.next_fault && self.take_over_at.is_none() {
                self.fail();
            }
        }
        self.outcome
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.traced {
            println!("{:?} indices: {}", self.now - self.start, text());
        }
    }

    fn clock(&mut self) -> Clock {
        Clock { base: self.start, permille: self.rng.u32(960..1_040) }
    }

    fn runs(&self) -> bool {
        !self.is_owner_dead && self.now >= self.owner_paused_until
    }

    fn start_standby(&mut self) {
        if self.standby_at.is_some_and(|at| at <= self.now) {
            self.standby_at = None;
            let standby =
                Standby { clock: self.clock(), replica: Replica::new(), paused_until: self.now };
            self.standby = Some(standby);
            self.connects_at = self.now + ms(self.rng.u64(1..300));
        }
        if self.link.is_none()
            && self.standby.is_some()
            && self.now >= self.connects_at
            && self.runs()
            && self.take_over_at.is_none()
        {
            self.say(|| "the standby is connected".to_owned());
            self.link = Some(Link::new(self.now));
            let is_other = std::mem::take(&mut self.is_other);
            self.owner.follow(is_other, self.now);
        }
    }

    fn run_owner(&mut self) {
        if !self.runs() {
            return;
        }
        let now = self.now;
        for place in 0..self.streams.len() {
            let due = self.streams[place].due(now);
            for _ in 0..due {
                let header = self.streams[place].next();
                let session = self.streams[place].session;
                let sent = self.owner.send(session, &header, now);
                self.note(sent);
            }
            let stream = &self.streams[place];
            if due > 0 && self.rng.u8(0..10) == 0 {
                let sent = self.owner.report(stream.session, stream.ssrc, now);
                self.note(sent);
            }
        }
        if self.rng.u32(0..if self.dies_next { 50 } else { 1_000 }) == 0 {
            let (place, rate) =
                (self.rng.usize(0..self.streams.len()), self.rng.usize(0..RATES.len()));
            let stream = &mut self.streams[place];
            if stream.since <= now {
                (stream.since, stream.per_second, stream.packets) = (now, RATES[rate], 0);
            }
            // A node starts again, with other numbers, or with another stream.
            match self.rng.u8(0..4) {
                0 => stream.sequence = self.rng.u16(..),
                1 => stream.ssrc += 0x1_0000,
                _ => {}
            }
        }
        self.owner.make_copies(now);
        if now >= self.control_stalled_until {
            let slow = !self.clean && self.rng.u8(0..200) == 0;
            let limit = if slow { 3_000 } else { 4 };
            let rng = &mut self.rng;
            let delays = || [ms(rng.u64(0..limit)), ms(rng.u64(0..limit))];
            let batch = self.owner.turn(std::mem::take(&mut self.wants_copy), delays, now);
            let latency = ms(self.rng.u64(1..12));
            if let (Some(link), Some(batch)) = (&mut self.link, batch) {
                link.send(batch, now, latency);
            }
        }
    }

    fn note(&mut self, sent: Option<Result<UsedIndex, SrtpError>>) {
        match sent {
            None => {}
            Some(Ok(index)) => {
                self.outcome.sent += 1;
                let name = match &index {
                    UsedIndex::Rtp(session, ssrc, _) => format!("SRTP of {ssrc:#x} in {session}"),
                    UsedIndex::Rtcp(session, ssrc, index) => {
                        format!("SRTCP {index:#x} of {ssrc:#x} in {session}")
                    }
                };
                if !self.used.insert(index) {
                    let what = format!("an index is used twice: {name}");
                    self.say(|| format!("I13: {what}"));
                    let at = self.now - self.start;
                    self.outcome.violations.push(Violation { invariant: "I13", at, what });
                }
            }
            Some(Err(error)) => {
                self.outcome.refused += 1;
                self.wants_copy |= matches!(error, SrtpError::LeaseExhausted { .. });
            }
        }
    }

    fn run_link(&mut self) {
        let now = self.now;
        let Some(link) = &mut self.link else { return };
        if let Some(standby) = self.standby.as_mut().filter(|it| now >= it.paused_until) {
            while let Some(batch) = link.next_batch(now) {
                let number = batch.sent.number;
                standby.replica.apply(batch, standby.clock.read(now));
                link.acknowledge(number, now, ms(self.rng.u64(1..12)));
            }
        }
        if !self.is_owner_dead && now >= self.owner_paused_until {
            while let Some(batch) = link.next_acknowledged(now) {
                self.owner.acknowledge(&batch, now);
            }
        }
    }

    fn cut_link(&mut self) {
        self.link = None;
        self.owner.unfollow();
        self.connects_at = self.now + ms(self.rng.u64(5..4_000));
    }

    fn fail(&mut self) {
        self.next_fault = self.now + ms(self.rng.u64(100..CALM_MS));
        let now = self.now;
        let pause = self.rng.u64(200..4_000);
        let soon = now + ms(self.rng.u64(20..300));
        let dies = std::mem::take(&mut self.dies_next);
        // Most owners are replaced soon; some by a slow fence, or by an operator.
        let is_soon = dies || self.rng.bool();
        let replaced = if is_soon { soon } else { now + ms(self.rng.u64(20..5_000)) };
        let has_copies = self.standby.as_ref().is_some_and(|it| self.is_whole(it));
        let kinds = match (dies, self.clean) {
            (true, _) => 1,
            (false, true) => 3,
            (false, false) => 10,
        };
        let fault = self.rng.u8(0..kinds);
        if (4..9).contains(&fault) && self.rng.bool() {
            self.dies_next = true;
            self.next_fault = now + ms(pause + self.rng.u64(0..200) - 150);
        }
        let pause = ms(pause);
        match fault {
            0 if has_copies || self.former.is_some() => {
                self.say(|| "the owner dies".to_owned());
                self.is_owner_dead = true;
                self.take_over_at = Some(replaced);
            }
            1 if has_copies => {
                self.say(|| "the owner hands over".to_owned());
                self.take_over_at = Some(soon);
            }
            2 if self.runs() => self.upgrade(),
            3 if self.runs() => {
                self.say(|| format!("the owner stops for {pause:?}"));
                self.owner_paused_until = now + pause;
                if has_copies && self.rng.bool() {
                    self.take_over_at = Some(replaced);
                }
            }
            4 => {
                self.say(|| format!("control stalls for {pause:?}"));
                self.control_stalled_until = now + pause;
            }
            5 | 6 if self.link.is_some() => {
                self.say(|| "the link is cut".to_owned());
                self.cut_link();
                if has_copies && self.rng.u8(0..3) == 0 {
                    // The owner is cut off from all.
                    self.take_over_at = Some(replaced);
                }
            }
            7 => {
                if let Some(link) = &mut self.link {
                    let way = self.rng.usize(0..2);
                    link.held_until[way] = now + pause;
                }
            }
            8 => {
                if let Some(standby) = &mut self.standby {
                    standby.paused_until = now + pause;
                }
            }
            9 if self.standby.is_some() => {
                self.say(|| "another member is the standby".to_owned());
                self.former = self.standby.take();
                self.cut_link();
                self.is_other = true;
                self.standby_at = Some(now + ms(self.rng.u64(1..500)));
            }
            _ => {}
        }
    }

    fn is_whole(&self, standby: &Standby) -> bool {
        self.owner.sessions().all(|session| standby.replica.copies.contains_key(&session))
    }

    fn count(&mut self, how: &'static str) {
        *self.outcome.replaced.entry(how).or_default() += 1;
    }

    fn upgrade(&mut self) {
        self.say(|| "an upgrade".to_owned());
        self.count("upgrade");
        let mut next = Process::new(self.owner.clock, self.now);
        next.inherit(&self.owner, self.now);
        self.owner = next;
        // The next process does not know that it was the standby; the group's votes do.
        (self.former, self.link) = (None, None);
        self.connects_at = self.now + ms(self.rng.u64(1..1_000));
    }

    /// The standby takes over, or the member that was it before.
    fn take_over(&mut self) {
        self.take_over_at = None;
        let former = self.former.take().filter(|it| self.rng.bool() && self.is_whole(it));
        let how = if former.is_some() { "former standby" } else { "takeover" };
        let taker = match former {
            Some(former) => {
                self.standby = None;
                former
            }
            None => match self.standby.take_if(|_| true) {
                Some(standby) => standby,
                None => return self.restart(),
            },
        };
        self.count(how);
        let (now, local) = (self.now, taker.clock.read(self.now));
        let mut owner = Process::new(taker.clock, now);
        for (session, (copy, received)) in &taker.replica.copies {
            let continues = self.owner.has(*session)
                && taker.replica.holds(*received, local)
                && owner.restore(copy, now);
            self.outcome.continued += u64::from(continues);
            self.outcome.ended += u64::from(!continues);
        }
        self.say(|| format!("{how}: {} sessions continue", owner.sessions().count()));
        self.owner = owner;
        self.restart_members();
    }

    /// All members are gone: sessions end, and new ones begin with other keys.
    fn restart(&mut self) {
        self.owner = Process::new(self.owner.clock, self.now);
        self.restart_members();
    }

    fn restart_members(&mut self) {
        (self.is_owner_dead, self.is_other, self.link) = (false, false, None);
        for stream in &mut self.streams {
            stream.lose(self.now);
        }
        self.owner_paused_until = self.now;
        self.control_stalled_until = self.now;
        self.standby_at = Some(self.now + ms(self.rng.u64(300..2_000)));
    }
}

impl Stream {
    /// The number of packets that the node has sent and the owner has not received.
    fn due(&self, now: Instant) -> u64 {
        let Some(lasted) = now.checked_duration_since(self.since) else { return 0 };
        let all = lasted.as_micros() as u64 * self.per_second / 1_000_000;
        all.saturating_sub(self.packets)
    }

    /// Packets of the time without an owner are lost.
    fn lose(&mut self, now: Instant) {
        let lost = self.due(now);
        self.packets += lost;
        self.sequence = self.sequence.wrapping_add(lost as u16);
    }

    fn next(&mut self) -> RtpHeader {
        self.packets += 1;
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(960);
        RtpHeader {
            payload_type: 111,
            marker: false,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            payload_offset: 12,
            payload_end: 28,
        }
    }
}
