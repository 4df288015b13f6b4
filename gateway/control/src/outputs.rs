//! Executes the core's outputs through workers, drivers, probers and policies.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_config::StartHook;
use evenkeel_core::{GatewayEffect, NotOpened};
use evenkeel_dataplane::flows::Home;
use evenkeel_dataplane::worker::{DscpMarks, Install, WorkerCommand};
use evenkeel_drivers as webhook;
use evenkeel_drivers::{Clock, DriverAction, OpenRequest};
use evenkeel_model::{
    ClientIdentity, CloseReason, Hop, IngressProtocol, NodeId, NotStarted, Offer, Plan, RoomId,
    RouteCell, RtcpPort, SessionId,
};

use super::equipment::ListedNode;
use super::messages::GatewayEvent;
use super::registry::{Registered, SessionRegistry};
use super::thread::{Control, Probes, WorkerLines};
use evenkeel_process::random::{draw, fill};

impl Control {
    /// Executes outputs until there are none left, then wakes the workers that got commands. Returns whether there are
    /// such workers.
    pub(super) fn drain(&mut self) -> bool {
        loop {
            let clock = Clock::read();
            self.gateway.handle_timeout(clock.now);
            while let Some(output) = self.gateway.poll_output() {
                self.execute(output, clock);
            }
            match self.signalling.drivers.handle_timeout(clock) {
                Some(act) => self.act(Some(act)),
                None => break,
            }
        }
        self.workers.wake_workers()
    }

    pub(super) fn execute(&mut self, output: GatewayEffect, clock: Clock) {
        match output {
            GatewayEffect::Ask(ask) => {
                if let Err((id, fault)) = self.policies.threads.ask(ask) {
                    self.gateway.handle_answer(id, Err(fault), clock.now);
                }
            }
            GatewayEffect::Install { session, room: _, offer, route, plan } => {
                self.install(session, &offer, route, plan, clock.now);
            }
            // Handled by the restore.
            GatewayEffect::Restore { .. } => {}
            GatewayEffect::Open { session, room, hop } => {
                match wish((&self.registry, &self.nodes.listed), session, room, hop) {
                    Some(wish) => {
                        let act = self.signalling.drivers.open(&wish, &mut draw, clock);
                        self.act(act);
                    }
                    None => self.gateway.handle_opened(session, hop, Err(NotOpened), clock.now),
                }
            }
            GatewayEffect::CloseAt { session, hop } => {
                let act = self.signalling.drivers.close(session, hop, clock);
                self.act(act);
                if let Some(home) = self.registry.get(session).map(|entry| entry.home) {
                    self.workers.command(home.worker, WorkerCommand::Detach { home, hop });
                }
            }
            GatewayEffect::Reply { offer, result } => self.reply(offer, result),
            GatewayEffect::Plan { session, plan } => {
                self.with_home(session, |home| WorkerCommand::Plan { home, plan });
            }
            GatewayEffect::KeyFrame { sessions } => {
                for session in sessions {
                    self.with_home(session, |home| WorkerCommand::KeyFrame { home });
                }
            }
            GatewayEffect::End { session, reason } => self.end(session, reason),
            GatewayEffect::Probe { node, sequence } => self.probes.probe(node, sequence, clock),
            GatewayEffect::Canary { node, sequence } => {
                if let Some(Some(canary)) = self.probes.canaries.get(node.0 as usize) {
                    canary.send(sequence, &mut draw, clock);
                }
            }
            GatewayEffect::Start { node } => {
                if let Some(configured) = self.nodes.listed(node).cloned()
                    && let Some(start) = &configured.start
                {
                    let attempt = draw();
                    self.signalling.start_hooks.start(node, &configured.name, start, attempt);
                }
            }
            GatewayEffect::EndStart { node, why } => self.end_start(node, why),
            GatewayEffect::Forget { node } => self.forget_node(node),
            GatewayEffect::Rollout(rollout) => {
                self.reporting.send_event(GatewayEvent::Rollout(rollout));
            }
            GatewayEffect::Unload { policy, revision } => {
                self.policies.threads.unload(&policy, revision);
            }
            GatewayEffect::Remember { policy, remembered } => {
                self.policies.threads.remember(&policy, remembered);
            }
            GatewayEffect::Event(event) => self.send_or_hold(event),
            GatewayEffect::Finished => {
                self.lifetime.core_finished = true;
            }
        }
    }

    fn end_start(&mut self, node: NodeId, why: NotStarted) {
        self.signalling.start_hooks.give_up(node);
        if let Some(listed) = self.nodes.listed(node)
            && let Some(StartHook { within, .. }) = &listed.start
            && why == NotStarted::Late
        {
            tracing::warn!(node = %listed.name, "node did not answer within {within:?}; start given up");
        }
    }

    fn install(
        &mut self,
        session: SessionId,
        offer: &Offer,
        route: Arc<RouteCell>,
        plan: Plan,
        now: Instant,
    ) {
        let pending = self.offers.in_progress.get_mut(&offer.id);
        let (nodes, data) = pending.map_or((Vec::new(), None), |pending| {
            (std::mem::take(&mut pending.request.nodes), pending.data.take())
        });
        let registered = self.registry.register(session, offer, nodes, &mut fill);
        if let Some(entry) = self.registry.get_mut(session) {
            entry.data = data;
        }
        match registered {
            Ok(Registered { home, client, ports, reached }) => {
                if let Some(pending) = self.offers.in_progress.get_mut(&offer.id) {
                    pending.ingress = Some(reached);
                }
                let install = Install {
                    home,
                    session,
                    media: offer.media.clone(),
                    client,
                    route,
                    plan,
                    dscp: self.dscp(&offer.scenario),
                    ports,
                    await_first_packet: self.awaits_first_packet(
                        &offer.scenario,
                        matches!(offer.ingress, IngressProtocol::Udp(ClientIdentity::Open { .. })),
                    ),
                    seed: draw(),
                    state: None,
                };
                self.workers.command(home.worker, WorkerCommand::Install(Box::new(install)));
            }
            Err(admit_error) => {
                if let Some(pending) = self.offers.in_progress.get_mut(&offer.id) {
                    pending.admit_error = Some(admit_error);
                }
                // The client cannot use the session. The refusal carries the reason.
                let _ = self.gateway.handle_close(session, now);
            }
        }
    }

    /// False for a session that a first packet opened.
    pub(super) fn awaits_first_packet(&self, scenario: &str, of_first_packet: bool) -> bool {
        let scenario = self.settings.scenario(scenario);
        !of_first_packet && scenario.is_some_and(|(_, scenario)| scenario.await_first_packet)
    }

    pub(super) fn dscp(&self, scenario: &str) -> DscpMarks {
        self.settings.scenario(scenario).map_or(DscpMarks::default(), |(_, scenario)| DscpMarks {
            voice: scenario.dscp.voice,
            video: scenario.dscp.video,
        })
    }

    pub(super) fn act(&mut self, act: Option<DriverAction>) {
        act.iter().for_each(|act| self.reporting.costs.told(act));
        match act {
            None => {}
            Some(DriverAction::Sign { worker, node, message, of_sessions: sealed }) => {
                self.workers.command(worker, WorkerCommand::SendSigned { node, message, sealed });
            }
            Some(DriverAction::LimitBundles { worker, node, size_max }) => {
                let name = self.nodes.node_name(node);
                tracing::info!(
                    node = %name,
                    worker,
                    bytes = size_max,
                    "bundle size limit changed"
                );
                self.workers.command(worker, WorkerCommand::LimitBundles { node, size_max });
            }
            Some(DriverAction::Ng { node, datagram }) => {
                if let Some(Some(line)) = self.signalling.ng_sockets.get(node.0 as usize) {
                    line.send(&datagram);
                }
            }
            Some(DriverAction::Post { node, number, hook, body, within }) => {
                let (poster, posted) =
                    (self.signalling.poster.clone(), self.signalling.webhook_replies.clone());
                tokio::task::spawn_local(async move {
                    let answer = match poster {
                        Some(poster) => {
                            poster.post(hook, body, webhook::Effort::of_session(within)).await
                        }
                        None => Err(webhook::HttpError::Busy),
                    };
                    let answer = answer.map_err(|failed| failed.to_string());
                    // Fails only if control has ended.
                    let _ = posted.send((node, number, answer)).await;
                });
            }
            Some(DriverAction::Opened { session, hop, leg }) => {
                self.with_home(session, |home| WorkerCommand::Attach { home, hop, leg });
                self.gateway.handle_opened(session, hop, Ok(()), Instant::now());
            }
            Some(DriverAction::Changed { session, hop, leg }) => {
                self.with_home(session, |home| WorkerCommand::Attach { home, hop, leg });
            }
            Some(DriverAction::Fenced { node, epoch }) => {
                self.replication.fencing.handle_refused(node, epoch);
            }
            Some(DriverAction::Refused { session, hop, unwilling, reason }) => {
                let now = Instant::now();
                self.send_not_opened(session, hop.node, reason.into());
                if unwilling {
                    self.gateway.change_nodes(now, |nodes| nodes.handle_full(hop.node, now));
                }
                self.gateway.handle_opened(session, hop, Err(NotOpened), now);
            }
        }
    }

    fn end(&mut self, session: SessionId, reason: CloseReason) {
        if let Some(entry) = self.registry.remove(session) {
            let home = entry.home;
            self.workers.command(home.worker, WorkerCommand::Remove { home });
        }
        if reason == CloseReason::NotOpened {
            self.reporting.closing.take(session);
        }
    }

    fn with_home(&mut self, session: SessionId, command: impl FnOnce(Home) -> WorkerCommand) {
        if let Some(home) = self.registry.get(session).map(|entry| entry.home) {
            self.workers.command(home.worker, command(home));
        }
    }
}

impl WorkerLines {
    pub(super) fn wake_workers(&mut self) -> bool {
        let rung = std::mem::take(&mut self.to_wake);
        rung.iter().for_each(|worker| self.lines[usize::from(*worker)].waker.wake());
        !rung.is_empty()
    }

    pub(super) fn command(&mut self, worker: u16, command: WorkerCommand) {
        // Fails only for a worker that has ended, while the process is ending.
        let _ = self.lines[usize::from(worker)].commands.send(command);
        self.to_wake.insert(worker);
    }
}

impl Probes {
    fn probe(&mut self, node: NodeId, sequence: u64, clock: Clock) {
        let mut token = [0; 12];
        fill(&mut token);
        if let Some(Some(prober)) = self.probers.get(node.0 as usize) {
            prober.probe(sequence, token, clock);
        }
    }
}

fn wish<'a>(
    (registry, listed): (&'a SessionRegistry, &[Option<ListedNode>]),
    session: SessionId,
    room: RoomId,
    hop: Hop,
) -> Option<OpenRequest<'a>> {
    let entry = registry.get(session)?;
    let listed = listed.get(hop.node.0 as usize).and_then(Option::as_ref);
    let address = listed.and_then(|listed| entry.address_at(&listed.node.name));
    let rtcp_apart = entry.rtcp == RtcpPort::Own;
    let home = entry.home;
    let brief = entry.brief.as_deref();
    Some(OpenRequest { session, home, room, hop, address, rtcp_apart, brief })
}

#[cfg(test)]
mod tests;
