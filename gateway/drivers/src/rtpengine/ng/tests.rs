use evenkeel_fuzz::Corpus;

use super::*;
use crate::driver::NodeInput;
use crate::session::REASON_CHARS_MAX;

const MS: Duration = Duration::from_millis(1);

fn asked(questions: &mut NgRequests, call: u64, now: Instant) -> String {
    let question = Value::dictionary(vec![("command", "ping".into())]);
    let datagram = questions.ask(NgCommand::Offer(call), &question, now + 1_800 * MS, now);
    let text = String::from_utf8(datagram.to_vec()).unwrap();
    let (cookie, rest) = text.split_once(' ').unwrap();
    assert_eq!(rest, "d7:command4:pinge");
    cookie.to_owned()
}

#[test]
fn answer_matches_its_cookie_once() {
    let now = Instant::now();
    let mut questions = NgRequests { drawn: 7, ..NgRequests::default() };
    let (first, second) = (asked(&mut questions, 1, now), asked(&mut questions, 2, now));
    assert_ne!(first, second);
    let told = |cookie: &str| format!("{cookie} d6:result2:ok3:sdp3:v=0e");
    let done = NgAnswer::Done(Some("v=0".to_owned().into()));
    assert_eq!(questions.answered(b"0000000000000001 d6:result2:oke"), None, "unknown cookie");
    assert_eq!(questions.answered(format!("{second} d6:resul").as_bytes()), None, "cut short");
    assert_eq!(
        questions.answered(told(&second).as_bytes()),
        Some((NgCommand::Offer(2), done.clone()))
    );
    assert_eq!(questions.answered(told(&second).as_bytes()), None, "a second time");
    assert_eq!(questions.answered(told(&first).as_bytes()), Some((NgCommand::Offer(1), done)));
    assert_eq!(questions.unanswered.len(), 0);
}

#[test]
fn start_of_a_pending_request_is_recognised() {
    let now = Instant::now();
    let mut questions = NgRequests { drawn: 7, ..NgRequests::default() };
    let cookie = asked(&mut questions, 1, now);
    let is_pending = |questions: &NgRequests, quoted: &str| questions.is_pending(quoted.as_bytes());
    let request = format!("{cookie} d7:command4:pinge");
    assert!(is_pending(&questions, &request) && is_pending(&questions, &request[..17]));
    assert!(!is_pending(&questions, &request[..16]), "the cookie is not complete");
    assert!(!is_pending(&questions, &format!("{cookie} d6:")), "another request");
    questions.answered(format!("{cookie} d6:result2:oke").as_bytes()).unwrap();
    assert!(!is_pending(&questions, &request), "answered");
}

#[test]
fn refusal_has_its_reason_and_scope() {
    let now = Instant::now();
    let mut questions = NgRequests::default();
    let mut said = |answer: &str| {
        let cookie = asked(&mut questions, 1, now);
        questions.answered(format!("{cookie} {answer}").as_bytes()).unwrap().1
    };
    let refused = |busy, reason: &str| NgAnswer::Refused { busy, reason: reason.to_owned() };
    let error = "d12:error-reason13:Unknown codec6:result5:errore";
    assert_eq!(said(error), refused(false, "Unknown codec"));
    let limit = "d7:message27:Parallel session limit hit.6:result10:load limite";
    assert_eq!(said(limit), refused(true, "Parallel session limit hit."));
    assert_eq!(said("d6:result4:whate"), refused(false, "unexpected result `what`"));
    let long = format!("\u{1b}[31m{}", "x".repeat(500));
    let long = format!("d12:error-reason{}:{long}6:result5:errore", long.len());
    let shown = format!("[31m{}", "x".repeat(REASON_CHARS_MAX - 4));
    assert_eq!(said(&long), refused(false, &shown));
}

#[test]
fn request_is_retried_with_backoff_and_given_up() {
    let start = Instant::now();
    let mut questions = NgRequests::default();
    asked(&mut questions, 5, start);
    let mut times = Vec::new();
    let late = (0..3_000).find(|ms| match questions.due(start + MS * *ms) {
        Some(NgTimeout::Again(_)) => {
            times.push(*ms);
            false
        }
        Some(NgTimeout::Late(NgCommand::Offer(5))) => true,
        due => {
            assert!(due.is_none(), "{due:?}");
            false
        }
    });
    assert_eq!((times, late), (vec![100, 300, 700, 1_500], Some(1_800)));
    assert_eq!(questions.unanswered.len(), 0);
}

#[test]
fn debug_text_has_no_message() {
    let now = Instant::now();
    let mut questions = NgRequests::default();
    let cookie = asked(&mut questions, 1, now);
    let requests = format!("{questions:?}");
    assert!(requests.contains("datagram: DriverMessage(34 bytes)"), "{requests}");
    let done = format!("{cookie} d6:result2:ok3:sdp3:v=0e");
    let (_, answer) = questions.answered(done.as_bytes()).unwrap();
    assert_eq!(format!("{answer:?}"), "Done(3 bytes of SDP)");
    assert_eq!(format!("{:?}", NodeInput::Datagram(b"key"[..].into())), "Datagram(3 bytes)");
    assert_eq!(
        format!("{:?}", NodeInput::Unreachable(vec![b"key"[..].into()])),
        "Unreachable(1 quotes)"
    );
}

#[test]
fn fuzz_ng_answer() {
    let now = Instant::now();
    Corpus::of("bencode").check(|bytes| {
        let mut questions = NgRequests::default();
        let cookie = asked(&mut questions, 1, now);
        assert_eq!(questions.answered(bytes), None, "another cookie");
        let answer = questions.answered(&[cookie.as_bytes(), b" ", bytes].concat());
        assert_eq!(questions.unanswered.len(), usize::from(answer.is_none()));
        if let Some((_, NgAnswer::Refused { reason, .. })) = answer {
            assert!(reason.chars().count() <= REASON_CHARS_MAX);
            assert!(!reason.contains(char::is_control), "{reason:?}");
        }
    });
}
