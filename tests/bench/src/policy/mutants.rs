//! Rollouts of mutants and of sound revisions that simulated worlds labelled: the share of each label that the gateway stops, and the
//! exposure of harmful ones at their stop.

use std::fs;
use std::path::Path;

use evenkeel_model::Hook;
use evenkeel_mutants::corpus::{Corpus, Label, LabelledRevision, PluginCorpus};
use evenkeel_mutants::plugins::Side;
use evenkeel_report::{AcceptanceRow, LimitTable, RowLimits};
use serde::Serialize;
use serde_json::json;

use super::corpus::{HarmBegins, TrialRevision};
use super::gateway::{Api, Gateway, encoded};
use super::judged::{Offers, RolloutEnd, roll_out};
use crate::namespace;
use crate::relay::Places;

/// The rank of `exposure_at_stop`: nine of ten stopped revisions decided for at most this share.
const EXPOSURE_RANK: f64 = 0.9;

/// The rollout of a labelled revision.
#[derive(Clone, Debug, Serialize)]
struct PlayedRevision {
    side: Side,
    /// The revision was refused or rolled back.
    is_stopped: bool,
    /// The largest share of rooms or sessions for which it decided.
    exposure: f64,
    /// The gateway's reason.
    reason: String,
    #[serde(flatten)]
    revision: LabelledRevision,
}

/// Rolls out each revision in the place of the plugin that it comes from, under load.
///
/// # Errors
/// A measurement failed.
pub(crate) fn measure(corpus: &Corpus, places: &Places, out: &Path) -> Result<(), String> {
    let limits = LimitTable::load()?.group("policy", Some("mutants"))?;
    let mut gateway = Gateway::start(places)?;
    let _first = namespace::First::come();
    let (mut api, mut offers) = (gateway.api()?, Offers::new());
    let mut played = Vec::new();
    for plugin in &corpus.plugins {
        play(&mut gateway, &mut api, &mut offers, plugin, &mut played)?;
        write(corpus, &played, &limits, out)?;
    }
    for row in rows(corpus, &played, &limits) {
        println!("{}", row.id);
        for (name, figure) in &row.figures {
            let limit = row.limits.iter().find(|(key, _)| key.trim_end_matches("_min") == name);
            let limit = limit.map_or(String::new(), |(_, limit)| format!("limit {limit}"));
            println!("  {name:<20} {:>8} {limit}", figure.map_or("-".to_owned(), shown));
        }
    }
    println!("written to {}", out.display());
    Ok(())
}

fn shown(figure: f64) -> String {
    format!("{figure:.2}")
}

fn write(
    corpus: &Corpus,
    played: &[PlayedRevision],
    limits: &RowLimits,
    out: &Path,
) -> Result<(), String> {
    let report = json!({
        "rows": rows(corpus, played, limits),
        "seed": corpus.seed,
        "worlds": corpus.worlds,
        "mutants": played,
    });
    evenkeel_report::write(&report, out)
}

/// Rolls out the revisions of one plugin, one after the other.
fn play(
    gateway: &mut Gateway,
    api: &mut Api,
    offers: &mut Offers,
    plugin: &PluginCorpus,
    played: &mut Vec<PlayedRevision>,
) -> Result<(), String> {
    let hook = Hook::ALL.into_iter().find(|hook| hook.name() == plugin.hook);
    let hook = hook.ok_or_else(|| format!("there is no hook {}", plugin.hook))?;
    let bytes = fs::read(&plugin.file);
    let bytes = bytes.map_err(|error| format!("{}: {error}", plugin.file.display()))?;
    let policy = format!("call/{}", plugin.hook);
    let query = format!("?settings={}", encoded(&plugin.settings.to_string()));
    let standing = gateway.serving(|| api.push_to(&policy, &query, &bytes))?;
    if standing["outcome"] != "activated" {
        return Err(format!("{} was not activated: {standing}", plugin.plugin));
    }
    // An equal mutant decides like the plugin.
    for revision in plugin.revisions.iter().filter(|it| it.label != Label::Equal) {
        let trial = TrialRevision {
            id: revision.id.clone(),
            hook,
            bytes: PluginCorpus::bytes(&bytes, revision)?,
            settings: revision.settings.clone(),
            harm: HarmBegins::Answer,
            held_out: plugin.side == Side::Judging,
        };
        let (end, _) = gateway.under_load(|| roll_out(api, &trial, None, offers))?;
        let RolloutEnd { reached, undone_s, reason } = end;
        let label = revision.label;
        println!("{:<32} {label:?} {reached:>3} % {undone_s:?} {reason}", trial.id);
        played.push(PlayedRevision {
            side: plugin.side,
            is_stopped: undone_s.is_some(),
            exposure: reached as f64 / 100.0,
            reason,
            revision: revision.clone(),
        });
    }
    Ok(())
}

/// A row for each side of the corpus, with the numbers of its revisions.
fn rows(corpus: &Corpus, played: &[PlayedRevision], limits: &RowLimits) -> Vec<AcceptanceRow> {
    let is_played = |side: &Side| corpus.plugins.iter().any(|plugin| plugin.side == *side);
    let row = |side: Side| {
        let mut row = AcceptanceRow::new(format!("mutants.{}", side.name()));
        let of = |label: Label| {
            let all = played.iter().filter(move |it| it.side == side && it.revision.label == label);
            all.collect::<Vec<_>>()
        };
        let harmful = of(Label::Harmful);
        for (label, name, stopped) in [
            (Label::Harmful, "harmful", "harmful_stopped"),
            (Label::Harmless, "harmless", "harmless_stopped"),
            (Label::Sound, "sound", "sound_stopped"),
        ] {
            row.set_figure(name, Some(corpus.count(side, label) as f64));
            row.set_figure(stopped, share_stopped(&of(label)));
            row.limit_by(stopped, limits, stopped);
        }
        row.set_figure("equal", Some(corpus.count(side, Label::Equal) as f64));
        row.set_figure("exposure_at_stop", exposure_at_stop(&harmful));
        row.limit_by("exposure_at_stop", limits, "exposure_at_stop");
        row.judge();
        row
    };
    Side::ALL.into_iter().filter(is_played).map(row).collect()
}

/// `None` if there is none.
fn share_stopped(played: &[&PlayedRevision]) -> Option<f64> {
    let stopped = played.iter().filter(|it| it.is_stopped).count();
    (!played.is_empty()).then(|| stopped as f64 / played.len() as f64)
}

/// The exposure of stopped revisions, by nearest rank; `None` if none was stopped.
fn exposure_at_stop(played: &[&PlayedRevision]) -> Option<f64> {
    let stopped = played.iter().filter(|it| it.is_stopped);
    let mut exposures: Vec<f64> = stopped.map(|it| it.exposure).collect();
    exposures.sort_by(f64::total_cmp);
    let rank = (EXPOSURE_RANK * exposures.len() as f64).ceil() as usize;
    exposures.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use evenkeel_mutants::active;
    use evenkeel_report::Run;

    use super::*;

    fn revision(label: Label) -> LabelledRevision {
        LabelledRevision {
            id: "x".to_owned(),
            label,
            numbers: [active::NONE; 2],
            mutations: Vec::new(),
            settings: json!({}),
            harm: Default::default(),
            worse: Vec::new(),
            differs: 0.5,
        }
    }

    fn corpus(side: Side, labels: &[Label]) -> Corpus {
        let plugin = PluginCorpus {
            plugin: "x".to_owned(),
            hook: "routing".to_owned(),
            side,
            file: "x.wasm".into(),
            settings: json!({}),
            noise: Default::default(),
            revisions: labels.iter().copied().map(revision).collect(),
        };
        Corpus { run: Run::default(), seed: 1, worlds: 20, plugins: vec![plugin] }
    }

    fn played(label: Label, stopped_at: Option<f64>) -> PlayedRevision {
        PlayedRevision {
            side: Side::Building,
            is_stopped: stopped_at.is_some(),
            exposure: stopped_at.unwrap_or(1.0),
            reason: String::new(),
            revision: revision(label),
        }
    }

    fn limits() -> RowLimits {
        LimitTable::load().unwrap().group("policy", Some("mutants")).unwrap()
    }

    #[test]
    fn row_counts_each_label_and_the_stopped_ones() {
        use Label::{Equal, Harmful, Harmless, Sound};
        let corpus = corpus(Side::Building, &[Harmful, Harmful, Harmless, Sound, Equal]);
        let played = [
            played(Harmful, Some(0.05)),
            played(Harmful, None),
            played(Harmless, None),
            played(Sound, Some(0.25)),
        ];
        let rows = rows(&corpus, &played, &limits());
        assert_eq!(rows.len(), 1, "no row for judging");
        let figure = |name| rows[0].figure(name);
        assert_eq!(rows[0].id, "mutants.building");
        let counts = ["harmful", "harmless", "sound", "equal"].map(figure);
        assert_eq!(counts, [2.0, 1.0, 1.0, 1.0].map(Some));
        let stopped = ["harmful_stopped", "harmless_stopped", "sound_stopped"].map(figure);
        assert_eq!(stopped, [0.5, 0.0, 1.0].map(Some));
        assert_eq!(figure("exposure_at_stop"), Some(0.05));
        assert!(rows[0].limits.contains_key("harmful_stopped_min"), "{:?}", rows[0]);
    }

    #[test]
    fn exposure_is_that_of_nine_in_ten() {
        let exposure = |refused: usize, at_half: usize| {
            let mut all = vec![played(Label::Harmful, Some(0.0)); refused];
            all.extend(vec![played(Label::Harmful, Some(0.5)); at_half]);
            all.push(played(Label::Harmful, None));
            exposure_at_stop(&all.iter().collect::<Vec<_>>())
        };
        assert_eq!(exposure(9, 1), Some(0.0));
        assert_eq!(exposure(8, 2), Some(0.5));
        assert_eq!(exposure(0, 0), None);
    }

    #[test]
    fn label_without_revisions_has_no_share() {
        let rows = rows(&corpus(Side::Judging, &[]), &[], &limits());
        assert_eq!((&*rows[0].id, rows[0].figure("sound_stopped")), ("mutants.judging", None));
        assert_eq!(rows[0].figure("sound"), Some(0.0));
    }
}
