use super::*;

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
