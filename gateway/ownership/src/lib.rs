//! One member of a group of two or more gateways: which of them owns the group's addresses.
//!
//! A state machine without I/O and clock, as the rest of this crate: `handle_*` takes inputs, `poll_output` returns
//! outputs, and `poll_timeout` says when `handle_timeout` is due. All inputs that wait are handed over before a timeout.
//!
//! # Why no two members send
//!
//! An owner *arms* its standby by its beats, with a list of voters: agents of nodes, witnesses, which are agents without
//! a node, and a store, for which [`StoreBallot`] decides. Only an armed standby takes over by
//! silence, and only with a majority of these voters. While its standby may be armed, the owner sends under a lease of
//! [`LEASE`], and two proofs renew it:
//!
//! 1. An echo: the standby has heard a beat. The lease counts from the sending of that beat. The standby claims nothing
//!    until [`SILENCE`] after it read the newest beat, which is later and longer.
//! 2. Holds of a majority of the voters. The lease counts from the sending of the question. An agent makes no promise to
//!    a standby until [`HOLD`] after it read that question, which is again later and longer.
//!
//! A takeover by silence needs both to have ended: the standby's own silence, and promises of a majority of the voters,
//! made after the end of their holds. A majority of promises and a majority of holds share a voter, so one of the two
//! fails. The lists of both members are the same because they never change while the standby is armed: the owner disarms
//! it, waits for the echo of a beat that does so, and arms it anew. An agent that restarted is another voter.
//!
//! An owner without an armed standby may always send. That is so until the records of the standby are complete, if no
//! voter answers, during a [hold-down](HoldDown), after a restart of the standby (arming is for the process that the beat
//! echoes), and after a majority of voters granted holds to the end of the epoch
//! ([`Hold::Epoch`](evenkeel_media::trunk::Hold::Epoch)). An owner asks for these when its standby was gone for [`GONE_AFTER`],
//! or 25 ms after its first lapse since the newest echo: holds of distant voters end on their way. Such an owner depends on neither peer nor
//! voters, and raises its epoch before it arms a standby again.
//!
//! The end of the owner's process, shown by the kernel of its host, by the agent beside it or by a newer process, is enough
//! alone. A report of the first two counts once a beat is overdue, or once a second report follows without a beat between
//! them. A hand-over is a word of the owner itself. A member that starts takes nothing over from a peer of which it hears
//! nothing. An operator who confirms that a silent peer is down is enough alone.
//!
//! # More than two members
//!
//! An owner appoints one standby at a time, its peer; the others are spares. Beats go to all, and tell spares that they are.
//! All above holds between an owner and its standby; two owners have different epochs, since the remainder of an epoch is a member's
//! own. Another standby is appointed as follows.
//!
//! - The owner appoints one only while none is armed, and raises its epoch first: agents refuse claims of the old standby, which
//!   name an older epoch.
//! - Evidence that needs no vote (the end of the owner's process, its restart) counts for the standby alone, and for 1 s after it sent
//!   the beat that is echoed by the last beat that appointed it. The owner appoints another one 1.1 s after it sent that last beat,
//!   which is later and longer.
//! - Any other member takes over only if each one has ended or is heard and owns nothing. One that holds a copy is first, then the
//!   preferred one, then others by rank; beats tell these.
//! - An operator confirms that all members are down which are silent and have not shown their end.
//!
//! Without voters no takeover follows from silence: it is reported, and the owner needs no lease.
//!
//! Assumptions: over a lease, clocks of members and agents differ in rate by less than 4 %, and run while the process is
//! stopped (a host that suspends stops them; agents then refuse the old epoch); agents answer truthfully; a store forgets no
//! write that it acknowledged, unless the standby knows of a later one, and so notices; a port unreachable for a beat, and the
//! word of the agent beside a member, come from a host on which the process does not run; operators confirm the truth. If that
//! fails, agents refuse the older epoch, and of two owners that hear each other the one of the older epoch steps down.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod cluster;
mod damping;
mod messages;
mod ownership;
mod peer;
mod store_ballot;

pub use cluster::{Cluster, GONE_AFTER, HOLD, LISTENS_FOR, SILENCE};
pub use damping::HoldDown;
pub use messages::{
    AgentVote, BEAT_EVERY, BEAT_LEN_MAX, Beat, BeatRole, Blocked, ClusterEvent, ClusterOutput,
    ClusterSettings, ContinuedOwnership, Echo, HandOverRefusal, MaySend, PeerId, Reporter,
    TakeoverCause, TakeoverRefusal, VOTERS_MAX, Voter, WitnessId,
};
pub use ownership::LEASE;
pub use store_ballot::{BallotEntry, BallotError, BallotStep, BallotWrite, StoreBallot};
