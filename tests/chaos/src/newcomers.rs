//! New sessions at a steady rate, and their admission while a region's breaker opens and closes.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_client::{ApiClient, ServerEvent};
use evenkeel_contract::offers::{
    OfferIngress, OfferMedia, OfferPayloadType, OfferRequest, OfferStreamKind,
};
use evenkeel_lab::clock;
use evenkeel_lab::watch::at_ns;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::word;

/// Twenty newcomers per second: a breaker that is half-open for 5 s sees a hundred and admits ten.
const COME_EVERY: Duration = Duration::from_millis(50);
/// Each session closes after this time, so that the region does not fill up.
const STAY: Duration = Duration::from_secs(2);
/// Tolerance between events and answers: a tick and the delay of the API.
const ABOUT_NS: u64 = 20_000_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The newcomer's room is placed in this region.
    Placed(String),
    /// The newcomer is asked to retry after this time.
    Later(Duration),
    /// The newcomer is refused without a time to retry.
    Never(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct OfferAttempt {
    asked_ns: u64,
    answered_ns: u64,
    /// The state of the requested region's breaker, as reported by the API.
    breaker: String,
    answer: Answer,
}

/// Newcomers until this is dropped.
pub(crate) struct Newcomers {
    came: Arc<Mutex<Vec<OfferAttempt>>>,
    home: &'static str,
    coming: JoinHandle<()>,
}

impl Newcomers {
    /// Starts newcomers that all request this region.
    pub(crate) fn begin(admin: ApiClient, home: &'static str) -> Newcomers {
        let came = Arc::default();
        let theirs = Arc::clone(&came);
        let coming = tokio::spawn(async move {
            let mut clock = tokio::time::interval(COME_EVERY);
            for number in 1.. {
                clock.tick().await;
                tokio::spawn(come(admin.another(), home, number, Arc::clone(&theirs)));
            }
        });
        Newcomers { came, home, coming }
    }

    /// Evaluates all newcomers so far with the gateway's events and the times of fault and repair, nanoseconds since
    /// the Unix epoch.
    pub(crate) fn tell(
        &self,
        events: &[ServerEvent],
        fault_ns: u64,
        healed_ns: u64,
    ) -> NewcomerReport {
        let came = std::mem::take(&mut *self.came.lock().unwrap_or_else(PoisonError::into_inner));
        NewcomerReport::of(&came, self.home, &turns(events, self.home), fault_ns, healed_ns)
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.coming.abort();
    }
}

/// Opens a session and closes it again.
async fn come(
    mut admin: ApiClient,
    home: &'static str,
    number: u64,
    all: Arc<Mutex<Vec<OfferAttempt>>>,
) {
    let asked_ns = clock::now_ns();
    let regions = admin.read("/v1/regions").await.unwrap_or_default();
    let is_home = |region: &&Value| region["region"] == home;
    let mut regions = regions["regions"].as_array().into_iter().flatten();
    let breaker = regions.find(is_home).map(|region| word(&region["breaker"]));
    let (answer, guest) = ask(&mut admin, home, number).await;
    let answered_ns = clock::now_ns();
    let came = OfferAttempt { asked_ns, answered_ns, breaker: breaker.unwrap_or_default(), answer };
    all.lock().unwrap_or_else(PoisonError::into_inner).push(came);
    if let Some(OpenedSession { id, .. }) = &guest {
        tokio::time::sleep(STAY).await;
        // Otherwise the session ends with the gateway.
        let _gone = admin.close(id).await;
    }
}

pub(crate) struct OpenedSession {
    id: String,
    /// Keeps its address in use.
    _socket: UdpSocket,
}

/// Requests a new room in this region, or in the region to which it is redirected, and returns the answer.
pub(crate) async fn ask(
    admin: &mut ApiClient,
    home: &str,
    number: u64,
) -> (Answer, Option<OpenedSession>) {
    let asked = try_ask(admin, home, number).await;
    asked.unwrap_or_else(|why| (Answer::Never(why), None))
}

async fn try_ask(
    admin: &mut ApiClient,
    home: &str,
    number: u64,
) -> Result<(Answer, Option<OpenedSession>), String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let socket = socket.map_err(|error| format!("a socket: {error}"))?;
    let address = socket.local_addr().map_err(|error| format!("a socket: {error}"))?;
    let (mut status, mut said) = ask_in(admin, &offer(home, number, address)).await?;
    if let Some(region) = sent_to(status, &said) {
        (status, said) = ask_in(admin, &offer(region, number, address)).await?;
    }
    let (answer, id) = read(status, &said);
    Ok((answer, id.map(|id| OpenedSession { id, _socket: socket })))
}

async fn ask_in(admin: &mut ApiClient, offer: &OfferRequest) -> Result<(u16, Value), String> {
    let reply = admin.ask_to_open(offer).await.map_err(|error| error.to_string())?;
    Ok((reply.status, reply.json().map_err(|error| error.to_string())?))
}

/// The region of a redirect: the error message names it between backticks.
fn sent_to(status: u16, said: &Value) -> Option<&str> {
    let message = said["error"]["message"].as_str().filter(|_| status == 403)?;
    message.split('`').nth(1)
}

/// The answer in a reply, and the session, if any.
fn read(status: u16, said: &Value) -> (Answer, Option<String>) {
    if status == 201 {
        let region = word(&said["route"][0]["region"]);
        return (Answer::Placed(region), Some(word(&said["id"])));
    }
    let after = said["error"]["retry_after_ms"].as_u64().filter(|after| *after > 0);
    let never = || Answer::Never(format!("{status} {said}"));
    (after.map_or_else(never, |ms| Answer::Later(Duration::from_millis(ms))), None)
}

/// A new room with one session.
pub(crate) fn offer(home: &str, number: u64, address: SocketAddr) -> OfferRequest {
    let opus = OfferPayloadType::new(111, "opus", 48_000);
    OfferRequest {
        scenario: "call".to_owned(),
        room: format!("newcomer-{number}"),
        labels: [("region", home)].into_iter().collect(),
        ingress: Some(OfferIngress::declared(address)),
        media: Some(vec![OfferMedia {
            kind: OfferStreamKind::Audio,
            payload_types: vec![opus],
            feedback: Vec::new(),
            bitrate: Some("64 kbit/s".to_owned()),
        }]),
        ..OfferRequest::default()
    }
}

/// The states of a region's breaker and their times: nanoseconds since the Unix epoch.
fn turns(events: &[ServerEvent], region: &str) -> Vec<(u64, String)> {
    let own = events.iter().filter(|event| event.name == "breaker");
    let own = own.filter(|it| it.data["region"] == region && it.data["zone"].is_null());
    own.map(|event| (at_ns(event), word(&event.data["to"]))).collect()
}

/// The newcomers of one phase.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
struct Phase {
    came: u64,
    at_home: u64,
    elsewhere: u64,
    told_later: u64,
    /// Refused without a time to retry.
    sent_away: u64,
}

impl Phase {
    fn add(&mut self, answer: &Answer, home: &str) {
        self.came += 1;
        match answer {
            Answer::Placed(region) if region == home => self.at_home += 1,
            Answer::Placed(_) => self.elsewhere += 1,
            Answer::Later(_) => self.told_later += 1,
            Answer::Never(_) => self.sent_away += 1,
        }
    }

    fn at_home_percent(&self) -> Option<f64> {
        (self.came > 0).then(|| self.at_home as f64 * 100.0 / self.came as f64)
    }
}

/// Newcomers before, during and after the fault.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub(crate) struct NewcomerReport {
    /// The states of the breaker, each with the time after the fault, milliseconds.
    breaker: Vec<(String, f64)>,
    /// Duration of the fault, milliseconds.
    undone_ms: f64,
    before: Phase,
    open: Phase,
    half_open: Phase,
    closed_again: Phase,
    /// Newcomers for which the API reported another breaker state than the events.
    contradicted: u64,
    /// The first one that was refused without a time to retry.
    first_sent_away: Option<String>,
}

impl NewcomerReport {
    fn of(
        came: &[OfferAttempt],
        home: &str,
        turns: &[(u64, String)],
        fault_ns: u64,
        healed_ns: u64,
    ) -> NewcomerReport {
        let ms = |ns: u64| (ns as f64 - fault_ns as f64) / 1e6;
        let breaker = turns.iter().map(|(at_ns, to)| (to.clone(), ms(*at_ns))).collect();
        let mut tide =
            NewcomerReport { breaker, undone_ms: ms(healed_ns), ..NewcomerReport::default() };
        for one in came {
            if let Answer::Never(why) = &one.answer {
                tide.first_sent_away.get_or_insert_with(|| why.clone());
            }
            // A request during a change belongs to neither phase.
            let span = one.asked_ns.saturating_sub(ABOUT_NS)..one.answered_ns + ABOUT_NS;
            if turns.iter().any(|(at_ns, _)| span.contains(at_ns)) {
                continue;
            }
            let state = turns.iter().rfind(|(at_ns, _)| *at_ns < one.asked_ns);
            let state = state.map_or("closed", |(_, to)| to.as_str());
            tide.contradicted += u64::from(one.breaker != state);
            let phase = match state {
                "open" => &mut tide.open,
                "half-open" => &mut tide.half_open,
                _ if one.asked_ns > healed_ns => &mut tide.closed_again,
                _ if one.answered_ns < fault_ns => &mut tide.before,
                _ => continue,
            };
            phase.add(&one.answer, home);
        }
        tide
    }

    /// The share that a half-open breaker admitted.
    pub(crate) fn half_open_percent(&self) -> Option<f64> {
        self.half_open.at_home_percent()
    }

    /// The share that an open region admitted, before the fault or after it.
    pub(crate) fn at_home_percent(&self) -> Option<f64> {
        let both = [self.before.at_home_percent()?, self.closed_again.at_home_percent()?];
        both.into_iter().min_by(f64::total_cmp)
    }

    /// The violated checks without a number.
    pub(crate) fn misses(&self) -> Vec<String> {
        let NewcomerReport { before, open, half_open, closed_again, .. } = self;
        let phases = [before, open, half_open, closed_again];
        let sent_away: u64 = phases.iter().map(|phase| phase.sent_away).sum();
        let held = [
            (self.turned_in_time(), format!("its breaker was {:?}", self.breaker)),
            (before.came > 0, "nobody came before the fault".to_owned()),
            (open.came > 0 && open.at_home == 0, format!("while it was open: {open:?}")),
            (half_open.at_home > 0, format!("while it was half-open they were {half_open:?}")),
            (closed_again.came > 0, "nobody came once it was closed".to_owned()),
            (
                sent_away == 0,
                format!("refused without a retry time: {sent_away}, {:?}", self.first_sent_away),
            ),
            (
                self.contradicted == 0,
                format!("of {} the API and the events differ", self.contradicted),
            ),
        ];
        held.into_iter().filter(|(held, _)| !held).map(|(_, miss)| miss).collect()
    }

    /// True if the breaker opened during the fault, then half-opened, and closed after the fault.
    fn turned_in_time(&self) -> bool {
        let states: Vec<&str> = self.breaker.iter().map(|(to, _)| to.as_str()).collect();
        let at = |turn: usize| self.breaker.get(turn).map_or(0.0, |(_, at_ms)| *at_ms);
        states == ["open", "half-open", "closed"]
            && (0.0..self.undone_ms).contains(&at(0))
            && at(2) > self.undone_ms
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_report::{AcceptanceRow, LimitTable};
    use serde_json::json;

    use super::*;

    const S: u64 = 1_000_000_000;

    /// The violated checks and limits.
    fn misses(tide: &NewcomerReport) -> usize {
        let row = Some("region.brown-out.newcomers");
        let limits = LimitTable::load().unwrap().group("chaos", row).unwrap();
        let half_open = limits.row("row", "half_open", "half_open", tide.half_open_percent());
        let at_home = limits.row("row", "at_home", "at_home", tide.at_home_percent());
        let exceeded = [half_open, at_home].iter().flat_map(AcceptanceRow::exceeded).count();
        tide.misses().len() + exceeded
    }

    /// The fault is at 10 s and undone at 20, the breaker opens at 13, half-opens at 23 and closes at 28.
    fn usual() -> Vec<(u64, String)> {
        [(13, "open"), (23, "half-open"), (28, "closed")]
            .map(|(s, to)| (s * S, to.to_owned()))
            .into()
    }

    /// Twenty newcomers per second for 35 s; `answer` gets the number and the second.
    fn tide(turns: &[(u64, String)], answer: impl Fn(u64, u64) -> Answer) -> NewcomerReport {
        let one = |number: u64| {
            let asked_ns = number * S / 20 + 1;
            let state = turns.iter().rfind(|(at_ns, _)| *at_ns < asked_ns);
            let breaker = state.map_or("closed".to_owned(), |(_, to)| to.clone());
            let answer = answer(number / 20, number % 20);
            OfferAttempt { asked_ns, answered_ns: asked_ns + S / 100, breaker, answer }
        };
        let came: Vec<OfferAttempt> = (1..700).map(one).collect();
        NewcomerReport::of(&came, "east", turns, 10 * S, 20 * S)
    }

    fn placed(region: &str) -> Answer {
        Answer::Placed(region.to_owned())
    }

    fn as_due(second: u64, number: u64) -> Answer {
        match second {
            13..23 if number == 0 => Answer::Later(Duration::from_secs(5)),
            13..23 => placed("west"),
            23..28 if number > 1 => placed("west"),
            _ => placed("east"),
        }
    }

    #[test]
    fn breaker_admits_none_then_a_share_then_all() {
        let tide = tide(&usual(), as_due);
        assert_eq!(misses(&tide), 0);
        assert_eq!((tide.open.told_later, tide.half_open.at_home), (9, 9));
    }

    #[test]
    fn each_deviation_is_a_miss() {
        let otherwise =
            |turns: &[(u64, String)], seconds: std::ops::Range<u64>, answer: &Answer| {
                let answer = |second, number| {
                    if seconds.contains(&second) { answer.clone() } else { as_due(second, number) }
                };
                misses(&tide(turns, answer))
            };
        let (east, west) = (placed("east"), placed("west"));
        let never = Answer::Never("503".to_owned());
        assert_eq!(otherwise(&usual(), 0..9, &west), 1, "no session was at home at first");
        assert_eq!(otherwise(&usual(), 14..15, &east), 1, "it was open");
        assert_eq!(otherwise(&usual(), 23..28, &west), 1, "nobody tried");
        assert_eq!(otherwise(&usual(), 23..28, &east), 1, "everybody tried");
        assert_eq!(otherwise(&usual(), 28..35, &west), 1, "no session returned");
        assert_eq!(otherwise(&usual(), 16..17, &never), 1, "no retry time");
        assert!(otherwise(&[], 0..0, &east) > 0, "it never opened");
    }

    #[test]
    fn late_early_or_repeated_breaker_is_a_miss() {
        let turned = |turns: &[(u64, &str)]| {
            let turns: Vec<_> = turns.iter().map(|(s, to)| (s * S, (*to).to_owned())).collect();
            NewcomerReport::of(&[], "east", &turns, 10 * S, 20 * S).turned_in_time()
        };
        assert!(turned(&[(13, "open"), (23, "half-open"), (28, "closed")]));
        assert!(!turned(&[(9, "open"), (19, "half-open"), (24, "closed")]));
        assert!(!turned(&[(20, "open"), (30, "half-open"), (35, "closed")]));
        assert!(!turned(&[(11, "open"), (14, "half-open"), (19, "closed")]));
        assert!(!turned(&[(13, "open"), (23, "half-open"), (24, "open")]));
    }

    #[test]
    fn what_the_api_says_otherwise_is_counted() {
        let one = |breaker: &str| OfferAttempt {
            asked_ns: 15 * S,
            answered_ns: 15 * S + 1,
            breaker: breaker.to_owned(),
            answer: placed("west"),
        };
        let came = [one("open"), one("closed")];
        assert_eq!(NewcomerReport::of(&came, "east", &usual(), 10 * S, 20 * S).contradicted, 1);
    }

    #[test]
    fn answers_are_read_as_they_are_meant() {
        let opened = json!({"id": "s7", "route": [{"node": "west-a1", "region": "west"}]});
        assert_eq!(read(201, &opened), (placed("west"), Some("s7".to_owned())));
        let later = json!({"error": {"code": "full", "retry_after_ms": 2_500}});
        assert_eq!(read(503, &later), (Answer::Later(Duration::from_millis(2_500)), None));
        let sent = json!({"error": {"code": "refused", "message": "try the region `west`"}});
        assert_eq!((sent_to(403, &sent), sent_to(503, &sent)), (Some("west"), None));
        let never = json!({"error": {"code": "full", "retry_after_ms": null}});
        assert!(matches!(read(503, &never), (Answer::Never(_), None)));
    }
}
