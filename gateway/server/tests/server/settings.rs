//! Settings from outside: valid files, and the errors of broken ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_config::{
    AddressPlace, Colour, GatewayConfig, InvalidSetting, ListenIdentity, ListenIngress,
    ListenSettings, NodeProbe, OtlpProtocol, PluginLocation, SecretFile, SetOrigin, Traceparent,
};
use evenkeel_drivers::{DRIVERS, kinds};
use evenkeel_host::{Provenance, UnsignedPlugins};
use evenkeel_model::{
    AdmitOnFault, DegradeOnFault, FailureScope, Hook, Metric, NodeProbing, RegionId, Timings,
    ZoneId,
};

fn broken() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/broken")
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// `file:line:column: found …, expected …`, relative to the folder of broken examples.
fn told(invalid: &InvalidSetting) -> String {
    let place = invalid.place();
    let prefix = format!("{}/", broken().display());
    format!("{}: {invalid}", place.strip_prefix(&prefix).unwrap_or(&place)).replace(&prefix, "")
}

#[test]
fn broken_examples_have_expected_errors() {
    let expected = fs::read_to_string(broken().join("expected.txt")).unwrap();
    let mut files: Vec<_> = fs::read_dir(broken()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 15, "{files:?}");
    let mut seen = String::new();
    // Texts list drivers and their keys: these are the drivers of the expected ones.
    let drivers = &kinds(DRIVERS)[..4];
    for file in files {
        let invalid =
            GatewayConfig::load(Some(&file), None, drivers).expect_err(&file.display().to_string());
        seen += &format!("# {}\n", file.file_name().unwrap().display());
        for invalid in invalid {
            seen += &format!("{}\n", told(&invalid));
            let drawn = InvalidSetting::render(std::slice::from_ref(&invalid), Colour::Plain);
            assert!(drawn.contains(&invalid.file), "no {} in\n{drawn}", invalid.file);
        }
    }
    assert!(seen == expected, "what is told now:\n{seen}");
}

#[test]
fn drivers_load_their_keys() {
    let folder = folder("drivers");
    fs::write(folder.join("token"), "a token of many letters\n").unwrap();
    let text = r#"
        [gateway]
        region = "east"

        [[node]]
        name = "east-a1"
        ng = "10.0.1.11:2223"
        region = "east"
        zone = "a"
        driver = "rtpengine"
        capacity = "400 Mbit/s"

        [[node]]
        name = "east-b1"
        address = "10.0.2.11:4000"
        region = "east"
        zone = "b"
        driver = "webhook"
        webhook = "https://media.example/sessions"
        token_file = "token"
        probe = "none"
        capacity = "400 Mbit/s"
    "#;
    let file = folder.join("evenkeel.toml");
    fs::write(&file, text).unwrap();
    let settings = GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap();
    let [rtpengine, webhook] = &settings.nodes[..] else { panic!("{:?}", settings.nodes) };
    assert_eq!((rtpengine.driver.name, rtpengine.driver.probe), ("rtpengine", NodeProbe::Ping));
    assert_eq!(rtpengine.driver.sessions_per_room, Some(2));
    assert_eq!([rtpengine, webhook].map(|node| node.keeps_ssrc), [true, false]);
    assert_eq!(rtpengine.address.to_string(), "10.0.1.11:2223");
    assert_eq!(webhook.driver.probe, NodeProbe::None);
    let hook = webhook.driver.signalling.hook().unwrap();
    assert_eq!(hook.url.to_string(), "https://media.example/sessions");
    assert_eq!(hook.token.as_ref().unwrap().bytes(), b"a token of many letters");
    let core = settings.core();
    let probed: Vec<NodeProbing> = core.nodes.iter().map(|node| node.probed).collect();
    assert_eq!(probed, [NodeProbing::Yes, NodeProbing::No]);
}

const CLUSTER: &str = r#"
    [[listen]]
    udp = "192.0.2.10:5004"

    [cluster]
    name = "edge-1"
    secret_file = "cluster.secret"
    listen = "10.0.0.1:7100"

    [cluster.peer]
    name = "edge-2"
    address = "10.0.0.2:7100"

    [[cluster.address]]
    address = "192.0.2.10/24"
    interface = "eth0"

    [[cluster.address]]
    address = "2001:db8::10/64"
    hook = ["/usr/local/bin/move-address", "web"]
"#;

#[test]
fn cluster_loads_both_secrets() {
    let folder = folder("cluster");
    let file = folder.join("evenkeel.toml");
    fs::write(&file, CLUSTER).unwrap();
    let secret = folder.join("cluster.secret");
    let (new, previous) = ("n".repeat(32), "p".repeat(32));
    fs::write(&secret, format!("{new}\r\n{previous}\n\n")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let settings = GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap();
    let Some(cluster) = &settings.cluster else { panic!("{settings:?}") };
    let secrets: Vec<_> = cluster.secrets.iter().map(SecretFile::bytes).collect();
    assert_eq!(secrets, [new.as_bytes(), previous.as_bytes()]);
    assert!(!cluster.preferred);
    assert_eq!((&*cluster.name, &*cluster.peers[0].name), ("edge-1", "edge-2"));
    let [first, second] = &cluster.addresses[..] else { panic!("{cluster:?}") };
    assert_eq!((first.address.to_string(), first.prefix), ("192.0.2.10".to_owned(), 24));
    assert_eq!(first.place, AddressPlace::Interface("eth0".to_owned()));
    let words = ["/usr/local/bin/move-address", "web"].map(str::to_owned);
    assert_eq!(second.place, AddressPlace::Hook(words.to_vec()));
    let notes = settings.notes();
    let noted = |words: &str| notes.iter().filter(|note| note.contains(words)).count();
    assert_eq!(noted("mode 0644"), 1, "{notes:#?}");
    assert_eq!(noted("`2001:db8::10`, on which nothing listens"), 1, "{notes:#?}");
    assert_eq!(noted("on which nothing listens"), 1, "{notes:#?}");
}

#[test]
fn unfit_cluster_secrets_are_refused() {
    let folder = folder("cluster-secrets");
    let file = folder.join("evenkeel.toml");
    fs::write(&file, CLUSTER).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|letter| letter.repeat(32));
    for (secrets, found) in [
        (String::new(), "with 0 secrets"),
        ("short".to_owned(), "with 5 bytes in secret 1"),
        (format!("{a}\nshort"), "with 5 bytes in secret 2"),
        (format!("{a}\n{a}"), "with the same secret twice"),
        (format!("{a}\n{b}\n{c}"), "with 3 secrets"),
    ] {
        fs::write(folder.join("cluster.secret"), &secrets).unwrap();
        let invalid = GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap_err();
        assert!(invalid.iter().all(|invalid| invalid.found.contains(found)), "{invalid:?}");
    }
}

#[test]
fn agent_beside_the_peer_has_its_own_secret() {
    let folder = folder("cluster-agent");
    let file = folder.join("evenkeel.toml");
    fs::write(folder.join("cluster.secret"), "c".repeat(32)).unwrap();
    fs::write(folder.join("agent.secret"), "a".repeat(16)).unwrap();
    let load = |keys: &str| {
        let peer = "address = \"10.0.0.2:7100\"\n";
        fs::write(&file, CLUSTER.replace(peer, &format!("{peer}{keys}"))).unwrap();
        GatewayConfig::load(Some(&file), None, &kinds(DRIVERS))
    };
    let agent = "agent = \"10.0.0.2:7200\"\n";
    let secret = "secret_file = \"agent.secret\"\n";
    let cluster = load(&format!("{agent}{secret}")).unwrap().cluster.unwrap();
    let found = cluster.peers[0].agent.clone().unwrap();
    assert_eq!(found.address.to_string(), "10.0.0.2:7200");
    assert_eq!(found.secret.bytes(), "a".repeat(16).as_bytes());
    assert!(load("").unwrap().cluster.unwrap().peers[0].agent.is_none());
    for (keys, found) in [
        (agent, "`agent` without `secret_file`"),
        (secret, "`secret_file` without `agent`"),
        ("agent = \"0.0.0.0:7200\"\nsecret_file = \"agent.secret\"\n", "`0.0.0.0:7200`"),
        (&*format!("{agent}secret_file = \"cluster.secret\"\n"), "a secret of the group"),
    ] {
        let invalid = load(keys).unwrap_err();
        assert!(invalid.iter().any(|invalid| invalid.found.contains(found)), "{invalid:?}");
    }
}

#[test]
fn weaknesses_are_noted() {
    let folder = folder("weak");
    let secrets = ["node.secret", "admin.token", "hook.token"];
    let text = r#"
        [gateway]
        region = "east"
        [admin]
        tcp = "0.0.0.0:8080"
        token_file = "admin.token"
        [trust]
        unsigned = "refuse"
        [[node]]
        name = "east-a1"
        address = "10.0.1.11:4000"
        region = "east"
        zone = "a"
        driver = "agent"
        secret_file = "node.secret"
        capacity = "400 Mbit/s"
        [[node]]
        name = "east-b1"
        address = "10.0.2.11:4000"
        region = "east"
        zone = "b"
        driver = "webhook"
        webhook = "http://10.0.2.11/sessions"
        token_file = "hook.token"
        capacity = "400 Mbit/s"
    "#;
    let file = folder.join("evenkeel.toml");
    let notes = |text: &str, mode: u32| {
        fs::write(&file, text).unwrap();
        for secret in secrets {
            let path = folder.join(secret);
            fs::write(&path, "a token of many letters\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap().notes()
    };
    let weak = notes(text, 0o644);
    for (count, words) in
        [(3, "mode 0644"), (1, "`0.0.0.0:8080`"), (1, "`http://10.0.2.11/sessions`")]
    {
        let found = weak.iter().filter(|note| note.contains(words)).count();
        assert_eq!(found, count, "{words} in {weak:#?}");
    }
    assert_eq!(weak.len(), 5, "{weak:#?}");
    assert!(weak.iter().all(|note| note.contains("evenkeel.toml:") && note.contains("expected")));
    let sound = text.replace("0.0.0.0:8080", "127.0.0.1:8080").replace("http:", "https:");
    assert_eq!(notes(&sound, 0o640), [""; 0]);
    assert_eq!(notes(&sound, 0o602).len(), 3, "others can replace the secrets");
}

#[test]
fn configured_key_refuses_unsigned_plugins() {
    let folder = folder("trust");
    let key = evenkeel_host::SecretKey::generate();
    let text = |trust: &str| format!("[gateway]\npolicies = \"policies\"\n[trust]\n{trust}\n");
    let sets = folder.join("policies");
    fs::create_dir_all(&sets).unwrap();
    let bound = "[scenario.call]\n[routing]\nplugin = \"route-nearest\"\nunsigned = true\n\
                 metrics = [\"delay\"]\n[degradation]\nplugin = \"degrade-ladder\"\nactions = []\n";
    fs::write(sets.join("call.toml"), bound).unwrap();
    let load = |trust: &str| {
        let file = folder.join("evenkeel.toml");
        fs::write(&file, text(trust)).unwrap();
        GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap()
    };
    let known = format!("keys = [{{ name = \"ops\", public = \"{}\" }}]", key.public());
    for (trust, unsigned, noted) in [
        ("", UnsignedPlugins::Allow, true),
        (&*known, UnsignedPlugins::Refuse, false),
        (&*format!("{known}\nunsigned = \"allow\""), UnsignedPlugins::Allow, false),
        ("unsigned = \"refuse\"", UnsignedPlugins::Refuse, false),
    ] {
        let settings = load(trust);
        assert_eq!(settings.trust.unsigned, unsigned, "{trust}");
        assert_eq!(settings.trust.note().is_some(), noted, "{trust}");
        let call = settings.sets.iter().find(|set| &*set.name == "call").unwrap();
        let routing = &call.binding(Hook::Routing).unwrap().allowed;
        assert_eq!(settings.trust.unsigned(routing), UnsignedPlugins::Allow, "it says so itself");
        assert_eq!(routing.grant.metrics.as_deref(), Some(&[Metric::Delay][..]));
        let degradation = &call.binding(Hook::Degradation).unwrap().allowed;
        assert_eq!(settings.trust.unsigned(degradation), unsigned);
        assert_eq!(degradation.grant.ops.as_deref(), Some(&[][..]));
    }
    let module = b"\0asm\x01\0\0\0";
    let signed = evenkeel_host::sign(module, &key).unwrap();
    let judge = |trust: &str| load(trust).trust.keys.judge(&signed, UnsignedPlugins::Refuse);
    assert_eq!(judge(&known), Ok(Provenance::Signed("ops".into())));
    for revoked in ["ops".to_owned(), key.public().to_string()] {
        let seen = judge(&format!("{known}\nrevoked = [\"{revoked}\"]"));
        assert_eq!(seen.unwrap_err().code(), "revoked");
    }
}

#[test]
fn error_renders_as_text_and_json() {
    let file = broken().join("unknown-key.toml");
    let invalid = GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap_err();
    let drawn = InvalidSetting::render(&invalid, Colour::Plain);
    for part in ["unknown-key.toml:9:1", "capcity = \"400 Mbit/s\"", "did you mean `capacity`?"] {
        assert!(drawn.contains(part), "{part} is not in\n{drawn}");
    }
    let json = serde_json::to_value(&invalid).unwrap();
    assert_eq!(json[0]["line"], 9);
    assert_eq!(json[0]["column"], 1);
    assert_eq!(json[0]["found"], "unknown key `capcity`");
    assert_eq!(json[0]["help"], "did you mean `capacity`?");
    assert!(json[0]["file"].as_str().unwrap().ends_with("unknown-key.toml"));
    assert!(json[0].get("source").is_none());
}

#[test]
fn unreadable_file_is_named() {
    let folder = folder("unreadable");
    let drawn = |config: Option<&Path>, policies: Option<&Path>| {
        let invalid = GatewayConfig::load(config, policies, &kinds(DRIVERS)).unwrap_err();
        InvalidSetting::render(&invalid, Colour::Plain)
    };
    let missing = drawn(Some(&folder.join("nosuch.toml")), None);
    assert!(missing.contains("nosuch.toml: found No such file"), "{missing}");
    let missing = drawn(None, Some(&folder.join("nosuch")));
    assert!(missing.contains("nosuch: found No such file"), "{missing}");
    fs::write(folder.join("latin.toml"), b"# \xe9\n").unwrap();
    let latin = drawn(Some(&folder.join("latin.toml")), None);
    assert!(latin.contains("latin.toml: found invalid utf-8"), "{latin}");
    fs::remove_file(folder.join("latin.toml")).unwrap();
    fs::write(folder.join("empty.toml"), "").unwrap();
    let empty = drawn(None, Some(&folder));
    assert!(empty.contains("empty.toml: found a policy set without a scenario"), "{empty}");
}

#[test]
fn editor_files_are_no_policy_sets() {
    let folder = folder("editor");
    fs::write(folder.join("webinar.toml"), "[scenario.webinar]\n").unwrap();
    fs::write(folder.join(".webinar.toml"), "[scenario.webi").unwrap();
    std::os::unix::fs::symlink("nobody@nowhere.1", folder.join(".#webinar.toml")).unwrap();
    let settings = GatewayConfig::load(None, Some(&folder), &[]).unwrap();
    assert!(settings.scenario("webinar").is_some());
}

#[test]
fn missing_file_means_loopback_and_shipped_sets() {
    let settings = GatewayConfig::load(None, None, &[]).unwrap();
    assert!(settings.listens.iter().all(|listen| listen.address.ip().is_loopback()));
    assert!(settings.listens.iter().any(|l| matches!(l.ingress, ListenIngress::Udp { .. })));
    assert!(settings.listens.iter().any(|l| matches!(l.ingress, ListenIngress::Quic { .. })));
    assert!(settings.nodes.is_empty() && settings.admin.tcp.is_none());
    assert!(!settings.telemetry.exports());
    for name in ["call", "conference", "live"] {
        let (set, scenario) = settings.scenario(name).unwrap();
        assert_eq!((&*set.name, &*scenario.name), (name, name));
        assert_eq!(set.origin, SetOrigin::Shipped);
        let hooks: Vec<_> = set.bindings.iter().map(|binding| binding.hook).collect();
        assert_eq!(hooks, Hook::ALL);
    }
}

#[test]
fn detector_defaults_fit_the_failover_budget() {
    let timings = GatewayConfig::load(None, None, &[]).unwrap().core().timings;
    assert_eq!(timings, Timings::default());
    let ms = Duration::from_millis;
    assert_eq!((timings.probe_every_near, timings.probe_every_far), (ms(10), ms(50)));
    assert_eq!((timings.down_after_near, timings.down_after_far), (ms(200), ms(500)));
}

#[test]
fn every_key_is_loaded() {
    let folder = folder("everything");
    fs::write(folder.join("node.secret"), "0123456789abcdef\n").unwrap();
    fs::write(folder.join("token"), "a token of many letters\r\n").unwrap();
    let readers = "a token that only reads\nthe reader's previous token\n";
    fs::write(folder.join("reader"), readers).unwrap();
    let file = folder.join("evenkeel.toml");
    fs::write(
        &file,
        r#"
        [gateway]
        region = "west"
        drain_timeout = "90s"

        [[listen]]
        udp = "0.0.0.0:5004"
        identity = ["open", "declared"]
        scenario = "call"
        rtcp = "mux"
        advertise = "203.0.113.7"

        [[listen]]
        udp = "[::]:0"
        advertise = [
            { address = "203.0.113.8", carrier = "ct" },
            { address = "[2001:db8::7]:15004" },
            { address = "203.0.113.7" },
            { address = "2001:db8::8", carrier = "ct" },
        ]

        [[listen]]
        quic = "[::]:4433"
        advertise = "203.0.113.7"

        [[node]]
        name = "east-a1"
        address = "10.0.1.11:4000"
        region = "east"
        zone = "a"
        driver = "agent"
        capacity = "400 Mbit/s"
        secret_file = "node.secret"
        encrypt = true
        agent = "10.0.1.11:4001"

        [[node]]
        name = "west-b1"
        address = "10.0.2.11:4000"
        region = "west"
        zone = "b"
        driver = "plain"
        probe = "echo"
        capacity = "1.5 Gbit/s"
        secret_file = "node.secret"
        agent = "[::1]:4001"

        [admin]
        socket = "admin.sock"
        tcp = "127.0.0.1:8080"
        token_file = "token"
        read_token_file = "reader"
        traceparent = "parent"

        [telemetry]
        otlp = "http://127.0.0.1:4318/"
        protocol = "http"
        sample_ratio = 0.25
        metrics_interval = "5s"

        [limits]
        sessions = 500
        workers = 2

        [detector]
        in_region = { probe_interval = "20ms" }
        base_ejection_time = "5m"
        panic_percent = 70
        panic_for = "2s"
        "#,
    )
    .unwrap();
    let settings = GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap();
    assert_eq!(&*settings.gateway.region, "west");
    assert_eq!(settings.gateway.drain_timeout, Duration::from_secs(90));
    let [open, chosen, quic] = &settings.listens[..] else { panic!("{:?}", settings.listens) };
    let ListenIngress::Udp { identities, open: scenario, rtcp } = &open.ingress else { panic!() };
    assert_eq!(identities[..], [ListenIdentity::Declared, ListenIdentity::Open]);
    assert_eq!((scenario.as_deref(), *rtcp), (Some("call"), None));
    let advertised = |listen: &ListenSettings| -> Vec<String> {
        let all = listen.advertise.iter();
        all.map(|it| format!("{} {}", it.address, it.carrier.as_deref().unwrap_or("-"))).collect()
    };
    assert_eq!(advertised(open), ["203.0.113.7:0 -"]);
    assert_eq!(
        advertised(chosen),
        ["[2001:db8::7]:15004 -", "203.0.113.7:0 -", "203.0.113.8:0 ct", "[2001:db8::8]:0 ct"],
        "the defaults first, in the order of the file"
    );
    let ListenIngress::Udp { identities, open: None, rtcp: Some(0) } = &chosen.ingress else {
        panic!("{chosen:?}")
    };
    assert_eq!(identities[..], [ListenIdentity::Declared, ListenIdentity::Stun]);
    assert_eq!(advertised(quic), ["203.0.113.7:0 -"]);
    assert_eq!(settings.regions.iter().map(|r| &**r).collect::<Vec<_>>(), ["east", "west"]);
    let [agent, plain] = &settings.nodes[..] else { panic!("{:?}", settings.nodes) };
    let beside = [agent, plain].map(|node| {
        let agent = node.agent.as_ref().unwrap();
        (agent.address.to_string(), agent.secret.bytes())
    });
    let secret = &b"0123456789abcdef"[..];
    assert_eq!(beside, [("10.0.1.11:4001".into(), secret), ("[::1]:4001".into(), secret)]);
    let Some((secret, true)) = agent.trunk() else { panic!("{agent:?}") };
    assert_eq!(secret.bytes(), b"0123456789abcdef");
    assert!(!format!("{settings:?}").contains("0123456789abcdef"), "a secret shows");
    assert!(
        settings.notes().iter().any(|note| note.contains("share a secret: east-a1 and west-b1"))
    );
    assert_eq!((plain.driver.name, plain.driver.probe), ("plain", NodeProbe::Echo));
    assert_eq!((agent.canary, plain.canary), (true, false));
    assert_eq!(settings.detector.panic_percent, 70);
    assert_eq!(settings.detector.panic_for, Duration::from_secs(2));
    assert_eq!((agent.capacity.kbps(), plain.capacity.kbps()), (400_000, 1_500_000));
    assert_eq!(settings.admin.socket, folder.join("admin.sock"));
    let tcp = settings.admin.tcp.unwrap();
    let texts = |tokens: &[SecretFile]| -> Vec<String> {
        tokens.iter().map(|token| String::from_utf8_lossy(token.bytes()).into_owned()).collect()
    };
    assert_eq!(texts(&tcp.tokens), ["a token of many letters"]);
    assert_eq!(texts(&tcp.read_tokens), ["a token that only reads", "the reader's previous token"]);
    assert_eq!(settings.admin.traceparent, Traceparent::Parent);
    let otlp = settings.telemetry.logs.unwrap();
    let expected = ("http://127.0.0.1:4318/v1/logs", OtlpProtocol::Http);
    assert_eq!((&*otlp.endpoint, otlp.protocol), expected);
    assert_eq!((settings.limits.sessions, settings.limits.workers), (500, Some(2)));
    assert_eq!(settings.limits.early_packets, 16);
    assert_eq!(settings.detector.probe_every_near, Duration::from_millis(20));
    assert_eq!(settings.detector.probe_every_far, Duration::from_millis(50));
    // The maximum is never below the base.
    assert_eq!(settings.detector.ejection_max, Duration::from_secs(300));
}

#[test]
fn read_token_is_another_one_for_tcp() {
    let folder = folder("read-token");
    fs::write(folder.join("token"), "a token of many letters").unwrap();
    let file = folder.join("evenkeel.toml");
    for (keys, found) in [
        ("read_token_file = \"token\"\n", "`read_token_file` without `tcp`"),
        (
            "tcp = \"127.0.0.1:8080\"\ntoken_file = \"token\"\nread_token_file = \"token\"\n",
            "a token of `token_file`",
        ),
    ] {
        fs::write(&file, format!("[admin]\n{keys}")).unwrap();
        let invalid = GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap_err();
        assert!(invalid.iter().any(|invalid| invalid.found.contains(found)), "{invalid:?}");
    }
}

#[test]
fn folder_replaces_and_adds_policy_sets() {
    let folder = folder("replaces");
    fs::write(folder.join("mine.wasm"), b"\0asm").unwrap();
    let call = "[scenario.call]\nspares = 3\nreserve = \"zone\"\nspares_outside = \"region\"\n\n[routing]\nplugin = \"mine.wasm\"\n\
                settings = { stay = 0.5, steps = [\"cap\"], deep = { on = true, n = 7 } }\n";
    fs::write(folder.join("call.toml"), call).unwrap();
    fs::write(folder.join("webinar.toml"), "[scenario.webinar]\npriority = 3\n").unwrap();
    fs::write(folder.join("notes.txt"), "not a policy set").unwrap();
    let settings = GatewayConfig::load(None, Some(&folder), &[]).unwrap();
    let names: Vec<_> = settings.sets.iter().map(|set| &*set.name).collect();
    assert_eq!(names, ["call", "conference", "live", "webinar"]);
    let (set, scenario) = settings.scenario("call").unwrap();
    assert_eq!(set.origin, SetOrigin::File(folder.join("call.toml")));
    assert_eq!((scenario.spares, scenario.reserve), (3, Some(FailureScope::Zone)));
    assert_eq!(settings.scenario("webinar").unwrap().1.reserve, None, "the nodes decide");
    assert_eq!(scenario.spares_outside, FailureScope::Region);
    let [routing] = &set.bindings[..] else { panic!("{:?}", set.bindings) };
    assert_eq!(routing.plugin, PluginLocation::File(folder.join("mine.wasm")));
    let expected = serde_json::json!({"stay": 0.5, "steps": ["cap"], "deep": {"on": true, "n": 7}});
    assert_eq!(routing.settings, expected);
    let invalid = routing.invalid("/deep/n", "7", "0 to 5");
    assert_eq!((invalid.line, invalid.column), (8, 67));
    assert_eq!(settings.scenario("live").unwrap().0.origin, SetOrigin::Shipped);
}

#[test]
fn core_settings_use_ids() {
    let folder = folder("core");
    let node = |port: u16, region: &str, zone: &str, more: &str| {
        format!(
            "[[node]]\nname = \"n{port}\"\naddress = \"10.0.0.1:{port}\"\nregion = \"{region}\"\n\
             zone = \"{zone}\"\ndriver = \"plain\"\ncapacity = \"4 Mbit/s\"\n{more}\n"
        )
    };
    let text = String::from("[gateway]\nregion = \"west\"\n")
        + &node(1, "east", "a", "")
        + &node(2, "east", "b", "probe = \"none\"\ncarrier = \"ct\"")
        + &node(3, "west", "a", "")
        + &node(4, "east", "a", "");
    fs::write(folder.join("evenkeel.toml"), text).unwrap();
    let call = "[scenario.call]\nbitrate = { floor = \"30 kbit/s\", ceiling = \"1 Mbit/s\" }\n\
                [admission]\nplugin = \"admit-capacity\"\non_fault = \"reject\"\n\
                [degradation]\nplugin = \"degrade-ladder\"\non_fault = \"native-ladder\"\n";
    let sets = folder.join("policies");
    fs::create_dir(&sets).unwrap();
    fs::write(sets.join("call.toml"), call).unwrap();
    let settings =
        GatewayConfig::load(Some(&folder.join("evenkeel.toml")), Some(&sets), &kinds(DRIVERS))
            .unwrap();
    let core = settings.core();
    assert_eq!(core.regions, ["east".into(), "west".into()]);
    assert_eq!(core.home, RegionId(1));
    let zones: Vec<_> = core.zones.iter().map(|zone| (&*zone.name, zone.region)).collect();
    assert_eq!(zones, [("a", RegionId(0)), ("b", RegionId(0)), ("a", RegionId(1))]);
    let placed: Vec<_> = core.nodes.iter().map(|node| (&*node.name, node.zone)).collect();
    let expected = [("n1", ZoneId(0)), ("n2", ZoneId(1)), ("n3", ZoneId(2)), ("n4", ZoneId(0))];
    assert_eq!(placed, expected);
    let probed: Vec<_> = core.nodes.iter().map(|node| node.probed).collect();
    assert_eq!(probed, [NodeProbing::Yes, NodeProbing::No, NodeProbing::Yes, NodeProbing::Yes]);
    assert_eq!(core.nodes[0].capacity_kbps, 4_000);
    let carriers: Vec<_> = core.nodes.iter().map(|node| node.carrier.as_deref()).collect();
    assert_eq!(carriers, [None, Some("ct"), None, None]);
    let labels = evenkeel_policies::catalog_of(&core).into_iter().map(|entry| entry.labels);
    let labels: Vec<_> = labels.filter(|labels| !labels.is_empty()).collect();
    let label: (Box<str>, Box<str>) = ("carrier".into(), "ct".into());
    assert_eq!(labels, [[label]]);
    let call = &core.scenarios["call"];
    assert!(call.binds(Hook::Admission) && !call.binds(Hook::Routing));
    assert_eq!((call.bounds.floor_kbps, call.bounds.ceiling_kbps), (30, 1_000));
    assert_eq!(call.on_admission_fault, AdmitOnFault::Reject);
    assert_eq!(call.on_degradation_fault, DegradeOnFault::NativeLadder);
    assert_eq!(core.scenarios["live"].on_degradation_fault, DegradeOnFault::Hold);
    assert!(core.scenarios["live"].binds(Hook::Routing));
}
