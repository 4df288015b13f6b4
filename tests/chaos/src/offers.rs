//! Offers at a steady rate to whichever gateway of a group answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_client::ApiClient;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::hosts::CLIENTS;
use crate::newcomers::offer;

/// 200 offers per second on this many connections.
const LANES: usize = 8;
const OFFER_EVERY: Duration = Duration::from_millis(40);
/// A stopped gateway does not answer within this time.
const ANSWERED_WITHIN: Duration = Duration::from_millis(250);
/// Declared ports, below the ports of clients. No packet comes from them.
const FIRST_PORT: u16 = 1_024;
const LAST_PORT: u16 = 32_000;

/// A session that was offered and answered.
pub(crate) struct AnsweredOffer {
    pub(crate) id: String,
    /// From the offer to the answer.
    pub(crate) took_ns: u64,
}

/// Offers until this ends or is dropped.
pub(crate) struct Offers {
    answered: Arc<Mutex<Vec<AnsweredOffer>>>,
    lanes: JoinSet<()>,
}

impl Offers {
    /// Starts with the first of these gateways. A lane turns to the next gateway when one fails.
    pub(crate) fn begin(gateways: &[ApiClient], home: &'static str) -> Offers {
        let answered = Arc::<Mutex<Vec<AnsweredOffer>>>::default();
        let (target, mut lanes) = (Arc::<AtomicUsize>::default(), JoinSet::new());
        for _ in 0..LANES {
            let mut clients: Vec<ApiClient> = gateways.iter().map(ApiClient::another).collect();
            let (answered, target) = (Arc::clone(&answered), Arc::clone(&target));
            lanes.spawn(async move {
                let mut clock = tokio::time::interval(OFFER_EVERY);
                clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    clock.tick().await;
                    let at = target.load(Ordering::Relaxed);
                    let asked = Instant::now();
                    let opening = open(&mut clients[at], home);
                    match tokio::time::timeout(ANSWERED_WITHIN, opening).await {
                        Ok(Some(id)) => {
                            let took_ns = asked.elapsed().as_nanos() as u64;
                            let mut answered =
                                answered.lock().unwrap_or_else(PoisonError::into_inner);
                            answered.push(AnsweredOffer { id, took_ns });
                        }
                        Ok(None) | Err(_) => {
                            // The connection is not used again: its answer may still come.
                            clients[at] = clients[at].another();
                            let next = (at + 1) % clients.len();
                            let _another_lane_was_first = target.compare_exchange(
                                at,
                                next,
                                Ordering::Relaxed,
                                Ordering::Relaxed,
                            );
                        }
                    }
                }
            });
        }
        Offers { answered, lanes }
    }

    /// All sessions that were answered.
    pub(crate) fn end(self) -> Vec<AnsweredOffer> {
        drop(self.lanes);
        std::mem::take(&mut *self.answered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The id of a new session; `None` if the gateway refuses it or cannot be reached.
async fn open(admin: &mut ApiClient, home: &str) -> Option<String> {
    static NUMBER: AtomicU16 = AtomicU16::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let port = FIRST_PORT + number % (LAST_PORT - FIRST_PORT);
    let address = SocketAddr::from((CLIENTS, port));
    Some(admin.open(&offer(home, number.into(), address)).await.ok()?.id)
}

/// Closes these sessions.
pub(crate) async fn close(admin: &ApiClient, ids: Vec<String>) {
    let mut lanes = JoinSet::new();
    for own in ids.chunks(ids.len().div_ceil(LANES).max(1)) {
        let (mut admin, own) = (admin.another(), own.to_vec());
        lanes.spawn(async move {
            for id in own {
                // Otherwise the session ends with the gateway.
                let _gone = admin.close(&id).await;
            }
        });
    }
    while lanes.join_next().await.is_some() {}
}
