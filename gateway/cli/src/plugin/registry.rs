//! `evenkeel plugin publish` and `pull`.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Args;
use evenkeel_author::replace;
use evenkeel_config::{CacheFolder, PluginReference, RegistrySettings, SecretFile};
use evenkeel_host::{PublicKey, read_manifest, signer};
use evenkeel_process::file;
use evenkeel_registry::{PluginCache, PluginTitle, WITHIN};
use serde_json::json;
use tokio::time::Instant;

use crate::command::{CommandError, read_file, runtime, show_lines, unreadable};

/// Maximum size of a file with a login or key. It is one line; a larger file was named by mistake.
const LINE_BYTES_MAX: u64 = 4_096;

/// Publish a plugin to an OCI registry, and print the reference by which policy sets name it
///
/// Sign it first: gateways with a key in `[trust]` refuse others. The same plugin has the same digest wherever it is published. Exit
/// code 1: the registry did not answer or refused.
#[derive(Args)]
pub(super) struct PublishArgs {
    /// Plugin: a WebAssembly module or component
    plugin: PathBuf,
    /// Place in the registry, with or without a tag: oci://HOST/NAME:TAG
    #[arg(value_name = "REFERENCE", value_parser = destination)]
    to: PluginReference,
    #[command(flatten)]
    access: RegistryAccess,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Pull a plugin from an OCI registry to a file
///
/// By digest, a plugin that was pulled before is taken from the cache, and the registry is not asked. Nothing is written unless the bytes
/// have the digests of the reference and of its manifest, and a valid signature or none. Exit code 1: it was not pulled.
#[derive(Args)]
pub(super) struct PullArgs {
    /// Plugin in the registry: oci://HOST/NAME@sha256:… or oci://HOST/NAME:TAG
    reference: PluginReference,
    /// Output file; default: the last part of the name, with .wasm
    #[arg(long, value_name = "FILE.wasm")]
    out: Option<PathBuf>,
    /// Require a signature by this key, a file of `evenkeel plugin key new`; may be repeated
    #[arg(long, value_name = "NAME.pub")]
    trust: Vec<PathBuf>,
    #[command(flatten)]
    access: RegistryAccess,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// How the registry is reached.
#[derive(Args)]
struct RegistryAccess {
    /// File with `user:password` for the registry
    #[arg(long, value_name = "FILE")]
    login: Option<PathBuf>,
    /// Host of the server that gets the login for a token; default: the registry's host
    #[arg(long, value_name = "HOST", requires = "login")]
    token_server: Option<Box<str>>,
    /// Speak HTTP without TLS; always done on loopback
    #[arg(long)]
    plain_http: bool,
}

fn destination(text: &str) -> Result<PluginReference, String> {
    let reference = text.parse::<PluginReference>().map_err(|bad| bad.to_string())?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => {
            Err("found a digest, expected a tag or neither: publishing names the digest".into())
        }
    }
}

impl RegistryAccess {
    fn of(&self, reference: &PluginReference) -> Result<RegistrySettings, CommandError> {
        let login = self.login.as_deref().map(|path| {
            let text = read_line(path)?;
            let login = text.trim_end_matches(['\n', '\r']);
            if !login.contains(':') {
                let path = path.display();
                let words = format!("{path}: found a login without `:`, expected `user:password`");
                return Err(CommandError::Wrong(words));
            }
            Ok(SecretFile::new(login.as_bytes().to_vec()))
        });
        let plain_http = self.plain_http.then_some(true);
        let default = RegistrySettings::of(reference.registry());
        let (login, token_server) = (login.transpose()?, self.token_server.clone());
        Ok(RegistrySettings { login, token_server, plain_http, ..default })
    }
}

fn read_line(path: &Path) -> Result<String, CommandError> {
    let bytes = file::read(path, LINE_BYTES_MAX).map_err(|error| unreadable(path, &error))?;
    String::from_utf8(bytes)
        .map_err(|_| CommandError::Wrong(format!("{}: found no text", path.display())))
}

fn failed(error: &dyn Display) -> CommandError {
    CommandError::Failed(error.to_string())
}

/// The signer's line.
fn signature(signer: Option<PublicKey>) -> String {
    signer.map_or("none".to_owned(), |key| format!("by {key}"))
}

impl PublishArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let plugin = read_file(&self.plugin)?;
        // The command publishes no plugin that gateways refuse.
        let wrong =
            |refused: evenkeel_host::PluginRefusal| CommandError::Wrong(refused.to_string());
        let manifest = read_manifest(&plugin).map_err(wrong)?;
        let signer = signer(&plugin).map_err(wrong)?;
        let registry = self.access.of(&self.to)?;
        let (name, version) = (manifest.name.to_string(), manifest.version.to_string());
        let (title, bytes) = (PluginTitle { name, version }, plugin.len());
        let digest = runtime()?.block_on(async {
            let by = Instant::now() + WITHIN;
            evenkeel_registry::publish(plugin, &title, &self.to, &registry, by).await
        });
        let pinned = self.to.pinned(digest.map_err(|error| failed(&error))?).to_string();
        let shown = json!({
            "reference": pinned, "tag": self.to.tag(), "bytes": bytes,
            "signer": signer.map(|key| key.to_string()),
        });
        show_lines(self.json, &shown, || {
            let signature = signature(signer);
            format!("{pinned}\n  bytes      {bytes}\n  signature  {signature}")
        });
        Ok(())
    }
}

impl PullArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let trusted = self.trust.iter().map(|path| {
            let key = read_line(path)?.parse::<PublicKey>();
            key.map_err(|bad| CommandError::Wrong(format!("{}: found {bad}", path.display())))
        });
        let trusted = trusted.collect::<Result<Vec<PublicKey>, CommandError>>()?;
        let registry = self.access.of(&self.reference)?;
        // Without a usable folder each plugin is pulled anew.
        let cache = PluginCache::open(&CacheFolder::Usual.candidates()).ok();
        let pulled = runtime()?.block_on(async {
            let by = Instant::now() + WITHIN;
            evenkeel_registry::pull(&self.reference, &registry, cache.as_ref(), by).await
        });
        let pulled = pulled.map_err(|error| failed(&error))?;
        read_manifest(&pulled.bytes).map_err(|refused| failed(&refused))?;
        let signer = signer(&pulled.bytes).map_err(|refused| failed(&refused))?;
        if !trusted.is_empty() && !signer.is_some_and(|key| trusted.contains(&key)) {
            let signature = signature(signer);
            let words = format!(
                "found signature {signature}, expected one by a key of --trust; nothing was written"
            );
            return Err(CommandError::Failed(words));
        }
        let name = self.reference.name().rsplit('/').next().unwrap_or_default();
        let out = self.out.unwrap_or_else(|| PathBuf::from(format!("{name}.wasm")));
        replace(&out, &pulled.bytes)
            .map_err(|error| failed(&format!("{}: {error}", out.display())))?;
        let pinned = self.reference.pinned(pulled.digest).to_string();
        let shown = json!({
            "reference": pinned, "out": out, "bytes": pulled.bytes.len(),
            "signer": signer.map(|key| key.to_string()), "cached": pulled.was_kept,
        });
        show_lines(self.json, &shown, || {
            let (signature, bytes) = (signature(signer), pulled.bytes.len());
            let from = if pulled.was_kept { ", from the cache" } else { "" };
            let out = out.display();
            format!(
                "{pinned}\n  file       {out}{from}\n  bytes      {bytes}\n  signature  {signature}"
            )
        });
        Ok(())
    }
}
