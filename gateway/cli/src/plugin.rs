//! `evenkeel plugin`.

mod case;
mod dev;
mod file;
mod profile;
mod registry;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use evenkeel_author::case::{self as cases, Case};
use evenkeel_author::coverage::{CoverageReport, cover};
use evenkeel_author::measure::measure;
use evenkeel_author::{
    AuthorError, BuiltPlugin, Inspection, Language, Project, conformance, create, migration,
    replace,
};
use evenkeel_host::{SecretKey, sign};
use evenkeel_model::Hook;
use evenkeel_process::escape;
use serde::Serialize;
use serde_json::{Value, json};

use crate::command::{
    CommandError, read_file, say, say_lines, settings_of, show, show_lines, unreadable, verdict,
};
use crate::progress::report_progress;
use crate::recording::TrialOutcome;

use self::case::{AskArgs, RecordToCaseArgs};
use self::dev::DevArgs;
use self::file::{DataArgs, TestedArgs, read};
use self::profile::ProfileArgs;
use self::registry::{PublishArgs, PullArgs};

/// Maximum size of a key file in bytes. A key is one line; a larger file was named by mistake.
const KEY_FILE_MAX: u64 = 4_096;

/// Create, build, test, benchmark, inspect, sign and publish plugins
///
/// A plugin is a policy compiled to WebAssembly. This program and a compiler are enough: of Rust (from rustup, with `rustup
/// target add wasm32-unknown-unknown`), C or JavaScript. No gateway has to run.
#[derive(Args)]
pub(crate) struct PluginArgs {
    #[command(subcommand)]
    verb: PluginCommand,
}

#[derive(Subcommand)]
enum PluginCommand {
    New(NewArgs),
    Build(BuildArgs),
    Test(TestArgs),
    Dev(DevArgs),
    Ask(AskArgs),
    RecordToCase(RecordToCaseArgs),
    Bench(BenchArgs),
    Profile(ProfileArgs),
    Inspect(InspectArgs),
    Sign(SignArgs),
    Key(KeyArgs),
    Publish(PublishArgs),
    Pull(PullArgs),
}

/// Create a project: a small working policy, its tests, and the SDK of its language
#[derive(Args)]
struct NewArgs {
    /// Name of the plugin and the folder: lower-case letters, digits and hyphens
    name: String,
    /// Hook of the plugin
    #[arg(long, value_parser = hooks())]
    hook: Hook,
    /// Language of the policy
    #[arg(long, value_parser = languages(), default_value = "rust")]
    lang: Language,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compile the project to NAME.wasm and check it as a gateway would
///
/// A warning says if it does not read the states that the NAME.wasm before it wrote.
#[derive(Args)]
struct BuildArgs {
    /// Folder of the project
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Run a project's tests, then call the plugin with random inputs as a gateway would
///
/// Inputs are regions, nodes, rooms and sessions drawn from a seed; in every second one values are missing, 0 or at their
/// maximum. The plugin must not fail, name unknown nodes, or answer differently from a fresh instance. The bounds of its
/// settings are tried too. The first call that exceeds the time limit of a gateway ends the test. Exit code 1: a check failed.
///
/// Cases, in the folder `tests` beside the project or plugin, are questions with the answers that are expected, in TOML or JSON;
/// see `docs/policies.md`.
///
/// With --recording it also repeats the recorded calls of its hook (`evenkeel policy record`): it must not fail, give answers
/// that the gateway would reject, or exceed the instructions of its manifest. Decisions that differ from the recorded ones
/// are counted and shown, but are no failure.
#[derive(Args)]
struct TestArgs {
    #[command(flatten)]
    tested: TestedArgs,
    /// File with settings, JSON or TOML; default: the plugin's own
    #[arg(long, value_name = "FILE.json|toml")]
    settings: Option<PathBuf>,
    /// An older version of the plugin: the plugin must read its states
    #[arg(long, value_name = "OLD.wasm")]
    from: Option<PathBuf>,
    /// Recording of `evenkeel policy record`; may be repeated
    #[arg(long, value_name = "FILE.ekr")]
    recording: Vec<PathBuf>,
    /// Count the branches of the plugin that these inputs and cases reach
    ///
    /// A project is compiled again, with lines of source. For a plugin file lines are known if it has debug information.
    #[arg(long)]
    coverage: bool,
    /// Number of random inputs
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    worlds: u32,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Measure time and instructions of a plugin's calls
///
/// Instructions are the same on every machine. Exit code 1: the plugin takes more instructions than its manifest promises. If
/// its project is in the folder of the file or in this one, the same code is also compiled natively and measured.
#[derive(Args)]
struct BenchArgs {
    /// Plugin: a WebAssembly module or component
    plugin: PathBuf,
    /// Project of the plugin; default: the folder of the file or this one, if the project is there
    #[arg(long, value_name = "FOLDER")]
    project: Option<PathBuf>,
    /// File with settings, JSON or TOML; default: the plugin's own
    #[arg(long, value_name = "FILE.json|toml")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show a plugin's hooks, settings, metrics, actions, imports, digest and signature
///
/// Exit code 1: a gateway would refuse the file, or its signature is invalid; the readable parts and the reason are shown.
/// Trusted keys are configured at each gateway (`[trust]`).
///
/// With --json: `signer` is the key of a valid signature, `refused` and `code` are the text and code of the reason.
#[derive(Args)]
struct InspectArgs {
    /// Plugin: a WebAssembly module or component
    plugin: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn hooks() -> impl TypedValueParser<Value = Hook> {
    let values = [
        PossibleValue::new("routing").help("Choose a room's node and standbys"),
        PossibleValue::new("degradation").help("Choose the quality of a session"),
        PossibleValue::new("admission").help("Admit or refuse a session"),
        PossibleValue::new("scenario").help("Set the data-plane parameters of a scenario"),
    ];
    let named = |name: String| Hook::ALL.into_iter().find(|hook| hook.name() == name);
    PossibleValuesParser::new(values).map(move |name| named(name).expect("a name of a hook"))
}

fn languages() -> impl TypedValueParser<Value = Language> {
    let values = [
        PossibleValue::new("rust")
            .help("Needs Rust from rustup with the target wasm32-unknown-unknown"),
        PossibleValue::new("c").help("Needs clang and wasm-ld"),
        PossibleValue::new("js").help("JavaScript, with an engine of 12 MB; needs Node.js and npm"),
    ];
    let named = |name: String| Language::ALL.into_iter().find(|language| language.name() == name);
    PossibleValuesParser::new(values).map(move |name| named(name).expect("a name of a language"))
}

impl PluginArgs {
    /// Returns whether the command prints JSON, and its outcome.
    pub(crate) fn run(self) -> (bool, Result<(), CommandError>) {
        match self.verb {
            PluginCommand::New(new) => (new.json, new.run()),
            PluginCommand::Build(build) => (build.json, build.run()),
            PluginCommand::Test(test) => (test.json, test.run()),
            PluginCommand::Dev(dev) => (dev.json, dev.run()),
            PluginCommand::Ask(ask) => (ask.json, ask.run()),
            PluginCommand::RecordToCase(case) => (case.json, case.run()),
            PluginCommand::Bench(bench) => (bench.json, bench.run()),
            PluginCommand::Profile(profile) => (profile.json, profile.run()),
            PluginCommand::Inspect(inspect) => (inspect.json, inspect.run()),
            PluginCommand::Sign(sign) => (sign.json, sign.run()),
            PluginCommand::Key(key) => (key.json, key.run()),
            PluginCommand::Publish(publish) => (publish.json, publish.run()),
            PluginCommand::Pull(pull) => (pull.json, pull.run()),
        }
    }
}

impl NewArgs {
    fn run(self) -> Result<(), CommandError> {
        let name = &self.name;
        let folder = create(Path::new("."), name, self.hook, self.lang)?;
        let (hook, language) = (self.hook.name(), self.lang.name());
        let shown = json!({"folder": folder, "name": name, "hook": hook, "language": language});
        let (source, first) = match self.lang {
            Language::Rust => ("src/lib.rs", "    cargo test\n"),
            Language::C => ("policy.c", ""),
            Language::JavaScript => ("policy.js", "    npm ci\n"),
        };
        show_lines(self.json, &shown, || {
            format!(
                "{name} contains a working policy in {source}. Next:\n\n    cd {name}\n{first}    evenkeel \
                 plugin build\n    evenkeel plugin test"
            )
        });
        Ok(())
    }
}

impl BuildArgs {
    fn run(self) -> Result<(), CommandError> {
        let project = Project::at(&self.path)?;
        let built = BuiltPlugin::of(&project)?;
        let revision = built.revision().map_err(AuthorError::from)?;
        let unread = unread_states(&project.folder, &built);
        let path = built.write(&project.folder)?;
        let hooks: Vec<&str> =
            built.component.manifest().hooks.iter().map(|hook| hook.name()).collect();
        let (bytes, digest) = (built.bytes.len(), built.digest());
        if self.json {
            say(&json!({
                "plugin": path, "bytes": bytes, "digest": digest, "revision": revision, "hooks": hooks,
                "unread_states": unread,
            }));
            return Ok(());
        }
        if let Some(unread) = unread {
            eprintln!("evenkeel: warning: {}", escape(&unread));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let revision = match revision {
            Some(revision) => format!("revision {revision} with default settings"),
            None => "no revision: required settings have no default".to_owned(),
        };
        say_lines(&format!(
            "{name}: {bytes} bytes, hooks {}\n  digest   {digest}\n  {revision}",
            hooks.join(", ")
        ));
        Ok(())
    }
}

/// The states of the plugin that this build replaces, if the new one does not read them.
fn unread_states(folder: &Path, built: &BuiltPlugin) -> Option<String> {
    let name = format!("{}.wasm", built.component.manifest().name);
    let before = BuiltPlugin::from_bytes(fs::read(folder.join(name)).ok()?).ok()?;
    // Without an answer of the older plugin there is no state.
    migration::check(&before, built, &Value::Null).ok()?.map(|unread| unread.to_string())
}

impl TestArgs {
    fn run(self) -> Result<(), CommandError> {
        let settings = self.settings.as_deref().map(settings_of).transpose()?;
        let options = conformance::ConformanceOptions {
            seed: self.seed,
            worlds: self.worlds,
            settings: settings.clone().unwrap_or_default(),
        };
        let mut built = match &self.tested.plugin {
            Some(plugin) => read(plugin)?,
            None => {
                let project = Project::at(&self.tested.path)?;
                project.test(self.json)?;
                BuiltPlugin::of(&project)?
            }
        };
        built.documents = self.tested.data.read()?;
        let report = report_progress("testing", || conformance::run(&built, &options));
        let report = report.map_err(AuthorError::from)?;
        let older = self.from.as_deref().map(read).transpose()?;
        let unread = older.map(|older| migration::check(&older, &built, &options.settings));
        let unread = unread.transpose().map_err(AuthorError::from)?.flatten();
        let cases = self.tested.cases()?;
        let case_report = cases::run(&built, &cases, &options.settings)?;
        let tried =
            self.recording.iter().map(|path| TrialOutcome::on(path, &built, settings.clone()));
        let tried = tried.collect::<Result<Vec<TrialOutcome>, CommandError>>()?;
        let coverage = self.coverage.then(|| self.cover(&built, &options, &cases)).transpose()?;
        let is_passed = report.is_passed()
            && case_report.is_passed()
            && unread.is_none()
            && tried.iter().all(|tried| tried.is_passed);
        if self.json {
            say(&json!(TestOutput {
                report: report.json(),
                passed: is_passed,
                cases: case_report.json(),
                unread_states: unread.as_ref().map(ToString::to_string),
                coverage: coverage.as_ref().map(CoverageReport::json),
                recordings: tried.iter().map(|tried| &tried.json).collect(),
            }));
        } else {
            say_lines(&report);
            if !cases.is_empty() {
                say_lines(&case_report);
            }
            if let Some(unread) = unread {
                say(&format!("  wrong    {unread}"));
            }
            tried.iter().for_each(|tried| say_lines(&tried.lines));
            coverage.iter().for_each(say_lines);
        }
        let failed = (!is_passed).then(|| "the plugin failed a check; see above".into());
        verdict(self.json, failed)
    }
}

/// The output of `evenkeel plugin test --json`.
#[derive(Serialize)]
struct TestOutput<'a> {
    #[serde(flatten)]
    report: Value,
    passed: bool,
    cases: Value,
    unread_states: Option<String>,
    coverage: Option<Value>,
    recordings: Vec<&'a Value>,
}

/// The output of `evenkeel plugin bench --json`.
#[derive(Serialize)]
struct BenchOutput {
    #[serde(flatten)]
    report: Value,
    native_is_other_code: bool,
}

impl TestArgs {
    fn cover(
        &self,
        built: &BuiltPlugin,
        options: &conformance::ConformanceOptions,
        cases: &[Case],
    ) -> Result<CoverageReport, CommandError> {
        let mut with_lines = match &self.tested.plugin {
            Some(_) => None,
            None => Some(BuiltPlugin::for_coverage(&Project::at(&self.tested.path)?)?),
        };
        if let Some(with_lines) = &mut with_lines {
            with_lines.documents = built.documents.clone();
        }
        let built = with_lines.as_ref().unwrap_or(built);
        Ok(report_progress("testing", || cover(built, options, cases))?)
    }
}

impl BenchArgs {
    fn run(self) -> Result<(), CommandError> {
        let settings = self.settings.as_deref().map_or(Ok(Value::Null), settings_of)?;
        let mut built = read(&self.plugin)?;
        built.documents = self.data.read()?;
        let name = &built.component.manifest().name;
        let project = Project::of_plugin(name, &self.plugin, self.project.as_deref());
        let project = project?;
        let report = report_progress("measuring", || measure(&built, &settings, project.as_ref()));
        let report = report.map_err(AuthorError::from)?;
        let is_stale = match &project {
            Some(project) if report.not_native.is_none() => !built.is_current(project)?,
            Some(_) | None => false,
        };
        if self.json {
            say(&json!(BenchOutput { report: report.json(), native_is_other_code: is_stale }));
        } else {
            say_lines(&report);
            if is_stale {
                say(
                    &"  The project builds another plugin now: native figures are of the project, the others of this file.",
                );
            }
        }
        let exceeds = !report.exceeded.is_empty();
        verdict(self.json, exceeds.then(|| "it exceeds the cost in its manifest".into()))
    }
}

impl InspectArgs {
    fn run(self) -> Result<(), CommandError> {
        let bytes = read_file(&self.plugin)?;
        let compiling = format!("compiling {}", self.plugin.display());
        let inspection = report_progress(&compiling, || Inspection::of(&bytes));
        show_lines(self.json, &inspection.json(), || inspection.to_string());
        let refused = inspection.refused();
        verdict(self.json, refused.map(|refused| format!("a gateway would refuse it: {refused}")))
    }
}

impl From<AuthorError> for CommandError {
    fn from(failed: AuthorError) -> CommandError {
        let words = failed.to_string();
        if failed.is_of_the_question() {
            CommandError::Wrong(words)
        } else {
            CommandError::Failed(words)
        }
    }
}

/// Sign a plugin, replacing an earlier signature. Gateways that trust the key accept it.
#[derive(Args)]
struct SignArgs {
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
    json: bool,
}

/// Create keys that sign plugins.
#[derive(Args)]
struct KeyArgs {
    #[command(subcommand)]
    verb: KeyCommand,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Create a key pair: NAME.key, which is secret, and NAME.pub, for `[trust]` of gateways
    New {
        /// Path of both files without their ending; neither file may exist
        #[arg(long, value_name = "NAME")]
        out: PathBuf,
    },
}

impl SignArgs {
    fn run(self) -> Result<(), CommandError> {
        let key = read_key(&self.key)?;
        let plugin = read_file(&self.plugin)?;
        // The command signs no plugin that gateways refuse.
        evenkeel_host::read_manifest(&plugin)
            .map_err(|refused| CommandError::Wrong(refused.to_string()))?;
        let signed =
            sign(&plugin, &key).map_err(|refused| CommandError::Wrong(refused.to_string()))?;
        let out = self.out.as_deref().unwrap_or(&self.plugin);
        replace(out, &signed)
            .map_err(|error| CommandError::Failed(format!("{}: {error}", out.display())))?;
        let by = key.public().to_string();
        show(self.json, &json!({"plugin": out, "key": by}), || {
            format!("{} is signed with {by}", out.display())
        });
        Ok(())
    }
}

impl KeyArgs {
    fn run(self) -> Result<(), CommandError> {
        let KeyCommand::New { out } = self.verb;
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
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        show_lines(self.json, &json!({"secret": secret, "public": public, "key": text}), || {
            format!(
                "{} is secret. Gateways trust it by {}:\n\n    [trust]\n    keys = [{{ name = \
                 \"{name}\", public = \"{text}\" }}]",
                secret.display(),
                public.display()
            )
        });
        Ok(())
    }
}

fn read_key(path: &Path) -> Result<SecretKey, CommandError> {
    let facts = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if facts.len() > KEY_FILE_MAX {
        let words = format!("{}: found {} bytes, expected a key", path.display(), facts.len());
        return Err(CommandError::Wrong(words));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    SecretKey::read(&text)
        .map_err(|bad| CommandError::Wrong(format!("{}: found {bad}", path.display())))
}

fn write_new(path: &Path, mode: u32, line: &str) -> Result<(), CommandError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| writeln!(file, "{line}")).map_err(|error| {
        let is_there = error.kind() == io::ErrorKind::AlreadyExists;
        let help = if is_there { "; a key is never overwritten; choose another name" } else { "" };
        CommandError::Failed(format!("{}: {error}{help}", path.display()))
    })
}
