use evenkeel_model::{
    ActionFacts, CapBounds, DeviceLimits, FeedbackSupport, MediaDescription, MediaStream,
    PayloadType, RtcpPort, Srtp, StreamKind,
};

use super::*;

const BOUNDS: CapBounds = CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 };

fn media() -> MediaDescription {
    let stream = |kind, number| MediaStream {
        kind,
        payload_types: vec![PayloadType::new(number, "x", 90_000)],
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    MediaDescription::new(
        vec![stream(StreamKind::Audio, 111), stream(StreamKind::Video, 96)],
        RtcpPort::Mux,
        Srtp::Plain,
    )
}

/// A session with or without video.
struct Subject {
    media: MediaDescription,
    device: DeviceLimits,
}

impl Subject {
    fn new(has_video: bool) -> Subject {
        let mut media = media();
        media.streams.truncate(1 + usize::from(has_video));
        Subject { media, device: DeviceLimits::default() }
    }

    fn facts(&self) -> ActionFacts<'_> {
        ActionFacts { media: &self.media, bounds: BOUNDS, device: &self.device }
    }

    fn look(&self, plan: Plan, loss_ppm: Option<u32>, obeys_caps: bool) -> LadderInput<'_> {
        let (facts, decided) = (self.facts(), plan.actions());
        let session =
            DegradedSession { facts, decided, in_force: decided, obeys_caps, sent_kbps: None };
        LadderInput { session, loss_ppm }
    }
}

/// Runs the ladder for a session with this loss for `looks` evaluations, 200 ms apart.
fn climbed(
    plan: &mut Plan,
    climb: &mut NativeLadder,
    loss_ppm: u32,
    from: &mut Instant,
    looks: u32,
) {
    let subject = Subject::new(true);
    for _ in 0..looks {
        if let Some((op, arg)) = climb.step(subject.look(*plan, Some(loss_ppm), true), *from) {
            *plan = plan.after(op, arg, &subject.facts()).unwrap();
        }
        *from += Duration::from_millis(200);
    }
}

#[test]
fn resting_sessions_have_turns_beside_the_others() {
    let policy = PolicyName { set: "call".into(), hook: evenkeel_model::Hook::Degradation };
    let mut turns = DegradationTurns::default();
    let mut next =
        |ours: &TickedSessions| turns.next_ticked((policy.clone(), Arm::Standing), ours, |_| true);
    let few = TickedSessions::of(0..10, 10..266);
    let all: Vec<SessionId> = (0..266).map(SessionId).collect();
    assert_eq!((next(&few), next(&few)), (all.clone(), all), "few are asked about at each tick");
    let many = TickedSessions::of(0..10, 10..60_010);
    let rounds: Vec<_> = (0..RESTING_TURNS).map(|_| next(&many)).collect();
    assert!(rounds.iter().all(|ids| ids.len() == 410 && ids.is_sorted()));
    assert!(rounds.iter().all(|ids| ids[..10] == (0..10).map(SessionId).collect::<Vec<_>>()));
    let distinct: BTreeSet<SessionId> = rounds.concat().into_iter().collect();
    assert_eq!(distinct.len(), 60_010, "each has its turn");
    let busy = TickedSessions::of(0..5_000, 5_000..6_000);
    let ids = next(&busy);
    assert_eq!((ids.len(), ids.last()), (SESSIONS_PER_ASK, Some(&SessionId(5_255))));
    assert_eq!(ids.iter().filter(|id| id.0 < 5_000).count(), SESSIONS_PER_ASK - RESTING_PER_ASK);
}

#[test]
fn lossy_session_steps_down_and_recovers() {
    let (mut plan, mut now) = (Plan::default(), Instant::now());
    let mut climb = NativeLadder::begin(now);
    climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 1);
    assert_eq!(plan.cap_kbps(), 1_000);
    climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 4);
    assert_eq!(plan.cap_kbps(), 1_000, "a second must pass before the next rung");
    climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 30);
    assert_eq!((plan.cap_kbps(), plan.rung()), (24, 1));
    climbed(&mut plan, &mut climb, DOWN_AT_PPM, &mut now, 5);
    assert_eq!((plan.cap_kbps(), plan.arg(Op::VoiceOnly)), (24, 1));

    climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 50);
    assert_eq!(plan.arg(Op::VoiceOnly), 1, "ten seconds of calm are not over");
    climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 1);
    assert_eq!((plan.cap_kbps(), plan.arg(Op::VoiceOnly)), (24, 0));
    climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 50);
    assert_eq!(plan.cap_kbps(), 48);
    climbed(&mut plan, &mut climb, UP_BELOW_PPM, &mut now, 6 * 50);
    assert_eq!(plan, Plan::default());
}

#[test]
fn between_thresholds_nothing_changes() {
    let (mut plan, mut now) = (Plan::default().capped(500), Instant::now());
    let mut climb = NativeLadder::begin(now);
    for loss_ppm in [DOWN_AT_PPM - 1, UP_BELOW_PPM + 1] {
        climbed(&mut plan, &mut climb, loss_ppm, &mut now, 200);
        assert_eq!(plan.cap_kbps(), 500);
    }
    climbed(&mut plan, &mut climb, 0, &mut now, 50);
    climbed(&mut plan, &mut climb, UP_BELOW_PPM + 1, &mut now, 1);
    climbed(&mut plan, &mut climb, 0, &mut now, 50);
    assert_eq!(plan.cap_kbps(), 500, "each calm was too short");
    climbed(&mut plan, &mut climb, 0, &mut now, 1);
    assert_eq!(plan.cap_kbps(), 1_000);
}

#[test]
fn unsupported_cap_is_no_rung() {
    let now = Instant::now();
    let of = |caps, video, loss_ppm| {
        let subject = Subject::new(video);
        NativeLadder::begin(now).step(subject.look(Plan::default(), loss_ppm, caps), now)
    };
    assert_eq!(of(false, true, Some(1_000_000)), Some((Op::VoiceOnly, 1)));
    assert_eq!(of(false, false, Some(1_000_000)), None);
    assert_eq!(of(true, true, None), None);
}
