//! What does a scenario (a live stream, a 1v1 call…) ask of the data plane?

use crate::guest::{Loaded, Plugin, Policy};
use crate::labels::Labels;
use crate::registry::Param;
use crate::settings::Settings;
use crate::wit::scenario::exports::evenkeel::policy::scenario as abi;
use crate::wit::types;

/// A scenario policy: implement it under [`#[scenario]`](macro@crate::scenario).
pub trait Scenario: Settings {
    /// What a session with these labels asks of the data plane. What `out` is not told stays as the policy set's text
    /// has it, and what it is told is held within the bounds that the text gives.
    fn resolve(&self, scenario: &str, labels: Labels<'_>, out: &mut Params);
}

/// Parameters of the data plane, those that were set.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Params(Vec<(Param, i64)>);

impl Params {
    /// A parameter by its name in the registry; there is a function for each. The last word counts.
    pub fn set(&mut self, param: Param, value: i64) -> &mut Self {
        self.0.retain(|&(set, _)| set != param);
        self.0.push((param, value));
        self
    }

    /// What was set.
    pub fn value(&self, param: Param) -> Option<i64> {
        self.0.iter().find(|&&(set, _)| set == param).map(|&(_, value)| value)
    }
}

pub(crate) fn resolve<P: Scenario>(
    loaded: &Loaded<P>,
    scenario: &str,
    labels: &[types::Label],
) -> Params {
    let mut out = Params::default();
    loaded.policy.resolve(scenario, Labels(labels), &mut out);
    out
}

impl<P: Scenario + Policy> abi::Guest for Plugin<P> {
    fn resolve(scenario: String, labels: Vec<types::Label>) -> Vec<abi::Param> {
        let params = Loaded::<P>::with(|loaded| resolve(loaded, &scenario, &labels));
        let param =
            |(param, value): (Param, i64)| abi::Param { key: param.name().to_owned(), value };
        params.0.into_iter().map(param).collect()
    }
}
