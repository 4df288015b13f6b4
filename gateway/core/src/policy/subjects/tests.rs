use evenkeel_model::SessionId;

use super::*;

impl SubjectHistory {
    pub(crate) fn has_no_faults(&self) -> bool {
        self.faults.is_empty()
    }
}

#[test]
fn reason_is_named_by_its_number() {
    let reasons = [(1, "near"), (7, "far"), (65_535, "last"), (65_539, "jitter")];
    let reasons = reasons.map(|(number, name): (u32, &str)| (number, Arc::<str>::from(name)));
    let beside = AnswerDetails { reasons: Some(reasons.into()), ..AnswerDetails::default() };
    let words = [1, 2, 7, 65_535, 65_536, 65_539].map(|reason| beside.word_for(reason));
    assert_eq!(
        words.each_ref().map(|word| &**word),
        ["near", "2", "far", "last", "65536", "jitter"]
    );
    assert_eq!(&*AnswerDetails::default().word_for(1), "1");
}

#[test]
fn oldest_decision_is_dropped_at_the_limit() {
    let now = Instant::now();
    let by = Arc::new(Decider::Native);
    let of = |session| FaultSubject::Session(SessionId(session));
    let say = |history: &mut SubjectHistory, session| {
        let (by, outcome, notes) = (Arc::clone(&by), DecisionOutcome::Kept, Box::default());
        let entry = DecisionEntry { by, reason: None, outcome, at: now, notes };
        history.note_decision((of(session), Hook::Degradation), entry);
    };
    let mut history = SubjectHistory::default();
    let most = DECISIONS_MAX as u64;
    for session in 0..most {
        say(&mut history, session);
    }
    say(&mut history, 5);
    assert_eq!((history.decisions.len(), history.order.len()), (DECISIONS_MAX, DECISIONS_MAX));
    assert_eq!(history.decisions(&[of(0)], now).len(), 1, "within the limit");
    say(&mut history, most);
    assert_eq!((history.decisions.len(), history.order.len()), (DECISIONS_MAX, DECISIONS_MAX));
    assert!(history.decisions(&[of(0)], now).is_empty());
    // A removed subject keeps its place until it is the oldest.
    history.forget(of(1));
    say(&mut history, most + 1);
    say(&mut history, most + 2);
    assert_eq!((history.decisions.len(), history.order.len()), (DECISIONS_MAX, DECISIONS_MAX));
    assert!(history.decisions(&[of(2)], now).is_empty());
    assert_eq!(history.decisions(&[of(3), of(most + 2)], now).len(), 2);
}
