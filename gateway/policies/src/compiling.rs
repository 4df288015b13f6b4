//! Compiles plugins. A plugin that is not in the cache is compiled in a process of its own with limits, so that a
//! malicious plugin harms only that process.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Once};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use evenkeel_config::{Compiler, GatewayConfig};
use evenkeel_host as host;
use evenkeel_process::sandbox;
use host::{Cached, CompileOrder, CompilerOutput, Component, NativeCode, PluginRefusal};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

/// Bytes read from a compiler's standard error.
const WORDS_MAX: u64 = 4 << 10;

/// Interval of checks whether a compiler that closed its output has exited.
const SETTLE_EVERY: Duration = Duration::from_millis(1);

/// Maximum checks: one second. Releasing the memory of a process takes milliseconds.
const SETTLE_LOOKS: u32 = 1_000;

/// Added to the nice value of the compiler. On a machine with busy workers it gets about a tenth of a worker's processor
/// time. A larger value would keep an honest plugin past [`Compiler::within`].
const NICE: i32 = 10;

/// The compiler program's subcommand.
const VERB: &str = "compile-plugin";

/// One byte more than the largest order, so that a longer order is recognised.
const ORDER_MAX: u64 = host::ORDER_BYTES_MAX as u64 + 1;

/// Maximum open files: the three standard streams, and files that the program opens.
const FILES_MAX: u64 = 16;

/// Compiles plugins. Clones share the engine and the cache.
#[derive(Clone)]
pub struct Foundry {
    engine: host::Engine,
    compiler: Option<Compiler>,
    cache: Option<Arc<host::Cache>>,
}

impl std::fmt::Debug for Foundry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Foundry({:?}, {:?})", self.compiler, self.cache)
    }
}

impl Foundry {
    /// Compiles in this process, without a cache.
    pub fn bare(engine: host::Engine) -> Foundry {
        Foundry { engine, compiler: None, cache: None }
    }

    /// Compiles by `[gateway] cache` and the compiler of these settings.
    pub fn of(engine: host::Engine, settings: &GatewayConfig) -> Foundry {
        let compiler = settings.compiler.clone();
        // A program that embeds the gateway gets a cache only if its configuration names one.
        let usual = settings.gateway.cache == evenkeel_config::CacheFolder::Usual;
        let folders = match usual && compiler.is_none() {
            true => Vec::new(),
            false => settings.gateway.cache.candidates(),
        };
        let open = |folder: &PathBuf| match host::Cache::open(folder, &engine) {
            Ok(cache) => Some(Arc::new(cache)),
            // The user's own folder is meant to be used.
            Err(error) if usual && error.kind() != io::ErrorKind::InvalidInput => {
                tracing::debug!(folder = %folder.display(), %error, "folder cannot cache compiled plugins");
                None
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "folder keeps no compiled plugins, revisions of policies and history of sessions");
                None
            }
        };
        let cache = folders.iter().find_map(open);
        Foundry { engine, compiler, cache }
    }

    /// The engine that runs the plugins.
    pub fn engine(&self) -> &host::Engine {
        &self.engine
    }

    /// The folder of compiled code, if there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.cache.as_deref().map(|cache| &*cache.folder)
    }

    /// Takes a plugin from the cache, or checks and compiles it.
    pub fn vet(&self, plugin: &[u8]) -> Result<Component, PluginRefusal> {
        if let Some(known) = Component::known(&self.engine, plugin) {
            return Ok(known);
        }
        if self.compiler.is_none() && self.cache.is_none() {
            return Component::vet(&self.engine, plugin);
        }
        host::read_manifest(plugin)?;
        if let Some(kept) = self.cached(plugin) {
            return Ok(kept);
        }
        let is_ours = host::shipped().iter().any(|shipped| shipped.bytes == plugin);
        let code = match &self.compiler {
            // Plugins in this binary are trusted, and starting a process would delay the start of the gateway.
            Some(compiler) if !is_ours => {
                CompilerProcess(compiler).compile(&self.engine, plugin)?
            }
            Some(_) | None => host::compile_here(&self.engine, plugin)?,
        };
        let component = Component::vet_native(&self.engine, plugin, &code)?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put(plugin, &code)
        {
            tracing::warn!(%error, "compiled plugin not cached");
        }
        Ok(component)
    }

    /// The compiled plugin from the cache, if it still fits this engine.
    fn cached(&self, plugin: &[u8]) -> Option<Component> {
        let cache = self.cache.as_deref()?;
        match cache.get(plugin) {
            Cached::Code(code) => match Component::vet_native(&self.engine, plugin, &code) {
                Ok(component) => Some(component),
                Err(refused) => {
                    tracing::warn!(%refused, "cached plugin does not fit this engine; compiling it again");
                    cache.forget(plugin);
                    None
                }
            },
            Cached::Nothing => None,
            Cached::Forged => {
                tracing::warn!(?cache, "cached plugin was modified; removed, compiling it again");
                None
            }
        }
    }
}

/// A process that compiles one plugin.
struct CompilerProcess<'a>(&'a Compiler);

impl CompilerProcess<'_> {
    /// Compiles a plugin in another process and waits for it.
    fn compile(&self, engine: &host::Engine, plugin: &[u8]) -> Result<NativeCode, PluginRefusal> {
        let order = CompileOrder::new(engine, plugin);
        let failed = |error: io::Error| {
            let said = format!("cannot start {}: {error}", self.0.program.display());
            PluginRefusal::Compiler(said.into())
        };
        let mut child = self.start().map_err(failed)?;
        let CompilerReply { output, words, late } = exchange(&mut child, &order, self.0.within);
        let status = wait_or_kill(&mut child).map_err(failed)?;
        if late {
            return Err(limit(format!("{} s", self.0.within.as_secs())));
        }
        if output.is_too_long() {
            let most = host::CODE_BYTES_MAX >> 20;
            return Err(limit(format!("{most} MiB of machine code")));
        }
        if status.success() {
            static WARNED: Once = Once::new();
            let said = words.trim();
            if !said.is_empty() {
                WARNED.call_once(|| tracing::warn!(?said, "plugin compiler is not fully confined"));
            }
            return order.accept(output);
        }
        Err(self.ended(status, &words))
    }

    fn start(&self) -> io::Result<Child> {
        Command::new(&self.0.program)
            .arg(VERB)
            .arg("--processor-seconds")
            .arg(self.0.processor.as_secs().to_string())
            .arg("--memory-mib")
            .arg(self.0.memory_mib.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// The reason for an exit without an answer.
    fn ended(&self, status: ExitStatus, words: &str) -> PluginRefusal {
        let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
        let last = words.lines().last().unwrap_or("it said nothing");
        match signal {
            Some(Signal::SIGXCPU | Signal::SIGKILL) => {
                limit(format!("{} s of processor time", self.0.processor.as_secs()))
            }
            // The standard library prints this on a failed allocation.
            Some(Signal::SIGABRT) if words.contains("memory allocation of") => {
                limit(format!("{} MiB of memory", self.0.memory_mib))
            }
            Some(Signal::SIGSYS) => {
                let said = "the compiler made a system call that it may not make, and was killed";
                PluginRefusal::Compiler(said.into())
            }
            // An order that does not fit into its memory.
            None if last.ends_with("out of memory") => {
                limit(format!("{} MiB of memory", self.0.memory_mib))
            }
            Some(_) | None => {
                PluginRefusal::Compiler(format!("the compiler ended ({status}): {last}").into())
            }
        }
    }
}

fn limit(limit: String) -> PluginRefusal {
    PluginRefusal::CompileLimit(limit.into())
}

/// Waits for the exit of a compiler that closed its output, and kills it after a second.
fn wait_or_kill(child: &mut Child) -> io::Result<ExitStatus> {
    for _ in 0..SETTLE_LOOKS {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(SETTLE_EVERY);
    }
    child.kill()?;
    child.wait()
}

struct CompilerReply {
    output: CompilerOutput,
    words: String,
    /// The compiler did not answer in time.
    late: bool,
}

/// Sends the order to a compiler and reads its answer, for at most `within`.
fn exchange(child: &mut Child, order: &CompileOrder<'_>, within: Duration) -> CompilerReply {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let (done, heard) = crossbeam_channel::bounded::<()>(1);
        scope.spawn(move || {
            let Some(mut stdin) = stdin else { return };
            // A compiler that stops reading reports the reason in its answer or its exit status.
            let _ = order.words().iter().try_for_each(|part| stdin.write_all(part));
        });
        let words = scope.spawn(move || {
            let mut words = Vec::new();
            let read = stderr.map(|stderr| stderr.take(WORDS_MAX).read_to_end(&mut words));
            drop(read);
            String::from_utf8_lossy(&words).into_owned()
        });
        let output = scope.spawn(move || {
            let output = stdout.map(CompilerOutput::read).unwrap_or_default();
            drop(done);
            output
        });
        // No message is ever sent: the channel closes with the end of the output.
        let late =
            matches!(heard.recv_timeout(within), Err(crossbeam_channel::RecvTimeoutError::Timeout));
        // Killing the compiler closes its pipes, which ends the threads that read them.
        if late {
            let _ = child.kill();
        }
        CompilerReply { output: joined(output), words: joined(words), late }
    })
}

/// Returns the thread's result; these threads do not panic.
fn joined<T: Default>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_default()
}

/// The process that compiles one plugin. It limits and confines itself, and lowers its priority, before it reads any input.
///
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
    rustix::process::nice(NICE)?;
    // The kernel kills this process first when memory is short. A failure of this write is harmless.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // The gateway logs it.
    sandbox::confine_compiler().iter().for_each(|missing| eprintln!("{missing}"));
    let mut order = Vec::new();
    io::stdin().lock().take(ORDER_MAX).read_to_end(&mut order)?;
    let answer = host::compile_order(&order);
    let mut out = io::stdout().lock();
    out.write_all(&answer)?;
    out.flush()
}

#[cfg(test)]
mod tests;
