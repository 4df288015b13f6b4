//! A network namespace of our own: what is measured there, cut there or dropped there is nobody else's.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::Signal;

/// Where ports are reserved; each namespace has its own.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Set in the process that runs inside.
const INSIDE: &str = "EVENKEEL_INSIDE";

/// Runs this command once more inside a new namespace, and gives its exit status; `None` where this is inside already,
/// with its `lo` up.
pub fn enter() -> Result<Option<i32>, String> {
    if std::env::var_os(INSIDE).is_some() {
        // Whoever ends the process outside means this one.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| errno.to_string())?;
        // One that leads its session already has one of its own.
        let _leads_already = nix::unistd::setsid();
        ip("link set lo up")?;
        return Ok(None);
    }
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root, for a network namespace of its own: run it as root".to_owned());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err(format!(
            "needs two cores, {cores} is there: one for what is measured, one for the load"
        ));
    }
    let own = std::env::current_exe().map_err(|error| format!("cannot find itself: {error}"))?;
    // What else runs here must not show more than it has to; everything that is compared inherits it.
    let status = Command::new("unshare")
        .args(["--net", "--", "nice", "-n", "-15"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .map_err(|error| format!("needs unshare (util-linux) and nice (coreutils): {error}"))?;
    Ok(Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))))
}

/// Nobody in this namespace is given one of these ports who asks for any: they belong to somebody who is dead for a while,
/// and comes back. They replace those that were reserved before (ip_local_reserved_ports).
pub fn reserve(ports: impl IntoIterator<Item = u16>) -> Result<(), String> {
    let ports: Vec<String> = ports.into_iter().map(|port| port.to_string()).collect();
    std::fs::write(RESERVED, ports.join(","))
        .map_err(|error| format!("cannot write {RESERVED}: {error}"))
}

/// While it is there, what else runs on this machine waits for us.
///
/// Where the kernel weighs sessions of terminals first and processes of a session then (sched(7), autogroup), being nice
/// or not is nothing to others: this one is a session of its own, and a heavy one for so long.
pub struct First(());

impl First {
    /// From now on.
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
    // Not all kernels do that.
    let _no_sessions_weighed = std::fs::write("/proc/self/autogroup", nice);
}

/// What iproute2 does with these words.
pub fn ip(words: &str) -> Result<(), String> {
    run(Command::new("ip").args(words.split(' ')), &format!("ip {words} (iproute2)"))
}

fn run(command: &mut Command, what: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed: {status}")),
        Err(error) => Err(format!("needs {what}: {error}")),
    }
}
