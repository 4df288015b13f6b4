//! Compiling, here or in another process: what that one is told, and what it says.
//!
//! A plugin that means harm may take minutes and gigabytes to compile, so whoever can starts a process for it, with
//! limits. That process reads an [`Order`] and answers with what [`fulfil`] says.

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

/// First byte of an answer that brings code.
const CODE: u8 = b'C';

/// First byte of an answer that says why there is none.
const REFUSAL: u8 = b'R';

/// For an engine of which reach an order is.
const WIDE: u8 = b'W';
const NARROW: u8 = b'N';

/// Bytes of the longest order: of a plugin that is as large as may be.
pub const ORDER_BYTES_MAX: usize = MAC_BYTES + 1 + BINARY_BYTES_MAX;

/// A plugin that a compiler is to compile, the reach of the engine that is to run it, and the key by which its answer is
/// known.
#[derive(Debug)]
pub struct Order<'a> {
    key: [u8; MAC_BYTES],
    reach: [u8; 1],
    plugin: &'a [u8],
}

/// What a compiler finds wrong that one sees only then.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    NotAPlugin(Box<str>),
    HookMissing(Box<str>),
    Engine(Box<str>),
}

impl<'a> Order<'a> {
    /// # Panics
    /// Where the system gives no randomness.
    pub fn new(engine: &Engine, plugin: &'a [u8]) -> Order<'a> {
        let mut key = [0; MAC_BYTES];
        SystemRandom::new().fill(&mut key).expect("a system has randomness");
        let reach = match engine.reach() {
            Reach::Wide => WIDE,
            Reach::Narrow => NARROW,
        };
        Order { key, reach: [reach], plugin }
    }

    /// What the compiler reads, to the end, one after the other.
    pub fn words(&self) -> [&[u8]; 3] {
        [&self.key, &self.reach, self.plugin]
    }

    /// What the compiler said.
    ///
    /// # Errors
    /// Why it compiled nothing; [`Refused::Compiler`] where what it said is no answer to this order.
    pub fn accept(&self, mut answer: Vec<u8>) -> Result<NativeCode, Refused> {
        match answer.first() {
            Some(&REFUSAL) => Err(serde_json::from_slice(&answer[1..]).map_or_else(
                |_| no_answer(),
                |said| match said {
                    Said::NotAPlugin(said) => Refused::NotAPlugin { said },
                    Said::HookMissing(name) => {
                        let hook = Hook::ALL.into_iter().find(|hook| hook.name() == &*name);
                        hook.map_or_else(no_answer, |hook| Refused::HookMissing { hook })
                    }
                    Said::Engine(said) => Refused::Engine { said },
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
    Refused::Compiler { said: "what the compiler said is no answer".into() }
}

/// The compiler's whole work: an order, as [`Order::words`] has it, in; an answer for [`Order::accept`] out.
pub fn fulfil(order: &[u8]) -> Vec<u8> {
    let (key, reach, plugin) = match order.split_at_checked(MAC_BYTES) {
        Some((key, [WIDE, plugin @ ..])) => (key, Reach::Wide, plugin),
        Some((key, [NARROW, plugin @ ..])) => (key, Reach::Narrow, plugin),
        Some(_) | None => {
            return refusal(&Refused::Compiler { said: "this is no order".into() });
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
        Refused::NotAPlugin { said } => Said::NotAPlugin(said.clone()),
        Refused::HookMissing { hook } => Said::HookMissing(hook.name().into()),
        Refused::Engine { said } => Said::Engine(said.clone()),
        // Whoever orders has looked before.
        other => Said::Engine(other.to_string().into()),
    };
    let words = serde_json::to_vec(&said).expect("a text is JSON");
    [&[REFUSAL], &words[..]].concat()
}

/// Compiles a plugin for this engine in this process, for as long as that takes.
///
/// # Errors
/// Why it is no plugin, or what the engine does not take of it.
pub fn compile_here(engine: &Engine, plugin: &[u8]) -> Result<NativeCode, Refused> {
    compile(engine.reach(), plugin)
}

/// Without an engine that could run it: that would reserve more address space than a compiler may have.
fn compile(reach: Reach, plugin: &[u8]) -> Result<NativeCode, Refused> {
    let manifest = look(plugin)?;
    let binary = wrapped(plugin, &manifest)?;
    wasmtime::Engine::new(&code_config(reach))
        .and_then(|engine| engine.precompile_component(&binary))
        .map(NativeCode::trusted)
        .map_err(|error| Refused::Engine { said: format!("{error:#}").into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::Component;
    use crate::shipped;

    fn plugin() -> &'static [u8] {
        shipped()[0].bytes
    }

    #[test]
    fn what_another_compiled_runs_here() {
        let engine = Engine::new();
        let order = Order::new(&engine, plugin());
        let code = order.accept(fulfil(&order.words().concat())).unwrap();
        let component = Component::vet_native(&engine, plugin(), &code).unwrap();
        assert_eq!(&*component.manifest().name, shipped()[0].name);
    }

    #[test]
    fn only_the_answer_to_this_order_is_believed() {
        let engine = Engine::new();
        let order = Order::new(&engine, plugin());
        let answer = fulfil(&order.words().concat());
        let other = Order::new(&engine, plugin());
        assert!(matches!(other.accept(answer.clone()), Err(Refused::Compiler { .. })));
        for at in [0, 1, MAC_BYTES, MAC_BYTES + 1, answer.len() - 1] {
            let mut changed = answer.clone();
            changed[at] ^= 1;
            assert!(matches!(order.accept(changed), Err(Refused::Compiler { .. })), "byte {at}");
        }
        for cut in [0, 1, MAC_BYTES + 1, answer.len() - 1] {
            let cut = answer[..cut].to_vec();
            assert!(matches!(order.accept(cut), Err(Refused::Compiler { .. })));
        }
    }

    #[test]
    fn why_nothing_was_compiled_comes_back() {
        let module = b"\0asm\x01\0\0\0";
        let order = Order::new(&Engine::new(), module);
        let said = order.accept(fulfil(&order.words().concat())).unwrap_err();
        assert!(said.to_string().contains("evenkeel:manifest"), "{said}");
        assert!(matches!(order.accept(fulfil(b"short")), Err(Refused::Engine { .. })));
    }

    #[test]
    fn code_for_another_plugin_is_not_linked_as_this_one() {
        let [one, other, ..] = shipped() else { panic!("plugins are shipped") };
        let engine = Engine::new();
        let code = compile_here(&engine, other.bytes).unwrap();
        let seen = Component::vet_native(&engine, one.bytes, &code);
        assert!(matches!(seen.err(), Some(Refused::Engine { .. })), "they answer other hooks");
    }
}
