//! Native code of plugins: its compilation, in this process or in another one, and its cache on disk.
//!
//! The compiler process holds no key. The gateway authenticates its output: it reads the pipe of a process that it
//! started itself ([`CompilerOutput`]), and computes the MAC for the [`Cache`].
//!
//! The cache's folder is accessible to its owner only. It holds a key, created with the folder, and one file per plugin
//! with a MAC over name and code, followed by the code. Code without this host's MAC is never run. The cache is not
//! portable; another host compiles the plugin again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use evenkeel_model::Hook;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, MemoryReach, NativeCode, code_config};
use crate::limits::BINARY_BYTES_MAX;
use crate::plugin_file::{examine, sha256, wrapped};
use crate::refusal::PluginRefusal;

/// First byte of an answer with code. The code's length follows, as a little-endian 64-bit number, then the code.
const CODE: u8 = b'C';

/// Bytes before the code.
const HEAD_BYTES: usize = 9;

/// First byte of an answer with an error.
const REFUSAL: u8 = b'R';

/// Marks an order for an engine of [`MemoryReach::Wide`].
const WIDE: u8 = b'W';
const NARROW: u8 = b'N';

/// Maximum size of an order: one with a plugin of maximum size.
pub const ORDER_BYTES_MAX: usize = 1 + BINARY_BYTES_MAX;

/// Maximum size of an answer.
const ANSWER_BYTES_MAX: usize = HEAD_BYTES + CODE_BYTES_MAX;

/// A plugin to compile, and the reach of the engine that will run it.
#[derive(Debug)]
pub struct CompileOrder<'a> {
    reach: [u8; 1],
    plugin: &'a [u8],
}

/// The output of a compiler that this process started. Native code becomes trusted by this type, so it is made from a
/// child's pipe only.
#[derive(Default, Debug)]
pub struct CompilerOutput(pub(crate) Vec<u8>);

impl CompilerOutput {
    /// Reads until the pipe is closed, at most one byte more than an answer may have.
    pub fn read(stdout: ChildStdout) -> CompilerOutput {
        let mut bytes = Vec::new();
        // `CompileOrder::accept` refuses output that is cut.
        let _ = stdout.take(ANSWER_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        CompilerOutput(bytes)
    }

    /// True if the code is larger than [`CODE_BYTES_MAX`].
    pub fn is_too_long(&self) -> bool {
        self.0.len() > ANSWER_BYTES_MAX
    }
}

/// Errors found only by compiling.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CompileError {
    NotAPlugin(Box<str>),
    HookMissing(Box<str>),
    ExportMissing(Box<str>),
    Engine(Box<str>),
}

impl<'a> CompileOrder<'a> {
    /// The order to compile this plugin for this engine.
    pub fn new(engine: &Engine, plugin: &'a [u8]) -> CompileOrder<'a> {
        let reach = match engine.0.reach {
            MemoryReach::Wide => WIDE,
            MemoryReach::Narrow => NARROW,
        };
        CompileOrder { reach: [reach], plugin }
    }

    /// The bytes for the compiler's input, in order.
    pub fn words(&self) -> [&[u8]; 2] {
        [&self.reach, self.plugin]
    }

    /// Decodes the output of a compiler that was started with this order and exited with success.
    ///
    /// # Errors
    /// The compiler's error; [`PluginRefusal::Compiler`] if the output is no answer.
    pub fn accept(&self, output: CompilerOutput) -> Result<NativeCode, PluginRefusal> {
        let CompilerOutput(mut answer) = output;
        match answer.first() {
            Some(&REFUSAL) => Err(serde_json::from_slice(&answer[1..]).map_or_else(
                |_| no_answer(),
                |said| match said {
                    CompileError::NotAPlugin(said) => PluginRefusal::NotAPlugin(said),
                    CompileError::HookMissing(name) => {
                        let hook = Hook::ALL.into_iter().find(|hook| hook.name() == &*name);
                        hook.map_or_else(no_answer, PluginRefusal::HookMissing)
                    }
                    CompileError::ExportMissing(name) => PluginRefusal::ExportMissing(name),
                    CompileError::Engine(said) => PluginRefusal::Engine(said),
                },
            )),
            Some(&CODE) if has_its_length(&answer) => {
                answer.drain(..HEAD_BYTES);
                Ok(NativeCode::trusted(answer))
            }
            Some(_) | None => Err(no_answer()),
        }
    }
}

/// True if the code has the length that the answer states, so that it is neither cut nor followed by anything.
fn has_its_length(answer: &[u8]) -> bool {
    let head = answer.first_chunk::<HEAD_BYTES>();
    head.is_some_and(|[_, length @ ..]| {
        u64::from_le_bytes(*length) == (answer.len() - HEAD_BYTES) as u64
    })
}

fn no_answer() -> PluginRefusal {
    PluginRefusal::Compiler("the compiler's output is not an answer".into())
}

/// The compiler's work: takes an order, as written by [`CompileOrder::words`], and returns the answer for
/// [`CompileOrder::accept`].
pub fn compile_order(order: &[u8]) -> Vec<u8> {
    let (reach, plugin) = match order {
        [WIDE, plugin @ ..] => (MemoryReach::Wide, plugin),
        [NARROW, plugin @ ..] => (MemoryReach::Narrow, plugin),
        _ => return refusal(&PluginRefusal::Compiler("invalid order".into())),
    };
    match compile(reach, plugin) {
        Ok(code) => {
            let length = (code.bytes().len() as u64).to_le_bytes();
            [&[CODE], &length[..], code.bytes()].concat()
        }
        Err(refused) => refusal(&refused),
    }
}

fn refusal(refused: &PluginRefusal) -> Vec<u8> {
    let said = match refused {
        PluginRefusal::NotAPlugin(said) => CompileError::NotAPlugin(said.clone()),
        PluginRefusal::HookMissing(hook) => CompileError::HookMissing(hook.name().into()),
        PluginRefusal::ExportMissing(name) => CompileError::ExportMissing(name.clone()),
        PluginRefusal::Engine(said) => CompileError::Engine(said.clone()),
        // Other errors were excluded before the order.
        other => CompileError::Engine(other.to_string().into()),
    };
    let words = serde_json::to_vec(&said).expect("a text is JSON");
    [&[REFUSAL], &words[..]].concat()
}

/// Compiles a plugin for this engine in this process, without limits.
///
/// # Errors
/// If it is not a plugin, or the engine rejects it.
pub fn compile_here(engine: &Engine, plugin: &[u8]) -> Result<NativeCode, PluginRefusal> {
    compile(engine.0.reach, plugin)
}

/// Compiles without an engine that could run the code: that would reserve more address space than a
/// compiler may have.
fn compile(reach: MemoryReach, plugin: &[u8]) -> Result<NativeCode, PluginRefusal> {
    let (manifest, is_flat) = examine(plugin)?;
    let binary = wrapped(plugin, &manifest)?;
    let precompile = |engine: wasmtime::Engine| match is_flat {
        true => engine.precompile_module(plugin),
        false => engine.precompile_component(&binary),
    };
    wasmtime::Engine::new(&code_config(reach))
        .and_then(precompile)
        .map(NativeCode::trusted)
        .map_err(|error| PluginRefusal::Engine(format!("{error:#}").into()))
}

/// Maximum total size: about a hundred plugins of usual size, or a few that contain an interpreter.
const BYTES_MAX: u64 = 256 << 20;

/// Maximum number of files, so that listing them stays fast.
const FILES_MAX: usize = 512;

/// Maximum code size of one plugin: four times what the largest accepted plugin compiles to.
pub const CODE_BYTES_MAX: usize = 64 << 20;

const KEY: &str = "key";
const KEY_BYTES: usize = 32;

/// HMAC with SHA-256 (RFC 2104).
const MAC_BYTES: usize = 32;

/// A folder of compiled code, each file with a MAC of this host.
pub struct Cache {
    /// Folders inside it are not touched.
    pub folder: PathBuf,
    key: hmac::Key,
    /// Identifies engine, configuration and program. Code for another engine is ignored.
    engine: u64,
    /// Counter for the names of unfinished files.
    writing: AtomicU64,
}

/// The result of a look-up.
#[derive(Debug)]
pub enum Cached {
    /// Code that this host compiled for the plugin.
    Code(NativeCode),
    /// No file, or one of another host, engine or version.
    Nothing,
    /// The file was not written by this host, and was removed.
    Forged,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({})", self.folder.display())
    }
}

/// Creates the folder if it is missing, and requires that only this user may enter it.
///
/// # Errors
/// If the folder cannot be created, is a link or a file, or belongs to another user; [`io::ErrorKind::InvalidInput`] if it
/// is this user's and open to others.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    let denied = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let facts = fs::symlink_metadata(folder)?;
    if !facts.is_dir() {
        return denied("it is not a folder");
    }
    if facts.uid() != nix::unistd::geteuid().as_raw() {
        return denied("it belongs to another user");
    }
    if facts.mode() & 0o077 != 0 {
        let open = "other users may enter it: run `chmod 700` on it";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, open));
    }
    Ok(())
}

impl Cache {
    /// Opens or creates the cache in this folder, for code of this engine.
    ///
    /// # Errors
    /// If the folder cannot be used, or other users could write there or read the key.
    pub fn open(folder: &Path, engine: &Engine) -> io::Result<Cache> {
        private_folder(folder)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key(folder)?);
        let mut hasher = DefaultHasher::new();
        let wasm = wasmtime::Engine::new(&code_config(engine.0.reach)).map_err(io::Error::other)?;
        wasm.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        let (folder, engine) = (folder.to_owned(), hasher.finish());
        Ok(Cache { folder, key, engine, writing: AtomicU64::new(0) })
    }

    /// Looks for the code of this plugin. An invalid file counts as absent.
    pub fn get(&self, plugin: &[u8]) -> Cached {
        let name = self.name(plugin);
        let path = self.folder.join(&name);
        let Ok(mut file) = File::open(&path) else { return Cached::Nothing };
        let mut kept = Vec::new();
        let whole =
            (&mut file).take((MAC_BYTES + CODE_BYTES_MAX + 1) as u64).read_to_end(&mut kept);
        let genuine = whole.is_ok()
            && kept.split_at_checked(MAC_BYTES).is_some_and(|(mac, code)| {
                hmac::verify(&self.key, &message(&name, code), mac).is_ok()
            });
        if !genuine {
            // The code is rejected even if the file cannot be removed.
            let _ = fs::remove_file(&path);
            return Cached::Forged;
        }
        // Marks the file as recently used. If that fails, it is evicted earlier.
        let _ = file.set_modified(SystemTime::now());
        kept.drain(..MAC_BYTES);
        Cached::Code(NativeCode::trusted(kept))
    }

    /// Stores a plugin's code, and evicts the least recently used code if necessary.
    ///
    /// # Errors
    /// If the code cannot be written. The plugin is then compiled again next time.
    pub fn put(&self, plugin: &[u8], code: &NativeCode) -> io::Result<()> {
        if code.bytes().len() > CODE_BYTES_MAX {
            return Ok(());
        }
        let name = self.name(plugin);
        let mac = hmac::sign(&self.key, &message(&name, code.bytes()));
        let number = self.writing.fetch_add(1, Relaxed);
        let unfinished = self.folder.join(format!("{}-{number}.new", std::process::id()));
        let written = write_new(&unfinished, &[mac.as_ref(), code.bytes()])
            .and_then(|()| fs::rename(&unfinished, self.folder.join(&name)));
        if written.is_err() {
            // The file may not exist.
            let _ = fs::remove_file(&unfinished);
        }
        written?;
        self.trim()
    }

    /// Removes the plugin's file, whose code did not load.
    pub fn forget(&self, plugin: &[u8]) {
        // The file may not exist.
        let _ = fs::remove_file(self.folder.join(self.name(plugin)));
    }

    /// Evicts the oldest files until the rest fits.
    fn trim(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name() == KEY {
                continue;
            }
            // Another gateway removed the file meanwhile.
            let Ok(facts) = entry.metadata() else { continue };
            if facts.is_dir() {
                continue;
            }
            files.push((facts.modified()?, facts.len(), entry.path()));
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let mut count = files.len();
        for (_, size, path) in files {
            if bytes <= BYTES_MAX && count <= FILES_MAX {
                break;
            }
            fs::remove_file(path)?;
            (bytes, count) = (bytes - size, count - 1);
        }
        Ok(())
    }

    fn name(&self, plugin: &[u8]) -> String {
        format!("{}-{:016x}.cwasm", HEXLOWER.encode(&sha256(plugin)), self.engine)
    }
}

fn message(name: &str, code: &[u8]) -> Vec<u8> {
    [name.as_bytes(), &[0], code].concat()
}

/// Reads or creates the key of this folder. Two gateways that start at the same time get the same key.
fn key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY);
    if !path.exists() {
        let mut key = [0; KEY_BYTES];
        let unspecific = |_| io::Error::other("the system has no randomness");
        SystemRandom::new().fill(&mut key).map_err(unspecific)?;
        let unfinished = folder.join(format!("{KEY}-{}.new", std::process::id()));
        write_new(&unfinished, &[&key])?;
        // The first writer wins: a hard link does not replace an existing file.
        let linked = fs::hard_link(&unfinished, &path);
        fs::remove_file(&unfinished)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let facts = fs::symlink_metadata(&path)?;
    let mut key = [0; KEY_BYTES];
    if !facts.is_file() || facts.len() != key.len() as u64 || facts.mode() & 0o077 != 0 {
        let why = format!("`{KEY}` in it is not 32 bytes readable by its owner only: remove it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    File::open(&path)?.read_exact(&mut key)?;
    Ok(key)
}

/// Creates a file readable by its owner only; fails if it exists.
fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

#[cfg(test)]
mod tests;
