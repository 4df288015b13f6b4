//! `evenkeel plugin key new`, `sign`, and the compiler that `evenkeel run` starts, as commands.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use evenkeel_host::{CompileOrder, CompilerOutput, Engine, PublicKey, shipped, signer};

/// An empty folder for a test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn evenkeel(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let command = command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn key_is_created_once_and_signs() {
    let folder = folder("signing");
    let (code, said, _) = evenkeel(&folder, &["plugin", "key", "new", "--out", "ops-2026"]);
    assert_eq!(code, Some(0), "{said}");
    let public = fs::read_to_string(folder.join("ops-2026.pub")).unwrap();
    let public: PublicKey = public.parse().unwrap();
    assert!(said.contains(&format!("{{ name = \"ops-2026\", public = \"{public}\" }}")), "{said}");
    let secret = fs::read_to_string(folder.join("ops-2026.key")).unwrap();
    assert!(!said.contains(secret.trim()));
    let mode = fs::metadata(folder.join("ops-2026.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    for there in ["ops-2026.key", "ops-2026.pub"] {
        let (code, _, said) = evenkeel(&folder, &["plugin", "key", "new", "--out", "ops-2026"]);
        assert_eq!(code, Some(1));
        assert!(said.contains("never overwritten"), "{said}");
        // In the second run only the public key exists.
        if there == "ops-2026.key" {
            fs::rename(folder.join(there), folder.join("kept")).unwrap();
        }
    }
    assert!(!folder.join("ops-2026.key").exists(), "half a pair is not left behind");
    fs::rename(folder.join("kept"), folder.join("ops-2026.key")).unwrap();

    fs::write(folder.join("mine.wasm"), shipped()[0].bytes).unwrap();
    let sign = ["plugin", "sign", "mine.wasm", "--key", "ops-2026.key", "--out", "signed.wasm"];
    let (code, said, _) = evenkeel(&folder, &sign);
    assert_eq!(code, Some(0), "{said}");
    let signed = fs::read(folder.join("signed.wasm")).unwrap();
    assert_eq!(signer(&signed), Ok(Some(public)));
    assert_eq!(fs::read(folder.join("mine.wasm")).unwrap(), shipped()[0].bytes, "it is as it was");
    let (code, said, _) =
        evenkeel(&folder, &["plugin", "sign", "mine.wasm", "--key", "ops-2026.key", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&public.to_string()));
    assert_eq!(fs::read(folder.join("mine.wasm")).unwrap(), signed);
}

#[test]
fn inspect_shows_signer_or_broken_signature() {
    let folder = folder("inspecting");
    evenkeel(&folder, &["plugin", "key", "new", "--out", "ops"]);
    let public = fs::read_to_string(folder.join("ops.pub")).unwrap();
    fs::write(folder.join("mine.wasm"), shipped()[0].bytes).unwrap();
    evenkeel(&folder, &["plugin", "sign", "mine.wasm", "--key", "ops.key"]);
    let inspect = |more: &[&str]| {
        let arguments = [&["plugin", "inspect", "mine.wasm"], more].concat();
        evenkeel(&folder, &arguments)
    };
    let (code, said, _) = inspect(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("  signature  by {}\n", public.trim())), "{said}");

    let mut broken = fs::read(folder.join("mine.wasm")).unwrap();
    *broken.last_mut().unwrap() ^= 1;
    fs::write(folder.join("mine.wasm"), broken).unwrap();
    let (code, said, error) = inspect(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        error.contains("a gateway would refuse it: the plugin's signature: found one"),
        "{error}"
    );
    let (code, said, _) = inspect(&["--json"]);
    assert_eq!(code, Some(1));
    let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&shown["code"], &shown["signer"]), (&"signature".into(), &().into()));
    assert!(shown["refused"].as_str().unwrap().contains("they changed after"), "{shown}");
}

#[test]
fn failed_signing_writes_nothing() {
    let folder = folder("not-signing");
    evenkeel(&folder, &["plugin", "key", "new", "--out", "ops"]);
    fs::write(folder.join("none.wasm"), "no plugin").unwrap();
    fs::write(folder.join("mine.wasm"), shipped()[0].bytes).unwrap();
    for (plugin, key, words) in [
        ("none.wasm", "ops.key", "WebAssembly"),
        ("mine.wasm", "ops.pub", "ed25519-secret:"),
        ("mine.wasm", "nobody.key", "nobody.key"),
        ("nothing.wasm", "ops.key", "nothing.wasm"),
    ] {
        let arguments = ["plugin", "sign", plugin, "--key", key, "--out", "signed.wasm"];
        let (code, _, said) = evenkeel(&folder, &arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
    assert!(!folder.join("signed.wasm").exists());
}

struct Compiled {
    status: ExitStatus,
    output: CompilerOutput,
    /// Standard error.
    words: String,
}

/// Runs the compiler with these limits and this order.
fn compile(processor_seconds: &str, memory_mib: &str, order: &CompileOrder<'_>) -> Compiled {
    let mut child = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["compile-plugin", "--processor-seconds", processor_seconds])
        .args(["--memory-mib", memory_mib])
        // As the gateway does: a backtrace would make system calls that kill the compiler.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A compiler that dies before it has read everything reports another error.
    let _ = order.words().iter().try_for_each(|part| stdin.write_all(part));
    drop(stdin);
    let output = CompilerOutput::read(child.stdout.take().unwrap());
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    Compiled { status: child.wait().unwrap(), output, words }
}

#[test]
fn compiler_works_within_its_limits() {
    let order = CompileOrder::new(&Engine::new(), shipped()[0].bytes);
    let Compiled { status, output, words } = compile("30", "2048", &order);
    assert!(status.success(), "{status} {words}");
    order.accept(output).unwrap();
}

#[test]
fn slow_compilation_ends_at_its_time_limit() {
    let bomb = evenkeel_guests::slow_to_compile();
    let order = CompileOrder::new(&Engine::new(), &bomb.bytes);
    let Compiled { status, output, words } = compile("2", "2048", &order);
    // SIGXCPU.
    assert_eq!(status.signal(), Some(24), "{status} {words}");
    assert!(order.accept(output).is_err());
}

#[test]
fn compiler_reports_lack_of_memory() {
    let bomb = evenkeel_guests::slow_to_compile();
    let order = CompileOrder::new(&Engine::new(), &bomb.bytes);
    let Compiled { status, words, .. } = compile("30", "128", &order);
    assert_eq!(status.signal(), Some(6), "{status} {words}");
    assert!(words.contains("memory allocation of"), "{words}");
}

#[test]
fn truncated_order_compiles_nothing() {
    let order = CompileOrder::new(&Engine::new(), shipped()[0].bytes);
    let mut child = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["compile-plugin", "--processor-seconds", "30", "--memory-mib", "2048"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let whole = order.words().concat();
    stdin.write_all(&whole[..whole.len() / 2]).unwrap();
    drop(stdin);
    let output = CompilerOutput::read(child.stdout.take().unwrap());
    child.wait().unwrap();
    assert!(order.accept(output).is_err());
}
