//! What a plugin gets of what its manifest asks for.

use evenkeel_core::{Metric, Op};

use crate::manifest::Manifest;

/// What an operator lets a policy's plugins have. Default: all that they ask for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// Actions that it may take, or none of them where the list is empty. `None`: all.
    pub ops: Option<Vec<Op>>,
    /// Metrics that it may read, of whatever they are. `None`: all.
    pub metrics: Option<Vec<Metric>>,
}

/// What one plugin gets: what it asks for and is allowed. A metric that is not granted has no column, which an author
/// reads as "not measured"; an action that is not granted is dropped, and counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Metrics that it reads of sessions and rooms, in the order of its columns.
    pub subject_metrics: Vec<Metric>,
    /// Metrics that it reads of nodes and regions, in the order of its columns.
    pub node_metrics: Vec<Metric>,
    /// Actions that it takes.
    pub ops: Vec<Op>,
}

impl Grant {
    pub(crate) fn of(manifest: &Manifest, allowed: &Allowed) -> Grant {
        Grant {
            subject_metrics: cut(&manifest.subject_metrics, allowed.metrics.as_deref()),
            node_metrics: cut(&manifest.node_metrics, allowed.metrics.as_deref()),
            ops: cut(&manifest.ops, allowed.ops.as_deref()),
        }
    }

    /// Whether it is all that the plugin asks for.
    pub(crate) fn is_whole(&self, manifest: &Manifest) -> bool {
        *self == Grant::of(manifest, &Allowed::default())
    }

    /// As bytes, for a digest.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let metrics = [&self.subject_metrics, &self.node_metrics].map(|metrics| {
            metrics.iter().map(|&metric| metric as u32).chain([u32::MAX]).collect::<Vec<_>>()
        });
        let ops = self.ops.iter().map(|&op| op as u32);
        metrics.into_iter().flatten().chain(ops).flat_map(u32::to_le_bytes).collect()
    }
}

fn cut<T: Copy + PartialEq>(asked: &[T], allowed: Option<&[T]>) -> Vec<T> {
    let is_allowed = |one: &T| allowed.is_none_or(|allowed| allowed.contains(one));
    asked.iter().copied().filter(is_allowed).collect()
}
