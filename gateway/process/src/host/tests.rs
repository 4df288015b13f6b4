use super::*;

const BEFORE: &str = "cpu  1000 100 200 9000 50 1 49 10 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
const AFTER: &str = "cpu  1060 100 220 9900 70 1 59 20 7 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n";

#[test]
fn processor_times_are_differences() {
    let [before, after] = [BEFORE, AFTER].map(|text| ProcessorTime::of(text).unwrap());
    assert_eq!(after.since(before), ProcessorTime { used: 100, stolen: 10, idle: 920 });
    assert_eq!(before.since(after), ProcessorTime::default());
}

#[test]
fn line_without_steal_time_is_no_reading() {
    for text in ["", "intr 5", "cpu  1 2 3", "cpu  1 2 3 4 5 6 7 eight"] {
        assert_eq!(ProcessorTime::of(text), None, "{text:?}");
    }
}

#[test]
fn available_memory_is_in_bytes() {
    let text = "MemTotal:       16000 kB\nMemFree:  3 kB\nMemAvailable:    8000 kB\n";
    assert_eq!(memory_available(text), Some(8_192_000));
    for text in ["", "MemTotal: 16000 kB\n", "MemAvailable: 8000 MB\n", "MemAvailable: x kB\n"] {
        assert_eq!(memory_available(text), None, "{text:?}");
    }
}

#[test]
fn sockets_of_both_versions_take_ports() {
    let [v4, v6] = ["UDP: inuse 30 mem 2\nUDPLITE: inuse 7\n", "TCP6: inuse 9\nUDP6: inuse 12\n"];
    let sockets = format!("sockets: used 16\nTCP: inuse 1 orphan 0\n{v4}{v6}");
    assert_eq!(ports_left("40000\t40099\n", &sockets), Some(58));
    assert_eq!(ports_left("40000\t40009\n", &sockets), Some(0));
    assert_eq!(ports_left("40000\t40099\n", ""), Some(100));
    assert_eq!(["", "40000", "a b"].map(|range| ports_left(range, "")), [None; 3]);
}

#[test]
fn virtual_interfaces_count_only_without_others() {
    let folder = tempfile::tempdir().unwrap();
    let interface = |name: &str, counters: &[(&str, &str)], has_device: bool| {
        let statistics = folder.path().join(name).join("statistics");
        fs::create_dir_all(&statistics).unwrap();
        for (counter, value) in counters {
            fs::write(statistics.join(counter), value).unwrap();
        }
        if has_device {
            fs::create_dir(folder.path().join(name).join("device")).unwrap();
        }
    };
    interface("lo", &[("rx_dropped", "9\n")], false);
    interface("bond0", &[], false);
    (10..40).for_each(|n| interface(&format!("a{n}"), &[("rx_dropped", "1\n")], false));
    let drops = interface_drops(folder.path());
    assert_eq!(drops.len(), INTERFACES_MAX);
    assert_eq!(drops[..2], [("a10".to_owned(), 1), ("a11".to_owned(), 1)]);
    interface("eth0", &[("rx_dropped", "2\n"), ("rx_missed_errors", "40\n")], true);
    assert_eq!(interface_drops(folder.path()), [("eth0".to_owned(), 42)]);
    assert!(interface_drops(&folder.path().join("absent")).is_empty());
}

#[test]
fn this_host_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let reading = HostReading::now(Some(folder.path()));
    assert!(reading.processor.unwrap().used > 0);
    assert!(reading.memory_available.unwrap() > 0 && reading.disk_free.unwrap() > 0);
    assert!(reading.ports_left.unwrap() > 0);
    assert_eq!(HostReading::now(None).disk_free, None);
}
