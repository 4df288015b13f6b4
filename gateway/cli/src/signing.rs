//! `evenkeel plugin sign` and `evenkeel plugin key new`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use evenkeel_host::{SecretKey, sign};
use serde_json::json;

use crate::{CommandError, say, say_lines};

/// Maximum size of a key file in bytes. A key is one line; a larger file was named by mistake.
const KEY_FILE_MAX: u64 = 4_096;

/// Sign a plugin, replacing an earlier signature. Gateways that trust the key accept it.
#[derive(Args)]
pub(crate) struct Sign {
    /// Plugin: a WebAssembly module or component
    plugin: PathBuf,
    /// Secret key of `evenkeel plugin key new`
    #[arg(long, value_name = "NAME.key")]
    key: PathBuf,
    /// Output file; default: replace the plugin
    #[arg(long, value_name = "FILE.wasm")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Create keys that sign plugins.
#[derive(Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    verb: KeyVerb,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum KeyVerb {
    /// Create a key pair: NAME.key, which is secret, and NAME.pub, for `[trust]` of gateways
    New {
        /// Path of both files without their ending; neither file may exist
        #[arg(long, value_name = "NAME")]
        out: PathBuf,
    },
}

impl Sign {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let key = read_key(&self.key)?;
        let plugin = fs::read(&self.plugin).map_err(|error| wrong(&self.plugin, &error))?;
        // The command signs no plugin that gateways refuse.
        evenkeel_host::look(&plugin).map_err(|refused| CommandError::Wrong(refused.to_string()))?;
        let signed =
            sign(&plugin, &key).map_err(|refused| CommandError::Wrong(refused.to_string()))?;
        let out = self.out.as_deref().unwrap_or(&self.plugin);
        write_whole(out, &signed)
            .map_err(|error| CommandError::Failed(format!("{}: {error}", out.display())))?;
        let by = key.public().to_string();
        if self.json {
            say(&json!({"plugin": out, "key": by}));
        } else {
            say(&format!("{} is signed with {by}", out.display()));
        }
        Ok(())
    }
}

impl KeyArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let KeyVerb::New { out } = self.verb;
        let [secret, public] = ["key", "pub"].map(|ending| {
            let mut name = out.clone().into_os_string();
            name.push(format!(".{ending}"));
            PathBuf::from(name)
        });
        let key = SecretKey::generate();
        write_new(&secret, 0o600, &key.text())?;
        if let Err(failure) = write_new(&public, 0o644, &key.public().to_string()) {
            // Remove the secret key too, because the file would block the next attempt.
            let _ = fs::remove_file(&secret);
            return Err(failure);
        }
        let text = key.public().to_string();
        if self.json {
            say(&json!({"secret": secret, "public": public, "key": text}));
            return Ok(());
        }
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        say_lines(&format!(
            "{} is secret. Gateways trust it by {}:\n\n    [trust]\n    keys = [{{ name = \
             \"{name}\", public = \"{text}\" }}]",
            secret.display(),
            public.display()
        ));
        Ok(())
    }
}

fn read_key(path: &Path) -> Result<SecretKey, CommandError> {
    let facts = fs::metadata(path).map_err(|error| wrong(path, &error))?;
    if facts.len() > KEY_FILE_MAX {
        let words = format!("{}: found {} bytes, expected a key", path.display(), facts.len());
        return Err(CommandError::Wrong(words));
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(path, &error))?;
    SecretKey::read(&text)
        .map_err(|bad| CommandError::Wrong(format!("{}: found {bad}", path.display())))
}

fn wrong(path: &Path, error: &io::Error) -> CommandError {
    CommandError::Wrong(format!("cannot read {}: {error}", path.display()))
}

fn write_new(path: &Path, mode: u32, line: &str) -> Result<(), CommandError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| writeln!(file, "{line}")).map_err(|error| {
        let is_there = error.kind() == io::ErrorKind::AlreadyExists;
        let help = if is_there { "; a key is never overwritten; choose another name" } else { "" };
        CommandError::Failed(format!("{}: {error}{help}", path.display()))
    })
}

/// Replaces a file atomically, since gateways may read it.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.new", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let written = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}
