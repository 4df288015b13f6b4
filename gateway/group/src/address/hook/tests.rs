use std::fs;
use std::path::Path;

use tempfile::tempdir;

use super::*;

/// A hook that runs a shell script with the verb and the address as `$1` and `$2`.
fn hook(script: &str, pace: HookTiming) -> AddressHook {
    let words = ["/bin/sh", "-c", script, "hook"].map(str::to_owned);
    AddressHook { pace, ..AddressHook::new(words.to_vec(), "192.0.2.10".parse().unwrap()) }
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn hook_gets_verb_and_address() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("calls");
    let mut hook = hook(&format!("echo \"$@\" >> {}", file.display()), PACE);
    hook.acquire();
    hook.release().blocking_recv().unwrap();
    assert_eq!(lines(&file), ["acquire 192.0.2.10", "release 192.0.2.10"]);
}

#[test]
fn failed_acquire_is_repeated_until_it_succeeds() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("calls");
    let script = format!("echo $1 >> {0}; [ $(wc -l < {0}) -ge 3 ]", file.display());
    let mut hook = hook(&script, HookTiming { again_after: Duration::from_millis(1), ..PACE });
    let acquired = hook.call(ACQUIRE);
    acquired.blocking_recv().unwrap();
    assert_eq!(lines(&file), ["acquire"; 3]);
}

#[test]
fn failed_release_is_not_repeated() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("calls");
    let mut hook = hook(&format!("echo $1 >> {}; exit 1", file.display()), PACE);
    assert!(hook.release().blocking_recv().is_err());
    assert_eq!(lines(&file), ["release"]);
}

#[test]
fn release_ends_the_repetition_of_acquire() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("calls");
    let script = format!("echo $1 >> {}; [ $1 = release ]", file.display());
    let mut hook = hook(&script, HookTiming { again_after: Duration::from_secs(60), ..PACE });
    hook.acquire();
    hook.release().blocking_recv().unwrap();
    assert_eq!(lines(&file).last().unwrap(), "release");
}
