//! The scenario hook: sets the parameters of a scenario (a live stream, a 1v1 call…).

use crate::data::Document;
use crate::guest::{Loaded, Plugin, Policy};
use crate::labels::Labels;
use crate::registry::Param;
use crate::settings::Settings;
use crate::wit::scenario::exports::evenkeel::policy::scenario as abi;
use crate::wit::types;

/// A scenario policy: implement it under [`#[scenario]`](macro@crate::scenario).
pub trait Scenario: Settings {
    /// Data documents in which the policy looks up. Defaults to none.
    const DATA: &'static [Document] = &[];

    /// Sets parameters for a session with these labels. Other parameters keep the values of the policy set. Values are
    /// clamped to the bounds of the policy set.
    fn resolve(&self, scenario: &str, labels: Labels<'_>, out: &mut Params);
}

/// Parameters that were set.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Params(pub(crate) Vec<(Param, i64)>);

impl Params {
    /// Sets a parameter by its registry name. Each parameter also has a function. The last value is used.
    pub fn set(&mut self, param: Param, value: i64) -> &mut Self {
        self.0.retain(|&(set, _)| set != param);
        self.0.push((param, value));
        self
    }

    /// Returns the value, if set.
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
