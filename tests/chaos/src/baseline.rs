//! Comparisons. The same node deaths, at the same phases of a health check, at the gateway and at a relay with health
//! checks; and the deaths of a gateway at keepalived.

pub(crate) mod keepalived;
mod relay;

use std::time::Duration;

use evenkeel_lab::clock;
use evenkeel_lab::crowd::{Crowd, CrowdPlan, FaultEffect, InjectedFault, Scope};
use nix::sys::signal::Signal;
use serde::Serialize;

pub(crate) use relay::Relay;

use crate::layout::Layout;
use crate::process;
use crate::stage::{Places, Stage, numbers};

/// Deaths in a trace, the same number for each node.
const DEATHS: usize = 6;
/// Sessions at the gateway. At the relay each client gets its own packets back, so the number of receivers is the same.
const SESSIONS: u32 = 1_000;
/// Period of the relay's health check. Nodes die at random phases of it.
const CHECKS_EVERY: Duration = Duration::from_secs(5);
/// Packet interval. A shorter gap is no outage.
const PACKETS_EVERY: Duration = Duration::from_millis(20);
/// A client without packets for this long is not merely waiting for the next check.
const WATCHED: Duration = Duration::from_secs(8);
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// Outages at the gateway (`ours`) and at the relay (`theirs`).
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Outage {
    /// Mean outage of a session each time its node died, milliseconds.
    pub(crate) ours_ms: f64,
    pub(crate) theirs_ms: f64,
    /// Affected sessions, all deaths together.
    ours_hit: usize,
    theirs_hit: usize,
    /// The share of the relay's outage time that the gateway avoids.
    pub(crate) cut: f64,
}

/// Plays the trace of deaths at the gateway and at the relay.
///
/// # Errors
/// A process failed, or the gateway refused a request.
pub(crate) async fn measure(places: &Places, seed: u64) -> Result<Outage, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let phases: Vec<Duration> = (0..DEATHS).map(|_| CHECKS_EVERY.mul_f64(rng.f64())).collect();
    let mut stage = Stage::set(Layout::HOT, places, seed).await?;
    let region = [("region".to_owned(), "east".to_owned())].into();
    let plan = CrowdPlan { labels: region, seed, ..CrowdPlan::new(SESSIONS) };
    let crowd = Crowd::enter(&plan, || stage.admin()).await;
    let ours = trace(crowd.map_err(|error| error.to_string())?, &mut stage, &phases).await?;
    let nodes: Vec<String> = stage.nodes.iter().map(|node| node.address.to_string()).collect();
    let words = ["relay", "--nodes", &nodes.join(",")];
    let mut relay = process::start("relay", &places.own, &words, &places.folder)?;
    let at = relay.json_line(process::FIRST_LINE_WITHIN)?["listening"]
        .as_str()
        .and_then(|at| at.parse().ok());
    let at = at.ok_or_else(|| relay.error("printed no address"))?;
    let crowd = Crowd::enter_at(&CrowdPlan { seed, ..CrowdPlan::new(SESSIONS / 2) }, at).await;
    let theirs = trace(crowd.map_err(|error| error.to_string())?, &mut stage, &phases).await?;
    let (ours_ms, theirs_ms) = (mean_outage_ms(&ours), mean_outage_ms(&theirs));
    Ok(Outage {
        ours_ms,
        theirs_ms,
        ours_hit: ours.hit,
        theirs_hit: theirs.hit,
        cut: 1.0 - ours_ms / theirs_ms,
    })
}

async fn trace(
    mut crowd: Crowd,
    stage: &mut Stage,
    phases: &[Duration],
) -> Result<FaultEffect, String> {
    let mut all = FaultEffect::default();
    for (turn, &phase) in phases.iter().enumerate() {
        if !stage.settled(SETTLED_WITHIN).await? {
            return Err("rooms have no spares".to_owned());
        }
        tokio::time::sleep(phase).await;
        crowd.begin_window();
        let name = stage.nodes[turn % stage.nodes.len()].name.clone();
        tokio::time::sleep(10 * PACKETS_EVERY).await;
        let happened =
            InjectedFault { at_ns: clock::now_ns(), scope: Scope::Nodes(numbers([&name])) };
        stage.signal(&name, Signal::SIGKILL)?;
        tokio::time::sleep(WATCHED).await;
        all.add(crowd.end_window().await.effect_of(&happened));
        stage.restart_the_dead()?;
    }
    Ok(all)
}

fn mean_outage_ms(effect: &FaultEffect) -> f64 {
    let usual = clock::nanoseconds(PACKETS_EVERY);
    let outage: u64 = effect.gaps_ns.iter().map(|gap| gap.saturating_sub(usual)).sum();
    outage as f64 / 1e6 / effect.gaps_ns.len().max(1) as f64
}
