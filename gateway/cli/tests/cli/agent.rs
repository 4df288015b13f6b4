//! `evenkeel agent` as a command: configuration errors end it with exit code 2.

use std::process::{Command, Stdio};

fn agent(config: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let output = command
        .args(["agent", "--json", "--config", config])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn invalid_configuration_names_each_key() {
    let (code, said, _) = agent("/nowhere/agent.toml");
    assert_eq!(code, Some(2));
    assert!(said.contains(r#""code":"wrong""#) && said.contains("cannot read the file"), "{said}");

    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("agent.toml");
    std::fs::write(&file, "name = \"n\"\nlisten = \"127.0.0.1:0\"\nsecret_file = \"nowhere\"\n")
        .unwrap();
    let (code, said, _) = agent(file.to_str().unwrap());
    assert_eq!(code, Some(2));
    assert!(said.contains("secret_file") && said.contains("[process]"), "{said}");
}
