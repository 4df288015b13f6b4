//! Pending NG requests by cookie. A retry has the same cookie, for which rtpengine repeats its answer without acting
//! twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bencode::Value;
use crate::control::driver::mixed;

/// First retry interval; it doubles with each retry. An idle daemon answers within 1 ms, a busy one within some tens.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The subject of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum About {
    /// The first side of this call.
    Offer(u64),
    /// Its second side.
    Answer(u64),
    /// The end of this call.
    Delete(u64),
}

impl About {
    pub(super) fn call(self) -> u64 {
        let (About::Offer(call) | About::Answer(call) | About::Delete(call)) = self;
        call
    }
}

/// rtpengine's answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Success, with the SDP if there is one.
    Done(Option<String>),
    /// Failure. `busy`: rtpengine accepts no new calls at all.
    Refused { busy: bool, reason: String },
}

/// Result of a timeout.
#[derive(Debug)]
pub(super) enum Due {
    /// Send this again.
    Again(Arc<[u8]>),
    /// No answer came in time.
    Late(About),
}

#[derive(Debug)]
struct Asked {
    about: About,
    datagram: Arc<[u8]>,
    again: Instant,
    wait: Duration,
    by: Instant,
}

/// Pending requests. Few, because the driver limits requests in flight.
#[derive(Default, Debug)]
pub(super) struct Questions {
    asked: BTreeMap<u64, Asked>,
    drawn: u64,
    count: u64,
}

impl Questions {
    /// Seeds the cookies. Random, so that no other sender can answer for rtpengine.
    pub(super) fn draw_from(&mut self, drawn: u64) {
        self.drawn = drawn;
    }

    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }

    /// Adds a request that must be answered until `by`.
    pub(super) fn ask(
        &mut self,
        about: About,
        question: &Value<'_>,
        by: Instant,
        now: Instant,
    ) -> Arc<[u8]> {
        self.count += 1;
        let cookie = mixed(self.drawn, self.count);
        let mut datagram = format!("{cookie:016x} ").into_bytes();
        question.write(&mut datagram);
        let datagram: Arc<[u8]> = datagram.into();
        let (again, wait) = (now + ASK_AGAIN, ASK_AGAIN);
        self.asked
            .insert(cookie, Asked { about, datagram: Arc::clone(&datagram), again, wait, by });
        datagram
    }

    /// Matches an answer to its request. `None` if no request waits for it.
    pub(super) fn answered(&mut self, datagram: &[u8]) -> Option<(About, Answer)> {
        let space = datagram.iter().position(|byte| *byte == b' ')?;
        let cookie = std::str::from_utf8(&datagram[..space]).ok()?;
        let cookie = u64::from_str_radix(cookie, 16).ok()?;
        let answer = read(&Value::read(&datagram[space + 1..])?)?;
        self.asked.remove(&cookie).map(|asked| (asked.about, answer))
    }

    /// The next retry or timeout that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let is_due = |asked: &Asked| asked.by <= now || asked.again <= now;
        let (&cookie, asked) = self.asked.iter_mut().find(|(_, asked)| is_due(asked))?;
        if asked.by <= now {
            return self.asked.remove(&cookie).map(|asked| Due::Late(asked.about));
        }
        asked.wait *= 2;
        asked.again = now + asked.wait;
        Some(Due::Again(Arc::clone(&asked.datagram)))
    }

    /// Gives up all requests.
    pub(super) fn give_up(&mut self) -> Vec<About> {
        std::mem::take(&mut self.asked).into_values().map(|asked| asked.about).collect()
    }
}

fn read(answer: &Value<'_>) -> Option<Answer> {
    let text = |key| answer.text(key).map(str::to_owned);
    Some(match answer.text("result")? {
        "ok" => Answer::Done(text("sdp")),
        // rtpengine's limits of calls, load and bandwidth.
        "load limit" => {
            let reason = text("message").unwrap_or_else(|| "load limit".to_owned());
            Answer::Refused { busy: true, reason }
        }
        other => {
            let reason = text("error-reason").unwrap_or_else(|| format!("it said `{other}`"));
            Answer::Refused { busy: false, reason }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn asked(questions: &mut Questions, call: u64, now: Instant) -> String {
        let question = Value::dictionary(vec![("command", "ping".into())]);
        let datagram = questions.ask(About::Offer(call), &question, now + 1_800 * MS, now);
        let text = String::from_utf8(datagram.to_vec()).unwrap();
        let (cookie, rest) = text.split_once(' ').unwrap();
        assert_eq!(rest, "d7:command4:pinge");
        cookie.to_owned()
    }

    #[test]
    fn answer_matches_its_cookie_once() {
        let now = Instant::now();
        let mut questions = Questions::default();
        questions.draw_from(7);
        let (first, second) = (asked(&mut questions, 1, now), asked(&mut questions, 2, now));
        assert_ne!(first, second);
        let told = |cookie: &str| format!("{cookie} d6:result2:ok3:sdp3:v=0e");
        let done = Answer::Done(Some("v=0".to_owned()));
        assert_eq!(questions.answered(b"0000000000000001 d6:result2:oke"), None, "of nobody's");
        assert_eq!(questions.answered(format!("{second} d6:resul").as_bytes()), None, "cut short");
        assert_eq!(
            questions.answered(told(&second).as_bytes()),
            Some((About::Offer(2), done.clone()))
        );
        assert_eq!(questions.answered(told(&second).as_bytes()), None, "a second time");
        assert_eq!(questions.answered(told(&first).as_bytes()), Some((About::Offer(1), done)));
        assert_eq!(questions.len(), 0);
    }

    #[test]
    fn refusal_has_its_reason_and_scope() {
        let now = Instant::now();
        let mut questions = Questions::default();
        let mut said = |answer: &str| {
            let cookie = asked(&mut questions, 1, now);
            questions.answered(format!("{cookie} {answer}").as_bytes()).unwrap().1
        };
        let refused = |busy, reason: &str| Answer::Refused { busy, reason: reason.to_owned() };
        let error = "d12:error-reason13:Unknown codec6:result5:errore";
        assert_eq!(said(error), refused(false, "Unknown codec"));
        let limit = "d7:message27:Parallel session limit hit.6:result10:load limite";
        assert_eq!(said(limit), refused(true, "Parallel session limit hit."));
        assert_eq!(said("d6:result4:whate"), refused(false, "it said `what`"));
    }

    #[test]
    fn request_is_retried_with_backoff_and_given_up() {
        let start = Instant::now();
        let mut questions = Questions::default();
        asked(&mut questions, 5, start);
        let mut times = Vec::new();
        let late = (0..3_000).find(|ms| match questions.due(start + MS * *ms) {
            Some(Due::Again(_)) => {
                times.push(*ms);
                false
            }
            Some(Due::Late(About::Offer(5))) => true,
            due => {
                assert!(due.is_none(), "{due:?}");
                false
            }
        });
        assert_eq!((times, late), (vec![100, 300, 700, 1_500], Some(1_800)));
        assert_eq!(questions.len(), 0);
    }
}
