//! `evenkeel plugin`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use evenkeel_author::exam::{self, exam};
use evenkeel_author::measure::measure;
use evenkeel_author::{Built, Chatter, Failed, Inspection, Name, Project, create};
use evenkeel_core::Hook;
use serde_json::{Value, json};

use crate::policy::settings_of;
use crate::recording::Tried;
use crate::signing::{Key, Sign};
use crate::{Failure, say};

/// Write plugins: begin one, build it, try it, measure it, look into it and sign it
///
/// A plugin is a policy compiled to WebAssembly. All that it takes is this program and Rust (by rustup, with `rustup
/// target add wasm32-unknown-unknown`); no gateway has to run.
#[derive(Args)]
pub(crate) struct Plugin {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    New(New),
    Build(Build),
    Test(Test),
    Bench(Bench),
    Inspect(Inspect),
    Sign(Sign),
    Key(Key),
}

/// Begin a plugin: a folder with a small policy that works, its tests, and the SDK's source
#[derive(Args)]
struct New {
    /// Its name, and the folder's: lower-case letters, digits and hyphens
    name: String,
    /// What it decides
    #[arg(long, value_enum)]
    hook: OfHook,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

/// Compile the project to NAME.wasm, and have the gateway's own checks look at it
#[derive(Args)]
struct Build {
    /// The project
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    path: PathBuf,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

/// Run a project's tests, then ask the plugin about random worlds as a gateway would
///
/// In Wasm it is asked about worlds of regions, nodes, rooms and sessions, drawn from a seed; in every second one values are
/// missing, 0, or as large as they get. It must not fail, name what is not there, or answer a fresh instance otherwise than
/// one that was asked before. Each bound of its settings is tried too. Where something is wrong, it ends with 1.
///
/// With --recording it is asked, besides, all that a gateway's policies of its hook were asked (`evenkeel policy record`): it
/// must not fail, nor answer what the gateway would not do, nor take more instructions than its manifest promises. How many
/// of its decisions differ from those recorded is told, with the first of them; that is nothing wrong.
#[derive(Args)]
struct Test {
    /// A plugin's file; its project's tests are not run then. Default: the project is built
    plugin: Option<PathBuf>,
    /// The project
    #[arg(long, value_name = "FOLDER", default_value = ".", conflicts_with = "plugin")]
    path: PathBuf,
    /// A file with its settings, as JSON or TOML; default: the plugin's own
    #[arg(long, value_name = "FILE.json|toml")]
    settings: Option<PathBuf>,
    /// What `evenkeel policy record` wrote; more than once for several
    #[arg(long, value_name = "FILE.ekr")]
    recording: Vec<PathBuf>,
    /// How many worlds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    worlds: u32,
    /// Where the dice come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

/// Say what a plugin's answers cost: time, and instructions, which are the same on every machine
///
/// Where its manifest promises a cost and it takes more instructions, it ends with 1. Where the plugin's project is at hand,
/// in the folder of the file or in this one, its code is compiled natively too and asked the same.
#[derive(Args)]
struct Bench {
    /// The plugin: a WebAssembly module or component
    plugin: PathBuf,
    /// The project it was built from; default: the folder of the file, or this one, where the plugin's project is there
    #[arg(long, value_name = "FOLDER")]
    project: Option<PathBuf>,
    /// A file with its settings, as JSON or TOML; default: the plugin's own
    #[arg(long, value_name = "FILE.json|toml")]
    settings: Option<PathBuf>,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

/// Show what a plugin's file says of itself: hooks, settings, metrics, actions, imports, digest, and whose key signed it
///
/// Of a file that no gateway takes it shows what can be read, says why, and ends with 1; so it does where the signature is not
/// of these bytes. Which keys are trusted is a gateway's own (`[trust]`).
///
/// With --json: `signer` is the key of a signature that fits, `refused` and `code` are the reason in words and in a word.
#[derive(Args)]
struct Inspect {
    /// The plugin: a WebAssembly module or component
    plugin: PathBuf,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum OfHook {
    /// Which node carries a room, and which stand by
    Routing,
    /// How much quality a session gets
    Degradation,
    /// Whether a session may come in
    Admission,
    /// What a scenario asks of the data plane
    Scenario,
}

impl From<OfHook> for Hook {
    fn from(hook: OfHook) -> Hook {
        match hook {
            OfHook::Routing => Hook::Routing,
            OfHook::Degradation => Hook::Degradation,
            OfHook::Admission => Hook::Admission,
            OfHook::Scenario => Hook::Scenario,
        }
    }
}

impl Plugin {
    pub(crate) fn act(self) -> Result<(), Failure> {
        match self.verb {
            Verb::New(new) => new.act(),
            Verb::Build(build) => build.act(),
            Verb::Test(test) => test.act(),
            Verb::Bench(bench) => bench.act(),
            Verb::Inspect(inspect) => inspect.act(),
            Verb::Sign(sign) => sign.act(),
            Verb::Key(key) => key.act(),
        }
    }

    pub(crate) fn json(&self) -> bool {
        match &self.verb {
            Verb::New(new) => new.json,
            Verb::Build(build) => build.json,
            Verb::Test(test) => test.json,
            Verb::Bench(bench) => bench.json,
            Verb::Inspect(inspect) => inspect.json,
            Verb::Sign(sign) => sign.json,
            Verb::Key(key) => key.json,
        }
    }
}

impl New {
    fn act(self) -> Result<(), Failure> {
        let name: Name = self.name.parse()?;
        let folder = create(Path::new("."), &name, self.hook.into())?;
        if self.json {
            let hook = Hook::from(self.hook).name();
            say(&json!({"folder": folder, "name": name.as_str(), "hook": hook}));
        } else {
            say(&format!(
                "{name} is a policy that works; src/lib.rs is all of it. Next:\n\n    cd {name}\n    cargo test\n    evenkeel \
                 plugin build\n    evenkeel plugin test"
            ));
        }
        Ok(())
    }
}

impl Build {
    fn act(self) -> Result<(), Failure> {
        let project = Project::at(&self.path)?;
        let built = Built::of(&project)?;
        let path = built.write(project.folder())?;
        let hooks: Vec<&str> =
            built.component().manifest().hooks.iter().map(|hook| hook.name()).collect();
        let (bytes, digest, revision) = (built.bytes().len(), built.digest(), built.revision());
        if self.json {
            say(&json!({
                "plugin": path, "bytes": bytes, "digest": digest, "revision": revision, "hooks": hooks,
            }));
            return Ok(());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let revision = match revision {
            Some(revision) => format!("revision {revision} with default settings"),
            None => "no revision without settings: some have to be set".to_owned(),
        };
        say(&format!(
            "{name}: {bytes} bytes, answers {}\n  digest   {digest}\n  {revision}",
            hooks.join(", ")
        ));
        Ok(())
    }
}

impl Test {
    fn act(self) -> Result<(), Failure> {
        let settings = self.settings.as_deref().map(settings_of).transpose()?;
        let options = exam::Options {
            seed: self.seed,
            worlds: self.worlds,
            settings: settings.clone().unwrap_or_default(),
        };
        let built = match &self.plugin {
            Some(plugin) => read(plugin)?,
            None => {
                let project = Project::at(&self.path)?;
                let chatter = if self.json { Chatter::Error } else { Chatter::Out };
                project.test(chatter)?;
                Built::of(&project)?
            }
        };
        let report = exam(&built, &options).map_err(Failed::from)?;
        let tried = self.recording.iter().map(|path| Tried::on(path, &built, settings.clone()));
        let tried = tried.collect::<Result<Vec<Tried>, Failure>>()?;
        let is_passed = report.is_passed() && tried.iter().all(Tried::is_passed);
        if self.json {
            let mut shown = report.json();
            shown["passed"] = json!(is_passed);
            shown["recordings"] = tried.iter().map(|tried| tried.json().clone()).collect();
            say(&shown);
        } else {
            say(&report);
            tried.iter().for_each(|tried| say(&tried.said()));
        }
        match (is_passed, self.json) {
            (true, _) => Ok(()),
            // Its object says so, and is the last line.
            (false, true) => Err(Failure::Failed(String::new())),
            (false, false) => {
                Err(Failure::Failed("the plugin is not as it should be; see above".into()))
            }
        }
    }
}

impl Bench {
    fn act(self) -> Result<(), Failure> {
        let settings = self.settings.as_deref().map_or(Ok(Value::Null), settings_of)?;
        let built = read(&self.plugin)?;
        let name = &built.component().manifest().name;
        let project = Project::of_plugin(name, &self.plugin, self.project.as_deref());
        let project = project?;
        let report = measure(&built, &settings, project.as_ref()).map_err(Failed::from)?;
        let is_stale = match &project {
            Some(project) if report.not_native.is_none() => !project.makes(&built)?,
            Some(_) | None => false,
        };
        if self.json {
            let mut shown = report.json();
            shown["native_is_other_code"] = json!(is_stale);
            say(&shown);
        } else {
            say(&report);
            if is_stale {
                say(
                    &"  The project makes another plugin by now: native is what it makes, the rest is this file.",
                );
            }
        }
        match (report.exceeded.is_empty(), self.json) {
            (true, _) => Ok(()),
            (false, true) => Err(Failure::Failed(String::new())),
            (false, false) => {
                Err(Failure::Failed("it costs more than its manifest promises".into()))
            }
        }
    }
}

impl Inspect {
    fn act(self) -> Result<(), Failure> {
        let inspection = Inspection::of(&bytes(&self.plugin)?);
        if self.json {
            say(&inspection.json());
        } else {
            say(&inspection);
        }
        match (inspection.refused(), self.json) {
            (None, _) => Ok(()),
            (Some(_), true) => Err(Failure::Failed(String::new())),
            (Some(refused), false) => {
                Err(Failure::Failed(format!("no gateway takes it: {refused}")))
            }
        }
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::Wrong(format!("cannot read {}: {error}", file.display())))
}

fn read(file: &Path) -> Result<Built, Failure> {
    Ok(Built::from_bytes(bytes(file)?).map_err(Failed::from)?)
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Failure {
        let words = failed.to_string();
        if failed.is_of_the_question() { Failure::Wrong(words) } else { Failure::Failed(words) }
    }
}
