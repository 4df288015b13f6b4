//! Log lines of events, in a process of their own: other subscribers change which lines `tracing` skips.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::GatewayConfig;
use evenkeel_model::{
    Arm, AskId, CoreEvent, Decider, DecisionOutcome, GuardRule, Hook, Hop, Incarnation, MoveCause,
    MoveOutcome, NodeId, PluginFault, PolicyName, RoomId, SessionId, Strike,
};
use evenkeel_telemetry::{Moment, Telemetry};
use tokio::sync::broadcast;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for &Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

fn events() -> [CoreEvent; 6] {
    let policy = PolicyName { set: "call".into(), hook: Hook::Routing };
    let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
    let revision: Arc<str> = "0123456789ab".into();
    let by = Decider::Policy { policy: policy.clone(), revision: Arc::clone(&revision) };
    let (room, room_name): (RoomId, Arc<str>) = (RoomId(7), "room-1".into());
    [
        CoreEvent::Decided {
            ask: AskId(3),
            policy: policy.clone(),
            arm: Arm::Canary,
            revision: None,
            outcome: DecisionOutcome::Guarded(GuardRule::Churn),
            reason: None,
            session: None,
            room: None,
            rows: 2,
            asked: Instant::now(),
            took: Duration::from_micros(15),
            notes: Vec::new(),
            native: Vec::new(),
        },
        CoreEvent::Quarantined {
            policy: policy.clone(),
            revision: Arc::clone(&revision),
            session: Some(SessionId(4)),
            room: None,
            fault: PluginFault::Trap("unreachable".into()),
        },
        CoreEvent::HiddenState { policy, revision, differs: "its memo".into() },
        CoreEvent::Rerouted { room, hops: vec![hop(0), hop(1)], by: by.clone() },
        CoreEvent::HopRemoved {
            room,
            room_name: Arc::clone(&room_name),
            hop: hop(1),
            why: Strike::FlowLost,
            session: None,
        },
        CoreEvent::MoveEnded {
            room,
            room_name,
            cause: MoveCause::Quality,
            by,
            from: hop(0),
            to: hop(1),
            started: Instant::now() - Duration::from_secs(2),
            outcome: MoveOutcome::TargetLost,
        },
    ]
}

fn recorded_lines(filter: LevelFilter) -> String {
    let settings = GatewayConfig::load(None, None, &[]).unwrap();
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let mut recorder = telemetry.recorder(broadcast::channel(1).1, Arc::default(), Arc::default());
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(filter)
        .with_ansi(false)
        .without_time()
        .with_writer(lines.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        let at = Moment { now: Instant::now(), wall: SystemTime::now() };
        for event in events() {
            recorder.handle_event(&event, None, at);
        }
    });
    let lines = lines.0.lock().unwrap();
    String::from_utf8(lines.clone()).unwrap()
}

#[test]
fn log_lines_have_the_fields_of_their_rows() {
    let lines = recorded_lines(LevelFilter::DEBUG);
    let mut lines = lines.lines();
    for expected in [
        "DEBUG evenkeel_telemetry::recorder: policy decided ask=ask-3 policy=call/routing arm=\"canary\" outcome=\"guarded\" rows=2 took=15µs",
        " WARN evenkeel_telemetry::recorder: subject quarantined: this revision faults on it policy=call/routing revision=0123456789ab about=\"s4\" fault=trap: unreachable",
        " WARN evenkeel_telemetry::recorder: answer differs from that of a fresh instance: the plugin has hidden state policy=call/routing revision=0123456789ab differs=its memo",
        "DEBUG evenkeel_telemetry::recorder: spares changed room=r7 hops=2 by=call/routing@0123456789ab",
        "DEBUG evenkeel_telemetry::recorder: hop removed from a route room=r7 node=n1 why=\"flow-lost\"",
    ] {
        assert_eq!(lines.next(), Some(expected));
    }
    let aborted = lines.next().unwrap();
    let expected = "DEBUG evenkeel_telemetry::recorder: move aborted room=r7 cause=\"quality\" by=call/routing@0123456789ab \
                    from=n0 to=n1 outcome=\"target-lost\" took=";
    assert!(aborted.starts_with(expected) && aborted.ends_with('s'), "{aborted}");
    assert_eq!(lines.next(), None);
    let warnings = recorded_lines(LevelFilter::WARN);
    assert_eq!(warnings.lines().count(), 2, "{warnings}");
}
