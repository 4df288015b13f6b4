//! Labels revisions by worlds that each decides alone, beside the plugin as it is.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use evenkeel_host::{Component, Engine};
use evenkeel_model::PolicyName;
use evenkeel_report::Run;
use evenkeel_simulate::{Harm, Noise, Oracle, OracleRevision, OracleRun};
use fastrand::Rng;
use serde_json::Value;

use crate::active;
use crate::corpus::{Corpus, Label, LabelledRevision, PluginCorpus, draw_pairs};
use crate::operators::MutationPoint;
use crate::plugins::{PLUGINS, PluginSource, Side};
use crate::settings;
use crate::sources::MutatedPlugin;

/// Runs of each plugin as it is, which differ by chance only.
const CHANCES: u64 = 12;

/// Settings that are tried for each sound revision that is wanted.
const TRIES: usize = 10;

/// A sound revision decides otherwise in this share of the questions.
const DIFFERS_MIN: f64 = 0.1;

/// The extent of a corpus.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Draws pairs, settings and worlds.
    pub seed: u64,
    pub sides: Vec<Side>,
    /// Number of mutants, of all plugins together.
    pub mutants: usize,
    /// Number of sound revisions.
    pub sound: usize,
    /// Number of worlds for each revision.
    pub worlds: u64,
    pub threads: usize,
}

/// A plugin under mutation.
struct Subject {
    source: PluginSource,
    points: Vec<MutationPoint>,
    file: PathBuf,
    /// The plugin as it is.
    base: OracleRevision,
    /// The schema of its settings.
    schema: Value,
}

impl Subject {
    fn read(root: &Path, built: &Path, source: PluginSource) -> Result<Subject, String> {
        let file = built.join(source.name.replace('-', "_")).with_extension("wasm");
        let plugin = fs::read(&file);
        let plugin = plugin.map_err(|error| format!("no plugin {}: {error}", file.display()))?;
        let file = fs::canonicalize(&file).map_err(|error| error.to_string())?;
        let component = Component::vet(&Engine::new(), &plugin);
        let component = component.map_err(|refused| format!("{}: {refused}", source.name))?;
        // All are played in the place of the call's policies.
        let policy = PolicyName { set: "call".into(), hook: source.hook };
        let settings = source.settings(root)?;
        Ok(Subject {
            source,
            points: MutatedPlugin::read(root, &source)?.points,
            file,
            base: OracleRevision { policy, plugin, settings },
            schema: component.manifest().settings.json.clone(),
        })
    }
}

/// A revision to label.
struct Candidate<'a> {
    subject: usize,
    id: String,
    numbers: [u32; 2],
    revision: OracleRevision,
    base: &'a OracleRevision,
}

impl Candidate<'_> {
    fn play(&self, oracle: &mut Oracle) -> Result<OracleRun, String> {
        oracle.play(&self.revision, Some(self.base), 0)
    }

    fn labelled(&self, subject: &Subject, verdict: Verdict) -> LabelledRevision {
        let numbers = self.numbers.into_iter().filter(|&number| number != active::NONE);
        LabelledRevision {
            id: self.id.clone(),
            label: verdict.label,
            numbers: self.numbers,
            mutations: numbers.map(|number| subject.points[number as usize].clone()).collect(),
            settings: self.revision.settings.clone(),
            harm: verdict.harm,
            worse: verdict.worse,
            differs: verdict.differs,
        }
    }
}

/// The verdict of the worlds on a candidate.
struct Verdict {
    label: Label,
    harm: Harm,
    worse: Vec<String>,
    differs: f64,
}

impl Verdict {
    /// `plain` is the label of a candidate that is not worse and decides otherwise.
    fn of(run: &Result<OracleRun, String>, noise: &Noise, plain: Label) -> Verdict {
        let run = match run {
            Ok(run) => run,
            Err(why) => {
                let (harm, worse) = (Harm::default(), vec![why.clone()]);
                return Verdict { label: Label::Harmful, harm, worse, differs: 1.0 };
            }
        };
        let worse: Vec<String> =
            noise.exceeded_by(&run.harm).into_iter().map(str::to_owned).collect();
        let differs = run.differing as f64 / run.compared.max(1) as f64;
        let label = match (worse.is_empty(), run.differing) {
            (false, _) => Label::Harmful,
            (true, 0) => Label::Equal,
            (true, _) => plain,
        };
        Verdict { label, harm: run.harm, worse, differs }
    }

    fn is_sound(&self) -> bool {
        self.label == Label::Sound && self.differs >= DIFFERS_MIN
    }
}

/// The threads that play.
struct Players {
    threads: usize,
    worlds: Range<u64>,
}

impl Players {
    /// Plays jobs in their order until this many are hits. The results are those of the first jobs.
    fn play<J: Sync, R: Send>(
        &self,
        jobs: &[J],
        wanted: usize,
        play: impl Fn(&mut Oracle, &J) -> R + Sync,
        is_hit: impl Fn(&J, &R) -> bool + Sync,
    ) -> Vec<R> {
        let (next, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let played: Mutex<BTreeMap<usize, R>> = Mutex::default();
        thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    let mut oracle = Oracle::new(self.worlds.clone());
                    while hits.load(Ordering::Relaxed) < wanted {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(at) else { return };
                        let result = play(&mut oracle, job);
                        hits.fetch_add(usize::from(is_hit(job, &result)), Ordering::Relaxed);
                        played.lock().expect("no player panics").insert(at, result);
                    }
                });
            }
        });
        played.into_inner().expect("no player panics").into_values().collect()
    }

    fn play_all<J: Sync, R: Send>(
        &self,
        jobs: &[J],
        play: impl Fn(&mut Oracle, &J) -> R + Sync,
    ) -> Vec<R> {
        self.play(jobs, usize::MAX, play, |_, _| false)
    }
}

/// Draws and labels the revisions of the plugins that were built into the folder `built`.
///
/// # Errors
/// A plugin or its source cannot be read, or the plugin as it is does not run.
pub fn label(root: &Path, built: &Path, extent: &Extent) -> Result<Corpus, String> {
    let sources = PLUGINS.into_iter().filter(|plugin| extent.sides.contains(&plugin.side()));
    let subjects: Vec<Subject> =
        sources.map(|source| Subject::read(root, built, source)).collect::<Result<_, _>>()?;
    let first = extent.seed % 1_000_000 * 1_000;
    let players = Players { threads: extent.threads, worlds: first..first + extent.worlds };
    let noises = noises(&subjects, &players)?;
    let mut rng = Rng::with_seed(extent.seed);
    let mut revisions: Vec<Vec<LabelledRevision>> = subjects.iter().map(|_| Vec::new()).collect();
    let verdict = |candidate: &Candidate<'_>, run: &Result<OracleRun, String>, plain| {
        Verdict::of(run, &noises[candidate.subject], plain)
    };
    let mut add = |candidate: &Candidate<'_>, verdict: Verdict| {
        let Candidate { id, subject, .. } = candidate;
        let Verdict { label, worse, differs, .. } = &verdict;
        println!("{id:<32} {label:?} {worse:?}, {:.0} % decided otherwise", differs * 100.0);
        revisions[*subject].push(candidate.labelled(&subjects[*subject], verdict));
    };

    let mutants = mutants(&subjects, extent.mutants, &mut rng)?;
    let runs = players.play_all(&mutants, |oracle, mutant| mutant.play(oracle));
    for (mutant, run) in mutants.iter().zip(&runs) {
        add(mutant, verdict(mutant, run, Label::Harmless));
    }

    let others = other_settings(&subjects, extent.sound * TRIES, &mut rng);
    let runs = players.play(
        &others,
        extent.sound,
        |oracle, other| other.play(oracle),
        |other, run| verdict(other, run, Label::Sound).is_sound(),
    );
    let verdicts = others.iter().zip(&runs).map(|(other, run)| {
        let verdict = verdict(other, run, Label::Sound);
        (other, verdict)
    });
    for (other, verdict) in verdicts.filter(|(_, it)| it.is_sound()).take(extent.sound) {
        add(other, verdict);
    }

    let plugins = subjects.iter().zip(noises.iter().zip(revisions));
    let plugins = plugins.map(|(subject, (noise, revisions))| PluginCorpus {
        plugin: subject.source.name.to_owned(),
        hook: subject.source.hook.name().to_owned(),
        side: subject.source.side(),
        file: subject.file.clone(),
        settings: subject.base.settings.clone(),
        noise: *noise,
        revisions,
    });
    let (run, seed, worlds) = (Run::current(), extent.seed, extent.worlds);
    Ok(Corpus { run, seed, worlds, plugins: plugins.collect() })
}

/// The noise of each plugin as it is.
fn noises(subjects: &[Subject], players: &Players) -> Result<Vec<Noise>, String> {
    let jobs: Vec<(&Subject, u64)> = subjects
        .iter()
        .flat_map(|subject| (1..=CHANCES).map(move |chance| (subject, chance)))
        .collect();
    let runs = players.play_all(&jobs, |oracle, (subject, chance)| {
        let run = oracle.play(&subject.base, None, *chance);
        run.map(|run| run.harm).map_err(|why| format!("{}: {why}", subject.source.name))
    });
    let harms: Vec<Harm> = runs.into_iter().collect::<Result<_, _>>()?;
    Ok(harms.chunks(CHANCES as usize).map(Noise::of).collect())
}

/// Mutants of all plugins in turn.
fn mutants<'a>(
    subjects: &'a [Subject],
    count: usize,
    rng: &mut Rng,
) -> Result<Vec<Candidate<'a>>, String> {
    let mut mutants = Vec::new();
    for (at, subject) in subjects.iter().enumerate() {
        let share = (count + subjects.len() - 1 - at) / subjects.len();
        for numbers in draw_pairs(&subject.points, share, rng) {
            let [one, other] = numbers;
            let plugin = active::with_mutations(&subject.base.plugin, numbers)?;
            mutants.push(Candidate {
                subject: at,
                id: format!("{}.{one}+{other}", subject.source.name),
                numbers,
                revision: OracleRevision { plugin, ..subject.base.clone() },
                base: &subject.base,
            });
        }
    }
    Ok(mutants)
}

/// The plugins in turn with other settings.
fn other_settings<'a>(subjects: &'a [Subject], count: usize, rng: &mut Rng) -> Vec<Candidate<'a>> {
    let mut others: Vec<Candidate<'a>> = Vec::new();
    for (number, (at, subject)) in subjects.iter().enumerate().cycle().take(count).enumerate() {
        let settings = settings::redraw(&subject.schema, &subject.base.settings, rng);
        let is_known = others.iter().any(|it| it.subject == at && it.revision.settings == settings);
        if is_known || settings == subject.base.settings {
            continue;
        }
        others.push(Candidate {
            subject: at,
            id: format!("{}.settings-{number}", subject.source.name),
            numbers: [active::NONE; 2],
            revision: OracleRevision { settings, ..subject.base.clone() },
            base: &subject.base,
        });
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(moves: f64, differing: u64) -> Result<OracleRun, String> {
        let harm = Harm { moves, ..Harm::default() };
        Ok(OracleRun { harm, compared: 100, differing })
    }

    fn label_of(run: &Result<OracleRun, String>) -> (Label, bool) {
        let calm = Harm { moves: 10.0, ..Harm::default() };
        let verdict = Verdict::of(run, &Noise::of(&[calm, calm]), Label::Sound);
        (verdict.label, verdict.is_sound())
    }

    #[test]
    fn label_follows_harm_and_decisions() {
        assert_eq!(label_of(&run(10.0, 0)), (Label::Equal, false));
        assert_eq!(label_of(&run(12.0, 9)), (Label::Sound, false), "too few differ");
        assert_eq!(label_of(&run(12.0, 10)), (Label::Sound, true));
        assert_eq!(label_of(&run(12.1, 10)), (Label::Harmful, false));
        assert_eq!(label_of(&run(12.1, 0)), (Label::Harmful, false), "by another review time");
        assert_eq!(label_of(&Err("it traps".to_owned())), (Label::Harmful, false));
    }

    #[test]
    fn players_stop_after_enough_hits() {
        let jobs: Vec<u32> = (0..40).collect();
        // No world: the jobs alone are played.
        let one = Players { threads: 1, worlds: 0..0 };
        let found = one.play(&jobs, 3, |_, job| *job, |_, result| result % 5 == 0);
        assert_eq!(found, jobs[..11]);
        let two = Players { threads: 2, worlds: 0..0 };
        assert_eq!(two.play_all(&jobs, |_, job| *job), jobs, "in the order of jobs");
    }
}
