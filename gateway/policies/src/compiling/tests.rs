//! Compilers that misbehave, played by shell scripts, and the cache.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use evenkeel_config::CacheFolder;
use tempfile::{TempDir, tempdir};

use super::*;

/// A temporary folder.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    /// A compiler that runs this script.
    fn compiler(&self, script: &str) -> Compiler {
        let program = self.0.path().join("compiler");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        Compiler::at(program)
    }

    fn settings(&self, cache: CacheFolder) -> GatewayConfig {
        let mut settings = GatewayConfig::load(None, None, &[]).unwrap();
        settings.gateway.cache = cache;
        settings
    }
}

/// Differs from every plugin in the binary.
fn plugin() -> Vec<u8> {
    [host::shipped()[0].bytes, b"\0\x05\x04note"].concat()
}

fn refusal(compiler: &Compiler) -> PluginRefusal {
    CompilerProcess(compiler).compile(&host::Engine::new(), &plugin()).unwrap_err()
}

#[test]
fn exceeded_compile_limit_is_named() {
    let folder = Folder::new();
    for (script, limit) in [
        ("kill -XCPU $$", "30 s of processor time"),
        ("kill -KILL $$", "30 s of processor time"),
        ("echo memory allocation of 99 bytes failed >&2; kill -ABRT $$", "2048 MiB of memory"),
        ("echo evenkeel: out of memory >&2; exit 1", "2048 MiB of memory"),
        ("exec head -c 99999999 /dev/zero", "64 MiB of machine code"),
    ] {
        let said = refusal(&folder.compiler(script));
        assert_eq!(said, PluginRefusal::CompileLimit(limit.into()), "{script}");
    }
}

#[test]
fn silent_compiler_is_killed_in_time() {
    let folder = Folder::new();
    let began = Instant::now();
    let within = Duration::from_millis(100);
    let compiler = Compiler { within, ..folder.compiler("exec sleep 600") };
    assert!(matches!(refusal(&compiler), PluginRefusal::CompileLimit(..)));
    assert!(began.elapsed() < Duration::from_secs(300), "the compiler is killed early");
}

#[test]
fn invalid_compiler_output_is_refused() {
    let folder = Folder::new();
    for script in ["cat >/dev/null", "echo Cnonsense", "cat", "echo no such thing >&2; exit 3"] {
        let said = refusal(&folder.compiler(script));
        assert_eq!(said.code(), "compiler", "{script}: {said}");
    }
    let words = refusal(&folder.compiler("echo no such thing >&2; exit 3")).to_string();
    assert!(words.contains("no such thing"), "{words}");
    let missing = Compiler::at(folder.0.path().join("missing"));
    assert!(refusal(&missing).to_string().contains("missing"));
}

#[test]
fn compiled_plugin_is_reused_after_restart() {
    let folder = Folder::new();
    let cache = CacheFolder::Folder(folder.0.path().join("cache"));
    let here = Foundry::of(host::Engine::new(), &folder.settings(cache.clone()));
    let digest = *here.vet(&plugin()).unwrap().digest();
    // Another gateway with the same cache, and a compiler that does nothing.
    let broken =
        GatewayConfig { compiler: Some(folder.compiler("exit 1")), ..folder.settings(cache) };
    let there = Foundry::of(host::Engine::new(), &broken);
    assert_eq!(*there.vet(&plugin()).unwrap().digest(), digest);
    let other = [&plugin()[..], b"\0\x05\x04note"].concat();
    assert_eq!(there.vet(&other).err().unwrap().code(), "compiler");
}

#[test]
fn modified_cached_code_is_recompiled() {
    let folder = Folder::new();
    let kept = folder.0.path().join("cache");
    let settings = folder.settings(CacheFolder::Folder(kept.clone()));
    Foundry::of(host::Engine::new(), &settings).vet(&plugin()).unwrap();
    let files = || std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
    let code = files().find(|path| path.extension().is_some()).unwrap();
    let good = std::fs::read(&code).unwrap();
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    std::fs::write(&code, &bad).unwrap();
    assert!(Foundry::of(host::Engine::new(), &settings).vet(&plugin()).is_ok());
    assert_ne!(std::fs::read(&code).unwrap(), bad, "the file is rewritten");
}

#[test]
fn shipped_plugins_compile_in_process() {
    let folder = Folder::new();
    let settings = folder.settings(CacheFolder::None);
    let broken = GatewayConfig { compiler: Some(folder.compiler("exit 1")), ..settings };
    let foundry = Foundry::of(host::Engine::new(), &broken);
    assert!(foundry.vet(host::shipped()[0].bytes).is_ok());
    assert!(foundry.vet(&plugin()).is_err());
}
