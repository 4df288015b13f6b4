//! Faults begin, continue and end.

use std::time::{Duration, SystemTime};

use evenkeel_core::Failback;
use evenkeel_model::{FailureDomain, NodeId, PolicyName, RegionId};
use evenkeel_revisions::{
    Actor, Judging, Lifecycle, Revision, RolloutAction, RolloutRequest, RolloutRules, Strategy,
    WallClock,
};

use super::{Event, World};
use crate::check::Why;
use crate::driver;
use crate::fault::Fault;
use crate::node::Listing;
use crate::policies::{Behaviour, FOREVER, Step, Swap};

/// Gaps are assigned to a fault for this long after its end.
const COUNTED_FOR: Duration = Duration::from_secs(2);

/// Interval at which a hostile policy is asked about every room.
const HOSTILE_EVERY: Duration = Duration::from_millis(300);

/// Update interval of ramps.
const RAMP_EVERY: Duration = Duration::from_millis(100);

impl World<'_> {
    pub(super) fn nodes_of(&self, fault: &Fault) -> Vec<usize> {
        if let Some(node) = fault.node() {
            return vec![node];
        }
        let settings = &self.script.settings;
        let region =
            |node: usize| settings.zones[settings.nodes[node].zone.0 as usize].region.0 as usize;
        let is_there = |node: usize| self.nodes[node].listing != Listing::Gone;
        let all = 0..self.nodes.len();
        fault.region().map_or_else(Vec::new, |named| {
            all.filter(|node| is_there(*node) && region(*node) == named).collect()
        })
    }

    /// True if the episode is active at the node.
    pub(super) fn is_at(&self, number: usize, node: usize) -> bool {
        let episode = &self.script.faults[number];
        let begun = self.now >= self.began + episode.at;
        begun && !self.ended[number] && self.hit[number].contains(&node)
    }

    pub(super) fn begins(&mut self, number: usize) {
        let fault = self.script.faults[number].fault.clone();
        self.trace.say(self.now, || format!("-- {fault:?} begins"));
        self.hit[number] = self.nodes_of(&fault);
        self.begin_gaps_of(number);
        for node in self.hit[number].clone() {
            self.begins_at(node, &fault);
        }
        match fault {
            Fault::ControlStalls(time) if self.control_stalls_until.is_none() => {
                self.control_stalls_until = Some(self.now + time);
                self.put_in(time, Event::ControlGoesOn);
            }
            Fault::WorkersStall(time) if self.workers_stall.is_none() => {
                self.workers_stall = Some((self.now, self.now + time));
                self.put_in(time, Event::WorkersGoOn);
            }
            Fault::PoliciesTrap(percent) => self.policies.behaviour = Behaviour::Trap(percent),
            Fault::PoliciesLate => self.policies.behaviour = Behaviour::Late,
            Fault::PoliciesDead => self.policies.behaviour = Behaviour::Dead,
            Fault::PoliciesHostile => {
                self.policies.behaviour = Behaviour::Hostile;
                self.goes_on(number, 0);
            }
            Fault::BackendsDead => {
                self.policies.behaviour = Behaviour::Dead;
                self.drivers.dead = true;
            }
            Fault::DriversSlow(slow) => self.drivers.slow = slow,
            Fault::DriversRefuse(percent) => self.drivers.refuses = percent,
            Fault::Drain(node) => self.drain(node, true),
            Fault::DrainWithin(node, within) => self.drain_timeout(&[node], within),
            Fault::RegionDrained(region, within) => {
                let region = RegionId(region as u32);
                let nodes = self.nodes_of(&fault);
                let _ = self.gateway.change_nodes(self.now, |nodes| {
                    nodes.handle_drain_domain(
                        FailureDomain::Region(region),
                        true,
                        Some(within),
                        self.now,
                    )
                });
                self.expect_drained(&nodes, within);
                for node in nodes {
                    self.checker.causes.emptied(NodeId(node as u32), Why::Drained, true);
                }
                self.settle();
            }
            Fault::FailbackForced => self.failback(Failback::Force),
            Fault::FailbackForbidden => self.failback(Failback::Forbid),
            Fault::CrashLoop(_)
            | Fault::Flap(..)
            | Fault::FlapLink(..)
            | Fault::Blackouts(..)
            | Fault::LossRamp(_)
            | Fault::Jitter(..)
            | Fault::Scatter(..)
            | Fault::Liar(_)
            | Fault::Operator(_)
            | Fault::Relisted(_)
            | Fault::PoliciesSwapped(_) => self.goes_on(number, 0),
            _ => {}
        }
        self.refresh();
    }

    fn begins_at(&mut self, node: usize, fault: &Fault) {
        self.checker.flow.hindered(self.now);
        let here = &mut self.nodes[node];
        match fault {
            Fault::Kill(_) | Fault::RegionKilled(_) => {
                here.killed += 1;
                here.end_process();
                self.send_agent_report(node);
            }
            Fault::Leaves(_) => {
                here.leaving += 1;
                self.checker.causes.report_drain(NodeId(node as u32), true, self.now);
                self.send_agent_report(node);
            }
            Fault::Silent(_) | Fault::RegionSilent(_) => {
                here.unplugged += 1;
                here.end_process();
            }
            Fault::Stop(_) => here.stopped += 1,
            Fault::Gray(_) => here.gray += 1,
            Fault::GrayFlows(_, one_in) => here.gray_flows = *one_in,
            Fault::Boasts(_, most) => here.boasts = Some(*most),
            _ => {}
        }
    }

    /// The next turn of a periodic fault.
    pub(super) fn goes_on(&mut self, number: usize, turn: u32) {
        let episode = self.script.faults[number].clone();
        let over = self.began + episode.at + episode.lasts;
        if self.now >= over {
            return;
        }
        let next = match episode.fault {
            Fault::Flap(node, period) => {
                self.fall_or_rise(node, turn);
                period / 2
            }
            Fault::FlapLink(_, period) => period / 2,
            Fault::CrashLoop(node) => {
                self.fall_or_rise(node, turn);
                Duration::from_millis(
                    self.rng.u64(2..if turn.is_multiple_of(2) { 300 } else { 900 }),
                )
            }
            Fault::Blackouts(_, period) if turn.is_multiple_of(2) => {
                period.min(Duration::from_millis(200))
            }
            Fault::Blackouts(_, period) => period.saturating_sub(Duration::from_millis(200)),
            Fault::LossRamp(_) | Fault::Jitter(..) | Fault::Scatter(..) => RAMP_EVERY,
            Fault::Liar(node) => {
                self.nodes[node].willing = self.rng.bool();
                Duration::from_millis(200)
            }
            Fault::Operator(period) => {
                self.operate();
                period
            }
            Fault::Relisted(period) => {
                if self.control_stalls_until.is_none() {
                    self.relist();
                }
                period
            }
            Fault::PoliciesHostile => {
                if self.control_stalls_until.is_none() {
                    self.ask_about_every_room();
                }
                HOSTILE_EVERY
            }
            Fault::PoliciesSwapped(period) => {
                // A policy thread waits until control has handled the previous step.
                if self.control_stalls_until.is_none()
                    && let Some(swap) = self.policies.swap(self.library)
                {
                    self.swap_policy(swap);
                }
                period
            }
            _ => return,
        };
        self.turns[number] = turn + 1;
        self.put_in(next.max(Duration::from_millis(1)), Event::GoesOn(number, turn + 1));
        self.refresh();
    }

    /// Makes the core take the next step of a rollout.
    fn swap_policy(&mut self, swap: Swap) {
        let Swap { name, active, step } = swap;
        let now = self.now;
        if self.gateway.policy(&name).is_none() {
            let clock = WallClock { instant: now, time: SystemTime::UNIX_EPOCH };
            let rules =
                RolloutRules { strategy: strategy(1), keep: FOREVER, judging: Judging::default() };
            self.gateway.handle_policy(&name, rules, clock);
            self.ready(&name, active, None);
        }
        match step {
            Step::Try(revision, percent) => self.ready(&name, revision, Some(strategy(percent))),
            // The call fails if the candidate was rolled back before.
            Step::Abort => self.act(&name, RolloutAction::Abort),
            Step::Promote => self.act(&name, RolloutAction::PromoteAll),
        }
        self.checker.decisions.set_canary(&name, self.policies.canary(&name));
        self.settle();
    }

    fn act(&mut self, name: &PolicyName, verb: RolloutAction) {
        let now = self.now;
        self.gateway.change_policy(name, now, |life| _ = life.handle_action(verb, now));
    }

    /// Informs the core that the revision is compiled and checked. A larger share does not make it another candidate.
    fn ready(&mut self, name: &PolicyName, revision: Revision, strategy: Option<Strategy>) {
        let now = self.now;
        let Some(push) = self.gateway.change_policy(name, now, Lifecycle::next_push) else {
            return;
        };
        let (by, arrived) = (Actor::Operator, self.began);
        let (force, replace, returns) = (true, true, false);
        let request = RolloutRequest { push, by, arrived, force, replace, strategy, returns };
        let taken = self.gateway.change_policy(name, now, |life| {
            life.handle_ready(&request, revision, None, (now, now))
        });
        taken.expect("it is known").expect("it is forced, and the last push");
    }

    pub(super) fn ends(&mut self, number: usize) {
        let fault = self.script.faults[number].fault.clone();
        self.trace.say(self.now, || format!("-- {fault:?} is undone"));
        self.ended[number] = true;
        for node in self.hit[number].clone() {
            self.ends_at(node, &fault, self.turns[number]);
        }
        match fault {
            Fault::PoliciesTrap(_)
            | Fault::PoliciesLate
            | Fault::PoliciesDead
            | Fault::PoliciesHostile => {
                self.policies.behaviour = Behaviour::Normal;
            }
            Fault::BackendsDead => {
                self.policies.behaviour = Behaviour::Normal;
                self.drivers.dead = false;
                self.checker.flow.hindered(self.now);
                (0..self.nodes.len()).for_each(|node| self.send_agent_report(node));
            }
            Fault::DriversSlow(_) | Fault::DriversRefuse(_) => {
                let dead = self.drivers.dead;
                self.drivers = driver::DriverFaults { dead, ..driver::DriverFaults::default() };
            }
            Fault::Drain(node) | Fault::DrainWithin(node, _) => self.drain(node, false),
            Fault::RegionDrained(..) => {
                self.nodes_of(&fault).into_iter().for_each(|node| self.drain(node, false));
            }
            Fault::FailbackForced | Fault::FailbackForbidden => self.failback(Failback::Auto),
            Fault::Operator(_) => (0..self.nodes.len()).for_each(|node| self.drain(node, false)),
            _ => {}
        }
        self.refresh();
        self.put_in(COUNTED_FOR, Event::Settled(number));
    }

    fn ends_at(&mut self, node: usize, fault: &Fault, turns: u32) {
        self.checker.flow.hindered(self.now);
        let here = &mut self.nodes[node];
        match fault {
            Fault::Kill(_) | Fault::RegionKilled(_) => {
                here.killed -= 1;
                self.send_agent_report(node);
            }
            Fault::Leaves(_) => {
                here.leaving -= 1;
                let still = here.leaving > 0;
                self.checker.causes.report_drain(NodeId(node as u32), still, self.now);
                self.send_agent_report(node);
            }
            Fault::Flap(..) | Fault::CrashLoop(_) if !turns.is_multiple_of(2) => here.killed -= 1,
            Fault::Silent(_) | Fault::RegionSilent(_) => here.unplugged -= 1,
            Fault::Stop(_) => {
                here.stopped -= 1;
                if here.runs() {
                    for arrival in std::mem::take(&mut here.waiting) {
                        self.at_node(node, arrival);
                    }
                }
            }
            Fault::Gray(_) => here.gray -= 1,
            Fault::GrayFlows(..) => here.gray_flows = 0,
            Fault::Boasts(..) => here.boasts = None,
            Fault::Liar(_) => here.willing = true,
            _ => {}
        }
    }

    pub(super) fn control_goes_on(&mut self) {
        self.control_stalls_until = None;
        self.last_stall = Some(self.now);
        self.mark_all_irregular();
        // Received messages are handled before timers.
        for message in std::mem::take(&mut self.unhandled) {
            self.handle_message(message);
            self.settle();
        }
        self.watch();
    }

    pub(super) fn workers_go_on(&mut self) {
        if let Some((since, _)) = self.workers_stall.take() {
            self.workers_late = self.workers_late.max(self.now - since);
        }
        self.last_stall = Some(self.now);
        self.in_flight.forget();
        self.mark_all_irregular();
        for event in std::mem::take(&mut self.unread) {
            self.handle_event(event);
        }
    }

    /// A process was started; its sessions are not yet known to it.
    pub(super) fn renewed(&mut self) {
        self.checker.flow.hindered(self.now);
        self.refresh();
    }

    /// Kills or restarts a process by turns.
    fn fall_or_rise(&mut self, node: usize, turn: u32) {
        let here = &mut self.nodes[node];
        if turn.is_multiple_of(2) {
            here.killed += 1;
            here.end_process();
        } else {
            here.killed -= 1;
        }
        self.send_agent_report(node);
    }
}

/// A strategy with a constant share.
fn strategy(percent: u8) -> Strategy {
    let (steps, shadow) = (vec![percent], Duration::ZERO);
    Strategy { steps, each: FOREVER, shadow, stays_in_shadow: false, held: false }
}
