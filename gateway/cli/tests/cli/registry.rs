//! Plugins in a registry of Debian's package `docker-registry`, published, pulled and run by commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use evenkeel_host::shipped;
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::registry::{FailingProxy, LOGIN, ProxyFault, RegistryServer};
use evenkeel_testkit::required;
use serde_json::Value;
use tempfile::{TempDir, tempdir};

/// Enough for a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);

/// A home with two keys, and a plugin that each of them signed.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        let home = Home(tempdir().unwrap());
        let routing = shipped().iter().find(|plugin| plugin.name == "route-nearest").unwrap();
        for key in ["ops", "other"] {
            home.succeed(&["plugin", "key", "new", "--out", key]);
            fs::write(home.path(&format!("{key}.wasm")), routing.bytes).unwrap();
            let (plugin, key) = (format!("{key}.wasm"), format!("{key}.key"));
            home.succeed(&["plugin", "sign", &plugin, "--key", &key]);
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(words).current_dir(self.0.path()).env("HOME", self.0.path());
        command.env_remove("XDG_CACHE_HOME").env_remove("EVENKEEL_API");
        command
    }

    fn evenkeel(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn succeed(&self, words: &[&str]) -> String {
        let output = self.evenkeel(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that fails with this exit code, and returns its error.
    fn fail(&self, code: i32, words: &[&str]) -> String {
        let output = self.evenkeel(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {error}");
        error
    }

    /// Publishes the plugin of a key, and returns its reference by digest.
    fn publish(&self, key: &str, host: &str) -> String {
        let (plugin, place) = (format!("{key}.wasm"), format!("oci://{host}/voice/{key}:1.2"));
        let shown = self.succeed(&["plugin", "publish", &plugin, &place, "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let public = fs::read_to_string(self.path(&format!("{key}.pub"))).unwrap();
        assert_eq!(shown["signer"], public.trim());
        shown["reference"].as_str().unwrap().to_owned()
    }

    fn forget(&self) {
        fs::remove_dir_all(self.path(".cache")).unwrap();
    }
}

fn registry(folder: &Path, asks_for_login: bool) -> RegistryServer {
    RegistryServer::start(&folder.join("registry"), asks_for_login)
}

/// `sha256:…` of a reference.
fn digest(reference: &str) -> &str {
    reference.split_once('@').unwrap().1
}

#[required(Registry)]
#[test]
fn published_plugin_is_pulled_and_kept() {
    let home = Home::new();
    let mut server = registry(home.0.path(), false);
    let host = server.address.to_string();
    let reference = home.publish("ops", &host);
    assert_eq!(home.publish("ops", &host), reference, "the same plugin has the same digest");
    let tag = format!("oci://{host}/voice/ops:1.2");
    for (named, out) in [(&reference, "by-digest.wasm"), (&tag, "by-tag.wasm")] {
        let said = home.succeed(&["plugin", "pull", named, "--out", out, "--trust", "ops.pub"]);
        assert!(said.starts_with(&format!("{reference}\n  file       {out}\n")), "{said}");
        assert_eq!(fs::read(home.path(out)).unwrap(), fs::read(home.path("ops.wasm")).unwrap());
    }
    server.kill();
    let said = home.succeed(&["plugin", "pull", &reference]);
    assert!(said.contains("\n  file       ops.wasm, from the cache\n"), "{said}");
    let error = home.fail(1, &["plugin", "pull", &tag]);
    assert!(error.contains(&format!("the registry {host} did not answer: ")), "{error}");
    home.forget();
    let error = home.fail(1, &["plugin", "pull", &reference]);
    let digest = digest(&reference);
    let words = format!("the registry {host} did not answer; the cache has no {digest}: ");
    assert!(error.contains(&words), "{error}");
}

#[required(Registry)]
#[test]
fn damaged_or_foreign_plugin_is_not_written() {
    let home = Home::new();
    let server = registry(home.0.path(), false);
    let reference = home.publish("ops", &server.address.to_string());
    let pull = ["plugin", "pull", &reference, "--out", "out.wasm"];
    let error = home.fail(1, &[&pull[..], &["--trust", "other.pub"]].concat());
    assert!(error.contains("expected one by a key of --trust; nothing was written"), "{error}");
    assert!(!home.path("out.wasm").exists());
    home.forget();
    let plugin = fs::read(home.path("ops.wasm")).unwrap();
    let content = evenkeel_host::PluginFile::parse(&plugin).digest;
    let file = server.content(&data_encoding::HEXLOWER.encode(&content));
    let mut damaged = plugin.clone();
    damaged[1_000] ^= 1;
    for bytes in [&damaged[..], &plugin[..plugin.len() / 2]] {
        fs::write(&file, bytes).unwrap();
        let error = home.fail(1, &pull);
        let words =
            format!("sent other bytes than sha256:{}", data_encoding::HEXLOWER.encode(&content));
        assert!(error.contains(&words), "{error}");
        assert!(!home.path("out.wasm").exists());
    }
    fs::write(&file, &plugin).unwrap();
    home.succeed(&pull);
}

#[required(Registry)]
#[test]
fn passing_faults_of_a_registry_are_survived() {
    let home = Home::new();
    let server = registry(home.0.path(), false);
    let proxy = FailingProxy::start(server.address);
    let reference = home.publish("ops", &proxy.address.to_string());
    let cut = ProxyFault::CutAfter(5_000);
    // The manifest is shorter than where the plugin is cut.
    proxy.fail(&[ProxyFault::Unavailable, cut, cut]);
    home.succeed(&["plugin", "pull", &reference, "--out", "out.wasm", "--trust", "ops.pub"]);
    assert_eq!(proxy.remaining(), 0);
    home.forget();
    proxy.fail(&[cut; 8]);
    let error = home.fail(1, &["plugin", "pull", &reference, "--out", "never.wasm"]);
    assert!(error.contains("did not answer; the cache has no "), "{error}");
    proxy.fail(&[ProxyFault::Unavailable; 8]);
    let error = home.fail(1, &["plugin", "pull", &reference, "--out", "never.wasm"]);
    assert!(error.contains("answered 503 Service Unavailable to GET "), "{error}");
    assert!(!home.path("never.wasm").exists());
}

#[required(Registry)]
#[test]
fn registry_with_login_takes_and_gives_with_it() {
    let home = Home::new();
    let server = registry(home.0.path(), true);
    let place = format!("oci://{}/ops", server.address);
    let publish = ["plugin", "publish", "ops.wasm", &place];
    let error = home.fail(1, &publish);
    assert!(error.contains("answered 401 Unauthorized to "), "{error}");
    fs::write(home.path("login"), format!("{LOGIN}\n")).unwrap();
    let said = home.succeed(&[&publish[..], &["--login", "login"]].concat());
    let reference = said.lines().next().unwrap();
    let pull = ["plugin", "pull", reference, "--out", "out.wasm"];
    assert!(home.fail(1, &pull).contains("answered 401"));
    home.succeed(&[&pull[..], &["--login", "login"]].concat());
}

#[test]
fn login_without_password_is_refused() {
    let home = Home::new();
    fs::write(home.path("login"), "user\n").unwrap();
    let pull = ["plugin", "pull", "oci://127.0.0.1:1/ops:1.2", "--login", "login"];
    let error = home.fail(2, &pull);
    assert!(error.contains("login: found a login without `:`"), "{error}");
}

/// The text of an error without its line breaks and frame.
fn flat(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '│').collect()
}

/// The set `by-digest`, with this plugin.
fn write_set(home: &Home, reference: &str) {
    let set = format!(
        "[scenario.by-digest]\n[rollout]\ncanary = []\nshadow = \"0s\"\n\
         [routing]\nplugin = \"{reference}\"\n"
    );
    fs::write(home.path("policies/by-digest.toml"), set).unwrap();
}

#[required(Registry)]
#[test]
fn gateway_runs_a_plugin_of_a_registry() {
    let home = Home::new();
    let mut server = registry(home.0.path(), true);
    fs::write(home.path("login"), format!("{LOGIN}\n")).unwrap();
    let host = server.address;
    let publish = |key: &str| {
        let (plugin, place) = (format!("{key}.wasm"), format!("oci://{host}/voice/{key}"));
        let said = home.succeed(&["plugin", "publish", &plugin, &place, "--login", "login"]);
        said.lines().next().unwrap().to_owned()
    };
    let (first, second) = (publish("ops"), publish("other"));
    let config = |keys: &[&str]| {
        let key = |name: &&str| {
            let public = fs::read_to_string(home.path(&format!("{name}.pub"))).unwrap();
            format!("{{ name = \"{name}\", public = \"{}\" }}", public.trim())
        };
        let keys: Vec<String> = keys.iter().map(key).collect();
        let text = format!(
            "[gateway]\ncache = \"cache\"\npolicies = \"policies\"\n[admin]\nsocket = \"api\"\n\
             [[listen]]\nudp = \"127.0.0.1:0\"\nrtcp = 0\n[limits]\nworkers = 1\n\
             [[registry]]\nhost = \"{host}\"\nlogin_file = \"login\"\n[trust]\nkeys = [{}]\n",
            keys.join(", ")
        );
        fs::write(home.path("evenkeel.toml"), text).unwrap();
    };
    fs::create_dir(home.path("policies")).unwrap();
    let check = ["check", "--config", "evenkeel.toml"];
    config(&["other"]);
    write_set(&home, &first);
    let error = home.fail(2, &check);
    assert!(flat(&error).contains(&flat("sign it with `evenkeel plugin sign`")), "{error}");
    config(&["ops", "other"]);
    home.succeed(&check);

    let mut run = home.command(&["run", "--json", "--config", "evenkeel.toml"]);
    let mut gateway = ChildProcess::start("gateway", &mut run, home.0.path()).unwrap();
    gateway.json_line(WITHIN).unwrap();
    // Returns once the first policies are active.
    home.succeed(&["reload", "--api", "api"]);
    let status = ["policy", "status", "by-digest/routing", "--api", "api"];
    let said = home.succeed(&status);
    assert!(said.contains(&first), "{said}");
    let is_kept = |reference: &str| {
        let name = digest(reference).trim_start_matches("sha256:").to_owned() + ".json";
        home.path("cache/registry").join(name).exists()
    };
    assert!(is_kept(&first) && !is_kept(&second));
    write_set(&home, &second);
    home.succeed(&["reload", "--api", "api"]);
    assert!(is_kept(&second));

    server.kill();
    home.succeed(&check);
    let absent = first.replace(digest(&first), &format!("sha256:{}", "0".repeat(64)));
    write_set(&home, &absent);
    let words = format!("the registry {host} did not answer; the cache has no sha256:0000");
    for command in [&["reload", "--api", "api"][..], &check] {
        let error = home.fail(2, command);
        assert!(flat(&error).contains(&flat(&words)), "{error}");
    }
    write_set(&home, &first);
    home.succeed(&["reload", "--api", "api"]);
}

#[test]
fn wrong_references_are_refused() {
    let home = Home::new();
    let pinned = format!("oci://registry.example/a@sha256:{}", "0".repeat(64));
    let error = home.fail(2, &["plugin", "publish", "ops.wasm", &pinned]);
    assert!(error.contains("found a digest, expected a tag or neither"), "{error}");
    let error = home.fail(2, &["plugin", "pull", "registry.example/a"]);
    assert!(error.contains("expected `oci://HOST/NAME`"), "{error}");
    fs::write(home.path("none.wasm"), "no plugin").unwrap();
    let error = home.fail(2, &["plugin", "publish", "none.wasm", "oci://registry.example/a"]);
    assert!(error.contains("WebAssembly"), "{error}");
    let pull = ["plugin", "pull", &pinned, "--trust", "ops.key"];
    let error = home.fail(2, &pull);
    assert!(error.contains("ops.key: found "), "before the registry is asked: {error}");
}
