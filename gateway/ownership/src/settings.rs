//! The settings of a member.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterSettings {
    /// Exactly one of the two members is preferred. It owns when neither does.
    pub preferred: bool,
    /// Grows with each process of this member, such as the wall-clock time of its start. A process that replaces another
    /// in an upgrade keeps it.
    pub incarnation: u64,
    /// The ownership of the process that this one replaces in an upgrade.
    pub continued: Option<ContinuedOwnership>,
}

/// An ownership that another process of the same member continues. Its standby must be disarmed ([`set_resting`](super::Cluster::set_resting)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContinuedOwnership {
    pub sequence: u64,
    pub epoch: u64,
    pub highest: u64,
}
