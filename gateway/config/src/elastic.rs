//! `[elastic]`: limits of the nodes that the gateway starts.

use evenkeel_model::StartBudget;
use serde::Deserialize;
use toml::Spanned;

use super::check::ConfigCheck;
use super::node::NODES_MAX;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ElasticTable {
    max_nodes: Option<Spanned<i64>>,
    budget_per_hour: Option<Spanned<f64>>,
    exceed_for_calls: bool,
}

impl ElasticTable {
    pub(super) fn check(&self, check: &mut ConfigCheck) -> StartBudget {
        let ElasticTable { max_nodes, budget_per_hour, exceed_for_calls } = self;
        let nodes_max =
            max_nodes.as_ref().map(|_| check.number(max_nodes, 1, 1..=NODES_MAX as u32));
        StartBudget {
            nodes_max,
            cost_milli_max: check.cost(budget_per_hour),
            exceeded_for_calls: *exceed_for_calls,
        }
    }
}
