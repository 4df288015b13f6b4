use std::sync::mpsc;

use evenkeel_kept::{Follower, KeptPart, StoreThread};
use evenkeel_model::ClientLabel;
use evenkeel_process::documents::UnwrittenDocuments;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::handle::{ControlRequest, Handle};

const WITHIN: Duration = Duration::from_secs(20);

/// The documents of a process, with the thread that writes them.
struct Process {
    log: OperationLog,
    unwritten: UnwrittenDocuments,
    _thread: StoreThread,
}

impl Process {
    /// A process that does not own the documents yet.
    fn following(folder: Option<&Path>) -> Process {
        let (store, unwritten) = (Store::default(), UnwrittenDocuments::default());
        let log = OperationLog::of(&store);
        let _thread = store.open(folder, Path::new("/admin.sock"), &unwritten).unwrap();
        Process { log, unwritten, _thread }
    }

    /// Copies all documents of another process, as the standby of a group does.
    fn copy(&mut self, of: &Process) {
        let part = of.log.kept.store().next_part(&mut Follower::default(), usize::MAX);
        self.log.kept.store().add_part(part.unwrap());
        self.log.read();
    }
}

fn open(folder: &TempDir) -> Process {
    let mut process = Process::following(Some(folder.path()));
    process.log.resume();
    process
}

/// The operations that a process that starts now reads.
fn kept(folder: &TempDir) -> Vec<Operation> {
    open(folder).log.operations.0
}

fn drain(node: &str, draining: bool) -> Operation {
    Operation::Drain { place: OperationTarget::Node(node.into()), draining, within: None }
}

fn drain_region(draining: bool) -> Operation {
    let (place, within) = (OperationTarget::Region("west".into()), Some(WITHIN));
    Operation::Drain { place, draining, within }
}

fn keep(process: &mut Process, operations: impl IntoIterator<Item = Operation>) {
    for operation in operations {
        let (done, written) = mpsc::channel();
        process.log.keep([operation], move |written| done.send(written).unwrap());
        written.recv_timeout(WITHIN).unwrap().unwrap();
    }
}

#[test]
fn operations_in_force_are_read_by_the_next_process() {
    let folder = tempdir().unwrap();
    let mut log = open(&folder);
    keep(&mut log, [drain("a", true), Operation::Eject("b".into()), drain_region(true)]);
    let in_force = [drain("a", true), Operation::Eject("b".into()), drain_region(true)];
    assert_eq!(kept(&folder), in_force);
    keep(&mut log, [drain("a", false), Operation::Return("b".into())]);
    let in_force = [drain_region(true), drain("a", false)];
    assert_eq!(kept(&folder), in_force, "the node may be in that region");
    keep(&mut log, [drain_region(false), drain("a", false)]);
    assert_eq!(kept(&folder), []);
}

#[test]
fn log_filter_outlives_the_process_until_it_is_reset() {
    let folder = tempdir().unwrap();
    let filter = |text: &str| Operation::LogFilter(Some(text.into()));
    let mut log = open(&folder);
    keep(&mut log, [filter("debug"), drain("a", true), filter("warn")]);
    assert_eq!(kept(&folder), [drain("a", true), filter("warn")]);
    let told = LogFilterSender::default();
    let mut next = open(&folder);
    next.log = next.log.telling(told.clone());
    assert_eq!(told.borrow().as_deref(), Some("warn"));
    let of_owner = KeptPart::of_rows([Encoded::new(ONE, &Operations(vec![filter("info")]))]);
    next.log.kept.store().add_part(of_owner);
    next.log.read();
    assert_eq!(told.borrow().as_deref(), Some("info"), "that of the group's owner");
    keep(&mut next, [Operation::LogFilter(None)]);
    assert_eq!((told.borrow().as_deref(), kept(&folder)), (None, vec![]));
}

#[test]
fn operation_that_cannot_be_written_is_an_error() {
    let folder = tempdir().unwrap();
    let in_the_way = folder.path().join("kept");
    std::fs::write(&in_the_way, "a file").unwrap();
    let mut process = open(&folder);
    let (done, written) = mpsc::channel();
    process.log.keep([drain("a", true)], move |written| done.send(written).unwrap());
    written.recv_timeout(WITHIN).unwrap().unwrap_err();
    let failing: Vec<_> = process.unwritten.list().iter().map(|it| it.document).collect();
    assert_eq!(failing, ["operations"]);
    std::fs::remove_file(&in_the_way).unwrap();
    keep(&mut process, [Operation::Eject("b".into())]);
    assert!(process.unwritten.list().is_empty());
    assert_eq!(kept(&folder), [drain("a", true), Operation::Eject("b".into())]);
}

#[test]
fn end_of_a_drain_is_kept_while_a_wider_or_narrower_one_is_in_force() {
    let zone = |draining| Operation::Drain {
        place: OperationTarget::Zone("eu/a".into()),
        draining,
        within: None,
    };
    let mut operations = Operations::default();
    for operation in [zone(true), drain("a", false), drain_region(false)] {
        operations.add(operation);
    }
    let kept: Vec<Operation> = operations.iter().cloned().collect();
    assert_eq!(kept, [zone(true), drain("a", false), drain_region(false)]);
    let mut operations = Operations::default();
    [zone(true), zone(false)].into_iter().for_each(|operation| operations.add(operation));
    assert_eq!(operations.iter().count(), 0);
}

#[test]
fn failback_of_all_regions_replaces_that_of_one() {
    let folder = tempdir().unwrap();
    let west = Operation::Failback(Some("west".into()), Failback::Forbid);
    let all = Operation::Failback(None, Failback::Force);
    keep(&mut open(&folder), [west.clone(), all.clone()]);
    assert_eq!(kept(&folder), std::slice::from_ref(&all));
    keep(&mut open(&folder), [west.clone()]);
    assert_eq!(kept(&folder), [all, west]);
    keep(&mut open(&folder), [Operation::Failback(None, Failback::Auto)]);
    assert_eq!(kept(&folder), []);
}

#[test]
fn held_breakers_outlive_the_process() {
    let folder = tempdir().unwrap();
    let region = |mode| Operation::Breaker(BreakerTarget::Region("west".into()), mode);
    let clients = |mode| {
        let group = ClientGroup { label: ClientLabel::Carrier, value: "ct".into() };
        Operation::Breaker(BreakerTarget::Clients(group), mode)
    };
    let zone = |mode| Operation::Breaker(BreakerTarget::Zone("west/a".into()), mode);
    let in_force =
        [clients(BreakerMode::Open), region(BreakerMode::Closed), zone(BreakerMode::Open)];
    keep(&mut open(&folder), [region(BreakerMode::Open)]);
    keep(&mut open(&folder), in_force.clone());
    assert_eq!(kept(&folder), in_force);
    let auto = BreakerMode::Auto;
    keep(&mut open(&folder), [clients(auto), region(auto), zone(auto)]);
    assert_eq!(kept(&folder), []);
}

#[test]
fn next_process_of_an_upgrade_repeats_nothing() {
    let folder = tempdir().unwrap();
    let mut old = open(&folder);
    let mut next = Process::following(Some(folder.path()));
    assert_eq!(next.log.operations.0, []);
    // The process that serves is asked during the upgrade.
    keep(&mut old, [drain("a", true)]);
    next.copy(&old);
    assert!(!next.log.resume(), "its nodes are as the operations left them");
    keep(&mut next, [Operation::Eject("b".into())]);
    drop(old);
    assert_eq!(kept(&folder), [drain("a", true), Operation::Eject("b".into())]);
}

#[test]
fn files_of_earlier_versions_are_read_once() {
    let folder = tempdir().unwrap();
    let name = evenkeel_process::file::name_of(Path::new("/admin.sock"));
    let write = |document: &str, text: &str| {
        let file = folder.path().join(document).join(format!("{name}.json"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        file
    };
    // As version 0.1.0 at a3d43ed3 wrote them.
    let operations =
        r#"[{"drain":{"place":{"node":"a"},"draining":true,"within":null}},{"eject":"b"}]"#;
    let alerts =
        r#"{"alerts":[],"notices":[{"receiver":"ops","alert":"EvenkeelNodeDown","at_us":7}]}"#;
    let files = [
        write("operations", operations),
        write("alerts", alerts),
        write("started-nodes", r#"["a"]"#),
    ];
    let mut process = open(&folder);
    let in_force = [drain("a", true), Operation::Eject("b".into())];
    assert_eq!(process.log.operations.0, in_force);
    assert_eq!(process.log.started_nodes(), BTreeSet::from(["a".into()]));
    assert_eq!(process.log.alerts().unwrap().decode().unwrap().notices[0].at_us, 7);
    keep(&mut process, [Operation::Return("b".into())]);
    drop(process);
    assert!(files.iter().all(|file| !file.exists() && file.with_extension("json.moved").exists()));
    assert_eq!(kept(&folder), [drain("a", true)], "those of the file are older");
}

#[test]
fn damaged_file_of_an_earlier_version_is_replaced() {
    let folder = tempdir().unwrap();
    let name = evenkeel_process::file::name_of(Path::new("/admin.sock"));
    let file = folder.path().join("operations").join(format!("{name}.json"));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "[{\"drain\":").unwrap();
    let mut process = open(&folder);
    assert_eq!(process.log.operations.0, []);
    keep(&mut process, [drain("b", true)]);
    assert_eq!(kept(&folder), [drain("b", true)]);
    drop(process);
    assert!(!file.exists());
}

#[test]
fn operations_of_a_later_version_end_alone() {
    let recorded = |text: &str| {
        let operations: serde_json::Value = serde_json::from_str(text).unwrap();
        let encoded = crate::snapshot::encode(&operations);
        let decoded: Operations = crate::snapshot::decode(&encoded, None).unwrap();
        assert_eq!(serde_json::from_str::<Operations>(text).unwrap(), decoded);
        decoded.0
    };
    let text = r#"[{"eject":"b"},{"mute":{"room":"r","for":{"secs":9,"nanos":0}}},"pause",
        {"drain":{"place":{"node":"a"},"draining":true,"within":null}}]"#;
    assert_eq!(recorded(text), [Operation::Eject("b".into()), drain("a", true)]);
}

#[test]
fn operations_travel_with_records() {
    let all = Operations(vec![
        drain_region(true),
        Operation::Failback(Some("west".into()), Failback::Forbid),
        Operation::Breaker(BreakerTarget::Zone("west/a".into()), BreakerMode::Closed),
        Operation::LogFilter(None),
    ]);
    let encoded = crate::snapshot::encode(&all);
    assert_eq!(crate::snapshot::decode::<Operations>(&encoded, None).unwrap(), all);
}

#[test]
fn without_a_folder_operations_are_answered() {
    keep(&mut Process::following(None), [drain("a", true)]);
}

#[test]
fn undrained_region_undrains_its_nodes_again() {
    let folder = tempdir().unwrap();
    keep(&mut open(&folder), [drain("a", true), drain_region(false)]);
    assert_eq!(kept(&folder), [drain("a", true), drain_region(false)]);
    keep(&mut open(&folder), [drain("a", false), drain_region(false)]);
    assert_eq!(kept(&folder), []);
}

#[test]
fn operations_of_the_owner_replace_those_of_the_standby() {
    let [folder, of_owner] = [tempdir().unwrap(), tempdir().unwrap()];
    keep(&mut open(&folder), [drain("a", true)]);
    let mut owner = open(&of_owner);
    keep(&mut owner, [drain("b", true)]);
    let mut standby = Process::following(Some(folder.path()));
    standby.copy(&owner);
    assert!(!standby.log.resume(), "its own disk does not count");
    keep(&mut standby, [Operation::Eject("c".into())]);
    assert_eq!(kept(&folder), [drain("b", true), Operation::Eject("c".into())]);
}

#[test]
fn started_nodes_are_read_by_the_next_process() {
    let folder = tempdir().unwrap();
    let nodes = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
    let mut process = open(&folder);
    process.log.keep_started_nodes(nodes(&["a", "b"]));
    // The thread writes it before it ends.
    drop(process);
    assert_eq!(open(&folder).log.started_nodes(), nodes(&["a", "b"]));
    let mut next = open(&folder);
    next.log.keep_started_nodes(BTreeSet::new());
    drop(next);
    assert_eq!(open(&folder).log.started_nodes(), BTreeSet::new());
}

#[test]
fn operations_of_a_late_disk_stay_in_force() {
    let folder = tempdir().unwrap();
    keep(&mut open(&folder), [drain("a", true), drain("b", true)]);
    let (database, away) = (folder.path().join("kept"), folder.path().join("away"));
    std::fs::rename(&database, &away).unwrap();
    std::fs::write(&database, "a file").unwrap();
    let mut process = Process::following(Some(folder.path()));
    let (told, late) = mpsc::channel();
    process.log.kept.store().when_late(move || told.send(()).unwrap());
    assert!(!process.log.resume());
    let (done, written) = mpsc::channel();
    process.log.keep([drain("b", false)], move |written| done.send(written).unwrap());
    written.recv_timeout(WITHIN).unwrap().unwrap_err();
    process.log.keep_started_nodes(BTreeSet::from(["a".into()]));
    std::fs::remove_file(&database).unwrap();
    std::fs::rename(&away, &database).unwrap();
    late.recv_timeout(WITHIN).unwrap();
    // An operator is faster than the request to read them.
    keep(&mut process, [Operation::Eject("c".into())]);
    let in_force = [drain("a", true), Operation::Eject("c".into())];
    assert_eq!(process.log.operations.0, in_force);
    drop(process);
    assert_eq!(kept(&folder), in_force);
}

#[test]
fn member_without_a_record_reads_its_disk() {
    let folder = tempdir().unwrap();
    keep(&mut open(&folder), [drain("a", true)]);
    let mut member = Process::following(Some(folder.path()));
    assert!(member.log.resume());
    assert!(!member.log.resume(), "once");
    assert_eq!(member.log.operations.0, [drain("a", true)]);
}

#[test]
fn control_reads_copies_with_operations_alone() {
    let owner = Process::following(None);
    let (handle, mut queue) = Handle::new(Arc::default(), Arc::default());
    let mut follower = Follower::default();
    let mut copy = || {
        let part = owner.log.kept.store().next_part(&mut follower, usize::MAX);
        assert!(handle.copy_kept(part.into_iter().collect()));
        matches!(queue.try_recv(), Ok(ControlRequest::ReadKept))
    };
    assert!(copy(), "a whole copy may end operations");
    owner.log.started_nodes.put(ONE, &StartedNodes::default());
    assert!(!copy());
    owner.log.kept.put(ONE, &Operations(vec![drain("a", true)]));
    assert!(copy());
}

#[test]
fn control_is_told_of_a_late_disk() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("kept");
    std::fs::write(&database, "a file").unwrap();
    let (handle, mut queue) = Handle::new(Arc::default(), Arc::default());
    let mut log = OperationLog::of(&handle.kept);
    let unwritten = UnwrittenDocuments::default();
    let thread = handle.kept.open(Some(folder.path()), Path::new("/admin.sock"), &unwritten);
    assert!(!log.resume());
    std::fs::remove_file(&database).unwrap();
    log.keep([drain("a", true)], drop);
    assert!(matches!(queue.blocking_recv(), Some(ControlRequest::ReadLateKept)));
    drop(thread);
}
