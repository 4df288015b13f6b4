//! Members and their agents with perfect clocks, on links that can be cut.

use super::*;

const TICK: Duration = Duration::from_micros(100);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    /// From this member to the other ones.
    Beats(usize),
    /// Between this member and this agent.
    Agent(usize, usize),
}

struct Member {
    cluster: Cluster,
    stopped: bool,
    may_send: MaySend,
}

#[derive(Clone)]
enum Message {
    Beat { from: usize, to: usize, beat: Beat },
    Closed { of: usize, to: usize, incarnation: u64 },
    Vote { from: usize, agent: usize, vote: Vote, asked: Instant },
    Voted { to: usize, witness: AgentVote },
}

pub(super) struct Group {
    pub(super) now: Instant,
    members: Vec<Option<Member>>,
    agents: Vec<OwnershipBallot>,
    /// Of a message to or from an agent.
    agent_delay: Duration,
    cut: Vec<Link>,
    flying: VecDeque<(Instant, Message)>,
    /// All outputs except messages, with the member and the time.
    pub(super) outputs: Vec<(usize, Instant, ClusterOutput)>,
    incarnation: u64,
}

impl Group {
    /// Both members run, and none owns yet. Member 0 is preferred.
    pub(super) fn starting(agents: usize) -> Group {
        Group::of(2, agents)
    }

    /// The same with this number of members.
    pub(super) fn of(members: usize, agents: usize) -> Group {
        let now = Instant::now();
        let mut group = Group {
            now,
            members: (0..members).map(|_| None).collect(),
            agents: (0..agents).map(|at| OwnershipBallot::new(at as u32, now)).collect(),
            agent_delay: TICK,
            cut: Vec::new(),
            flying: VecDeque::new(),
            outputs: Vec::new(),
            incarnation: 0,
        };
        (0..members).for_each(|member| group.start(member));
        group
    }

    /// Member 0 owns, and member 1 holds all records.
    pub(super) fn standing(agents: usize) -> Group {
        let mut group = Group::starting(agents);
        group.pass(1_100);
        group.replicate(1);
        group.pass(50);
        assert_eq!(group.owner(), Some(0));
        assert_eq!(group.member(0).is_standby_armed(), agents > 0);
        group.outputs.clear();
        group
    }

    /// Messages to and from agents take this long from now on.
    pub(super) fn delay_agents(&mut self, ms: u64) {
        self.agent_delay = Duration::from_millis(ms);
    }

    pub(super) fn start(&mut self, member: usize) {
        self.incarnation += 1;
        let settings = ClusterSettings {
            members: self.members.len(),
            // The first of two has odd epochs.
            rank: if self.members.len() == 2 { 1 - member } else { member },
            preferred: member == 0,
            incarnation: self.incarnation,
            continued: None,
            hold_down: HOLD_DOWN,
        };
        self.begin(member, settings);
    }

    pub(super) fn begin(&mut self, member: usize, settings: ClusterSettings) {
        let cluster = Cluster::new(settings, self.now);
        let before = self.members[member].replace(Member {
            cluster,
            stopped: false,
            may_send: MaySend::Never,
        });
        if settings.continued.is_none() {
            assert!(before.is_none(), "two processes of one member");
        }
    }

    pub(super) fn member(&mut self, member: usize) -> &mut Cluster {
        &mut self.members[member].as_mut().unwrap().cluster
    }

    /// The number that one member has in the settings of another.
    pub(super) fn id(of: usize, at: usize) -> PeerId {
        PeerId(if of < at { of } else { of - 1 })
    }

    pub(super) fn replicate(&mut self, member: usize) {
        let now = self.now;
        self.member(member).handle_replica(true, 1, now);
    }

    /// The connection between the members ends for this one.
    pub(super) fn disconnect(&mut self, member: usize) {
        let now = self.now;
        self.member(member).handle_disconnected(now);
    }

    /// An operator confirms at this member that its peer is down.
    pub(super) fn take_over(&mut self, member: usize) -> Result<(), TakeoverRefusal> {
        let (now, peer) = (self.now, self.member(member).peer_id());
        self.member(member).handle_take_over(&[peer], now)
    }

    pub(super) fn kill(&mut self, member: usize) {
        self.members[member] = None;
    }

    pub(super) fn stop(&mut self, member: usize) {
        self.members[member].as_mut().unwrap().stopped = true;
    }

    pub(super) fn resume(&mut self, member: usize) {
        self.members[member].as_mut().unwrap().stopped = false;
    }

    pub(super) fn restart_agent(&mut self, agent: usize) {
        self.agents[agent] = OwnershipBallot::new(100 + agent as u32, self.now);
    }

    pub(super) fn cut(&mut self, links: &[Link]) {
        self.cut.extend(links);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    /// The member that its lease lets send.
    pub(super) fn owner(&self) -> Option<usize> {
        let may = |at: &usize| {
            let member = self.members[*at].as_ref();
            member.is_some_and(|member| member.may_send > MaySend::Until(self.now))
        };
        let owners: Vec<usize> = (0..self.members.len()).filter(may).collect();
        assert!(owners.len() < 2, "two members may send");
        owners.first().copied()
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.until(ms, |_| false);
    }

    /// Plays until the condition holds, and returns the time until then.
    pub(super) fn until(&mut self, ms: u64, done: impl Fn(&Group) -> bool) -> Duration {
        let (began, end) = (self.now, self.now + Duration::from_millis(ms));
        while self.now < end && !done(self) {
            self.now = self.next().unwrap_or(end).max(self.now + TICK).min(end);
            self.deliver();
            for member in 0..self.members.len() {
                self.drive(member);
            }
            self.owner();
        }
        self.now - began
    }

    /// The time of the next message or timeout.
    fn next(&self) -> Option<Instant> {
        let messages = self.flying.iter().map(|(at, _)| *at).filter(|at| *at > self.now);
        let running = self.members.iter().flatten().filter(|member| !member.stopped);
        let timeouts = running.map(|member| member.cluster.poll_timeout());
        messages.chain(timeouts).min()
    }

    pub(super) fn happened(&self, member: usize, output: &ClusterOutput) -> bool {
        self.outputs.iter().any(|(at, _, known)| *at == member && known == output)
    }

    pub(super) fn took_over(&self, member: usize) -> Option<TakeoverCause> {
        self.outputs.iter().rev().find_map(|(at, _, output)| match output {
            ClusterOutput::TakeOver { evidence, .. } if *at == member => Some(*evidence),
            _ => None,
        })
    }

    fn deliver(&mut self) {
        // A stopped member reads its messages when it runs again.
        let (mut waits, mut due) = (VecDeque::new(), Vec::new());
        for (at, message) in std::mem::take(&mut self.flying) {
            let reader = match &message {
                Message::Beat { to, .. }
                | Message::Closed { to, .. }
                | Message::Voted { to, .. } => Some(*to),
                Message::Vote { .. } => None,
            };
            let stopped = reader
                .and_then(|at| self.members[at].as_ref())
                .is_some_and(|member| member.stopped);
            match at > self.now || stopped {
                true => waits.push_back((at, message)),
                false => due.push(message),
            }
        }
        self.flying = waits;
        for message in due {
            self.read(message);
        }
    }

    fn read(&mut self, message: Message) {
        let now = self.now;
        match message {
            Message::Beat { from, to, beat } => match &mut self.members[to] {
                Some(member) => member.cluster.handle_beat(Group::id(from, to), beat, now),
                None => {
                    let incarnation = beat.incarnation;
                    self.fly(Message::Closed { of: to, to: from, incarnation });
                }
            },
            Message::Closed { of, to, incarnation } => {
                if let Some(member) = &mut self.members[to]
                    && member.cluster.settings.incarnation == incarnation
                {
                    let of = Group::id(of, to);
                    member.cluster.handle_peer_closed(of, Reporter::Kernel, now);
                }
            }
            Message::Vote { from, agent, vote, asked } => {
                let voted = self.agents[agent].handle_vote(vote, now);
                let id = WitnessId(agent as u64);
                self.fly(Message::Voted {
                    to: from,
                    witness: AgentVote { id, asked, vote, voted },
                });
            }
            Message::Voted { to, witness } => {
                if let Some(member) = &mut self.members[to] {
                    member.cluster.handle_witness(&witness, now);
                }
            }
        }
    }

    fn fly(&mut self, message: Message) {
        let cut = self.cut.iter().any(|link| match (link, &message) {
            (Link::Beats(member), Message::Beat { from, .. }) => member == from,
            (Link::Beats(member), Message::Closed { of, .. }) => member == of,
            (Link::Agent(member, it), Message::Vote { from, agent, .. }) => {
                (member, it) == (from, agent)
            }
            (Link::Agent(member, it), Message::Voted { to, witness }) => {
                member == to && *it as u64 == witness.id.0
            }
            _ => false,
        });
        if !cut {
            let delay = match &message {
                Message::Vote { .. } | Message::Voted { .. } => self.agent_delay,
                Message::Beat { .. } | Message::Closed { .. } => TICK,
            };
            self.flying.push_back((self.now + delay, message));
        }
    }

    fn drive(&mut self, at: usize) {
        let now = self.now;
        let Some(member) = self.members[at].as_mut().filter(|member| !member.stopped) else {
            return;
        };
        if member.cluster.poll_timeout() <= now {
            member.cluster.handle_timeout(now);
        }
        while let Some(member) = &mut self.members[at]
            && let Some(output) = member.cluster.poll_output()
        {
            match output {
                ClusterOutput::Send(PeerId(id), beat) => {
                    let (beat, to) =
                        (Beat::decode(&beat.encode()).unwrap(), id + usize::from(id >= at));
                    self.fly(Message::Beat { from: at, to, beat });
                }
                ClusterOutput::Ask { to, vote } => {
                    for agent in 0..self.agents.len() {
                        if to.is_none_or(|to| to.0 == agent as u64) {
                            self.fly(Message::Vote { from: at, agent, vote, asked: now });
                        }
                    }
                }
                ClusterOutput::MaySend(may_send) => member.may_send = may_send,
                output => self.outputs.push((at, now, output)),
            }
        }
    }
}
