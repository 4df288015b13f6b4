//! Faults and how they are undone.

mod flood;
mod owner;
mod process;
mod proof;
mod region;
mod store;
mod way;
mod zone;

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_lab::clock;
use evenkeel_lab::crowd::{Crowd, InjectedFault, PlannedTransport, Scope};
use evenkeel_lab::relay::RelayTally;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::impairment::Impairment;
use crate::layout::Kind;
use crate::node::Misbehaviour;
use crate::stage::{Stage, numbers, sessions_of};
pub(crate) use owner::Loss;
use process::{limit_files, signal_all, starve, stop_thread};
pub(crate) use region::Home;
pub(crate) use store::Outage;
pub(crate) use way::Way;
pub(crate) use zone::ZoneLoss;

/// The nodes that a fault hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// The node that carries most rooms.
    Busiest,
    Region(&'static str),
    Regions(&'static [&'static str]),
    /// The zone of the node that carries most rooms.
    BusiestZone,
    All,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fault {
    Kill(Target, Way),
    /// A node is stopped for this long.
    Sleep(Target, Duration),
    /// A node gets the processor for 5 ms of each 100 for this long, as under a quota.
    Starve(Target, Duration),
    /// Neither a node nor the gateway can open files for this long.
    NoDescriptors(Target, Duration),
    /// A node dies this many times, each time as soon as it is back.
    CrashLoop(Target, u32, Way),
    /// The gateway is stopped for this long.
    Stall(Duration),
    /// The gateway's control thread is stopped for this long; packet threads go on.
    StallControl(Duration),
    /// A region that was lost in this way returns. The fault ends when its rooms are home.
    Return(Target, Way, Home),
    /// Links are impaired, each for this long.
    Links(Target, Impairment, Duration),
    /// A node misbehaves for this long; receivers with a pause are affected.
    Misbehave(Target, Duration),
    /// A node leaks memory until it is killed.
    Leak(Target, Duration),
    Drain(Target),
    /// A region is drained within this time.
    DrainRegion(&'static str, Duration),
    /// An operator moves this many rooms, one after another.
    Move(usize),
    /// The network gives all clients other addresses.
    Rebind,
    /// All clients leave without a message and reconnect at once.
    Reconnect,
    /// The gateway is replaced by a new process.
    Upgrade,
    /// A fault of the gateway that owns the address of the first group.
    Owner(Loss),
    /// A zone is lost with its nodes, agents and gateways at one instant.
    Zone(&'static str, ZoneLoss),
    /// A fault of the store of the shared index.
    Store(Outage),
    /// Packets to the gateway's UDP listener are dropped for this long; QUIC goes on.
    BlockUdp(Duration),
    /// The gateway gets 10,000 ClientHellos a second for this long.
    HelloFlood(Duration),
}

/// A fault that was injected.
#[derive(Clone, Debug)]
pub(crate) struct StartedFault {
    pub(crate) happened: InjectedFault,
    pub(crate) names: Vec<String>,
    /// Counters of the links before the fault.
    before: RelayTally,
    turn: u32,
    /// The part of a stranger's ClientHellos that the gateway read, per cent; `None` for other faults.
    pub(crate) hellos_read: Option<f64>,
}

/// The name of the gateway's control thread.
const CONTROL: &str = "control";
/// Interval between two deaths of a node in a crash loop.
const CRASHES_EVERY: Duration = Duration::from_millis(700);

impl Fault {
    /// Injects the fault and waits for its duration. `turn` counts from 0.
    pub(crate) async fn strike(
        self,
        stage: &mut Stage,
        crowd: &mut Crowd,
        turn: u32,
    ) -> Result<StartedFault, String> {
        let names = self.names(stage).await?;
        if let Fault::Return(_, way, home) = self {
            region::forbid(stage, &names, home).await?;
            way.kill(stage, &names, turn)?;
            region::leave(stage, crowd, &names).await?;
        }
        let hit = self.sessions_hit(stage, &names).await?;
        let before = stage.tally(&names)?;
        let at_ns = clock::now_ns();
        self.begin(stage, &names, turn)?;
        let hellos_read = match self {
            Fault::HelloFlood(long) => Some(flood::flood(stage, long).await?),
            _ => None,
        };
        self.go_on(stage, crowd, &names, turn).await?;
        let nodes = numbers(&names);
        let scope = match self {
            Fault::Misbehave(..) if !silences(stage.layout.kind) => Scope::Nodes(nodes),
            Fault::Misbehave(..) => Scope::Paused(nodes),
            Fault::BlockUdp(_) => Scope::Sessions(by_quic(crowd)),
            Fault::Zone(..) => Scope::Sessions(hit),
            Fault::Owner(_) if stage.has_several_groups() => Scope::Sessions(hit),
            Fault::Return(..) | Fault::Upgrade | Fault::Owner(_) | Fault::Store(_) => {
                Scope::Everybody
            }
            // Packets have no stamp that names their node.
            _ if !stage.layout.stamps() => Scope::Sessions(hit),
            _ if names.is_empty() || names.len() == stage.nodes.len() => Scope::Everybody,
            _ => Scope::Nodes(nodes),
        };
        Ok(StartedFault {
            happened: InjectedFault { at_ns, scope },
            names,
            before,
            turn,
            hellos_read,
        })
    }

    /// The sessions at nodes or gateways that it hits, where these are fewer than all.
    async fn sessions_hit(self, stage: &Stage, names: &[String]) -> Result<BTreeSet<u64>, String> {
        let mut hit = stage.sessions_on(names).await?;
        match self {
            Fault::Zone(zone, _) => {
                for group in stage.groups().filter(|group| group.owner_is_in(zone)) {
                    hit.extend(sessions_of(group).await?);
                }
            }
            Fault::Owner(_) if stage.has_several_groups() => {
                hit.extend(sessions_of(&stage.gateways).await?);
            }
            _ => {}
        }
        Ok(hit)
    }

    fn begin(self, stage: &mut Stage, names: &[String], turn: u32) -> Result<(), String> {
        match self {
            Fault::Kill(_, way) | Fault::CrashLoop(_, _, way) => way.kill(stage, names, turn),
            Fault::Sleep(..) => signal_all(stage, names, Signal::SIGSTOP),
            Fault::Stall(_) => Ok(stage.gateway().process.signal(Signal::SIGSTOP)?),
            Fault::NoDescriptors(..) => limit_files(stage, names, false),
            Fault::Misbehave(..) | Fault::Leak(..) => signal_all(stage, names, Signal::SIGUSR1),
            Fault::Owner(loss) => loss.begin(stage, names, turn),
            Fault::Zone(zone, loss) => loss.begin(stage, names, zone),
            Fault::BlockUdp(_) => stage.firewall.block(stage.gateway().udp.port()),
            Fault::Starve(..)
            | Fault::Return(..)
            | Fault::Links(..)
            | Fault::Drain(_)
            | Fault::DrainRegion(..)
            | Fault::StallControl(_)
            | Fault::Move(_)
            | Fault::Upgrade
            | Fault::Store(_)
            | Fault::Rebind
            | Fault::Reconnect
            | Fault::HelloFlood(_) => Ok(()),
        }
    }

    async fn go_on(
        self,
        stage: &mut Stage,
        crowd: &mut Crowd,
        names: &[String],
        turn: u32,
    ) -> Result<(), String> {
        match self {
            Fault::Kill(..) | Fault::HelloFlood(_) => Ok(()),
            Fault::Sleep(_, long)
            | Fault::NoDescriptors(_, long)
            | Fault::Misbehave(_, long)
            | Fault::Leak(_, long)
            | Fault::BlockUdp(long) => {
                tokio::time::sleep(long).await;
                Ok(())
            }
            Fault::Stall(long) => {
                tokio::time::sleep(long).await;
                Ok(stage.gateway().process.signal(Signal::SIGCONT)?)
            }
            Fault::StallControl(long) => stop_thread(&stage.gateway().process, CONTROL, long).await,
            Fault::Starve(_, long) => starve(stage, names, long).await,
            Fault::CrashLoop(_, times, _) => {
                for _ in 1..times {
                    tokio::time::sleep(CRASHES_EVERY).await;
                    stage.restart_the_dead()?;
                    tokio::time::sleep(CRASHES_EVERY).await;
                    signal_all(stage, names, Signal::SIGKILL)?;
                }
                Ok(())
            }
            Fault::Return(_, way, home) => {
                way.revive(stage, names, turn)?;
                region::come_back(stage, names, home).await
            }
            Fault::Links(_, impairment, long) => impairment.impair(stage, names, long).await,
            Fault::Drain(_) => drain(stage, names, "drain").await,
            Fault::DrainRegion(region, within) => {
                let body = json!({"deadline": format!("{}ms", within.as_millis())});
                region::operate(stage, region, "drain", &body).await?;
                tokio::time::sleep(within).await;
                Ok(())
            }
            Fault::Move(rooms) => stage.move_rooms(rooms, turn as usize * rooms).await,
            Fault::Upgrade => stage.gateways.upgrade(&stage.places).await,
            Fault::Owner(loss) => loss.go_on(stage).await,
            Fault::Zone(zone, _) => zone::expect_takeovers(stage, zone).await,
            Fault::Store(outage) => outage.go_on(stage).await,
            Fault::Rebind => crowd.rebind().map_err(|error| error.to_string()),
            Fault::Reconnect => {
                crowd.reconnect(|| stage.admin()).await.map_err(|error| error.to_string())
            }
        }
    }

    /// The variant of this turn, for faults with two variants.
    pub(crate) fn way(self, turn: u32) -> Option<&'static str> {
        match self {
            Fault::Kill(_, way) | Fault::Return(_, way, _) => way.of_turn(turn),
            Fault::Owner(loss) => loss.of_turn(turn),
            _ => None,
        }
    }

    pub(crate) async fn heal(self, stage: &mut Stage, struck: &StartedFault) -> Result<(), String> {
        let names = &struck.names;
        match self {
            Fault::Kill(_, way) | Fault::CrashLoop(_, _, way) => {
                way.revive(stage, names, struck.turn)
            }
            Fault::Sleep(..) => signal_all(stage, names, Signal::SIGCONT),
            Fault::Leak(..) => stage.restart_the_dead(),
            Fault::NoDescriptors(..) => limit_files(stage, names, true),
            Fault::Return(..) => region::forget(stage, names).await,
            Fault::Misbehave(..) => {
                stage.restart_the_dead()?;
                signal_all(stage, names, Signal::SIGUSR2)
            }
            Fault::Links(..) => {
                for name in names {
                    let node = stage.node(name)?;
                    if let Some(link) = &node.link {
                        link.set_both(stage.clear(node.region));
                        link.set_mtu(usize::MAX);
                    }
                }
                Ok(())
            }
            Fault::Drain(_) => drain(stage, names, "undrain").await,
            Fault::DrainRegion(region, _) => {
                region::operate(stage, region, "undrain", &Value::Null).await
            }
            Fault::BlockUdp(_) => stage.firewall.clear(),
            Fault::Owner(loss) => loss.heal(stage, struck.turn).await,
            Fault::Zone(zone, loss) => loss.heal(stage, names, zone).await,
            Fault::Store(outage) => outage.heal(stage).await,
            Fault::Stall(_)
            | Fault::StallControl(_)
            | Fault::Starve(..)
            | Fault::Move(_)
            | Fault::Upgrade
            | Fault::Rebind
            | Fault::Reconnect
            | Fault::HelloFlood(_) => Ok(()),
        }
    }

    /// The nodes that it hits.
    pub(crate) async fn names(self, stage: &Stage) -> Result<Vec<String>, String> {
        let target = match self {
            Fault::Stall(_)
            | Fault::StallControl(_)
            | Fault::Move(_)
            | Fault::Upgrade
            | Fault::Rebind
            | Fault::Reconnect
            | Fault::BlockUdp(_)
            | Fault::HelloFlood(_) => return Ok(Vec::new()),
            Fault::Owner(Loss::WithNode) => Target::Busiest,
            Fault::Owner(_) | Fault::Store(_) => return Ok(Vec::new()),
            Fault::Kill(target, _)
            | Fault::Sleep(target, _)
            | Fault::Starve(target, _)
            | Fault::NoDescriptors(target, _)
            | Fault::CrashLoop(target, ..)
            | Fault::Return(target, ..)
            | Fault::Links(target, ..)
            | Fault::Misbehave(target, _)
            | Fault::Leak(target, _)
            | Fault::Drain(target) => target,
            Fault::DrainRegion(region, _) => Target::Region(region),
            Fault::Zone(zone, _) => {
                let nodes = stage.nodes.iter().filter(|node| node.zone == zone);
                return Ok(nodes.map(|node| node.name.clone()).collect());
            }
        };
        let of = |regions: &[&str]| {
            let nodes = stage.nodes.iter().filter(|node| regions.contains(&node.region));
            nodes.map(|node| node.name.clone()).collect()
        };
        Ok(match target {
            Target::Busiest => vec![stage.busiest().await?],
            Target::Region(region) => of(&[region]),
            Target::Regions(regions) => of(regions),
            Target::BusiestZone => {
                let busiest = stage.node(&stage.busiest().await?)?;
                let place = (busiest.region, busiest.zone);
                let nodes = stage.nodes.iter().filter(|node| (node.region, node.zone) == place);
                nodes.map(|node| node.name.clone()).collect()
            }
            Target::All => stage.nodes.iter().map(|node| node.name.clone()).collect(),
        })
    }
}

fn by_quic(crowd: &Crowd) -> BTreeSet<u64> {
    let sessions = crowd.by_id().values().copied();
    sessions.filter(|&session| crowd.plan.transport_of(session) == PlannedTransport::Quic).collect()
}

/// Nodes of this kind leave sessions without packets.
fn silences(kind: Kind) -> bool {
    !matches!(kind, Kind::Misbehaving(Misbehaviour::Lies | Misbehaviour::JumpsAhead))
}

async fn drain(stage: &Stage, names: &[String], verb: &str) -> Result<(), String> {
    let mut admin = stage.admin();
    for name in names {
        let asked = admin.post(&format!("/v1/nodes/{name}:{verb}"), &Value::Null).await;
        asked.map_err(|error| format!("{verb} {name}: {error}"))?;
    }
    Ok(())
}
