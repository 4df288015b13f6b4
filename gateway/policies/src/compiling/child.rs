//! The process that compiles one plugin. It limits and confines itself before it reads any input.

use std::io::{self, Read, Write};

use evenkeel_process::sandbox;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

/// One byte more than the largest order, so that a longer order is recognised.
const ORDER_MAX: u64 = evenkeel_host::ORDER_BYTES_MAX as u64 + 1;

/// Maximum open files: the three standard streams, and files that the program opens.
const FILES_MAX: u64 = 16;

/// Reads an order from standard input and writes the answer to standard output: the body of the subcommand
/// `compile-plugin`, which the gateway starts. The process is killed when its parent exits.
pub fn compile_plugin(processor_seconds: u64, memory_mib: u64) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let limits = [
        // SIGXCPU ends the process at the soft limit, SIGKILL one second later.
        (Resource::RLIMIT_CPU, processor_seconds, processor_seconds + 1),
        (Resource::RLIMIT_AS, memory_mib << 20, memory_mib << 20),
        (Resource::RLIMIT_NOFILE, FILES_MAX, FILES_MAX),
        (Resource::RLIMIT_FSIZE, 0, 0),
        (Resource::RLIMIT_CORE, 0, 0),
    ];
    for (resource, soft, hard) in limits {
        setrlimit(resource, soft, hard)?;
    }
    // The kernel kills this process first when memory is short. A failure of this write is harmless.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // The gateway logs it.
    sandbox::confine_compiler().iter().for_each(|missing| eprintln!("{missing}"));
    let mut order = Vec::new();
    io::stdin().lock().take(ORDER_MAX).read_to_end(&mut order)?;
    let answer = evenkeel_host::fulfil(&order);
    let mut out = io::stdout().lock();
    out.write_all(&answer)?;
    out.flush()
}
