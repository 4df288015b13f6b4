//! The labelled revisions, and the file that holds them.

use std::fs;
use std::path::{Path, PathBuf};

use evenkeel_report::Run;
use evenkeel_simulate::{Harm, Noise};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::active;
use crate::operators::MutationPoint;
use crate::plugins::Side;

/// Draws of a pair before there are taken to be no others.
const DRAWS_PER_PAIR: usize = 50;

/// The verdict of simulated worlds on a revision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// A mutant that is worse than by chance, or does not run.
    Harmful,
    /// A mutant that decides otherwise, and is not worse.
    Harmless,
    /// A mutant that decided like the plugin in all worlds. It is not rolled out.
    Equal,
    /// Settings that decide otherwise in many questions, and are not worse.
    Sound,
}

/// A revision with its label.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LabelledRevision {
    /// `route-nearest.17+42`: a plugin and its mutations, or `route-nearest.settings-3`.
    pub id: String,
    pub label: Label,
    /// The active mutations; [`active::NONE`]: none.
    pub numbers: [u32; 2],
    pub mutations: Vec<MutationPoint>,
    pub settings: Value,
    pub harm: Harm,
    /// The figures that are worse than by chance, or the reason for which the revision does not run.
    pub worse: Vec<String>,
    /// The share of questions that it answers with another decision.
    pub differs: f64,
}

/// A plugin of the corpus with its revisions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PluginCorpus {
    pub plugin: String,
    /// The name of its hook: `routing`.
    pub hook: String,
    pub side: Side,
    /// The compiled plugin without active mutations.
    pub file: PathBuf,
    pub settings: Value,
    pub noise: Noise,
    pub revisions: Vec<LabelledRevision>,
}

/// All revisions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Corpus {
    pub run: Run,
    pub seed: u64,
    pub worlds: u64,
    pub plugins: Vec<PluginCorpus>,
}

impl Corpus {
    /// # Errors
    /// The file is missing or no corpus.
    pub fn read(path: &Path) -> Result<Corpus, String> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| {
            format!("no corpus at {}: {error}; `make bench-mutants` writes it", path.display())
        })?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The number of revisions with this label on a side.
    pub fn count(&self, side: Side, label: Label) -> usize {
        let plugins = self.plugins.iter().filter(|plugin| plugin.side == side);
        let revisions = plugins.flat_map(|plugin| &plugin.revisions);
        revisions.filter(|revision| revision.label == label).count()
    }
}

impl PluginCorpus {
    /// The bytes of a revision; `plugin` are those of [`PluginCorpus::file`].
    ///
    /// # Errors
    /// The plugin was not built with mutations.
    pub fn bytes(plugin: &[u8], revision: &LabelledRevision) -> Result<Vec<u8>, String> {
        active::with_mutations(plugin, revision.numbers)
    }
}

/// Draws pairs of points of which neither stands in code that the other replaces; fewer if there are no others.
pub(crate) fn draw_pairs(points: &[MutationPoint], count: usize, rng: &mut Rng) -> Vec<[u32; 2]> {
    let mut pairs = Vec::new();
    let number = points.len() as u32;
    for _ in 0..count * DRAWS_PER_PAIR {
        if pairs.len() == count || number < 2 {
            break;
        }
        let mut pair = [rng.u32(..number), rng.u32(..number)];
        pair.sort_unstable();
        let [inner, outer] = pair;
        let is_covered = inner >= points[outer as usize].covers_from;
        if !is_covered && !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn points(covers_from: &[u32]) -> Vec<MutationPoint> {
        let point = |&covers_from: &u32| MutationPoint {
            operator: "constant".to_owned(),
            file: "lib.rs".to_owned(),
            before: "1".to_owned(),
            after: "2".to_owned(),
            covers_from,
        };
        covers_from.iter().map(point).collect()
    }

    #[test]
    fn same_seed_draws_the_same_pairs() {
        let points = points(&(0..40).collect::<Vec<u32>>());
        let drawn = |seed| draw_pairs(&points, 20, &mut Rng::with_seed(seed));
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        assert_eq!(drawn(7).into_iter().collect::<BTreeSet<_>>().len(), 20);
    }

    #[test]
    fn pair_is_not_nested() {
        // Point 2 replaces the code of 0 and 1; 3 stands elsewhere.
        let points = points(&[0, 1, 0, 3]);
        let pairs: BTreeSet<[u32; 2]> =
            draw_pairs(&points, 100, &mut Rng::with_seed(1)).into_iter().collect();
        assert_eq!(pairs, BTreeSet::from([[0, 1], [0, 3], [1, 3], [2, 3]]));
    }

    #[test]
    fn too_few_points_have_no_pair() {
        assert_eq!(draw_pairs(&points(&[0]), 5, &mut Rng::with_seed(1)), [[0; 2]; 0]);
    }
}
