use evenkeel_model::{
    FeedbackSupport, MediaDescription, MediaStream, PayloadType, RtcpPort, Srtp, StreamKind,
};

use super::*;

const BOUNDS: CapBounds = CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 };

fn media() -> MediaDescription {
    let stream = |kind, number| MediaStream {
        kind,
        payload_types: vec![PayloadType { number, codec: "x".into(), clock_rate: 90_000 }],
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    MediaDescription {
        streams: vec![stream(StreamKind::Audio, 111), stream(StreamKind::Video, 96)],
        rtcp: RtcpPort::Mux,
        srtp: Srtp::Plain,
    }
}

#[test]
fn voice_only_sheds_video_and_never_voice() {
    let plan = Plan::default().after(Op::VoiceOnly, 1, &media(), BOUNDS).unwrap();
    assert!(plan.sheds(96));
    assert!(!plan.sheds(111));
    assert_eq!(plan.rung(), 1);
    let restored = plan.after(Op::VoiceOnly, 0, &media(), BOUNDS).unwrap();
    assert!(!restored.sheds(96));
    assert_eq!(plan.after(Op::VoiceOnly, 2, &media(), BOUNDS), None);
}

fn look(plan: Plan, loss_ppm: u32) -> LadderInput {
    LadderInput { plan, loss_ppm: Some(loss_ppm), bounds: BOUNDS, caps: true, video: true }
}

/// Runs the ladder for a session with this loss for `looks` evaluations, 200 ms apart.
fn climbed(
    plan: &mut Plan,
    climb: &mut NativeLadder,
    loss_ppm: u32,
    from: &mut Instant,
    looks: u32,
) {
    for _ in 0..looks {
        if let Some((op, arg)) = climb.step(look(*plan, loss_ppm), *from) {
            *plan = plan.after(op, arg, &media(), BOUNDS).unwrap();
        }
        *from += Duration::from_millis(200);
    }
}

#[test]
fn lossy_session_steps_down_and_recovers() {
    let (mut plan, mut now) = (Plan::default(), Instant::now());
    let mut climb = NativeLadder::begin(now);
    climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 1);
    assert_eq!(plan.cap_kbps, 1_000);
    climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 4);
    assert_eq!(plan.cap_kbps, 1_000, "a second must pass before the next rung");
    climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 30);
    assert_eq!((plan.cap_kbps, plan.shed != 0), (24, false));
    climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 5);
    assert_eq!((plan.cap_kbps, plan.sheds(96), plan.sheds(111)), (24, true, false));

    climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 50);
    assert!(plan.sheds(96), "ten seconds of calm are not over");
    climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 1);
    assert_eq!((plan.cap_kbps, plan.shed), (24, 0));
    climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 50);
    assert_eq!(plan.cap_kbps, 48);
    climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 6 * 50);
    assert_eq!(plan, Plan::default());
}

#[test]
fn between_thresholds_nothing_changes() {
    let (mut plan, mut now) = (Plan { cap_kbps: 500, ..Plan::default() }, Instant::now());
    let mut climb = NativeLadder::begin(now);
    for loss_ppm in [DOWN_AT_PPM - 1, UP_BELOW_PPM + 1] {
        climbed(&mut plan, &mut climb, loss_ppm, &mut now, 200);
        assert_eq!(plan.cap_kbps, 500);
    }
    climbed(&mut plan, &mut climb, 0, &mut now, 50);
    climbed(&mut plan, &mut climb, UP_BELOW_PPM + 1, &mut now, 1);
    climbed(&mut plan, &mut climb, 0, &mut now, 50);
    assert_eq!(plan.cap_kbps, 500, "each calm was too short");
    climbed(&mut plan, &mut climb, 0, &mut now, 1);
    assert_eq!(plan.cap_kbps, 1_000);
}

#[test]
fn unsupported_cap_is_no_rung() {
    let now = Instant::now();
    let of = |caps, video, loss_ppm| {
        let plan = Plan::default();
        NativeLadder::begin(now)
            .step(LadderInput { plan, loss_ppm, bounds: BOUNDS, caps, video }, now)
    };
    assert_eq!(of(false, true, Some(1_000_000)), Some((Op::VoiceOnly, 1)));
    assert_eq!(of(false, false, Some(1_000_000)), None);
    assert_eq!(of(true, true, None), None);
}

#[test]
fn lower_of_two_caps_applies() {
    let cap = |cap_kbps, peer_cap_kbps| {
        Plan { cap_kbps, peer_cap_kbps, ..Plan::default() }.send_cap_kbps()
    };
    assert_eq!([cap(0, 0), cap(300, 0), cap(0, 200), cap(300, 200)], [0, 300, 200, 200]);
}

#[test]
fn a_cap_stays_within_the_scenarios_bounds() {
    let cap = |arg| Plan::default().after(Op::Cap, arg, &media(), BOUNDS);
    assert_eq!(cap(23), None);
    assert_eq!(cap(24).map(|plan| plan.cap_kbps), Some(24));
    assert_eq!(cap(2_000).map(|plan| plan.cap_kbps), Some(2_000));
    assert_eq!(cap(2_001), None);
    assert_eq!(cap(u64::MAX), None);
    assert_eq!(cap(0).map(|plan| plan.rung()), Some(0));
}
