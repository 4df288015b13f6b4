//! Pulls and publishes over a server with prepared answers. The plugins are texts: nothing here runs them.

use std::thread::JoinHandle;

use evenkeel_config::{
    GatewayConfig, PluginLocation, PluginReference, RegistrySettings, SecretFile,
};
use evenkeel_process::sha256;
use evenkeel_testkit::http::{http_answer as says, http_server};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;

const PLUGIN: &str = "not really a plugin";

/// A server with prepared answers, in front of which this client is.
struct World {
    registry: RegistrySettings,
    asked: JoinHandle<Vec<String>>,
    folder: TempDir,
}

fn manifest() -> String {
    let title = PluginTitle { name: "my-route".to_owned(), version: "1".to_owned() };
    String::from_utf8(manifest::write(PLUGIN.as_bytes(), &title)).unwrap()
}

fn digest() -> [u8; 32] {
    sha256(manifest().as_bytes())
}

impl World {
    fn answering(answers: Vec<String>) -> World {
        let (url, asked) = http_server(answers);
        let host = url.trim_start_matches("http://").trim_end_matches("/hook");
        World { registry: RegistrySettings::of(host), asked, folder: tempfile::tempdir().unwrap() }
    }

    fn with_login(mut self) -> World {
        self.registry.login = Some(SecretFile::new(b"ci:a long password".to_vec()));
        self
    }

    /// The reference by digest.
    fn reference(&self) -> PluginReference {
        self.named("").pinned(digest())
    }

    fn named(&self, rest: &str) -> PluginReference {
        format!("oci://{}/voice/my-route{rest}", self.registry.host).parse().unwrap()
    }

    fn cache(&self) -> PluginCache {
        PluginCache::open(&[self.folder.path().join("cache")]).unwrap()
    }

    async fn pull(&self) -> Result<PulledPlugin, RegistryError> {
        let by = Instant::now() + WITHIN;
        pull(&self.reference(), &self.registry, Some(&self.cache()), by).await
    }

    async fn publish(&self, tag: &str) -> Result<[u8; 32], RegistryError> {
        let title = PluginTitle { name: "my-route".to_owned(), version: "1".to_owned() };
        let (by, plugin) = (Instant::now() + WITHIN, PLUGIN.as_bytes().to_vec());
        publish(plugin, &title, &self.named(tag), &self.registry, by).await
    }

    /// The first lines of the requests, and the `authorization` of each.
    fn requests(self) -> Vec<(String, String)> {
        let asked = self.asked.join().unwrap();
        let header = |request: &str| {
            let mut lines = request.lines();
            let line = lines.find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
            });
            line.unwrap_or_default()
        };
        let first = |request: &str| request.lines().next().unwrap().to_owned();
        asked.iter().map(|request| (first(request), header(request))).collect()
    }
}

#[tokio::test]
async fn pulled_plugin_is_taken_from_the_cache() {
    let world = World::answering(vec![says("200 OK", &manifest()), says("200 OK", PLUGIN)]);
    let pulled = world.pull().await.unwrap();
    assert_eq!((&*pulled.bytes, pulled.digest), (PLUGIN.as_bytes(), digest()));
    assert_eq!(pulled.content, sha256(PLUGIN.as_bytes()));
    assert_eq!(std::fs::read(pulled.path.as_ref().unwrap()).unwrap(), PLUGIN.as_bytes());
    assert!(!pulled.was_kept);
    // The server has ended.
    let again = world.pull().await.unwrap();
    assert_eq!((again.was_kept, again.path, again.bytes), (true, pulled.path, pulled.bytes));
    let requests = world.requests();
    let [manifest, blob] = &requests[..] else { panic!("{requests:?}") };
    let hex = |digest| manifest::text(&digest);
    assert_eq!(manifest.0, format!("GET /v2/voice/my-route/manifests/{} HTTP/1.1", hex(digest())));
    let plugin = hex(sha256(PLUGIN.as_bytes()));
    assert_eq!(blob.0, format!("GET /v2/voice/my-route/blobs/{plugin} HTTP/1.1"));
}

#[tokio::test]
async fn registry_out_of_reach_is_named_with_the_digest() {
    let world = World::answering(Vec::new());
    let failed = world.pull().await.unwrap_err().to_string();
    let host = &world.registry.host;
    let expected = format!(
        "the registry {host} did not answer; the cache has no {}: no connection: ",
        manifest::text(&digest())
    );
    assert!(failed.starts_with(&expected), "{failed}");
}

#[tokio::test]
async fn server_errors_and_cut_answers_are_retried() {
    let cut = says("200 OK", PLUGIN);
    let answers = vec![
        says("503 Service Unavailable", ""),
        says("200 OK", &manifest()),
        cut[..cut.len() - 1].to_owned(),
        says("200 OK", PLUGIN),
    ];
    let world = World::answering(answers);
    assert_eq!(world.pull().await.unwrap().bytes, PLUGIN.as_bytes());
    assert_eq!(world.requests().len(), 4);
}

#[tokio::test]
async fn lasting_server_error_is_named() {
    let error =
        says("500 Internal", "{\"errors\": [{\"code\": \"UNKNOWN\", \"message\": \"disk\"}]}");
    let world = World::answering(vec![error; 3]);
    let failed = world.pull().await.unwrap_err().to_string();
    assert!(failed.contains(" answered 500 Internal Server Error to GET /v2/"), "{failed}");
    assert!(failed.ends_with(": UNKNOWN: disk"), "{failed}");
}

#[tokio::test]
async fn other_bytes_are_neither_read_nor_kept() {
    let world = World::answering(vec![says("200 OK", "[]")]);
    let failed = world.pull().await.unwrap_err();
    assert!(matches!(failed, RegistryError::OtherBytes { bytes: 2, .. }), "{failed}");
    let world = World::answering(vec![says("200 OK", &manifest()), says("200 OK", "another")]);
    let failed = world.pull().await.unwrap_err();
    assert!(matches!(failed, RegistryError::OtherBytes { bytes: 7, .. }), "{failed}");
    let kept = std::fs::read_dir(world.folder.path().join("cache/registry")).unwrap();
    assert_eq!(kept.count(), 0);
}

#[tokio::test]
async fn missing_plugin_is_not_asked_for_again() {
    let world = World::answering(vec![says("404 Not Found", "")]);
    let failed = world.pull().await.unwrap_err().to_string();
    assert!(failed.contains(" answered 404 Not Found to GET "), "{failed}");
}

#[tokio::test]
async fn login_is_sent_when_asked_for() {
    let asks = says("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"", "");
    let answers = vec![asks.clone(), says("200 OK", &manifest()), says("200 OK", PLUGIN)];
    let world = World::answering(answers).with_login();
    world.pull().await.unwrap();
    let sent: Vec<String> = world.requests().into_iter().map(|(_, login)| login).collect();
    // `ci:a long password` in Base64.
    let login = "Basic Y2k6YSBsb25nIHBhc3N3b3Jk";
    assert_eq!(sent, ["", login, login]);

    let world = World::answering(vec![asks]);
    let failed = world.pull().await.unwrap_err().to_string();
    assert!(failed.contains(" answered 401 Unauthorized to GET "), "{failed}");
}

#[tokio::test]
async fn token_is_fetched_from_the_realm_of_the_challenge() {
    let (realm, tokens) = http_server(vec![says("200 OK", "{\"token\": \"t0ken\"}")]);
    let challenge = format!(
        "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"{realm}\",service=\"a b\",\
         scope=\"repository:voice/my-route:pull\""
    );
    let answers = vec![says(&challenge, ""), says("200 OK", &manifest()), says("200 OK", PLUGIN)];
    let world = World::answering(answers).with_login();
    world.pull().await.unwrap();
    let sent: Vec<String> = world.requests().into_iter().map(|(_, login)| login).collect();
    assert_eq!(sent, ["", "Bearer t0ken", "Bearer t0ken"]);
    let asked = tokens.join().unwrap().remove(0);
    let query = "/hook?service=a%20b&scope=repository%3Avoice%2Fmy-route%3Apull";
    assert!(asked.starts_with(&format!("GET {query} HTTP/1.1\r\n")), "{asked}");
    assert!(asked.to_lowercase().contains("authorization: basic y2k6"), "{asked}");
}

#[tokio::test]
async fn token_server_of_another_host_gets_no_login() {
    for token_server in [None, Some("localhost".into())] {
        // No answer: the server would wait for a request.
        let (realm, _) = http_server(Vec::new());
        let server = realm.trim_start_matches("http://").trim_end_matches("/hook").to_owned();
        let other = server.replace("127.0.0.1", "127.0.0.2");
        let challenge =
            format!("401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{other}/hook\"");
        let mut world = World::answering(vec![says(&challenge, "")]).with_login();
        world.registry.token_server = token_server;
        let failed = world.pull().await.unwrap_err();
        let RegistryError::TokenServer { host, server } = &failed else { panic!("{failed}") };
        assert_eq!((host, &**server), (&world.registry.host, &*other));
        let said = failed.to_string();
        assert!(said.contains(&**host) && said.contains(&other), "{said}");
        assert_eq!(world.requests().len(), 1);
    }
}

#[tokio::test]
async fn named_token_server_gets_the_login() {
    let (realm, tokens) = http_server(vec![says("200 OK", "{\"token\": \"t0ken\"}")]);
    let server = realm.trim_start_matches("http://").trim_end_matches("/hook");
    let challenge = format!("401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"{realm}\"");
    let answers = vec![says(&challenge, ""), says("200 OK", &manifest()), says("200 OK", PLUGIN)];
    let mut world = World::answering(answers).with_login();
    world.registry.token_server = Some(server.into());
    world.pull().await.unwrap();
    let asked = tokens.join().unwrap().remove(0);
    assert!(asked.to_lowercase().contains("authorization: basic y2k6"), "{asked}");
}

#[tokio::test]
async fn other_server_gets_no_login() {
    let (elsewhere, others) = http_server(vec![says("200 OK", PLUGIN)]);
    let asks = says("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"", "");
    let leads = says(&format!("307 Temporary Redirect\r\nLocation: {elsewhere}"), "");
    let world = World::answering(vec![asks, says("200 OK", &manifest()), leads]).with_login();
    world.pull().await.unwrap();
    let asked = others.join().unwrap().remove(0);
    assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
}

#[tokio::test]
async fn redirections_end() {
    let leads = says("307 Temporary Redirect\r\nLocation: /elsewhere", "");
    let world = World::answering(vec![
        says("200 OK", &manifest()),
        leads.clone(),
        leads.clone(),
        leads.clone(),
        leads,
    ]);
    let failed = world.pull().await.unwrap_err().to_string();
    assert!(failed.contains("sent more than 3 redirections"), "{failed}");
}

#[tokio::test]
async fn publishing_uploads_missing_content_and_the_manifest() {
    let absent = || says("404 Not Found", "");
    let begun = || says("202 Accepted\r\nLocation: /v2/up?_state=x", "");
    let created = || says("201 Created", "");
    // The second blob, the empty configuration, is there.
    let answers = vec![absent(), begun(), created(), says("200 OK", ""), created()];
    let world = World::answering(answers);
    assert_eq!(world.publish(":1.2").await.unwrap(), digest());
    let plugin = manifest::text(&sha256(PLUGIN.as_bytes()));
    let empty = manifest::text(&sha256(b"{}"));
    let asked = world.asked.join().unwrap();
    let first = |request: &String| request.lines().next().unwrap().to_owned();
    let lines: Vec<String> = asked.iter().map(first).collect();
    let expected = [
        format!("HEAD /v2/voice/my-route/blobs/{plugin} HTTP/1.1"),
        "POST /v2/voice/my-route/blobs/uploads/ HTTP/1.1".to_owned(),
        format!("PUT /v2/up?_state=x&digest={} HTTP/1.1", plugin.replace(':', "%3A")),
        format!("HEAD /v2/voice/my-route/blobs/{empty} HTTP/1.1"),
        "PUT /v2/voice/my-route/manifests/1.2 HTTP/1.1".to_owned(),
    ];
    assert_eq!(lines, expected);
    assert!(asked[2].ends_with(&format!("\r\n\r\n{PLUGIN}")), "{}", asked[2]);
    assert!(asked[4].ends_with(&manifest()), "{}", asked[4]);
    let kind = "content-type: application/vnd.oci.image.manifest.v1+json";
    assert!(asked[4].to_lowercase().contains(kind), "{}", asked[4]);
}

#[tokio::test]
async fn refused_publication_names_the_reason() {
    let denied = says(
        "403 Forbidden",
        "{\"errors\": [{\"code\": \"DENIED\", \"message\": \"requested access is denied\"}]}",
    );
    let world = World::answering(vec![says("200 OK", ""), says("200 OK", ""), denied]);
    let failed = world.publish("").await.unwrap_err().to_string();
    let words = ": DENIED: requested access is denied";
    assert!(
        failed.contains(" answered 403 Forbidden to PUT ") && failed.ends_with(words),
        "{failed}"
    );
    let expected = format!("manifests/{} HTTP/1.1", manifest::text(&digest()));
    assert!(world.requests().last().unwrap().0.ends_with(&expected), "without a tag, by digest");
}

/// A configuration with the set `by-digest`, which names the plugin.
fn configuration(world: &World, cache: &str) -> GatewayConfig {
    let folder = world.folder.path();
    let policies = folder.join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    let set = format!("[scenario.by-digest]\n[routing]\nplugin = \"{}\"\n", world.reference());
    std::fs::write(policies.join("by-digest.toml"), set).unwrap();
    let config = folder.join("evenkeel.toml");
    let text = format!("[gateway]\ncache = \"{cache}\"\npolicies = \"policies\"\n");
    std::fs::write(&config, text).unwrap();
    GatewayConfig::load(Some(&config), None, &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS))
        .unwrap()
}

/// The plugin that the set `by-digest` has.
fn bound(settings: &GatewayConfig) -> PluginLocation {
    let set = settings.sets.iter().find(|set| &*set.name == "by-digest").unwrap();
    set.bindings[0].plugin.clone()
}

#[tokio::test]
async fn plugins_of_a_configuration_are_pulled() {
    let world = World::answering(vec![says("200 OK", &manifest()), says("200 OK", PLUGIN)]);
    let reference = world.reference();
    let mut settings = configuration(&world, "cache");
    pull_bindings(&mut settings).await.unwrap();
    let PluginLocation::Registry(plugin) = bound(&settings) else { panic!("{settings:?}") };
    let kept = plugin.kept.unwrap();
    assert_eq!((plugin.reference, kept.content), (reference, sha256(PLUGIN.as_bytes())));
    assert_eq!(std::fs::read(&kept.path).unwrap(), PLUGIN.as_bytes());
    // The server has ended: another process with this cache needs none.
    let mut again = configuration(&world, "cache");
    pull_bindings(&mut again).await.unwrap();
    assert_eq!(bound(&again), bound(&settings));
}

#[tokio::test]
async fn plugin_that_is_not_pulled_is_shown_at_its_name() {
    let world = World::answering(vec![says("404 Not Found", "")]);
    let mut settings = configuration(&world, "cache");
    let invalid = pull_bindings(&mut settings).await.unwrap_err();
    let [invalid] = &invalid[..] else { panic!("{invalid:?}") };
    assert!(invalid.file.ends_with("by-digest.toml"), "{}", invalid.file);
    assert_eq!((invalid.line, invalid.column), (3, 10));
    assert!(invalid.found.contains(" answered 404 Not Found to GET "), "{invalid}");
    let mut settings = configuration(&world, "none");
    let invalid = pull_bindings(&mut settings).await.unwrap_err().remove(0);
    assert!(invalid.found.contains("no plugin can be kept"), "{invalid}");
}
