//! Options, output and exit codes that commands share.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use evenkeel_client::{ApiClient, ApiEndpoint, ClientError};
use evenkeel_config::Compiler;
use evenkeel_host::{DataDocument, DataDocuments, nearest};
use evenkeel_process::{escape, escape_lines};
use evenkeel_server::ServePaths;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

#[derive(Args, Clone)]
pub(crate) struct ConfigArgs {
    /// Configuration file; without it the gateway runs on loopback without nodes
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of policy sets; each file replaces the embedded set of its name
    #[arg(long, value_name = "FOLDER")]
    pub(crate) policies: Option<PathBuf>,
}

impl ConfigArgs {
    /// The server's options. The server starts this program to compile plugins.
    pub(crate) fn serve(self) -> ServePaths {
        let ConfigArgs { config, policies } = self;
        let compiler = Some(Compiler::this_program());
        ServePaths { config, policies, compiler, ..ServePaths::default() }
    }
}

/// The exit code of a change that was executed, and that a restart or a takeover may forget, or that continues.
pub(crate) const UNCONFIRMED: u8 = 4;

pub(crate) enum CommandError {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2: the command line or the configuration is wrong.
    Wrong(String),
    /// Exit code 3: no gateway answers.
    NoGateway(String),
    /// The API refused the request, with a code of its own. Exit code 1, 3 by [`CommandError::unanswered`], or [`UNCONFIRMED`].
    Refused { exit: u8, code: String, words: String },
}

impl CommandError {
    /// The exit code, the code of `--json`, and the message.
    pub(crate) fn parts(self) -> (u8, String, String) {
        match self {
            CommandError::Failed(words) => (1, "failed".to_owned(), words),
            CommandError::Wrong(words) => (2, "wrong".to_owned(), words),
            CommandError::NoGateway(words) => (3, "no-gateway".to_owned(), words),
            CommandError::Refused { exit, code, words } => (exit, code, words),
        }
    }

    /// The failure of a command of which exit code 1 is an answer: exit code 3.
    pub(crate) fn unanswered(self) -> CommandError {
        match self {
            CommandError::Failed(words) => CommandError::NoGateway(words),
            CommandError::Refused { code, words, .. } => {
                CommandError::Refused { exit: 3, code, words }
            }
            other => other,
        }
    }
}

/// The options that select a gateway.
#[derive(Args, Clone)]
pub(crate) struct ApiArgs {
    // Not by clap's `env`, which makes it look required in usage lines.
    /// Unix socket or TCP address of the API; default: that in EVENKEEL_API, or else that of `evenkeel run`
    #[arg(long, value_name = "SOCKET|ADDRESS", global = true)]
    api: Option<String>,
    /// File with the API's token in its first line, for TCP
    #[arg(long, value_name = "FILE", global = true)]
    token: Option<PathBuf>,
    /// Seconds to wait for an answer; compiling a large plugin takes several
    #[arg(long, value_name = "SECONDS", default_value_t = 60, global = true)]
    timeout: u64,
}

impl ApiArgs {
    /// Returns the same options with a longer timeout.
    pub(crate) fn waiting_longer(&self, by: Duration) -> ApiArgs {
        ApiArgs { timeout: self.timeout.saturating_add(by.as_secs()), ..self.clone() }
    }

    /// Returns the same options for another gateway.
    #[cfg(feature = "lab")]
    pub(crate) fn at(&self, place: &str) -> ApiArgs {
        ApiArgs { api: Some(place.to_owned()), ..self.clone() }
    }

    pub(crate) fn read(&self, path: &str) -> Result<Value, CommandError> {
        self.operate(async |admin| admin.read(path).await)
    }

    pub(crate) fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, CommandError> {
        self.operate(async |admin| admin.post(path, body).await)
    }

    /// Reads an answer that is not printed as JSON.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        self.operate(async |admin| admin.get(path).await)
    }

    /// Speaks with the gateway. An unknown name counts as a wrong command line.
    pub(crate) fn operate<T>(
        &self,
        speak: impl AsyncFnOnce(&mut ApiClient) -> Result<T, ClientError>,
    ) -> Result<T, CommandError> {
        let runtime = runtime()?;
        let mut admin = self.client()?;
        let within = Duration::from_secs(self.timeout);
        let answer =
            runtime.block_on(async { tokio::time::timeout(within, speak(&mut admin)).await });
        let silent = |_| {
            let (shown, within) = (self.shown(), self.timeout);
            CommandError::NoGateway(format!(
                "the gateway at {shown} did not answer within {within} s, and may still execute a change; --timeout waits longer"
            ))
        };
        answer.map_err(silent)?.map_err(|failed| self.explain(failed))
    }

    /// Listens to the gateway, without a limit of time.
    pub(crate) fn follow(
        &self,
        listen: impl AsyncFnOnce(&mut ApiClient) -> Result<(), ClientError>,
    ) -> Result<(), CommandError> {
        let mut admin = self.client()?;
        runtime()?.block_on(listen(&mut admin)).map_err(|failed| self.explain(failed))
    }

    pub(crate) fn explain(&self, failed: ClientError) -> CommandError {
        match failed {
            ClientError::Unreached(error) if error.kind() == ErrorKind::PermissionDenied => {
                CommandError::NoGateway(format!(
                    "this user may not use {}: run the command as its owner or as root",
                    self.shown()
                ))
            }
            ClientError::Unreached(_) if self.is_no_address() => CommandError::Wrong(format!(
                "found `{}`, expected an IP address and port such as `127.0.0.1:7400`, or the path of a Unix socket",
                self.shown()
            )),
            ClientError::Unreached(error) => CommandError::NoGateway(format!(
                "no gateway answers at {}: {error}; start one with `evenkeel run`, or name another with --api",
                self.shown()
            )),
            ClientError::Refused { status: 400 | 404, message, .. } => CommandError::Wrong(message),
            ClientError::Refused { ref code, .. } if !code.is_empty() => {
                let exit = if code == "unconfirmed" { UNCONFIRMED } else { 1 };
                CommandError::Refused { exit, code: code.clone(), words: failed.to_string() }
            }
            failed => CommandError::Failed(failed.to_string()),
        }
    }

    pub(crate) fn client(&self) -> Result<ApiClient, CommandError> {
        let place = match self.shown().parse() {
            Ok(address) => ApiEndpoint::Tcp(address),
            Err(_) => ApiEndpoint::Unix(self.shown().into()),
        };
        let admin = ApiClient::new(place);
        let admin = match user() {
            Some(user) => admin.from_user(&user),
            None => admin,
        };
        let Some(path) = &self.token else {
            return Ok(admin);
        };
        let token = std::fs::read_to_string(path).map_err(|error| {
            CommandError::Wrong(format!("cannot read the token {}: {error}", path.display()))
        })?;
        let mut lines = token.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(admin.with_token(lines.next().unwrap_or_default()))
    }

    /// A host's name and port, which would otherwise be the name of a socket in this folder.
    fn is_no_address(&self) -> bool {
        let shown = self.shown();
        let is_port = |(_, port): (&str, &str)| port.parse::<u16>().is_ok();
        shown.parse::<SocketAddr>().is_err()
            && !shown.contains('/')
            && shown.rsplit_once(':').is_some_and(is_port)
    }

    pub(crate) fn shown(&self) -> String {
        let of_environment = || std::env::var("EVENKEEL_API").ok().filter(|api| !api.is_empty());
        self.api.clone().or_else(of_environment).unwrap_or_else(|| {
            evenkeel_config::AdminSettings::default_socket().display().to_string()
        })
    }
}

/// The name of the user, as the environment has it.
fn user() -> Option<String> {
    let named =
        ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|key| std::env::var(key).ok());
    named.filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// An event loop on this thread.
pub(crate) fn runtime() -> Result<Runtime, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CommandError::Failed(error.to_string()))
}

/// Prints a line on standard output; control characters in it are escaped, because text may come from outside.
pub(crate) fn say(line: &impl Display) {
    print(&escape(&line.to_string()));
}

/// Like [`say`], for text of several lines.
pub(crate) fn say_lines(lines: &impl Display) {
    print(&escape_lines(&lines.to_string()));
}

/// A reader that closed the pipe ends the program successfully.
fn print(text: &str) {
    if let Err(error) = writeln!(io::stdout(), "{text}") {
        let is_closed = error.kind() == ErrorKind::BrokenPipe;
        if !is_closed {
            eprintln!("evenkeel: standard output: {error}");
        }
        std::process::exit(i32::from(!is_closed));
    }
}

pub(crate) fn show(json: bool, answer: &Value, words: impl FnOnce() -> String) {
    if json {
        say(answer);
    } else {
        say(&words());
    }
}

/// Like [`show`], for text of several lines.
pub(crate) fn show_lines(json: bool, answer: &Value, words: impl FnOnce() -> String) {
    if json {
        say(answer);
    } else {
        say_lines(&words());
    }
}

/// Prints a list: as the gateway answered, or a line for each row.
pub(crate) fn list<L: DeserializeOwned, R>(
    json: bool,
    answer: &Value,
    rows: impl FnOnce(L) -> Vec<R>,
    line: impl Fn(&R) -> String,
) -> Result<(), CommandError> {
    if json {
        say(answer);
    } else {
        rows(typed(answer)?).iter().for_each(|row| say(&line(row)));
    }
    Ok(())
}

/// A number with its noun: `1 session`, `2 sessions`.
pub(crate) fn counted(number: u32, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// An answer of this type.
pub(crate) fn typed<T: DeserializeOwned>(answer: &Value) -> Result<T, CommandError> {
    T::deserialize(answer)
        .map_err(|error| CommandError::Failed(format!("not the answer expected: {error}")))
}

/// Prints that an operation was accepted and continues.
pub(crate) fn print_accepted(json: bool, words: impl Into<String>) {
    show(json, &json!({"accepted": true}), || words.into());
}

/// Prints that an operation is complete.
pub(crate) fn print_done(json: bool, words: impl Into<String>) {
    show(json, &json!({"done": true}), || words.into());
}

/// Fails with these words if there are any. With `json` the report was the last line.
pub(crate) fn verdict(json: bool, words: Option<String>) -> Result<(), CommandError> {
    match words {
        None => Ok(()),
        Some(words) => Err(CommandError::Failed(if json { String::new() } else { words })),
    }
}

pub(crate) fn read_file(file: &Path) -> Result<Vec<u8>, CommandError> {
    std::fs::read(file).map_err(|error| unreadable(file, &error))
}

pub(crate) fn unreadable(file: &Path, error: &io::Error) -> CommandError {
    CommandError::Wrong(format!("cannot read {}: {error}", file.display()))
}

/// The error about a name that is none of the known ones, with the closest of them.
pub(crate) fn unknown_name<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> CommandError {
    let known: Vec<&str> = known.into_iter().collect();
    let there_are = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let meant = nearest(name, known).map(|meant| format!("; {meant}")).unwrap_or_default();
    CommandError::Wrong(format!("there is no such {what}: {name}; there are {there_are}{meant}"))
}

/// Parses `NAME=FILE`.
pub(crate) fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let named = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, file) = named.ok_or_else(|| format!("found `{text}`, expected NAME=FILE"))?;
    Ok((name.to_owned(), file.into()))
}

/// Data documents in files of TOML or JSON.
pub(crate) fn documents_of(files: &[(String, PathBuf)]) -> Result<DataDocuments, CommandError> {
    let read = |(name, file): &(String, PathBuf)| {
        let wrong = |error: String| CommandError::Wrong(format!("{}: {error}", file.display()));
        let document = DataDocument::of(name, &table_of(file, "data document")?);
        Ok((name.as_str().into(), document.map_err(|refused| wrong(refused.to_string()))?))
    };
    files.iter().map(read).collect()
}

/// Settings of a plugin, in a file of TOML or JSON.
pub(crate) fn settings_of(file: &Path) -> Result<Value, CommandError> {
    table_of(file, "file of settings")
}

/// Content of a file of TOML or JSON. Errors call the file by the noun.
pub(crate) fn table_of(file: &Path, noun: &str) -> Result<Value, CommandError> {
    let wrong = |error: String| CommandError::Wrong(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file)
        .map_err(|error| wrong(format!("cannot read this {noun}: {error}")))?;
    evenkeel_author::read_table(&text).map_err(wrong)
}
