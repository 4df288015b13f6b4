use tempfile::tempdir;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn process_name_may_contain_anything() {
    let stat = "7 (a) b) 9) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0 5 0 0";
    assert_eq!(ticks(stat), Some(42));
    assert_eq!(ticks("7 (x) S 1"), None);
    assert_eq!(ticks(""), None);
}

#[test]
fn processor_time_is_a_share_of_the_cpus() {
    let (mut meter, start) = (Meter::new(2, None), Instant::now());
    assert_eq!(meter.processor(Some((7, 1_000)), start), 0, "first sample");
    assert_eq!(meter.processor(Some((7, 1_050)), start + SECOND), 250);
    assert_eq!(meter.processor(Some((8, 2_000)), start + 2 * SECOND), 0, "another process");
    assert_eq!(meter.processor(Some((8, 2_200)), start + 3 * SECOND), 1_000);
    assert_eq!(meter.processor(None, start + 4 * SECOND), 0);
    assert_eq!(meter.processor(Some((8, 2_200)), start + 4 * SECOND), 0);
}

#[test]
fn readable_figure_above_processor_time_counts() {
    for (bytes, read) in [
        (&b"420\n"[..], Some(420)),
        (b"  7 ", Some(7)),
        (b"-1", None),
        (b"70000", None),
        (b"\xff", None),
        (b"", None),
    ] {
        assert_eq!(figure(bytes), read, "{bytes:?}");
    }
    let folder = tempdir().unwrap();
    let path = folder.path().join("figure");
    std::fs::write(&path, "333\n").unwrap();
    let mut meter = Meter::new(1, Some(path.clone()));
    assert_eq!(meter.measure(None, Instant::now()), 333);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(meter.measure(None, Instant::now()), 0);
}

#[test]
fn own_processor_time_is_readable() {
    let pid = std::process::id() as i32;
    let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(ticks(&stat).is_some());
}

#[test]
fn memory_is_limited_by_control_groups() {
    let root = tempdir().unwrap();
    let limit = |folder: &str, limit: &str| {
        let folder = root.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("memory.max"), limit).unwrap();
    };
    limit("a", "2097152\n");
    limit("a/b", "max\n");
    let limits = |cgroup: &str| group_limits(cgroup, root.path()).collect::<Vec<_>>();
    assert_eq!(limits("1:name=x:/a\n0::/a/b\n"), [2_048]);
    assert!(limits("0::/\n").is_empty());
    assert!(limits("").is_empty());
}

#[test]
fn memory_is_a_share_and_age_counts_from_boot() {
    let report = |resident, limit, up_s, started| {
        let ProcessReport { memory_permille, age_s } = report(resident, limit, up_s, started)?;
        Some((memory_permille, age_s))
    };
    assert_eq!(report(420, 1_000, 7_000, 123_456), Some((420, 5_766)));
    assert_eq!(
        report(3_000, 1_000, 10, 1_100),
        Some((3_000, 0)),
        "started after the clock was read"
    );
    assert_eq!(report(u64::MAX, 1, u64::MAX, 0), Some((u16::MAX, u32::MAX)));
    assert_eq!(report(1, 0, 7, 0), None);
}

#[test]
fn memory_and_age_of_own_process_are_readable() {
    assert_eq!(kib("VmPeak:\t 9 kB\nVmRSS:\t    7420 kB\n", "VmRSS:"), Some(7_420));
    assert_eq!(field("7 (a) b) S 1 7", 4), Some(1));
    let report = process(std::process::id() as i32).unwrap();
    assert!(report.memory_permille <= 1_000, "{report:?}");
    assert!(report.age_s < 24 * 3_600, "{report:?}");
    assert_eq!(process(-1), None);
}
