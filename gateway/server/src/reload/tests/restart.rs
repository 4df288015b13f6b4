use super::*;

const CALL: &str = "[scenario.call]\nspares = 2\n\n[admission]\nplugin = \"admit-capacity\"\n";

#[test]
fn keys_of_sets_need_no_restart() {
    let folder = Folder::with("call.toml", CALL);
    let before = folder.load();
    let scenario = |key: &str| CALL.replace("spares = 2", key);
    for text in [
        CALL,
        &scenario("spares = 3"),
        &scenario("mode = \"active-active\""),
        &scenario("affinity = \"session\""),
        &scenario("bitrate = { floor = \"9 kbit/s\", ceiling = \"1 Mbit/s\" }"),
        &scenario("close_after = \"9s\""),
        &scenario("await_first_packet = false"),
        &scenario("dscp = { voice = \"CS5\" }"),
        &scenario("priority = 9"),
        &scenario("[scenario.talk]"),
        &format!("{CALL}settings = {{ cap = 200 }}\n"),
        &format!("{CALL}on_fault = \"reject\"\n"),
        &format!("{CALL}[degradation]\nplugin = \"degrade-ladder\"\n"),
        "[scenario.call]\n",
        &CALL.replace("[scenario.call]", "[scenario.talk]"),
    ] {
        folder.write("call.toml", text);
        assert_eq!(keys_for_restart(&before, &folder.load()), [""; 0], "{text}");
    }
    folder.write("opera.toml", "[scenario.opera]\n");
    assert_eq!(keys_for_restart(&before, &folder.load()), [""; 0]);
}

/// A gateway with each kind of secret, which is in one file.
const SECRETS: &str = r#"
    [[listen]]
    udp = "192.0.2.10:5004"

    [admin]
    tcp = "127.0.0.1:0"
    token_file = "secret"

    [webrtc]
    listen = "127.0.0.1:0"
    token_key_file = "secret"

    [cluster]
    name = "edge-1"
    secret_file = "secret"
    listen = "10.0.0.1:7100"
    peer = { name = "edge-2", address = "10.0.0.2:7100" }

    [[cluster.address]]
    address = "192.0.2.10/24"
    interface = "eth0"
"#;

#[test]
fn rotated_secrets_need_no_restart() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("evenkeel.toml");
    std::fs::write(&file, SECRETS).unwrap();
    let [old, new] = ["o", "n"].map(|letter| letter.repeat(32));
    let load = |secrets: &[&str]| {
        std::fs::write(folder.path().join("secret"), secrets.join("\n")).unwrap();
        GatewayConfig::load(Some(&file), None, &[]).unwrap()
    };
    let applied = AppliedConfig::of(&Arc::new(load(&[&old])));
    let reload = |secrets: &[&str]| {
        let saved = load(secrets);
        let mut waiting = keys_for_restart(&applied.started, &saved);
        let next = applied.next_secrets(&saved, &mut waiting).map(<[SecretFile]>::to_vec);
        let is_applied = next.is_some();
        if let Some(next) = next {
            applied.group_secrets.send_replace(next);
        }
        (is_applied, waiting)
    };
    assert_eq!(reload(&[&old]), (false, vec![]), "nothing changed");
    let waits = vec!["[cluster] secret_file".to_owned()];
    assert_eq!(reload(&[&new, &old]), (false, waits.clone()), "no other member accepts it");
    for secrets in [&[&*old, &*new][..], &[&*new, &*old], &[&*new]] {
        assert_eq!(reload(secrets), (true, vec![]), "{secrets:?}");
    }
    assert_eq!(reload(&[&old]), (false, waits), "it was removed");
}
