//! The process that compiles one plugin: it gives up what it does not need before it reads a byte.

use std::io::{self, Read, Write};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

/// A longer order is none; one byte more shows that.
const ORDER_MAX: u64 = evenkeel_host::ORDER_BYTES_MAX as u64 + 1;

/// Standard streams, and those that the program itself may have open.
const FILES_MAX: u64 = 16;

/// Reads an order on standard input, and answers on standard output: the body of the verb `compile-plugin`, which the gateway
/// starts. It ends with whoever started it.
///
/// # Errors
/// Where the limits cannot be set, or nobody listens.
pub fn compile_plugin(processor_seconds: u64, memory_mib: u64) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let limits = [
        // One second to die in; then it is killed.
        (Resource::RLIMIT_CPU, processor_seconds, processor_seconds + 1),
        (Resource::RLIMIT_AS, memory_mib << 20, memory_mib << 20),
        (Resource::RLIMIT_NOFILE, FILES_MAX, FILES_MAX),
        (Resource::RLIMIT_FSIZE, 0, 0),
        (Resource::RLIMIT_CORE, 0, 0),
    ];
    for (resource, soft, hard) in limits {
        setrlimit(resource, soft, hard)?;
    }
    // Of all processes this one is missed least; where that cannot be said, it is as likely to go as any.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let mut order = Vec::new();
    io::stdin().lock().take(ORDER_MAX).read_to_end(&mut order)?;
    let answer = evenkeel_host::fulfil(&order);
    let mut out = io::stdout().lock();
    out.write_all(&answer)?;
    out.flush()
}
