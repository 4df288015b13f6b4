use std::path::Path;

use super::*;
use crate::check::source;

const TEXT: &str = "[routing]\nplugin = \"x\"\ndata = { tenants = \"t.json\" }\n[routing.settings]\nsteps = [\"cap\", 7]\n";

fn found(path: &str) -> &'static str {
    &TEXT[place(TEXT, "routing", "settings", path).unwrap()]
}

#[test]
fn setting_is_found_by_path() {
    assert_eq!(found("/steps/1"), "7");
    assert_eq!(found("$.steps[0]"), "\"cap\"");
    assert_eq!(found("steps"), "[\"cap\", 7]");
}

#[test]
fn missing_setting_shows_its_parent() {
    assert_eq!(found("/steps/9"), "[\"cap\", 7]");
    assert_eq!(found("/nothing"), "[routing.settings]");
    assert_eq!(place(TEXT, "admission", "settings", "/steps"), None);
}

#[test]
fn document_is_found_by_name() {
    assert_eq!(&TEXT[place(TEXT, "routing", "data", "tenants").unwrap()], "\"t.json\"");
}

#[test]
fn granted_cap_includes_those_of_one_direction() {
    let allowed = |actions: &str| {
        let text = format!("plugin = \"degrade-ladder\"\nactions = {actions}\n");
        let mut check = ConfigCheck::new(source(Path::new("a.toml"), &text), Path::new(""));
        let raw: BindingTable = toml::from_str(&text).unwrap();
        PluginLimits::check(Hook::Degradation, &raw, &mut check).grant.ops.unwrap()
    };
    let caps = [Op::Cap, Op::CapUp, Op::CapDown];
    assert_eq!(allowed("[\"cap\"]"), caps);
    assert_eq!(allowed("[\"cap-down\", \"voice-only\"]"), [Op::CapDown, Op::VoiceOnly]);
    assert_eq!(allowed("[]"), []);
}
