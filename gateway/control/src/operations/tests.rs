use std::sync::mpsc;

use evenkeel_model::ClientLabel;
use tempfile::{TempDir, tempdir};

use super::*;

const WITHIN: Duration = Duration::from_secs(20);

fn open(folder: &TempDir) -> OperationLog {
    OperationLog::open(Some(folder.path()), Path::new("/admin.sock"), false)
}

fn drain(node: &str, draining: bool) -> Operation {
    Operation::Drain { place: OperationTarget::Node(node.into()), draining, within: None }
}

fn drain_region(draining: bool) -> Operation {
    let (place, within) = (OperationTarget::Region("west".into()), Some(WITHIN));
    Operation::Drain { place, draining, within }
}

fn keep(log: &mut OperationLog, operations: impl IntoIterator<Item = Operation>) {
    for operation in operations {
        let (done, written) = mpsc::channel();
        log.keep([operation], move |written| done.send(written).unwrap());
        written.recv_timeout(WITHIN).unwrap().unwrap();
    }
}

#[test]
fn operations_in_force_are_read_by_the_next_process() {
    let folder = tempdir().unwrap();
    let mut log = open(&folder);
    keep(&mut log, [drain("a", true), Operation::Eject("b".into()), drain_region(true)]);
    let in_force = [drain("a", true), Operation::Eject("b".into()), drain_region(true)];
    assert_eq!(open(&folder).operations().0, in_force);
    keep(&mut log, [drain("a", false), Operation::Return("b".into())]);
    let in_force = [drain_region(true), drain("a", false)];
    assert_eq!(open(&folder).operations().0, in_force, "the node may be in that region");
    keep(&mut log, [drain_region(false), drain("a", false)]);
    assert_eq!(open(&folder).operations().0, []);
}

#[test]
fn log_filter_outlives_the_process_until_it_is_reset() {
    let folder = tempdir().unwrap();
    let filter = |text: &str| Operation::LogFilter(Some(text.into()));
    let mut log = open(&folder);
    keep(&mut log, [filter("debug"), drain("a", true), filter("warn")]);
    assert_eq!(open(&folder).operations().0, [drain("a", true), filter("warn")]);
    let told = LogFilterSender::default();
    let mut next = open(&folder).telling(told.clone());
    assert_eq!(told.borrow().as_deref(), Some("warn"));
    next.replace(Operations(vec![filter("info")]));
    assert_eq!(told.borrow().as_deref(), Some("info"), "that of the group's owner");
    keep(&mut next, [Operation::LogFilter(None)]);
    assert_eq!((told.borrow().as_deref(), open(&folder).file.value.0), (None, vec![]));
}

#[test]
fn operation_that_cannot_be_written_is_an_error() {
    let folder = tempdir().unwrap();
    let mut log = open(&folder);
    let path = log.file.path.clone().unwrap();
    std::fs::create_dir_all(path.join("in the way")).unwrap();
    let (done, written) = mpsc::channel();
    log.keep([drain("a", true)], move |written| done.send(written).unwrap());
    written.recv_timeout(WITHIN).unwrap().unwrap_err();
    std::fs::remove_dir_all(&path).unwrap();
    keep(&mut log, [Operation::Eject("b".into())]);
    assert_eq!(open(&folder).operations().0, [drain("a", true), Operation::Eject("b".into())]);
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
    assert_eq!(open(&folder).operations().0, std::slice::from_ref(&all));
    keep(&mut open(&folder), [west.clone()]);
    assert_eq!(open(&folder).operations().0, [all, west]);
    keep(&mut open(&folder), [Operation::Failback(None, Failback::Auto)]);
    assert_eq!(open(&folder).operations().0, []);
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
    assert_eq!(open(&folder).operations().0, in_force);
    let auto = BreakerMode::Auto;
    keep(&mut open(&folder), [clients(auto), region(auto), zone(auto)]);
    assert_eq!(open(&folder).operations().0, []);
}

#[test]
fn next_process_of_an_upgrade_repeats_nothing() {
    let folder = tempdir().unwrap();
    let mut next = OperationLog::open(Some(folder.path()), Path::new("/admin.sock"), true);
    assert_eq!(next.operations().0, []);
    // The process that serves is asked during the upgrade.
    keep(&mut open(&folder), [drain("a", true)]);
    next.resume();
    keep(&mut next, [Operation::Eject("b".into())]);
    assert_eq!(open(&folder).operations().0, [drain("a", true), Operation::Eject("b".into())]);
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
fn damaged_file_is_replaced() {
    let folder = tempdir().unwrap();
    keep(&mut open(&folder), [drain("a", true)]);
    let path = open(&folder).file.path.unwrap();
    std::fs::write(&path, "[{\"drain\":").unwrap();
    let mut log = open(&folder);
    assert_eq!(log.operations().0, []);
    keep(&mut log, [drain("b", true)]);
    assert_eq!(open(&folder).operations().0, [drain("b", true)]);
}

#[test]
fn without_a_folder_operations_are_answered() {
    let mut log = OperationLog::open(None, Path::new("/admin.sock"), false);
    keep(&mut log, [drain("a", true)]);
}

#[test]
fn undrained_region_undrains_its_nodes_again() {
    let folder = tempdir().unwrap();
    keep(&mut open(&folder), [drain("a", true), drain_region(false)]);
    assert_eq!(open(&folder).operations().0, [drain("a", true), drain_region(false)]);
    keep(&mut open(&folder), [drain("a", false), drain_region(false)]);
    assert_eq!(open(&folder).operations().0, []);
}

#[test]
fn operations_of_the_owner_replace_those_of_the_standby() {
    let folder = tempdir().unwrap();
    keep(&mut open(&folder), [drain("a", true)]);
    let mut standby = OperationLog::open(Some(folder.path()), Path::new("/admin.sock"), true);
    let mut of_owner = Operations::default();
    of_owner.add(drain("b", true));
    standby.replace(of_owner.clone());
    assert!(!standby.resume(), "its own file is not read");
    keep(&mut standby, [Operation::Eject("c".into())]);
    assert_eq!(open(&folder).operations().0, [drain("b", true), Operation::Eject("c".into())]);
}

#[test]
fn started_nodes_are_read_by_the_next_process() {
    let folder = tempdir().unwrap();
    let nodes = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
    let written = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut log = open(&folder);
    let path = log.started_nodes.path.clone().unwrap();
    log.keep_started_nodes(nodes(&["a", "b"]));
    while !written(&path).contains('b') {
        std::thread::yield_now();
    }
    assert_eq!(*open(&folder).started_nodes(), nodes(&["a", "b"]));
    // A standby that takes over has none, by the record of its owner.
    let mut standby = OperationLog::open(Some(folder.path()), Path::new("/admin.sock"), true);
    standby.resume();
    standby.keep_started_nodes(BTreeSet::new());
    while written(&path).contains('b') {
        std::thread::yield_now();
    }
    assert_eq!(*open(&folder).started_nodes(), BTreeSet::new());
}

#[test]
fn member_without_a_record_reads_its_file() {
    let folder = tempdir().unwrap();
    keep(&mut open(&folder), [drain("a", true)]);
    let mut member = OperationLog::open(Some(folder.path()), Path::new("/admin.sock"), true);
    assert!(member.resume());
    assert!(!member.resume(), "once");
    assert_eq!(member.operations().0, [drain("a", true)]);
}

#[test]
fn unwritten_operations_are_reported_until_written() {
    let folder = tempdir().unwrap();
    let unwritten = UnwrittenDocuments::default();
    let mut log = open(&folder).reporting_to(&unwritten);
    std::fs::write(folder.path().join("operations"), "a file").unwrap();
    let (done, written) = mpsc::channel();
    log.keep([drain("a", true)], move |written| done.send(written).unwrap());
    written.recv_timeout(WITHIN).unwrap().unwrap_err();
    let failing: Vec<_> = unwritten.list().iter().map(|it| it.document).collect();
    assert_eq!(failing, [KeptDocument::Operations]);
    std::fs::remove_file(folder.path().join("operations")).unwrap();
    keep(&mut log, [drain("b", true)]);
    assert!(unwritten.list().is_empty());
    assert_eq!(open(&folder).operations().0, [drain("a", true), drain("b", true)]);
}
