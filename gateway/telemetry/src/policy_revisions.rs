//! The gauge that names the revisions of policies. It is read when it is collected, so that those of former revisions end.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::registry::{Attribute, Described, Level};

/// A revision of a policy that is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyRevision {
    /// `<set>/<hook>`.
    pub policy: String,
    /// The arm of a rollout: `active` or `canary`.
    pub arm: &'static str,
    /// The name of the revision.
    pub revision: Arc<str>,
}

/// All revisions that are asked. Clones share them.
#[derive(Clone, Default, Debug)]
pub struct PolicyRevisions(Arc<Mutex<Vec<PolicyRevision>>>);

impl PolicyRevisions {
    /// Replaces all revisions.
    pub fn set(&self, revisions: Vec<PolicyRevision>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = revisions;
    }

    pub(super) fn observed_by(&self, meter: &Meter) {
        let Described { name, unit, doc, .. } = Level::PolicyRevision.described();
        let own = self.clone();
        let gauge = meter.f64_observable_gauge(name).with_unit(unit).with_description(doc);
        let observed = gauge.with_callback(move |observer| {
            for it in &*own.0.lock().unwrap_or_else(PoisonError::into_inner) {
                let labels = [
                    KeyValue::new(Attribute::Policy.key(), it.policy.clone()),
                    KeyValue::new(Attribute::Arm.key(), it.arm),
                    KeyValue::new(Attribute::Revision.key(), it.revision.to_string()),
                ];
                observer.observe(1.0, &labels);
            }
        });
        // The meter keeps the callback.
        let _kept = observed.build();
    }
}
