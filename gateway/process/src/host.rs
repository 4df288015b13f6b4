//! The host under the process: processor time, memory, a disk, and drops of network interfaces.

use std::fs;
use std::path::Path;

/// Processor times of the kernel (proc_stat(5)).
const PROCESSOR_TIMES: &str = "/proc/stat";

/// Memory of the host (proc_meminfo(5)).
const MEMORY: &str = "/proc/meminfo";

/// The ports that the kernel assigns (ip(7)).
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Sockets of this network namespace (proc(5)), for each version of IP.
const SOCKETS: [&str; 2] = ["/proc/net/sockstat", "/proc/net/sockstat6"];

/// The network interfaces of this host, one folder each.
pub const INTERFACES: &str = "/sys/class/net";

/// Maximum number of interfaces in a reading.
const INTERFACES_MAX: usize = 16;

/// Packets that an interface received and dropped: by the kernel, and by a device without a free buffer (struct rtnl_link_stats64).
const DROPS: [&str; 2] = ["rx_dropped", "rx_missed_errors"];

/// The name of this host; empty if the kernel does not report it.
pub fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

/// Resources of the host at one moment. `None`: the kernel does not report them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct HostReading {
    /// Time of all cores.
    pub processor: Option<ProcessorTime>,
    /// Bytes that programs can allocate without swapping.
    pub memory_available: Option<u64>,
    /// Bytes that a process without privileges can write to the disk of the folder.
    pub disk_free: Option<u64>,
    /// Ports that the kernel assigns, less the UDP sockets of this network namespace.
    pub ports_left: Option<u64>,
    /// Received packets that each interface dropped since it exists, loopback excluded.
    pub interface_drops: Vec<(String, u64)>,
}

impl HostReading {
    /// Reads the host and the disk of this folder.
    pub fn now(folder: Option<&Path>) -> HostReading {
        let memory = fs::read_to_string(MEMORY).ok();
        let ports = fs::read_to_string(LOCAL_PORTS).ok();
        let sockets = SOCKETS.map(|path| fs::read_to_string(path).unwrap_or_default());
        let disk = folder.and_then(|folder| rustix::fs::statvfs(folder).ok());
        HostReading {
            processor: ProcessorTime::now(),
            memory_available: memory.and_then(|text| memory_available(&text)),
            disk_free: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            ports_left: ports.and_then(|range| ports_left(&range, &sockets.concat())),
            interface_drops: interface_drops(Path::new(INTERFACES)),
        }
    }
}

/// Time of all cores since the host started, in ticks of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ProcessorTime {
    /// Time in use, stolen time included.
    pub used: u64,
    /// Time that the hypervisor gave to other guests.
    pub stolen: u64,
    /// Time without work.
    pub idle: u64,
}

impl ProcessorTime {
    /// Returns `None` if the kernel does not report processor times.
    pub fn now() -> Option<ProcessorTime> {
        fs::read_to_string(PROCESSOR_TIMES).ok().and_then(|text| ProcessorTime::of(&text))
    }

    /// Reads the first line: `cpu user nice system idle iowait irq softirq steal guest guest_nice`. `user` and `nice`
    /// include both guest times.
    fn of(text: &str) -> Option<ProcessorTime> {
        let ticks = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = ticks.map(str::parse).collect::<Result<_, _>>().ok()?;
        let [user, nice, system, idle, waiting, irq, softirq, stolen] = *ticks.first_chunk()?;
        let used = user + nice + system + irq + softirq + stolen;
        Some(ProcessorTime { used, stolen, idle: idle + waiting })
    }

    /// The times since `before`.
    pub fn since(self, before: ProcessorTime) -> ProcessorTime {
        ProcessorTime {
            used: self.used.saturating_sub(before.used),
            stolen: self.stolen.saturating_sub(before.stolen),
            idle: self.idle.saturating_sub(before.idle),
        }
    }
}

fn memory_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// `range`: the first and the last port. `sockets`: lines such as `UDP: inuse 3 mem 2` and `UDP6: inuse 1`.
fn ports_left(range: &str, sockets: &str) -> Option<u64> {
    let mut ends = range.split_whitespace().map(str::parse::<u64>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    let in_use = sockets.lines().filter_map(|line| {
        let count = line.strip_prefix("UDP: inuse ").or(line.strip_prefix("UDP6: inuse "))?;
        count.split(' ').next()?.parse::<u64>().ok()
    });
    Some((last + 1).saturating_sub(first).saturating_sub(in_use.sum()))
}

/// Drops of the interfaces in a folder. Virtual ones get another name with each container, so they count only on a host without others.
fn interface_drops(folder: &Path) -> Vec<(String, u64)> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name != "lo");
    let has_device = |name: &String| folder.join(name).join("device").exists();
    if names.iter().any(has_device) {
        names.retain(has_device);
    }
    names.sort();
    names.truncate(INTERFACES_MAX);
    let drops = |name: String| {
        let count = |counter: &str| {
            let path = folder.join(&name).join("statistics").join(counter);
            fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        };
        let counts: Vec<u64> = DROPS.into_iter().filter_map(count).collect();
        (!counts.is_empty()).then(|| (name, counts.iter().sum::<u64>()))
    };
    names.into_iter().filter_map(drops).collect()
}

#[cfg(test)]
mod tests;
