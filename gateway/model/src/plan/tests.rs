use super::*;
use crate::device::DeviceLimits;
use crate::offer::{FeedbackSupport, MediaStream, PayloadType, RtcpPort, Srtp, StreamKind};
use crate::settings::CapBounds;

/// Video of payload type 96, of a client that takes caps.
fn media() -> MediaDescription {
    let video = MediaStream {
        kind: StreamKind::Video,
        payload_types: vec![PayloadType::new(96, "x", 90_000)],
        feedback: FeedbackSupport { remb: true, ..FeedbackSupport::default() },
        bitrate_kbps: None,
    };
    MediaDescription::new(vec![video], RtcpPort::Mux, Srtp::Plain)
}

fn limits(plan: Plan, device: &DeviceLimits) -> MediaLimits {
    let bounds = CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 };
    plan.limits(&ActionFacts { media: &media(), bounds, device })
}

/// A plan in records of a3d43ed3, which knew no numbers of actions.
#[derive(PartialEq, Serialize, Deserialize, Debug)]
struct EarlierRecord {
    cap_kbps: u32,
    peer_cap_kbps: u32,
    shed: u128,
}

fn read<T: serde::de::DeserializeOwned>(written: &impl Serialize) -> T {
    let bytes = rmp_serde::to_vec_named(written).unwrap();
    rmp_serde::from_slice(&bytes).unwrap()
}

/// Each combination of the actions, with the cap of another session.
fn plans() -> [Plan; 4] {
    [(0, 0), (300, 0), (0, 1), (300, 1)].map(|(cap, voice_only)| {
        let mut plan = Plan::default().capped(cap);
        plan.set_peer_cap(200);
        plan.with(Op::VoiceOnly, voice_only, &media())
    })
}

#[test]
fn plan_is_read_from_records_of_both_builds() {
    for plan in plans() {
        let record = PlanRecord::new(plan, &media());
        assert_eq!(read::<PlanRecord>(&record).plan(), plan);
        let earlier = EarlierRecord {
            cap_kbps: plan.arg(Op::Cap),
            peer_cap_kbps: 200,
            shed: u128::from(plan.arg(Op::VoiceOnly)) << 96,
        };
        assert_eq!(read::<PlanRecord>(&earlier).plan(), plan);
        assert_eq!(read::<EarlierRecord>(&record), earlier, "that build reads the plan as well");
    }
}

#[test]
fn unknown_action_of_a_record_is_ignored() {
    let actions = vec![(u32::MAX, 1), (Op::Cap as u32, 300)];
    let record = PlanRecord { cap_kbps: 300, peer_cap_kbps: 0, shed: 1, actions };
    assert_eq!(read::<PlanRecord>(&record).plan(), Plan::default().capped(300));
}

#[test]
fn each_action_has_an_argument_of_its_own() {
    let mut actions = ActionArguments::default();
    for (op, arg) in Op::ALL.into_iter().zip(1..) {
        actions.set(op, arg);
    }
    assert!(actions.in_force().eq(Op::ALL.into_iter().zip(1..)));
    for (op, kept) in [(Op::CapDown, u32::MAX), (Op::VoiceOnly, u8::MAX.into())] {
        actions.set(op, u32::MAX);
        assert_eq!(actions.of(op), kept);
    }
}

#[test]
fn lower_of_two_caps_applies() {
    let sent = |own, peer| {
        let mut plan = Plan::default().capped(own);
        plan.set_peer_cap(peer);
        (limits(plan, &DeviceLimits::default()).send_kbps, plan.rung())
    };
    assert_eq!([sent(0, 0), sent(300, 0), sent(0, 200)], [(0, 0), (300, 1), (200, 0)]);
    assert_eq!([sent(300, 200), sent(200, 300)], [(200, 1), (200, 1)]);
    let capped = |first, second| Plan::default().capped(first).capped(second).cap_kbps();
    assert_eq!([capped(300, 0), capped(300, 400), capped(400, 300)], [300; 3]);
}

#[test]
fn cap_of_one_direction_leaves_the_other() {
    let limited = |op| {
        let plan = Plan::default().with(op, 300, &media());
        let MediaLimits { send_kbps, receive_kbps, .. } = limits(plan, &DeviceLimits::default());
        [send_kbps, receive_kbps, plan.cap_kbps(), plan.cap_down_kbps()]
    };
    assert_eq!(limited(Op::CapUp), [300, 0, 300, 0]);
    assert_eq!(limited(Op::CapDown), [0, 300, 0, 300]);
    assert_eq!(limited(Op::Cap), [300, 0, 300, 300], "the other session of a room of two");
    let all = Op::ALL.into_iter().fold(Plan::default(), |plan, op| plan.with(op, 300, &media()));
    assert_eq!(all.rung(), 4, "all caps are one rung");
    let device = DeviceLimits { kbps: Some(200), ..DeviceLimits::default() };
    assert_eq!({ limits(all, &device).receive_kbps }, 200);
    assert_eq!(PlanRecord::new(all, &media()).plan(), all);
}

#[test]
fn client_that_takes_no_cap_has_none_on_what_it_sends() {
    let mut deaf = media();
    deaf.streams[0].feedback = FeedbackSupport::default();
    let plans = [Op::CapUp, Op::CapDown].map(|op| Plan::default().with(op, 300, &deaf));
    assert_eq!(plans.map(|plan| plan.rung()), [0, 1]);
}

#[test]
fn another_peer_cap_is_a_change() {
    let mut plan = Plan::default();
    assert_eq!([200, 200, 0].map(|kbps| plan.set_peer_cap(kbps)), [true, false, true]);
}

#[test]
fn device_limits_are_no_rung() {
    let device = DeviceLimits { kbps: Some(500), undecodable: 1 << 97, voice_only: false };
    let plan = Plan::default().with(Op::VoiceOnly, 1, &media());
    let limits = limits(plan, &device);
    assert_eq!((limits.withheld, limits.receive_kbps, plan.rung()), (0b11 << 96, 500, 1));
}

#[test]
fn only_payload_types_that_return_are_restored() {
    let limits = |withheld| MediaLimits { withheld, ..MediaLimits::default() };
    for (before, after, returns) in [(0b11, 0b01, true), (0b01, 0b11, false), (0b01, 0b01, false)] {
        assert_eq!(limits(after).restores(&limits(before)), returns, "{before:b} {after:b}");
    }
}
