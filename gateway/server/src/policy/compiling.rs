//! Compiling plugins: from the cache where they were compiled before, else in a process of its own with limits, so that a
//! plugin that means harm costs that process and nothing else.

mod child;

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use evenkeel_host as host;
use host::{Cached, Component, NativeCode, Order, Refused};
use nix::sys::signal::Signal;

use crate::settings::Settings;

pub use child::compile_plugin;

/// What a compiler says on standard error; more is not read.
const WORDS_MAX: u64 = 4 << 10;

/// How often it is looked whether a compiler that closed its output is gone.
const SETTLE_EVERY: Duration = Duration::from_millis(1);

/// One second of looks: to take down the memory of a process takes milliseconds.
const SETTLE_LOOKS: u32 = 1_000;

/// The program that gives another one less of the processor (POSIX), and how much less: where workers have none to spare, it
/// gets about a tenth of what one of them gets. Less would keep an honest plugin past [`Compiler::within`].
const NICE: [&str; 3] = ["nice", "-n", "10"];

/// The verb by which a program is told to compile.
const VERB: &str = "compile-plugin";

/// A program that compiles plugins, and what one plugin may cost. It is started as `<program> compile-plugin …` and calls
/// [`compile_plugin`](crate::compile_plugin).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compiler {
    /// The program.
    pub program: PathBuf,
    /// Processor time. Default 30 s.
    pub processor: Duration,
    /// Memory, in MiB. Default 2,048: twice what a plugin takes that brings an engine for a language.
    pub memory_mib: u64,
    /// By when it is done, whatever else the machine does. Default 45 s: whoever pushes waits for an answer for a minute.
    pub within: Duration,
}

impl Compiler {
    /// A program with the limits by default.
    pub fn at(program: PathBuf) -> Compiler {
        let (processor, within) = (Duration::from_secs(30), Duration::from_secs(45));
        Compiler { program, processor, memory_mib: 2_048, within }
    }

    /// The program that runs now, also after its file was replaced by a newer one.
    pub fn this_program() -> Compiler {
        Compiler::at(PathBuf::from(format!("/proc/{}/exe", std::process::id())))
    }
}

/// Where plugins become components. Clones are the same place.
#[derive(Clone)]
pub(crate) struct Foundry {
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
    /// One that compiles in this process and keeps nothing.
    pub(crate) fn bare(engine: host::Engine) -> Foundry {
        Foundry { engine, compiler: None, cache: None }
    }

    /// As configured.
    pub(crate) fn of(engine: host::Engine, settings: &Settings) -> Foundry {
        let compiler = settings.compiler.clone();
        // Inside another program nothing is kept unless that was said.
        let usual = settings.gateway.cache == crate::settings::CacheFolder::Usual;
        let folders = match usual && compiler.is_none() {
            true => Vec::new(),
            false => settings.gateway.cache.candidates(),
        };
        let open = |folder: &PathBuf| match host::Cache::open(folder, &engine) {
            Ok(cache) => Some(Arc::new(cache)),
            Err(error) if usual => {
                tracing::debug!(folder = %folder.display(), %error, "no cache for compiled plugins there");
                None
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "compiled plugins are not kept");
                None
            }
        };
        let cache = folders.iter().find_map(open);
        Foundry { engine, compiler, cache }
    }

    pub(crate) fn engine(&self) -> &host::Engine {
        &self.engine
    }

    /// The folder of the cache, where there is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.cache.as_deref().map(host::Cache::folder)
    }

    /// Looks at a plugin and compiles it, or takes it from the cache.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn vet(&self, plugin: &[u8]) -> Result<Component, Refused> {
        if let Some(known) = Component::known(&self.engine, plugin) {
            return Ok(known);
        }
        if self.compiler.is_none() && self.cache.is_none() {
            return Component::vet(&self.engine, plugin);
        }
        host::look(plugin)?;
        if let Some(kept) = self.kept(plugin) {
            return Ok(kept);
        }
        let is_ours = host::shipped().iter().any(|shipped| shipped.bytes == plugin);
        let code = match &self.compiler {
            // What is in this binary means no harm, and starting a process costs time at the start.
            Some(compiler) if !is_ours => compiler.compile(&self.engine, plugin)?,
            Some(_) | None => host::compile_here(&self.engine, plugin)?,
        };
        let component = Component::vet_native(&self.engine, plugin, &code)?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put(plugin, &code)
        {
            tracing::warn!(%error, "a compiled plugin was not kept");
        }
        Ok(component)
    }

    /// From the cache, where it is there and still fits.
    fn kept(&self, plugin: &[u8]) -> Option<Component> {
        let cache = self.cache.as_deref()?;
        match cache.get(plugin) {
            Cached::Code(code) => match Component::vet_native(&self.engine, plugin, &code) {
                Ok(component) => Some(component),
                Err(refused) => {
                    tracing::warn!(%refused, "a compiled plugin that was kept does not fit; it is compiled anew");
                    cache.forget(plugin);
                    None
                }
            },
            Cached::Nothing => None,
            Cached::Forged => {
                tracing::warn!(
                    ?cache,
                    "a compiled plugin was changed by somebody else; it is gone, and compiled anew"
                );
                None
            }
        }
    }
}

impl Compiler {
    /// Has another process compile a plugin, and waits for it.
    fn compile(&self, engine: &host::Engine, plugin: &[u8]) -> Result<NativeCode, Refused> {
        let order = Order::new(engine, plugin);
        let failed = |error: std::io::Error| {
            let said = format!("cannot start {}: {error}", self.program.display());
            Refused::Compiler { said: said.into() }
        };
        let mut child = self.start().map_err(failed)?;
        let Spoken { answer, words, late } = converse(&mut child, &order, self.within);
        let status = settle(&mut child).map_err(failed)?;
        if late {
            return Err(limit(format!("{} s", self.within.as_secs())));
        }
        if answer.len() > ANSWER_MAX {
            let most = host::CODE_BYTES_MAX >> 20;
            return Err(limit(format!("{most} MiB of machine code")));
        }
        if status.success() {
            return order.accept(answer);
        }
        Err(self.ended(status, &words))
    }

    /// Starts the process, with less of the processor where there is a program for that.
    fn start(&self) -> std::io::Result<Child> {
        let [nice, arguments @ ..] = NICE;
        let mut low = Command::new(nice);
        low.args(arguments).arg(&self.program);
        match self.spawn(low) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.spawn(Command::new(&self.program))
            }
            started => started,
        }
    }

    fn spawn(&self, mut command: Command) -> std::io::Result<Child> {
        command
            .arg(VERB)
            .arg("--processor-seconds")
            .arg(self.processor.as_secs().to_string())
            .arg("--memory-mib")
            .arg(self.memory_mib.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// Why it ended before it had answered.
    fn ended(&self, status: ExitStatus, words: &str) -> Refused {
        let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
        match signal {
            Some(Signal::SIGXCPU | Signal::SIGKILL) => {
                limit(format!("{} s of processor time", self.processor.as_secs()))
            }
            // What the standard library says when there is no memory.
            Some(Signal::SIGABRT) if words.contains("memory allocation of") => {
                limit(format!("{} MiB of memory", self.memory_mib))
            }
            Some(_) | None => {
                let last = words.lines().last().unwrap_or("it said nothing");
                Refused::Compiler { said: format!("the compiler ended ({status}): {last}").into() }
            }
        }
    }
}

fn limit(limit: String) -> Refused {
    Refused::CompileLimit { limit: limit.into() }
}

/// How a compiler ended that has said all it will; one that does not end is ended.
fn settle(child: &mut Child) -> std::io::Result<ExitStatus> {
    for _ in 0..SETTLE_LOOKS {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(SETTLE_EVERY);
    }
    child.kill()?;
    child.wait()
}

/// Code, its MAC and the byte before it.
const ANSWER_MAX: usize = host::CODE_BYTES_MAX + 33;

struct Spoken {
    answer: Vec<u8>,
    words: String,
    /// It did not end in time.
    late: bool,
}

/// Gives a compiler its order and hears its answer, in time.
fn converse(child: &mut Child, order: &Order<'_>, within: Duration) -> Spoken {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let (done, heard) = crossbeam_channel::bounded::<()>(1);
        scope.spawn(move || {
            let Some(mut stdin) = stdin else { return };
            // One that does not read to the end has its reasons, and says them otherwise.
            let _ = order.words().iter().try_for_each(|part| stdin.write_all(part));
        });
        let words = scope.spawn(move || {
            let mut words = Vec::new();
            let read = stderr.map(|stderr| stderr.take(WORDS_MAX).read_to_end(&mut words));
            drop(read);
            String::from_utf8_lossy(&words).into_owned()
        });
        let answer = scope.spawn(move || {
            let mut answer = Vec::new();
            let most = ANSWER_MAX as u64 + 1;
            // What breaks off is no answer, and is seen as such.
            let read = stdout.map(|stdout| stdout.take(most).read_to_end(&mut answer));
            drop(read);
            drop(done);
            answer
        });
        // Nothing is sent: it is heard when the other side is gone.
        let late =
            matches!(heard.recv_timeout(within), Err(crossbeam_channel::RecvTimeoutError::Timeout));
        // It has said all it will; what it holds open is closed by that, so that nobody waits for it.
        if late {
            let _ = child.kill();
        }
        Spoken { answer: joined(answer), words: joined(words), late }
    })
}

/// What these threads do does not panic.
fn joined<T: Default>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_default()
}

#[cfg(test)]
mod tests;
