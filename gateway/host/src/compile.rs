//! Compilation of plugins, in this process or in another one.
//!
//! The other process holds no key. The gateway authenticates its output: it reads the pipe of a process that it started
//! itself ([`CompilerOutput`]), and computes the MAC for the [`Cache`](crate::Cache).

use std::io::Read;
use std::process::ChildStdout;

use evenkeel_model::Hook;
use serde::{Deserialize, Serialize};

use crate::cache::CODE_BYTES_MAX;
use crate::component::{look, wrapped};
use crate::engine::{Engine, MemoryReach, code_config};
use crate::limits::BINARY_BYTES_MAX;
use crate::native::NativeCode;
use crate::refused::PluginRefusal;

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
    Engine(Box<str>),
}

impl<'a> CompileOrder<'a> {
    /// The order to compile this plugin for this engine.
    pub fn new(engine: &Engine, plugin: &'a [u8]) -> CompileOrder<'a> {
        let reach = match engine.reach() {
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
                    CompileError::Engine(said) => PluginRefusal::Engine { said },
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
    PluginRefusal::Compiler { said: "the compiler's output is not an answer".into() }
}

/// The compiler's work: takes an order, as written by [`CompileOrder::words`], and returns the answer for
/// [`CompileOrder::accept`].
pub fn fulfil(order: &[u8]) -> Vec<u8> {
    let (reach, plugin) = match order {
        [WIDE, plugin @ ..] => (MemoryReach::Wide, plugin),
        [NARROW, plugin @ ..] => (MemoryReach::Narrow, plugin),
        _ => return refusal(&PluginRefusal::Compiler { said: "invalid order".into() }),
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
        PluginRefusal::Engine { said } => CompileError::Engine(said.clone()),
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
    compile(engine.reach(), plugin)
}

/// Compiles without an engine that could run the code: that would reserve more address space than a
/// compiler may have.
fn compile(reach: MemoryReach, plugin: &[u8]) -> Result<NativeCode, PluginRefusal> {
    let manifest = look(plugin)?;
    let binary = wrapped(plugin, &manifest)?;
    wasmtime::Engine::new(&code_config(reach))
        .and_then(|engine| engine.precompile_component(&binary))
        .map(NativeCode::trusted)
        .map_err(|error| PluginRefusal::Engine { said: format!("{error:#}").into() })
}

#[cfg(test)]
mod tests;
