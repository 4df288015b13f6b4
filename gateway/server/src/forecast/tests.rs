//! Forecasts of nodes, with states that the test plays minute by minute.

use std::path::Path;

use evenkeel_control::{ControlRequest, NodeNames};
use evenkeel_core::Failback;
use evenkeel_forecast::{DecaySign, ForecastEvidence};
use evenkeel_kept::{Encoded, StoreThread};
use evenkeel_model::{BreakerMode, BreakerState, Hop, Incarnation, RegionId};
use evenkeel_nodes::ProcessState;
use tempfile::{TempDir, tempdir};
use tokio::sync::mpsc;

use super::*;

/// A gateway with node `a` of 1,000 kbit/s in region `east`, and its folder.
struct Scene {
    settings: GatewayConfig,
    folder: TempDir,
    telemetry: Telemetry,
    handle: Handle,
    requests: mpsc::Receiver<ControlRequest>,
    follower: ForecastFollower,
    thread: Option<StoreThread>,
    /// The expected load in the last report.
    expected: Vec<(Arc<str>, u64)>,
}

const CONFIGURATION: &str = "
[[region]]
name = \"east\"

[[node]]
name = \"a\"
address = \"192.0.2.1:4000\"
region = \"east\"
zone = \"a\"
driver = \"plain\"
capacity = \"1 Mbit/s\"
";

impl Scene {
    fn new() -> Scene {
        Scene::with("")
    }

    /// With further lines of the configuration.
    fn with(lines: &str) -> Scene {
        let folder = tempdir().unwrap();
        let file = folder.path().join("evenkeel.toml");
        std::fs::write(&file, format!("{CONFIGURATION}{lines}")).unwrap();
        let settings = GatewayConfig::load(
            Some(file.as_path()),
            None,
            &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS),
        )
        .unwrap();
        let telemetry = Telemetry::start(&settings, "test").unwrap();
        let names = Arc::new(NodeNames::of(&settings.core()));
        let (handle, requests) = Handle::new(names, Arc::default());
        let follower = ForecastFollower::new(&settings, &handle, &telemetry, None);
        let mut scene = Scene {
            settings,
            folder,
            telemetry,
            handle,
            requests,
            follower,
            thread: None,
            expected: Vec::new(),
        };
        scene.thread = Some(scene.open());
        scene
    }

    fn open(&self) -> StoreThread {
        let (store, unwritten) = (&self.handle.kept, &self.handle.unwritten);
        let folder = Some(self.folder.path());
        let thread = store.open(folder, Path::new("/admin.sock"), unwritten).unwrap();
        store.begin(Duration::from_secs(20));
        thread
    }

    /// The next process.
    fn restart(&mut self) {
        // The thread writes all rows before it ends.
        self.thread = None;
        let names = Arc::new(NodeNames::of(&self.settings.core()));
        (self.handle, self.requests) = Handle::new(names, Arc::default());
        self.thread = Some(self.open());
        self.follower = ForecastFollower::new(&self.settings, &self.handle, &self.telemetry, None);
    }

    /// Takes a sample of the node in this state, and returns the report to control, without the expected load.
    async fn sample(&mut self, minute: Minute, node: NodeStanding) -> ForecastReport {
        let requests = &mut self.requests;
        let answer = async {
            let Some(ControlRequest::Nodes(reply)) = requests.recv().await else { panic!("nodes") };
            let region = region_of(&node);
            reply.send(vec![node]).unwrap();
            let Some(ControlRequest::Regions(reply)) = requests.recv().await else {
                panic!("regions")
            };
            reply.send(vec![region]).unwrap();
            let Some(ControlRequest::NoteForecasts(report, reply)) = requests.recv().await else {
                panic!("forecasts")
            };
            reply.send(()).unwrap();
            *report
        };
        let (sampled, mut report) = tokio::join!(self.follower.sample(minute), answer);
        sampled.unwrap();
        self.expected = std::mem::take(&mut report.expected);
        report
    }
}

fn node() -> NodeStanding {
    NodeStanding {
        hop: Hop { node: NodeId(0), incarnation: Incarnation(1) },
        health: Health::Up,
        suspected_by: Default::default(),
        draining: false,
        leaves: false,
        ejected: false,
        started: false,
        stopping: false,
        need: None,
        capacity_kbps: 1_000,
        opening: 0,
        waiting: 0,
        load_permille: 500,
        carried_kbps: 500,
        reported_permille: None,
        process: None,
        rooms: 3,
        round_trip: Some(Duration::from_millis(10)),
        loss_ppm: 0,
        impaired_sessions: 0,
        is_probed: true,
        zone_breaker: BreakerState::Closed,
        zone_breaker_mode: BreakerMode::Auto,
    }
}

/// The region, whose only node is this one.
fn region_of(node: &NodeStanding) -> RegionStanding {
    let capacity_kbps = if node.draining { 0 } else { node.capacity_kbps };
    RegionStanding {
        region: RegionId(0),
        breaker: BreakerState::Closed,
        breaker_mode: BreakerMode::Auto,
        half_open_in: None,
        failback: Failback::Auto,
        nodes: 1,
        nodes_up: 1,
        nodes_draining: node.draining.into(),
        capacity_kbps,
        load_kbps: capacity_kbps * u64::from(node.load_permille) / 1_000,
        rooms: node.rooms,
        away: 0,
    }
}

/// The kinds of the warnings that begin or end.
fn changes(report: &ForecastReport) -> Vec<(&'static str, bool)> {
    report.changes.iter().map(|it| (it.forecast.evidence.kind(), it.is_over)).collect()
}

#[tokio::test]
async fn exhausted_capacity_is_reported_until_it_is_left() {
    let mut scene = Scene::new();
    let report = scene.sample(1, node()).await;
    assert_eq!(report, ForecastReport::default());
    let almost_full = NodeStanding { load_permille: 880, ..node() };
    assert_eq!(scene.sample(2, almost_full).await, ForecastReport::default());
    // Policies refuse new rooms from here on.
    let full = NodeStanding { load_permille: 900, ..node() };
    let report = scene.sample(3, full).await;
    assert_eq!(changes(&report), [("load", false)]);
    let ForecastEvidence::Load { load_kbps, capacity_kbps, .. } = report.forecasts[0].evidence
    else {
        panic!("{report:?}")
    };
    assert_eq!((load_kbps, capacity_kbps), (900, 900));
    assert_eq!(report.exhausted, [Arc::from("east")]);
    assert_eq!(report.forecasts.len(), 1);
    assert_eq!(
        scene.expected,
        [(Arc::from("east"), 900)],
        "the load now, while no course is known"
    );
    // Draining nodes have no capacity, but load.
    let draining = NodeStanding { draining: true, ..full };
    let report = scene.sample(4, draining).await;
    assert_eq!((report.exhausted.len(), report.forecasts.len()), (0, 1));
    assert_eq!(changes(&scene.sample(40, node()).await), [("load", true)]);
}

#[tokio::test]
async fn sick_node_is_reported_before_it_fails() {
    let mut scene = Scene::new();
    let lossy = |minute: u64| NodeStanding { loss_ppm: 1_000 * minute as u32, ..node() };
    let mut decays = Vec::new();
    let mut begun = None;
    for minute in 0..240 {
        let report = scene.sample(minute, lossy(minute.min(60))).await;
        decays.extend(report.decays);
        begun = begun.or((!report.changes.is_empty()).then_some((minute, report.changes)));
    }
    let (minute, changes) = begun.unwrap();
    assert!((30..60).contains(&minute), "at 2 % of loss: after {minute} minutes");
    assert_eq!(&*changes[0].forecast.subject, "a");
    assert_eq!(decays, [(NodeId(0), 1_000)], "told once");
}

#[tokio::test]
async fn memory_and_restarts_of_process_are_reported() {
    let mut scene = Scene::new();
    let started = std::time::Instant::now();
    let process = |memory_permille, started| NodeStanding {
        process: Some(ProcessState { memory_permille, started }),
        ..node()
    };
    let mut signs = Vec::new();
    let mut note = |report: ForecastReport| {
        signs.extend(report.changes.into_iter().map(|change| match change.forecast.evidence {
            ForecastEvidence::Decay { sign, .. } => sign,
            other => panic!("{other:?}"),
        }));
    };
    for minute in 0..240 {
        note(scene.sample(minute, process(500 + 2 * minute.min(190) as u16, started)).await);
    }
    assert_eq!(signs, [DecaySign::Memory]);
    let (mut scene, mut signs) = (Scene::new(), Vec::new());
    for minute in 0..4 {
        let started = started.checked_sub(Duration::from_secs(60 - 15 * minute)).unwrap();
        let report = scene.sample(minute, process(500, started)).await;
        signs.extend(report.forecasts.into_iter().map(|forecast| forecast.evidence));
    }
    let restarts = ForecastEvidence::Decay { sign: DecaySign::Restarts, value: 3.0, limit: 3.0 };
    assert_eq!(signs, [restarts]);
}

#[test]
fn starts_of_processes_ignore_steps_of_the_clock() {
    let monotonic = std::time::Instant::now();
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let clocks = StartClocks { monotonic, wall };
    let started_s = |started| {
        let process = Some(ProcessState { memory_permille: 500, started });
        node_sample(&NodeStanding { process, ..node() }, clocks).started_s
    };
    let seven = Duration::from_secs(7);
    assert_eq!(started_s(monotonic.checked_sub(seven).unwrap()), Some(993));
    assert_eq!(started_s(monotonic + seven), Some(1_007));
}

#[tokio::test]
async fn starts_after_planned_stops_are_not_reported() {
    let mut scene = Scene::new();
    let first = std::time::Instant::now();
    let cold = NodeStanding { health: Health::Cold, ..node() };
    for minute in 0..10 {
        let started = first.checked_sub(Duration::from_secs(60 * (10 - minute))).unwrap();
        let process = Some(ProcessState { memory_permille: 500, started });
        let runs = NodeStanding { process, ..node() };
        let report = scene.sample(minute, if minute.is_multiple_of(2) { cold } else { runs }).await;
        assert_eq!(report, ForecastReport::default(), "after {minute} minutes");
    }
}

#[tokio::test]
async fn harmless_spike_is_not_reported() {
    let mut scene = Scene::new();
    for minute in 0..240 {
        let loss_ppm = if minute == 120 { 500_000 } else { 100 };
        let report = scene.sample(minute, NodeStanding { loss_ppm, ..node() }).await;
        assert_eq!(report, ForecastReport::default(), "after {minute} minutes");
    }
}

#[tokio::test]
async fn node_that_is_down_does_not_decay() {
    let mut scene = Scene::new();
    let down = NodeStanding { health: Health::Down, loss_ppm: 1_000_000, ..node() };
    for minute in 0..120 {
        let report = scene.sample(minute, down).await;
        assert_eq!(report, ForecastReport::default(), "after {minute} minutes");
    }
}

#[tokio::test]
async fn restart_continues_the_warnings() {
    let mut scene = Scene::new();
    let lossy = || NodeStanding { loss_ppm: 100_000, ..node() };
    for minute in 0..30 {
        scene.sample(minute, lossy()).await;
    }
    scene.restart();
    let begun = scene.sample(30, lossy()).await;
    assert_eq!(changes(&begun), [("decay", false)], "the third value, of the samples of both");
    scene.sample(31, lossy()).await;
    scene.restart();
    let report = scene.sample(32, lossy()).await;
    assert_eq!(changes(&report), []);
    assert_eq!((report.forecasts.len(), report.decays.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn disabled_forecast_takes_no_sample() {
    for (lines, is_sampled) in [("", true), ("[forecast]\nenabled = false\n", false)] {
        let Scene { follower, mut requests, .. } = Scene::with(lines);
        let followed = tokio::time::timeout(2 * SAMPLED_EVERY, follower.follow()).await;
        assert!(followed.is_err());
        assert_eq!(requests.try_recv().is_ok(), is_sampled, "{lines}");
    }
}

#[tokio::test]
async fn flapping_link_is_reported() {
    let mut scene = Scene::new();
    let change = |from, to| {
        let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
        let (witnesses, last_heard) = (Vec::new(), None);
        GatewayEvent::Core(CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms: 0 })
    };
    for _ in 0..10 {
        scene.follower.note(&change(Health::Up, Health::Suspect));
    }
    assert_eq!(scene.sample(1, node()).await, ForecastReport::default());
    for _ in 0..4 {
        scene.follower.note(&change(Health::Up, Health::Down));
        scene.follower.note(&change(Health::Down, Health::Wary));
    }
    assert_eq!(changes(&scene.sample(2, node()).await), [("flap", false)]);
}

#[tokio::test]
async fn metrics_tell_of_the_forecasts() {
    let mut scene = Scene::new();
    scene.sample(1, node()).await;
    let rendered = scene.telemetry.prometheus().render();
    let exhausted = |seconds: &str| {
        let mut lines = rendered.lines();
        lines.any(|it| {
            it.starts_with("evenkeel_forecast_exhausted_seconds{") && it.ends_with(seconds)
        })
    };
    assert!(exhausted(" -1"), "{rendered}");
    scene.sample(2, NodeStanding { load_permille: 900, ..node() }).await;
    let rendered = scene.telemetry.prometheus().render();
    let warning = |kind: &str, count: &str| {
        let label = format!("evenkeel_reason=\"{kind}\"");
        let mut lines = rendered.lines().filter(|it| it.starts_with("evenkeel_forecast_warnings{"));
        lines.any(|line| line.contains(&label) && line.ends_with(count))
    };
    assert!(warning("load", " 1") && warning("decay", " 0"), "{rendered}");
}

#[tokio::test]
async fn many_regions_and_nodes_are_kept_in_turn() {
    let mut scene = Scene::new();
    let load = RegionSample { load_kbps: 1.0, capacity_kbps: 2.0 };
    let regions = (0..100).map(|number| (format!("{number:03}").into(), load)).collect();
    scene.follower.table.sample(1, &regions, &BTreeMap::new(), 30);
    let kept = |scene: &Scene| scene.follower.kept.rows().len();
    scene.follower.keep();
    assert_eq!(kept(&scene), KEPT_AT_ONCE);
    scene.follower.keep();
    assert_eq!(kept(&scene), 100);
    let changed = |scene: &Scene, key| scene.follower.kept.row(key).unwrap().at_us;
    let before = changed(&scene, "region/000");
    scene.follower.table.sample(2, &regions, &BTreeMap::new(), 30);
    scene.follower.keep();
    assert!(changed(&scene, "region/000") > before, "the first ones are next");
}

#[tokio::test]
async fn forecasts_of_a_late_disk_are_continued() {
    let mut scene = Scene::new();
    for minute in 0..30 {
        scene.sample(minute, NodeStanding { loss_ppm: 100_000, ..node() }).await;
    }
    scene.thread = None;
    let (database, away) = (scene.folder.path().join("kept"), scene.folder.path().join("away"));
    std::fs::rename(&database, &away).unwrap();
    std::fs::write(&database, "a file").unwrap();
    scene.restart();
    assert_eq!(changes(&scene.sample(30, node()).await), [], "it learns anew");
    std::fs::remove_file(&database).unwrap();
    std::fs::rename(&away, &database).unwrap();
    // A row with an acknowledgement is tried at once.
    let (done, written) = tokio::sync::oneshot::channel();
    let region = scene.follower.table.records().next().unwrap();
    let row = Encoded::new(&region.key(), &KeptForecast(region));
    scene.follower.kept.put_and(row, move |result| done.send(result).unwrap());
    written.await.unwrap().unwrap();
    assert!(matches!(scene.requests.recv().await, Some(ControlRequest::ReadLateKept)));
    let lossy = NodeStanding { loss_ppm: 100_000, ..node() };
    assert_eq!(
        changes(&scene.sample(31, lossy).await),
        [("decay", false)],
        "of the samples of both"
    );
}
