//! Signals and file changes handled by a running gateway.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::stage::{CONFIGURATION, Stage, declared, offer, voice};

/// Writes a policy set; its routing plugin is a link to a file outside of the watched folders.
fn call(folder: &Path, cap: &str, spares: u8) {
    let text = format!(
        "[scenario.call]\n[admission]\nplugin = \"admit-capacity\"\nsettings = {{ cap = {cap} }}\n\
         [routing]\nplugin = \"mine.wasm\"\nsettings = {{ spares = {spares} }}\n\
         [rollout]\ncanary = []\n"
    );
    // Editors save by renaming.
    let new = folder.join("policies/.call.toml.new");
    fs::write(&new, text).expect("a file can be written");
    fs::rename(new, folder.join("policies/call.toml")).expect("a file can be renamed");
}

fn routing() -> Vec<u8> {
    let mut shipped = evenkeel_host::shipped().iter();
    shipped.find(|shipped| shipped.name == "route-nearest").expect("it ships").bytes.to_vec()
}

/// Waits until a revision of the policy is activated.
fn activated(stage: &mut Stage, policy: &str) {
    stage.wait_for_event("activation", |event| {
        let ours = event.name == "policy" && event.data["policy"] == policy;
        (ours && event.data["outcome"] == "activated").then_some(())
    });
}

#[test]
fn policies_reload_on_file_change_and_sighup() {
    let configuration = CONFIGURATION.replace("[gateway]", "[gateway]\npolicies = \"policies\"");
    let mut stage = Stage::of("reload", &configuration, |folder| {
        for name in ["policies", "elsewhere"] {
            fs::create_dir(folder.join(name)).expect("a folder can be made");
        }
        fs::write(folder.join("elsewhere/mine.wasm"), routing()).expect("a file can be written");
        symlink("../elsewhere/mine.wasm", folder.join("policies/mine.wasm")).expect("a link");
        call(folder, "300", 2);
    });
    let folder = stage.folder().to_owned();
    let revisions = |stage: &mut Stage| {
        let policies = stage.read("/v1/policies");
        let all = policies["policies"].as_array().expect("a list").iter();
        let ours =
            all.filter(|policy| policy["policy"].as_str().is_some_and(|p| p.starts_with("call/")));
        ours.map(|policy| policy["revision"].clone()).collect::<Vec<_>>()
    };
    let first = revisions(&mut stage);

    call(&folder, "200", 2);
    activated(&mut stage, "call/admission");
    let second = revisions(&mut stage);
    assert_ne!(second, first);

    // The set has one valid and one invalid value.
    call(&folder, "100", 9);
    let log = stage.wait_for_log("nothing changed");
    assert!(log.contains("policies/call.toml") && log.contains("spares = 9"), "{log}");
    assert_eq!(revisions(&mut stage), second);

    call(&folder, "200", 2);
    let rebuilt = [&routing()[..], b"\0\x05\x04note"].concat();
    fs::write(folder.join("elsewhere/mine.wasm"), rebuilt).expect("a file can be written");
    stage.signal(Signal::SIGHUP);
    activated(&mut stage, "call/routing");
    assert_ne!(revisions(&mut stage), second);
    stage.end_gateway();
}

#[test]
fn sigterm_refuses_sessions_and_ends_at_deadline() {
    let configuration = CONFIGURATION.replace("drain_timeout = \"0s\"", "drain_timeout = \"3s\"");
    let mut stage = Stage::of("sigterm", &configuration, |_| {});
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("its address");
    stage.open(&offer("room", declared(address, None), vec![voice()]));
    stage.signal(Signal::SIGTERM);
    stage.wait_for_event("draining event", |event| {
        (event.name == "draining" && event.data["node"].is_null()).then_some(())
    });
    assert!(!stage.is_ready());
    let ended = stage.wait_for_event("end of the session", |event| {
        (event.name == "closed").then(|| event.data["reason"].clone())
    });
    assert_eq!(ended, "shutdown");
    assert!(stage.outcome().success());
}
