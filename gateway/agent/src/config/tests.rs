use evenkeel_fuzz::Corpus;
use tempfile::{TempDir, tempdir};

use super::*;

/// A folder with a secret file.
fn folder() -> TempDir {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "a secret of many bytes\n").unwrap();
    std::fs::write(folder.path().join("short"), "short\n").unwrap();
    folder
}

const HEAD: &str = "name = \"east-a1\"\nlisten = \"127.0.0.1:4001\"\nsecret_file = \"secret\"\n";

const GATEWAY: &str = "[gateway]\naddress = \"10.0.0.1:7100\"\npeer = \"10.0.0.2:7100\"\n";

#[test]
fn gateway_alone_is_watched() {
    let config = Config::parse(&format!("{HEAD}{GATEWAY}"), folder().path()).unwrap();
    let GatewayConfigEntry { address, peer, every } = config.gateway.unwrap();
    assert_eq!([address.to_string(), peer.to_string()], ["10.0.0.1:7100", "10.0.0.2:7100"]);
    assert_eq!(every, Duration::from_millis(5));
    assert!(config.process.is_none() && config.check.is_none());
}

#[test]
fn witness_watches_nothing() {
    let folder = folder();
    let config = Config::parse_witness(HEAD, folder.path()).unwrap();
    assert!(config.is_witness());
    let wrong = |text: &str| Config::parse_witness(text, folder.path()).unwrap_err().join("\n");
    assert!(wrong(&format!("{HEAD}{GATEWAY}")).contains("unknown field `gateway`"));
    assert!(wrong(&HEAD.replace("east-a1", "")).contains("[[cluster.witness]]"));
    assert!(wrong(&HEAD.replace("secret\"", "short\"")).contains("at least 16"));
}

#[test]
fn example_configuration_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/agent.toml");
    let text = std::fs::read_to_string(example).unwrap();
    let folder = folder();
    let config = Config::parse(&text.replace("/etc/evenkeel/", ""), folder.path()).unwrap();
    assert!(!config.drills, "off in the example");
    assert!(config.media.is_some() && config.check.is_some() && config.process.is_some());
}

#[test]
fn omitted_keys_have_defaults() {
    let folder = folder();
    let text =
        format!("{HEAD}[process]\npid_file = \"server.pid\"\n[media]\nserver = \"127.0.0.1:9\"");
    let config = Config::parse(&text, folder.path()).unwrap();
    assert_eq!(
        config.process,
        Some(ProcessSource::PidFile { path: folder.path().join("server.pid"), exe: None })
    );
    let media = config.media.unwrap();
    assert_eq!((media.sessions, media.rtcp), (1_000, RtcpConfig::Mux));
    assert!(!config.drills && !config.cold && config.load.cpus > 0);
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.drill_timeout, Duration::from_secs(300));
}

#[test]
fn each_process_source_is_parsed() {
    let folder = folder();
    let found = |text: &str| {
        let config = Config::parse(&format!("{HEAD}[process]\n{text}"), folder.path()).unwrap();
        config.process.unwrap()
    };
    let exe = PathBuf::from("/usr/bin/server");
    assert_eq!(found("exe = \"/usr/bin/server\""), ProcessSource::Exe(exe.clone()));
    let with_exe = found("pid_file = \"/run/server.pid\"\nexe = \"/usr/bin/server\"");
    assert_eq!(with_exe, ProcessSource::PidFile { path: "/run/server.pid".into(), exe: Some(exe) });
    let ours = found("command = [\"server\", \"-f\"]\nrestart_after = \"2s\"\ncold = true");
    let command = ["server", "-f"].map(String::from).to_vec();
    assert_eq!(
        ours,
        ProcessSource::Command { command, restart_after: Some(Duration::from_secs(2)) }
    );
}

#[test]
fn error_names_the_expected_value() {
    let folder = folder();
    let process = "[process]\nexe = \"/usr/bin/server\"\n";
    for (text, told) in [
        ("listen = 1".to_owned(), "listen"),
        (format!("{HEAD}listn = 1"), "unknown field `listn`"),
        (format!("{HEAD}[process]\nexee = 1"), "unknown field `exee`"),
        (HEAD.to_owned(), "neither [process] nor [check]"),
        (HEAD.replace("name = \"east-a1\"\n", "") + process, "missing field `name`"),
        (HEAD.replace("east-a1", "") + process, "expected the name of the node"),
        (HEAD.replace("secret\"", "nowhere\"") + process, "No such file"),
        (HEAD.replace("secret\"", "short\"") + process, "with 5 bytes, expected at least 16"),
        (format!("{HEAD}[process]"), "`pid_file`, `exe` or `command`"),
        (format!("{HEAD}[process]\ncommand = []"), "expected a program"),
        (format!("{HEAD}[process]\ncommand = [\"a\"]\nexe = \"/a\""), "expected one of them"),
        (format!("{HEAD}[process]\ncommand = [\"a\"]\nstart = [\"b\"]"), "beside `command`"),
        (format!("{HEAD}{process}cold = true"), "without `command`"),
        (format!("{HEAD}{process}[media]"), "either `server`"),
        (
            format!("{HEAD}{process}[media]\nserver = \"127.0.0.1:9\"\nopen = [\"a\"]"),
            "either `server`",
        ),
        (format!("{HEAD}{process}[media]\nserver = \"127.0.0.1:9\"\nsessions = 0"), "found 0"),
        (format!("{HEAD}{process}[media]\nopen = [\"a\"]\ntimeout = \"1 day\""), "found `1 day`"),
        (
            format!("{HEAD}{process}[check]\naddress = \"127.0.0.1:9\"\nprobe = \"sip\""),
            "unknown variant `sip`",
        ),
        (format!("{HEAD}{process}{GATEWAY}"), "beside [process], [check] or [media]"),
        (
            format!("{HEAD}{GATEWAY}[media]\nserver = \"127.0.0.1:9\""),
            "beside [process], [check] or [media]",
        ),
        (format!("{HEAD}{GATEWAY}interval = \"2s\""), "gateway.interval: found `2s`"),
        (HEAD.to_owned() + &GATEWAY.replace("10.0.0.2", "[::1]"), "two of IPv6"),
        (format!("{HEAD}{process}[load]\ncpus = 0"), "found 0"),
        (format!("{HEAD}drill_timeout = \"0s\"\n{process}"), "drill_timeout: found `0s`"),
        (
            format!("{HEAD}drill_timeout = 20"),
            "integer `20`, expected a duration such as `\"20s\"`",
        ),
        (format!("{HEAD}drain_timeout = true"), "expected a duration such as `\"200ms\"`"),
        (format!("{HEAD}[process]\nrestart_after = 2"), "a duration such as `\"2s\"`"),
        (format!("{HEAD}{GATEWAY}interval = 3"), "a duration such as `\"3s\"`"),
        (format!("{HEAD}[media]\ntimeout = 4"), "a duration such as `\"4s\"`"),
        (
            format!("{HEAD}[check]\naddress = \"127.0.0.1:9\"\nprobe = \"stun\"\ninterval = 5"),
            "a duration such as `\"5s\"`",
        ),
        (format!("{HEAD}[process]\ncommand = \"a\""), "string \"a\", expected a list"),
        (format!("{HEAD}[media]\nsessions = \"9\""), "string \"9\", expected a whole number"),
    ] {
        let wrong = Config::parse(&text, folder.path()).unwrap_err().join("\n");
        assert!(wrong.contains(told), "{text}\n{wrong}");
    }
}

#[test]
fn host_name_is_refused_as_such() {
    let text = HEAD.replace("127.0.0.1:4001", "media1.example:4001");
    let wrong = Config::parse(&text, folder().path()).unwrap_err().join("\n");
    assert!(wrong.ends_with("host names are not accepted"), "{wrong}");
}

#[test]
fn irregular_files_are_refused() {
    let folder = folder();
    let text = HEAD.replace("\"secret\"", "\"/dev/zero\"");
    let wrong = Config::parse(&text, folder.path()).unwrap_err().join("\n");
    assert!(wrong.contains("a device, not a regular file"), "{wrong}");
    let invalid = Config::load(folder.path()).unwrap_err().to_string();
    assert!(invalid.contains("a folder, not a regular file"), "{invalid}");
}

#[test]
fn all_errors_are_reported_together() {
    let folder = folder();
    let text = HEAD.replace("secret\"", "short\"") + "drain_timeout = \"x\"\n[load]\ncpus = 0\n";
    assert_eq!(Config::parse(&text, folder.path()).unwrap_err().len(), 4);
    let invalid = Config::load(&folder.path().join("nowhere.toml")).unwrap_err().to_string();
    assert!(invalid.contains("nowhere.toml:"), "{invalid}");
}

#[test]
fn fuzz_agent_configuration() {
    let folder = folder();
    let example = include_str!("../../agent.toml").replace("/etc/evenkeel/", "");
    Corpus::of("agent_configuration").with(example).check(|text| {
        if let Err(wrong) = Config::parse(&String::from_utf8_lossy(text), folder.path()) {
            assert!(wrong.iter().any(|error| !error.is_empty()));
        }
    });
}
