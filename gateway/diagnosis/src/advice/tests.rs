use evenkeel_model::{ImpairmentSign, PathEvidence};

use super::*;

const SESSION: SessionId = SessionId(1);

const UPLINK: Option<PathSegment> = Some(PathSegment::Uplink);

/// Interval between two reports of the workers.
const EVERY: Duration = Duration::from_millis(200);

fn impairment(segment: PathSegment, at: SessionId) -> Impairment {
    let (sign, evidence) = (ImpairmentSign::Loss, PathEvidence::default());
    Impairment { segment, sign, at, loss_ppm: 100_000, confidence: 99, evidence }
}

/// The quality of a session with video, with this cause and R-factor.
fn quality(cause: Option<PathSegment>, r: u32) -> SessionQuality {
    SessionQuality {
        session: SESSION,
        impairment: cause.map(|segment| impairment(segment, SESSION)),
        r_centi: Some(r * 100),
        floor_r_centi: FLOOR_R_CENTI,
        loss_ppm: None,
        video: VideoState::Shown,
        is_capped_at_floor: false,
        is_parked: false,
    }
}

/// Judges the quality at each 200 ms for so many seconds. Returns each change with its time in milliseconds.
fn changes(seconds: u64, at: impl Fn(u64) -> SessionQuality) -> Vec<(u64, Advice)> {
    let (mut advisor, began) = (Advisor::default(), Instant::now());
    let times = (0..seconds * 5).map(|step| step * EVERY.as_millis() as u64);
    let judged = times
        .filter_map(|ms| Some((ms, advisor.judge(&at(ms), began + Duration::from_millis(ms))?)));
    judged.collect()
}

fn advice(kind: AdviceKind, cause: PathSegment) -> Advice {
    Advice { kind, cause }
}

/// The advice about a quality that stays.
fn lasting(quality: SessionQuality) -> Option<Advice> {
    match *changes(30, |_| quality) {
        [] => None,
        [(2_000, advice)] => Some(advice),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn advice_is_given_after_two_seconds_and_ended_after_five() {
    let of = |bad_ms: u64| {
        changes(40, |ms| if ms < bad_ms { quality(UPLINK, 60) } else { quality(None, 90) })
    };
    assert_eq!(of(2_000), [], "the last report before 2 s is at 1.8 s");
    let given = (2_000, advice(AdviceKind::LowerQuality, PathSegment::Uplink));
    let restored = |ms| (ms, advice(AdviceKind::Restored, PathSegment::Uplink));
    assert_eq!(of(2_200), [given, restored(12_000)], "10 s after the last change");
    assert_eq!(of(20_000), [given, restored(25_000)]);
}

#[test]
fn flapping_quality_changes_advice_once_in_ten_seconds() {
    for period_ms in [400, 1_000, 3_000, 4_400, 6_000, 7_000, 10_000, 14_000, 25_000] {
        let found = changes(300, |ms| match ms / period_ms % 2 {
            0 => quality(UPLINK, 60),
            _ => quality(None, 90),
        });
        let near = found.windows(2).find(|two| two[1].0 - two[0].0 < 10_000);
        assert_eq!(near, None, "{period_ms} ms");
        assert_eq!(found.is_empty(), period_ms <= 2_000, "{period_ms} ms: {found:?}");
    }
}

#[test]
fn worse_quality_changes_advice_at_once() {
    let r_at = |ms| match ms {
        0..6_000 => 60,
        6_000..20_000 => 40,
        _ => 60,
    };
    let found = changes(40, |ms| quality(UPLINK, r_at(ms)));
    let kinds: Vec<_> = found.iter().map(|(ms, advice)| (*ms, advice.kind)).collect();
    let [lower, audio] = [AdviceKind::LowerQuality, AdviceKind::AudioOnly];
    assert_eq!(kinds, [(2_000, lower), (8_000, audio), (25_000, lower)]);
}

#[test]
fn each_cause_has_its_advice() {
    let [client, inner] =
        [[PathSegment::Uplink, PathSegment::Downlink], [PathSegment::Leg, PathSegment::Node]];
    for cause in client.into_iter().chain(inner) {
        let of_client = client.contains(&cause);
        let network = if of_client { AdviceKind::SwitchNetwork } else { AdviceKind::AudioOnly };
        let voice = if of_client { AdviceKind::SwitchNetwork } else { AdviceKind::LowerQuality };
        let with = |r, video| SessionQuality { video, ..quality(Some(cause), r) };
        for (r, video, kind) in [
            (70, VideoState::Shown, None),
            (69, VideoState::Shown, Some(AdviceKind::LowerQuality)),
            (50, VideoState::Shown, Some(AdviceKind::LowerQuality)),
            (49, VideoState::Shown, Some(AdviceKind::AudioOnly)),
            (90, VideoState::Withheld, Some(AdviceKind::AudioOnly)),
            (69, VideoState::Withheld, Some(network)),
            (70, VideoState::Absent, None),
            (69, VideoState::Absent, Some(voice)),
        ] {
            let right = kind.map(|kind| advice(kind, cause));
            assert_eq!(lasting(with(r, video)), right, "{cause:?} {video:?} R {r}");
        }
    }
}

#[test]
fn loss_and_the_lowest_cap_are_below_the_floor() {
    let lossy = |loss_ppm| SessionQuality {
        loss_ppm: Some(loss_ppm),
        r_centi: None,
        ..quality(UPLINK, 90)
    };
    let kind = |quality| lasting(quality).map(|advice| advice.kind);
    assert_eq!(kind(lossy(49_999)), None);
    assert_eq!(kind(lossy(50_000)), Some(AdviceKind::LowerQuality));
    assert_eq!(kind(lossy(199_999)), Some(AdviceKind::LowerQuality));
    assert_eq!(kind(lossy(200_000)), Some(AdviceKind::AudioOnly));
    let capped = SessionQuality { is_capped_at_floor: true, ..quality(UPLINK, 90) };
    assert_eq!(kind(capped), Some(AdviceKind::LowerQuality));
    let strict = SessionQuality { floor_r_centi: 8_000, ..quality(UPLINK, 79) };
    assert_eq!(kind(strict), Some(AdviceKind::LowerQuality), "the scenario's objective");
}

#[test]
fn impairment_elsewhere_gives_no_advice() {
    for segment in [PathSegment::Device, PathSegment::Gateway, PathSegment::Unknown] {
        assert_eq!(lasting(quality(Some(segment), 40)), None, "{segment:?}");
    }
    let of_other = impairment(PathSegment::Uplink, SessionId(2));
    let heard = SessionQuality { impairment: Some(of_other), ..quality(None, 40) };
    assert_eq!(lasting(heard), None, "another client's uplink");
    assert_eq!(lasting(quality(None, 40)), None, "the cause is unknown");
}

#[test]
fn last_cause_holds_until_quality_is_good() {
    let found = changes(60, |ms| match ms {
        0..1_000 => quality(UPLINK, 60),
        1_000..20_000 => quality(None, 60),
        20_000..30_000 => quality(Some(PathSegment::Leg), 60),
        _ => quality(None, 90),
    });
    let lower = |cause| advice(AdviceKind::LowerQuality, cause);
    let right = [
        (2_000, lower(PathSegment::Uplink)),
        (25_000, lower(PathSegment::Leg)),
        (35_000, advice(AdviceKind::Restored, PathSegment::Leg)),
    ];
    assert_eq!(found, right);
}

#[test]
fn advisor_is_idle_ten_seconds_after_the_end() {
    let (mut advisor, began) = (Advisor::default(), Instant::now());
    let at = |ms| began + Duration::from_millis(ms);
    assert!(advisor.is_idle(at(0)));
    advisor.judge(&quality(UPLINK, 60), at(0));
    assert!(!advisor.is_idle(at(0)));
    assert!(advisor.judge(&quality(UPLINK, 60), at(2_000)).is_some());
    assert_eq!(advisor.standing(), Some(advice(AdviceKind::LowerQuality, PathSegment::Uplink)));
    advisor.judge(&quality(None, 90), at(8_000));
    let restored = advisor.judge(&quality(None, 90), at(13_000)).unwrap();
    assert_eq!((restored.kind, advisor.standing()), (AdviceKind::Restored, None));
    assert!(!advisor.is_idle(at(22_999)), "no other advice may follow yet");
    assert!(advisor.is_idle(at(23_000)));
}

#[test]
fn suspended_session_is_told_with_or_without_a_cause() {
    let parked = |cause| SessionQuality { is_parked: true, ..quality(cause, 90) };
    for (cause, named) in [(UPLINK, PathSegment::Uplink), (None, PathSegment::Unknown)] {
        assert_eq!(lasting(parked(cause)), Some(advice(AdviceKind::Suspended, named)));
    }
    let done = changes(40, |ms| if ms < 20_000 { parked(None) } else { quality(None, 90) });
    let restored = advice(AdviceKind::Restored, PathSegment::Unknown);
    assert_eq!(done[1..], [(25_000, restored)]);
}
