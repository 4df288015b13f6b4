//! Accessors for tests of the gateway.

use super::*;

impl Policies {
    pub(crate) fn keeps_no_memo(&self) -> bool {
        self.memos.is_empty()
    }

    pub(crate) fn cohort_size(&self, policy: &PolicyName) -> Option<CohortSize> {
        self.all[policy].judge.as_ref().map(Judge::cohort_size)
    }
}
