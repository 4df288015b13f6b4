//! Private network and PID namespaces, so that filters, routes and load do not interfere with the host, and no process
//! is left behind.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Set in the process that runs inside.
const INSIDE: &str = "EVENKEEL_INSIDE";

/// Runs this command again inside a new namespace and returns its exit status; `None` inside it, with `lo` up.
pub fn enter() -> Result<Option<i32>, String> {
    if std::env::var_os(INSIDE).is_some() {
        // Fails if the process leads a session already.
        let _leads_already = nix::unistd::setsid();
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        return match up.is_ok_and(|status| status.success()) {
            true => Ok(None),
            false => Err("`ip link set lo up` fails; it needs iproute2".to_owned()),
        };
    }
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root, for a network namespace of its own: run it as root".to_owned());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err(format!(
            "needs two cores, {cores} is there: one for the gateway, one for the load"
        ));
    }
    let own = std::env::current_exe().map_err(|error| format!("cannot find itself: {error}"))?;
    // All processes inside end with this one, also those that a gateway started: setpriv ends unshare, which ends the
    // first process of its PID namespace. A lower nice value reduces the influence of other processes.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--", "nice", "-n", "-15"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .map_err(|error| format!("needs setpriv and unshare (util-linux): {error}"))?;
    Ok(Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))))
}

/// Excludes the ports of killed processes, which will be restarted, from automatic assignment
/// (ip_local_reserved_ports). Replaces earlier reservations.
pub fn reserve(ports: impl IntoIterator<Item = u16>) -> Result<(), String> {
    let ports: Vec<String> = ports.into_iter().map(|port| port.to_string()).collect();
    std::fs::write(RESERVED, ports.join(","))
        .map_err(|error| format!("cannot write {RESERVED}: {error}"))
}

/// Raises the priority of this process until dropped.
///
/// With autogroup (sched(7)) nice values count only within a session, so the session itself is weighted.
pub struct First(());

impl First {
    pub fn come() -> First {
        weigh("-20");
        First(())
    }
}

impl Drop for First {
    fn drop(&mut self) {
        weigh("0");
    }
}

fn weigh(nice: &str) {
    // Not all kernels have autogroup.
    let _no_sessions_weighed = std::fs::write("/proc/self/autogroup", nice);
}
