use evenkeel_config::GatewayConfig;
use evenkeel_control::ControlRequest;
use evenkeel_telemetry::Telemetry;
use tokio::sync::{mpsc, oneshot};

use super::*;

/// The value of the metric `evenkeel_group_takeover_duration_seconds_<part>` for this phase.
fn value(text: &str, part: &str, phase: &str) -> Option<f64> {
    let start = format!("evenkeel_group_takeover_duration_seconds_{part}{{");
    let phase = format!("evenkeel_phase=\"{phase}\"");
    let mut lines = text.lines().filter(|it| it.starts_with(&start) && it.contains(&phase));
    lines.next().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn phases_add_up_from_the_last_beat_to_the_sessions() {
    let telemetry =
        Telemetry::start(&GatewayConfig::load(None, None, &[]).unwrap(), "test").unwrap();
    let (instruments, start) = (telemetry.instruments(), Instant::now());
    let owned = start + Duration::from_millis(25);
    let now = owned + Duration::from_millis(5);
    TakeoverTimes { owner_heard: Some(start), owned }.record(&instruments, now);
    let text = telemetry.prometheus().render();
    assert_eq!(value(&text, "sum", "decision"), Some(0.025));
    assert_eq!(value(&text, "sum", "continuation"), Some(0.005));

    TakeoverTimes { owner_heard: None, owned }.record(&instruments, now);
    let text = telemetry.prometheus().render();
    assert_eq!(value(&text, "count", "decision"), Some(1.0));
    assert_eq!(value(&text, "count", "continuation"), Some(2.0));
}

/// A control without sessions, which notes why it resumes.
fn control() -> (Handle, mpsc::UnboundedReceiver<Continuation>) {
    let (handle, mut received) = Handle::new(Arc::default(), Arc::default());
    let (note, noted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(request) = received.recv().await {
            let ControlRequest::Resume(cause, reply) = request else { panic!("{request:?}") };
            note.send(cause).unwrap();
            reply.send(()).unwrap();
        }
    });
    (handle, noted)
}

async fn takeover(taken: TakenSessions, cause: TakeoverCause, handle: &Handle) -> Takeover {
    let telemetry =
        Telemetry::start(&GatewayConfig::load(None, None, &[]).unwrap(), "test").unwrap();
    let times = TakeoverTimes { owner_heard: None, owned: Instant::now() };
    let instruments = telemetry.instruments();
    let mut takeover =
        Takeover::begin(taken, None, 3, cause, times, handle.clone(), None, instruments);
    assert_eq!(takeover.wait().await, Ok(0));
    let phases = value(&telemetry.prometheus().render(), "count", "continuation");
    assert_eq!(phases, (cause != TakeoverCause::Start).then_some(1.0), "of another owner");
    takeover
}

#[tokio::test]
async fn gateway_without_a_copy_resumes_its_own_sessions() {
    let (handle, mut resumed) = control();
    let copied = || TakenSessions::Copied {
        copy: Arc::default(),
        preparation: TakeoverPreparation::new(true),
    };
    for (taken, cause, continuation) in [
        (copied(), TakeoverCause::Start, Continuation::Takeover),
        (copied(), TakeoverCause::HandOver, Continuation::HandOver),
        (TakenSessions::Suspended, TakeoverCause::PeerEnded, Continuation::Takeover),
    ] {
        takeover(taken, cause, &handle).await;
        assert_eq!(resumed.recv().await, Some(continuation));
    }
}

#[tokio::test]
async fn takeover_answers_every_operator_who_waits() {
    let (handle, _resumed) = control();
    let now = Instant::now();
    let ((asks, asked), (confirms, confirmed)) = (oneshot::channel(), oneshot::channel());
    let mut takeover = takeover(TakenSessions::Suspended, TakeoverCause::Operator, &handle).await;
    takeover.request = Some(HandOverRequest::new(asks, now));
    takeover.confirm(confirms);
    assert!(takeover.take_late_request(now).is_none());
    let owner = NewOwner { gateway: "gw-b".into(), epoch: 3 };
    takeover.answer(&owner, 7);
    assert_eq!(asked.await, Ok(Ok(owner.clone())));
    assert_eq!(confirmed.await, Ok(Ok(TakenOver { owner, sessions: 7 })));
}

#[tokio::test]
async fn request_that_the_owner_does_not_answer_is_late() {
    let (handle, _resumed) = control();
    let ((asks, asked), now) = (oneshot::channel(), Instant::now());
    let mut takeover = takeover(TakenSessions::Suspended, TakeoverCause::Operator, &handle).await;
    takeover.request = Some(HandOverRequest::new(asks, now));
    let late = now + HANDED_OVER_WITHIN;
    assert!(takeover.take_late_request(late - Duration::from_millis(1)).is_none());
    takeover.take_late_request(late).unwrap().refuse(HandOverError::UnderWay);
    assert_eq!(asked.await, Ok(Err(HandOverError::UnderWay)));
}
