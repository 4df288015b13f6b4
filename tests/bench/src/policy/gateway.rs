//! A gateway of the bench with its API, beside its load.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::load::{Edge, Offer, Pace, Trace};
use crate::process::Metered;
use evenkeel_client::{ApiCall, ApiClient, ApiEndpoint, ApiResponse};
use evenkeel_contract::offers::OfferIngress;
use hyper::Method;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::namespace::CLIENTS;
use crate::relay::{self, Kind, Places, Running, Stage};
use crate::rounds;
use crate::row::{Direction, Leg, Sizes};
use evenkeel_lab::process::ChildProcess;

/// The swapped policy: each swap reviews all rooms.
pub(crate) const POLICY: &str = "call/routing";

/// Half of the rate that one core forwards without loss, so that any loss has another cause.
pub(crate) const PACKETS_PER_S: f64 = 20_000.0;

/// Interval of checks whether background work under load is done.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Time limit of an expected state.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polling interval, which is the resolution of measured times.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// Any port but 0; no client sends from it.
const NOBODYS_PORT: u16 = 9;

/// A gateway under load and its policies.
pub(crate) struct Gateway {
    pub(crate) running: Running,
    pub(crate) policies: PathBuf,
    pub(crate) trace: Trace,
}

/// A client of the gateway's API, for one thread.
pub(crate) struct Api {
    runtime: Runtime,
    admin: ApiClient,
}

/// Packet counts of a load.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Flow {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) misdelivered: u64,
}

impl Gateway {
    /// Starts a gateway with voice of 1,000 sessions to six nodes and an empty compilation cache.
    ///
    /// # Errors
    /// The gateway or its sessions cannot be started.
    pub(crate) fn start(places: &Places) -> Result<Gateway, String> {
        relay::forget_compiled(places)?;
        let leg = Leg::Trunk;
        let stage = Stage { leg, destinations: 6, sessions: 1_000, srtp: None, obeys_caps: true };
        let running = relay::start(Kind::Ours, stage, places)?;
        let trace = rounds::trace(Sizes::Voice)?;
        Ok(Gateway { running, policies: places.folder.join("policies"), trace })
    }

    pub(crate) fn api(&self) -> Result<Api, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        Ok(Api { runtime, admin: ApiClient::new(ApiEndpoint::Unix(self.socket()?.to_owned())) })
    }

    /// The socket of its API.
    ///
    /// # Errors
    /// The gateway has no API socket.
    pub(crate) fn socket(&self) -> Result<&Path, String> {
        self.running.api.as_deref().ok_or_else(|| "the gateway has no API".to_owned())
    }

    pub(crate) fn process(&mut self) -> &mut ChildProcess {
        &mut self.running.process
    }

    /// Runs `work` while nodes answer probes.
    ///
    /// # Errors
    /// `work` or a socket failed.
    pub(crate) fn serving<T: Send>(
        &mut self,
        work: impl FnOnce() -> Result<T, String> + Send,
    ) -> Result<T, String> {
        self.running.rig.serving(work).map_err(|error| error.to_string())?
    }

    /// Voice from every session towards its node.
    pub(crate) fn offer(trace: &Trace, warm_up: Duration, length: Duration) -> Offer<'_> {
        let direction = rounds::way(Direction::ToNode);
        Offer { direction, pace: Pace::Rate(PACKETS_PER_S), trace, warm_up, length }
    }

    /// Runs `work` under load, at least as long as it takes.
    ///
    /// # Errors
    /// The work, the load or the gateway failed.
    pub(crate) fn under_load<T: Send>(
        &mut self,
        work: impl FnOnce() -> Result<T, String> + Send,
    ) -> Result<(T, Flow), String> {
        let offer = Gateway::offer(&self.trace, Duration::ZERO, LOOK_EVERY);
        let (rig, mut flow) = (&mut self.running.rig, Flow::default());
        let mut look = |flow: &mut Flow| {
            let window = rig.run(&offer, || Ok(()), |_: Edge| ()).map_err(|e| e.to_string())?;
            let tally = window.tally;
            flow.sent += tally.sent;
            flow.lost += tally.sent.saturating_sub(tally.came);
            // Packets that are not of the load are not counted: some plugins cause RTCP to senders.
            flow.misdelivered += tally.misdelivered;
            Ok::<_, String>(())
        };
        let done = std::thread::scope(|scope| {
            let background = scope.spawn(work);
            while !background.is_finished() {
                look(&mut flow)?;
            }
            let done = background.join().map_err(|_| "the work under load panicked")??;
            look(&mut flow)?;
            Ok::<_, String>(done)
        })?;
        self.running.process.must_run()?;
        Ok((done, flow))
    }
}

impl Api {
    /// Pushes a plugin with this query and returns the API's object: the rollout or the error.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(crate) fn push_to(
        &mut self,
        policy: &str,
        query: &str,
        bytes: &[u8],
    ) -> Result<Value, String> {
        let path = format!("/v1/policies/{policy}{query}");
        let headers = [("content-type", "application/wasm")];
        let body = bytes.to_vec().into();
        let put = ApiCall { method: Method::PUT, path: &path, headers: &headers, body };
        let reply =
            self.runtime.block_on(self.admin.ask(put)).map_err(|error| error.to_string())?;
        reply.json().map_err(|error| error.to_string())
    }

    /// Rolls a policy back and returns the rollout.
    ///
    /// # Errors
    /// The request was refused or not answered.
    pub(crate) fn roll_back(&mut self, policy: &str) -> Result<Value, String> {
        let path = format!("/v1/policies/{policy}:rollback");
        let back = self.runtime.block_on(self.admin.post(&path, &Value::Null));
        back.map_err(|error| error.to_string())
    }

    /// The state of all policies.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(crate) fn policies(&mut self) -> Result<Vec<Value>, String> {
        let read = self.runtime.block_on(self.admin.read("/v1/policies"));
        let mut policies = read.map_err(|error| error.to_string())?;
        match policies["policies"].take() {
            Value::Array(all) => Ok(all),
            other => Err(format!("found {other}, expected policies")),
        }
    }

    /// The state of a policy.
    ///
    /// # Errors
    /// The policy is unknown, or the gateway does not answer.
    pub(crate) fn policy(&mut self, name: &str) -> Result<Value, String> {
        let found = self.policies()?.into_iter().find(|policy| policy["policy"] == name);
        found.ok_or_else(|| format!("there is no {name}"))
    }

    /// Waits until `wanted` holds for the policy, and returns its state.
    ///
    /// # Errors
    /// `wanted` did not hold in time.
    pub(crate) fn wait(
        &mut self,
        name: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let began = Instant::now();
        loop {
            let policy = self.policy(name)?;
            if holds(&policy) {
                return Ok(policy);
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("waited {PATIENCE:?} for what {name} never was: {policy}"));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Opens and closes a session without media, so that every policy of an offer is called. A refusal is a success.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(crate) fn try_session(&mut self, number: u32) -> Result<(), String> {
        let address = (CLIENTS, NOBODYS_PORT).into();
        let ingress = OfferIngress::declared(address);
        let offer = relay::offer(number, ingress);
        let asked = self.runtime.block_on(self.admin.ask_to_open(&offer));
        let opened = asked.and_then(|reply| reply.json()).map_err(|error| error.to_string())?;
        match opened["id"].as_str() {
            Some(id) => {
                self.runtime.block_on(self.admin.close(id)).map_err(|error| error.to_string())
            }
            None => Ok(()),
        }
    }

    /// Rejected decisions of a policy so far, by rule.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(crate) fn guarded(&mut self, policy: &str) -> Result<Vec<(String, u64)>, String> {
        let ApiResponse { body, .. } = self.get("/metrics")?;
        Ok(guarded(&String::from_utf8_lossy(&body), policy))
    }

    /// The recorded policy calls of the last half minute.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(crate) fn recorded(&mut self) -> Result<Vec<u8>, String> {
        let path = format!("/v1/recording?last=true&policy={POLICY}");
        self.get(&path).map(|reply| reply.body.to_vec())
    }

    fn get(&mut self, path: &str) -> Result<ApiResponse, String> {
        let call = ApiCall { method: Method::GET, path, headers: &[], body: Vec::new().into() };
        let reply = self.runtime.block_on(self.admin.ask(call)).map_err(|e| e.to_string())?;
        match reply.status {
            200 => Ok(reply),
            other => Err(format!("{path} was answered with {other}")),
        }
    }
}

/// Percent-encodes a value of a query.
pub(crate) fn encoded(value: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        // RFC 3986, section 2.1.
        other => format!("%{other:02X}"),
    };
    value.bytes().map(one).collect()
}

/// Counters of a policy's rejected decisions by rule, from a page for Prometheus.
fn guarded(page: &str, policy: &str) -> Vec<(String, u64)> {
    let of = |line: &str| {
        let (labels, count) =
            line.strip_prefix("evenkeel_policy_guarded_total{")?.split_once("} ")?;
        let label = |key: &str| {
            let (_, rest) = labels.split_once(&format!("{key}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let is_it = label("evenkeel_policy")? == policy;
        is_it.then(|| Some((label("evenkeel_guard")?.to_owned(), count.trim().parse().ok()?)))?
    };
    page.lines().filter_map(of).collect()
}

/// The shipped routing plugin with a custom section that has no effect but gives each number another revision.
pub(crate) fn revision(number: u32) -> Result<Vec<u8>, String> {
    let shipped = evenkeel_host::shipped().iter().find(|plugin| plugin.name == "route-nearest");
    let mut bytes = shipped.ok_or("route-nearest is not shipped")?.bytes.to_vec();
    let name = b"bench";
    let length = (1 + name.len() + 4) as u8;
    // Section 0: its length, the length of its name, its name, and its content.
    bytes.extend([0, length, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(number.to_le_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_counted_by_policy() {
        let page = "# TYPE evenkeel_policy_guarded_total counter\n\
            evenkeel_policy_guarded_total{evenkeel_guard=\"churn\",evenkeel_policy=\"call/routing\"} 7\n\
            evenkeel_policy_guarded_total{evenkeel_guard=\"unknown-row\",evenkeel_policy=\"live/routing\"} 1\n";
        assert_eq!(guarded(page, "call/routing"), [("churn".to_owned(), 7)]);
        assert_eq!(guarded(page, "call/degradation"), []);
    }
}
