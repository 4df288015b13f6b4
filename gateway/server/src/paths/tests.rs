use super::*;

fn capacity(limit: u64) -> DescriptorCapacity {
    DescriptorCapacity {
        limit,
        used: 100,
        local_ports: 28_232,
        ports_per_session: 2,
        sessions_max: 10_000,
    }
}

#[test]
fn sessions_leave_the_reserve() {
    assert_eq!(capacity(10_000).sessions(), (10_000 - 512 - 100) / 2);
    assert_eq!(capacity(512).sessions(), (512 - 256 - 100) / 2, "a low limit is halved");
    assert_eq!(capacity(100).sessions(), 0);
    assert_eq!(capacity(u64::MAX).sessions(), 28_232 / 2, "no limit but that of ports");
    let agents_only = DescriptorCapacity { ports_per_session: 0, ..capacity(1_024) };
    assert_eq!(agents_only.sessions(), u64::MAX);
}

#[test]
fn unreachable_limit_is_named_with_its_cause() {
    let short = capacity(4_096);
    assert!(short.is_short());
    assert_eq!(
        short.to_string(),
        "1742 sessions fit: ports_per_session=2 descriptors=4096 used=100 reserved=512 local_ports=28232; \
         `[limits] sessions` is 10000: lower it, or raise `LimitNOFILE` and `net.ipv4.ip_local_port_range`"
    );
    let enough = DescriptorCapacity { sessions_max: 1_742, ..short };
    assert!(!enough.is_short() && !enough.to_string().contains("lower it"));
}

#[test]
fn range_of_local_ports_is_read() {
    assert!((1..=65_536).contains(&local_ports()));
}
