use evenkeel_config::GatewayConfig;
use evenkeel_telemetry::Telemetry;

use super::*;

fn telemetry() -> Telemetry {
    Telemetry::start(&GatewayConfig::load(None, None, &[]).unwrap(), "test").unwrap()
}

/// The series of the host and of this process, as Prometheus text.
fn series(telemetry: &Telemetry) -> Vec<String> {
    let text = telemetry.prometheus().render();
    let of_host =
        |line: &&str| line.starts_with("evenkeel_host_") || line.starts_with("evenkeel_process_");
    text.lines().filter(of_host).map(str::to_owned).collect()
}

#[test]
fn host_is_reported_as_far_as_it_is_known() {
    let telemetry = telemetry();
    let mut reader = HostFollower::new(telemetry.instruments(), None);
    reader.set(HostReading::default(), None);
    assert_eq!(series(&telemetry), [""; 0]);
    let processor = |used, stolen, idle| Some(ProcessorTime { used, stolen, idle });
    let reading = |processor, drops| HostReading {
        processor,
        memory_available: Some(4_096),
        disk_free: Some(8_192),
        ports_left: Some(28_000),
        interface_drops: vec![("eth0".to_owned(), drops)],
    };
    reader.set(reading(processor(100, 10, 900), 5), Some(700));
    reader.set(reading(processor(120, 15, 980), 8), Some(600));
    let found = series(&telemetry);
    for (name, value) in [
        ("evenkeel_host_steal_ratio", "0.05"),
        ("evenkeel_host_memory_available_bytes", "4096"),
        ("evenkeel_host_disk_free_bytes", "8192"),
        ("evenkeel_host_ports_left", "28000"),
        ("evenkeel_process_descriptors_left", "600"),
        ("evenkeel_host_interface_drops_total{evenkeel_interface=\"eth0\"", "8"),
    ] {
        let end = format!(" {value}");
        let is_found = found.iter().any(|it| it.starts_with(name) && it.ends_with(&end));
        assert!(is_found, "{name} {value} is not in {found:#?}");
    }
}

#[tokio::test]
async fn host_is_read_at_the_start() {
    let telemetry = telemetry();
    let folder = tempfile::tempdir().unwrap();
    let mut reader = HostFollower::new(telemetry.instruments(), Some(folder.path().to_owned()));
    let is_read = async {
        while !series(&telemetry).iter().any(|it| it.starts_with("evenkeel_host_disk_free")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        never = reader.follow() => match never {},
        () = is_read => {}
    }
}
