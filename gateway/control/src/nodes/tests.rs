use evenkeel_config::GatewayConfig;

use super::*;

fn nodes(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("evenkeel.toml");
    std::fs::write(folder.path().join("one"), "sixteen bytes at least, one").unwrap();
    std::fs::write(folder.path().join("two"), "sixteen bytes at least, two").unwrap();
    let places = "region = \"east\"\nzone = \"a\"\ncapacity = \"1 Gbit/s\"\n";
    let tables = text.split("---").map(|node| format!("[[node]]\n{places}{node}\n"));
    let tables: String = tables.collect();
    std::fs::write(&config, format!("{tables}[gateway]\nregion = \"east\"\n")).unwrap();
    let settings = GatewayConfig::load(
        Some(&config),
        None,
        &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS),
    )
    .unwrap();
    settings.nodes.iter().map(identity).collect()
}

#[test]
fn node_is_another_after_a_change_of_its_path() {
    let agent = |secret: &str, more: &str| {
        let driver = format!("driver = \"agent\"\nsecret_file = \"{secret}\"\n{more}");
        nodes(&format!("name = \"n\"\naddress = \"127.0.0.1:9\"\n{driver}")).remove(0)
    };
    let one = agent("one", "");
    assert_eq!(agent("one", "canary = false"), one);
    for other in [agent("two", ""), agent("one", "encrypt = true")] {
        assert_ne!(other, one);
    }
    let plain = |name: &str, address: &str, probe: &str| {
        format!(
            "name = \"{name}\"\naddress = \"{address}\"\ndriver = \"plain\"\nprobe = \"{probe}\""
        )
    };
    let all = [plain("n", "127.0.0.1:9", "none"), plain("m", "127.0.0.1:8", "stun")].join("---");
    let all = nodes(&all);
    assert_ne!(all[0], one, "another driver");
    assert_eq!(nodes(&plain("n", "127.0.0.1:9", "echo"))[0], all[0], "the probe carries no media");
    assert_ne!(nodes(&plain("n", "127.0.0.1:8", "none"))[0], all[0]);
}
