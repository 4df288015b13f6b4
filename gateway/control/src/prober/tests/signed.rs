use evenkeel_media::trunk::GroupOwner;

use super::super::*;

fn secret() -> NodeSecret {
    NodeSecret::new(b"a secret of some length", "east-a1").unwrap()
}

fn load(state: ServingState) -> NodeLoad {
    NodeLoad { permille: 420, state, sessions: 3, vouched: true }
}

/// A conversation from nonce 100 on, with the probe of sequence 7 pending.
fn asked(end: ProbedEnd) -> (SignedProbe, Clock) {
    let (signed, clock) = (SignedProbe::new(secret(), end, Arc::default(), 100), Clock::read());
    signed.probe(7, clock);
    (signed, clock)
}

fn say(answer: &TrunkAnswer, nonce: u64, sent_us: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    answer.write(&secret(), nonce, sent_us, &mut bytes);
    bytes
}

#[test]
fn answer_of_a_node_covers_that_node() {
    let (signed, clock) = asked(ProbedEnd::Node);
    let heard = signed
        .read(&say(&TrunkAnswer::Probe(load(ServingState::Serving)), 107, clock.unix_us), clock);
    let heard = heard.unwrap();
    let answers = Some(NodeEvidence::ProbeAnswered(7));
    assert_eq!((heard.answers, heard.load), (answers, Some(load(ServingState::Serving))));
    assert_eq!(heard.receipt, None);
}

#[test]
fn agent_answer_is_no_evidence_for_the_node() {
    for (who, state) in
        [(ProbedEnd::Beside, ServingState::Serving), (ProbedEnd::Node, ServingState::Gone)]
    {
        let (signed, clock) = asked(who);
        let answer = say(&TrunkAnswer::Probe(load(state)), 107, clock.unix_us);
        let heard = signed.read(&answer, clock).unwrap();
        assert_eq!((heard.answers, heard.load), (None, Some(load(state))));
    }
}

#[test]
fn repeated_notice_is_confirmed_each_time() {
    let (signed, clock) = asked(ProbedEnd::Beside);
    let notice = TrunkAnswer::Notice { number: 9, load: load(ServingState::Gone) };
    let bytes = say(&notice, 107, clock.unix_us);
    for _ in 0..2 {
        let heard = signed.read(&bytes, clock).unwrap();
        assert_eq!(heard.load, Some(load(ServingState::Gone)));
        let receipt =
            TrunkQuestion::read(&heard.receipt.unwrap(), &secret(), clock.unix_us).unwrap();
        assert_eq!((receipt.message, receipt.nonce), (TrunkQuestion::Noted { number: 9 }, 107));
    }
}

#[test]
fn unsolicited_answer_is_rejected() {
    let (signed, clock) = asked(ProbedEnd::Node);
    let notice = TrunkAnswer::Notice { number: 1, load: load(ServingState::Gone) };
    for answer in [TrunkAnswer::Probe(load(ServingState::Gone)), notice] {
        assert_eq!(signed.read(&say(&answer, 108, clock.unix_us), clock), None);
    }
}

#[test]
fn another_secret_or_clock_is_no_answer() {
    let other = NodeSecret::new(b"another secret of some length", "east-a1").unwrap();
    let serving = TrunkAnswer::Probe(load(ServingState::Serving));
    let say_with = |secret: &NodeSecret, sent_us| {
        let mut bytes = Vec::new();
        serving.write(secret, 107, sent_us, &mut bytes);
        bytes
    };
    let (signed, clock) = asked(ProbedEnd::Node);
    let late = clock.unix_us - 6_200_000;
    let mut refusal = Vec::new();
    ClockRefusal { nonce: 107, sent_us: late }.write(&mut refusal);
    for (datagram, mismatch) in [
        (say_with(&other, clock.unix_us), Mismatch::Secret),
        (say_with(&secret(), late), Mismatch::Clock),
        (refusal, Mismatch::Clock),
    ] {
        let heard = SignedReply { mismatch: Some(mismatch), ..SignedReply::default() };
        assert_eq!(signed.read(&datagram, clock), Some(heard), "{datagram:?}");
    }
    assert_eq!(signed.read(b"whatever else", clock), None);
    let heard = signed.read(&say_with(&secret(), clock.unix_us), clock).unwrap();
    assert_eq!(heard.mismatch, None);
}

#[test]
fn refusal_must_quote_a_probe_of_the_node() {
    let (signed, clock) = asked(ProbedEnd::Node);
    let probe = signed.probe(8, clock);
    assert_eq!(signed.refused(&probe, clock), Some(8));
    let mut forged = probe.clone();
    forged[15] ^= 1;
    for quoted in [&forged[..], &probe[..probe.len() - 1], &[]] {
        assert_eq!(signed.refused(quoted, clock), None);
    }
    assert_eq!(
        signed.refused(&signed.write(&TrunkQuestion::Start, 5, clock), clock),
        None,
        "an order"
    );
    let (beside, clock) = asked(ProbedEnd::Beside);
    assert_eq!(beside.refused(&beside.probe(8, clock), clock), None);
}

#[test]
fn outdated_state_report_is_ignored() {
    let (signed, clock) = asked(ProbedEnd::Beside);
    let back = TrunkAnswer::Notice { number: 2, load: load(ServingState::Serving) };
    signed.read(&say(&back, 107, clock.unix_us), clock).unwrap();
    let gone = TrunkAnswer::Notice { number: 1, load: load(ServingState::Gone) };
    let heard = signed.read(&say(&gone, 107, clock.unix_us - 1), clock).unwrap();
    assert_eq!(heard.load, None);
    assert!(heard.receipt.is_some(), "it came, and need not come again");
}

#[test]
fn probes_stay_pending_for_ten_seconds() {
    let (signed, clock) =
        (SignedProbe::new(secret(), ProbedEnd::Node, Arc::default(), u64::MAX), Clock::read());
    (0..=NONCES_MAX as u64).for_each(|sequence| _ = signed.probe(sequence, clock));
    assert!(!signed.was_asked(u64::MAX), "the oldest gave way");
    assert!(signed.was_asked(0) && signed.was_asked(NONCES_MAX as u64 - 1));
}

#[test]
fn owner_signs_its_epoch_and_hears_of_a_newer_one() {
    let fencing = Fencing::new(9).0;
    let signed = SignedProbe::new(secret(), ProbedEnd::Node, Arc::clone(&fencing), 100);
    let clock = Clock::read();
    let owner = |probe: &[u8]| TrunkQuestion::read(probe, &secret(), clock.unix_us).unwrap().owner;
    assert_eq!(owner(&signed.probe(1, clock)), None);
    fencing.set_epoch(4);
    let probe = signed.probe(2, clock);
    assert_eq!(owner(&probe), Some(GroupOwner { group: 9, epoch: 4 }));
    assert_eq!(signed.refused(&probe, clock), Some(2), "quoted by the kernel");
    let refusal = say(&TrunkAnswer::Superseded { epoch: 5 }, 102, clock.unix_us);
    let heard = signed.read(&refusal, clock).unwrap();
    assert_eq!((heard.fenced, heard.answers, heard.load), (Some(5), None, None));
}

#[test]
fn report_on_process_has_its_nonce() {
    let (signed, clock) = asked(ProbedEnd::Beside);
    let report = ProcessReport { memory_permille: 420, age_s: 7 };
    let heard = signed.read(&say(&TrunkAnswer::Process(report), 300, clock.unix_us), clock);
    let expected = SignedReply { process: Some((300, report)), ..SignedReply::default() };
    assert_eq!(heard, Some(expected));
}
