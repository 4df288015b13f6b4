use super::*;

const CALL: &str = "[scenario.call]\nspares = 2\n\n[admission]\nplugin = \"admit-capacity\"\n";

#[test]
fn every_key_that_needs_restart_is_listed() {
    let folder = Folder::with("call.toml", CALL);
    let before = folder.load();
    let keys = |text: &str| {
        folder.write("call.toml", text);
        keys_for_restart(&before, &folder.load())
    };
    assert_eq!(keys(CALL), [""; 0]);
    let scenario = |key: &str| CALL.replace("spares = 2", key);
    for (key, named) in [
        ("bitrate = { floor = \"9 kbit/s\", ceiling = \"1 Mbit/s\" }", "bitrate"),
        ("close_after = \"9s\"", "close_after"),
        ("await_first_packet = false", "await_first_packet"),
        ("dscp = { voice = \"CS5\" }", "dscp"),
        ("priority = 9", "priority"),
    ] {
        assert_eq!(keys(&scenario(key)), [format!("call.toml [scenario.call] {named}")]);
    }
    let text = format!("{CALL}on_fault = \"reject\"\n[degradation]\nplugin = \"degrade-ladder\"");
    assert_eq!(keys(&text), ["call.toml [admission] on_fault", "call.toml [degradation]"]);
    assert_eq!(keys("[scenario.call]\n"), ["call.toml [admission]"]);
    assert_eq!(
        keys(&CALL.replace("[scenario.call]", "[scenario.talk]")),
        ["call.toml [scenario.call]", "call.toml [scenario.talk]"]
    );
    folder.write("opera.toml", "[scenario.opera]\n");
    assert_eq!(keys(CALL), ["opera.toml, which is new"]);
    assert_eq!(keys_for_restart(&folder.load(), &before), ["opera.toml, which is gone"]);
}

#[test]
fn survival_keys_need_no_restart() {
    let folder = Folder::with("call.toml", CALL);
    let before = folder.load();
    for key in ["spares = 3", "mode = \"active-active\"", "affinity = \"session\""] {
        folder.write("call.toml", &CALL.replace("spares = 2", key));
        assert_eq!(keys_for_restart(&before, &folder.load()), [""; 0], "{key}");
    }
}

#[test]
fn plugin_and_settings_need_no_restart() {
    let folder = Folder::with("call.toml", CALL);
    let before = folder.load();
    folder.write("call.toml", &format!("{CALL}settings = {{ cap = 200 }}\n"));
    assert_eq!(keys_for_restart(&before, &folder.load()), [""; 0]);
}
