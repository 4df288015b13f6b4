//! The metrics and actions that a plugin is granted.

use evenkeel_model::{Metric, Op};

use crate::manifest::Manifest;

/// Limits set by the operator for a policy's plugins. Default: none.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct GrantLimits {
    /// Actions that the plugin may take; an empty list allows none. `None`: all.
    pub ops: Option<Vec<Op>>,
    /// Metrics that the plugin may read, for any kind of row. `None`: all.
    pub metrics: Option<Vec<Metric>>,
}

/// The requested and allowed metrics and actions of a plugin. A metric that is not granted has no
/// column, which the SDK shows as "not measured"; an action that is not granted is dropped and
/// counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PluginGrant {
    /// Metrics of sessions and rooms, in the order of the columns.
    pub subject_metrics: Vec<Metric>,
    /// Metrics of nodes and regions, in the order of the columns.
    pub node_metrics: Vec<Metric>,
    /// Actions that the plugin may take; others are dropped.
    pub ops: Vec<Op>,
}

impl PluginGrant {
    pub(crate) fn of(manifest: &Manifest, allowed: &GrantLimits) -> PluginGrant {
        PluginGrant {
            subject_metrics: intersection(&manifest.subject_metrics, allowed.metrics.as_deref()),
            node_metrics: intersection(&manifest.node_metrics, allowed.metrics.as_deref()),
            ops: intersection(&manifest.ops, allowed.ops.as_deref()),
        }
    }

    /// The grant equals the manifest's request.
    pub(crate) fn is_whole(&self, manifest: &Manifest) -> bool {
        *self == PluginGrant::of(manifest, &GrantLimits::default())
    }

    /// Encoded for a digest.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let metrics = [&self.subject_metrics, &self.node_metrics].map(|metrics| {
            metrics.iter().map(|&metric| metric as u32).chain([u32::MAX]).collect::<Vec<_>>()
        });
        let ops = self.ops.iter().map(|&op| op as u32);
        metrics.into_iter().flatten().chain(ops).flat_map(u32::to_le_bytes).collect()
    }
}

fn intersection<T: Copy + PartialEq>(asked: &[T], allowed: Option<&[T]>) -> Vec<T> {
    let is_allowed = |one: &T| allowed.is_none_or(|allowed| allowed.contains(one));
    asked.iter().copied().filter(is_allowed).collect()
}
