//! Compilation of plugins, in this process or in another one.

use evenkeel_core::Hook;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::component::{look, wrapped};
use crate::engine::{Engine, Reach, code_config};
use crate::limits::BINARY_BYTES_MAX;
use crate::native::NativeCode;
use crate::refused::Refused;

/// Key and MAC: HMAC with SHA-256 (RFC 2104).
const MAC_BYTES: usize = 32;

/// First byte of an answer with code.
const CODE: u8 = b'C';

/// First byte of an answer with an error.
const REFUSAL: u8 = b'R';

/// Marks an order for an engine of [`Reach::Wide`].
const WIDE: u8 = b'W';
const NARROW: u8 = b'N';

/// Maximum size of an order: one with a plugin of maximum size.
pub const ORDER_BYTES_MAX: usize = MAC_BYTES + 1 + BINARY_BYTES_MAX;

/// A plugin to compile, the reach of the engine that will run it, and the key that authenticates
/// the answer.
#[derive(Debug)]
pub struct Order<'a> {
    key: [u8; MAC_BYTES],
    reach: [u8; 1],
    plugin: &'a [u8],
}

/// Errors found only by compiling.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    NotAPlugin(Box<str>),
    HookMissing(Box<str>),
    Engine(Box<str>),
}

impl<'a> Order<'a> {
    /// # Panics
    /// If the system has no randomness.
    pub fn new(engine: &Engine, plugin: &'a [u8]) -> Order<'a> {
        let mut key = [0; MAC_BYTES];
        SystemRandom::new().fill(&mut key).expect("a system has randomness");
        let reach = match engine.reach() {
            Reach::Wide => WIDE,
            Reach::Narrow => NARROW,
        };
        Order { key, reach: [reach], plugin }
    }

    /// The bytes for the compiler's input, in order.
    pub fn words(&self) -> [&[u8]; 3] {
        [&self.key, &self.reach, self.plugin]
    }

    /// Decodes the compiler's answer.
    ///
    /// # Errors
    /// The compiler's error; [`Refused::Compiler`] if the bytes do not answer this order.
    pub fn accept(&self, mut answer: Vec<u8>) -> Result<NativeCode, Refused> {
        match answer.first() {
            Some(&REFUSAL) => Err(serde_json::from_slice(&answer[1..]).map_or_else(
                |_| no_answer(),
                |said| match said {
                    Answer::NotAPlugin(said) => Refused::NotAPlugin { said },
                    Answer::HookMissing(name) => {
                        let hook = Hook::ALL.into_iter().find(|hook| hook.name() == &*name);
                        hook.map_or_else(no_answer, |hook| Refused::HookMissing { hook })
                    }
                    Answer::Engine(said) => Refused::Engine { said },
                },
            )),
            Some(&CODE) if answer.len() > 1 + MAC_BYTES => {
                let (mac, code) = answer[1..].split_at(MAC_BYTES);
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
                hmac::verify(&key, code, mac).map_err(|_| no_answer())?;
                answer.drain(..=MAC_BYTES);
                Ok(NativeCode::trusted(answer))
            }
            Some(_) | None => Err(no_answer()),
        }
    }
}

fn no_answer() -> Refused {
    Refused::Compiler { said: "the compiler's output is not an answer".into() }
}

/// The compiler's work: takes an order, as written by [`Order::words`], and returns the answer for
/// [`Order::accept`].
pub fn fulfil(order: &[u8]) -> Vec<u8> {
    let (key, reach, plugin) = match order.split_at_checked(MAC_BYTES) {
        Some((key, [WIDE, plugin @ ..])) => (key, Reach::Wide, plugin),
        Some((key, [NARROW, plugin @ ..])) => (key, Reach::Narrow, plugin),
        Some(_) | None => {
            return refusal(&Refused::Compiler { said: "invalid order".into() });
        }
    };
    match compile(reach, plugin) {
        Ok(code) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            let mac = hmac::sign(&key, code.bytes());
            [&[CODE], mac.as_ref(), code.bytes()].concat()
        }
        Err(refused) => refusal(&refused),
    }
}

fn refusal(refused: &Refused) -> Vec<u8> {
    let said = match refused {
        Refused::NotAPlugin { said } => Answer::NotAPlugin(said.clone()),
        Refused::HookMissing { hook } => Answer::HookMissing(hook.name().into()),
        Refused::Engine { said } => Answer::Engine(said.clone()),
        // Other errors were excluded before the order.
        other => Answer::Engine(other.to_string().into()),
    };
    let words = serde_json::to_vec(&said).expect("a text is JSON");
    [&[REFUSAL], &words[..]].concat()
}

/// Compiles a plugin for this engine in this process, without limits.
///
/// # Errors
/// If it is not a plugin, or the engine rejects it.
pub fn compile_here(engine: &Engine, plugin: &[u8]) -> Result<NativeCode, Refused> {
    compile(engine.reach(), plugin)
}

/// Compiles without an engine that could run the code: that would reserve more address space than a
/// compiler may have.
fn compile(reach: Reach, plugin: &[u8]) -> Result<NativeCode, Refused> {
    let manifest = look(plugin)?;
    let binary = wrapped(plugin, &manifest)?;
    wasmtime::Engine::new(&code_config(reach))
        .and_then(|engine| engine.precompile_component(&binary))
        .map(NativeCode::trusted)
        .map_err(|error| Refused::Engine { said: format!("{error:#}").into() })
}

#[cfg(test)]
mod tests;
