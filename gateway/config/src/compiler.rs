//! The program that compiles plugins.

use std::path::PathBuf;
use std::time::Duration;

/// A program that compiles plugins, and the limits for one plugin. It is started as `<program> compile-plugin …` and
/// calls `compile_plugin`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compiler {
    /// Its path.
    pub program: PathBuf,
    /// Limit of processor time. Default 30 s.
    pub processor: Duration,
    /// Limit of memory, in MiB. Default 2,048: twice the need of a plugin that contains a language runtime.
    pub memory_mib: u64,
    /// Limit of wall-clock time. Default 45 s, since a push waits at most a minute for its answer.
    pub within: Duration,
}

impl Compiler {
    /// Compiles with this program and the default limits.
    pub fn at(program: PathBuf) -> Compiler {
        let (processor, within) = (Duration::from_secs(30), Duration::from_secs(45));
        Compiler { program, processor, memory_mib: 2_048, within }
    }

    /// The running program, even if its file was replaced by a newer one.
    pub fn this_program() -> Compiler {
        Compiler::at(PathBuf::from(format!("/proc/{}/exe", std::process::id())))
    }
}
