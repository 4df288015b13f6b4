//! Accessors for tests of the gateway.

use evenkeel_revisions::CohortSize;

use super::*;

impl Policies {
    pub(crate) fn keeps_no_memo(&self) -> bool {
        self.memos.is_empty()
    }

    pub(crate) fn cohort_size(&self, policy: &PolicyName, subjects: Subjects) -> CohortSize {
        let Policy { life, judge, .. } = &self.all[policy];
        subjects.cohort_size(policy, life.revisions(), judge.as_ref())
    }
}
