//! A gateway of the bench with its API, beside its load.

use std::path::PathBuf;

use evenkeel_lab::admin::{Admin, Place};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::relay::{self, Kind, Places, Running, Stage};
use crate::row::Leg;

/// The policy that is swapped: it is asked about all rooms again with each swap.
pub(crate) const POLICY: &str = "call/routing";

/// A gateway that forwards, and where its policies are.
pub(crate) struct Gateway {
    pub(crate) running: Running,
    pub(crate) policies: PathBuf,
}

/// Its API, for one thread.
pub(crate) struct Api {
    runtime: Runtime,
    admin: Admin,
}

impl Gateway {
    /// With voice of 1,000 sessions to six nodes.
    ///
    /// # Errors
    /// What went wrong, in a sentence.
    pub(crate) fn start(places: &Places) -> Result<Gateway, String> {
        let stage = Stage { leg: Leg::Trunk, destinations: 6, sessions: 1_000 };
        let running = relay::start(Kind::Ours, stage, places)?;
        Ok(Gateway { running, policies: places.folder.join("policies") })
    }

    /// # Errors
    /// What the system says.
    pub(crate) fn api(&self) -> Result<Api, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let socket = self.running.api.clone().ok_or("the gateway has no API")?;
        Ok(Api { runtime, admin: Admin::new(Place::Unix(socket)) })
    }
}

impl Api {
    /// Pushes a plugin, and gives the rollout.
    ///
    /// # Errors
    /// It was not answered.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Value, String> {
        let (set, hook) = POLICY.split_once('/').expect("it is written so above");
        let pushed = self.runtime.block_on(self.admin.push(set, hook, bytes));
        pushed.map_err(|error| error.to_string())
    }

    /// Rolls back, and gives the rollout.
    ///
    /// # Errors
    /// It was refused, or not answered.
    pub(crate) fn roll_back(&mut self) -> Result<Value, String> {
        let path = format!("/v1/policies/{POLICY}:rollback");
        let back = self.runtime.block_on(self.admin.post(&path, &Value::Null));
        back.map_err(|error| error.to_string())
    }

    /// The policy as it stands.
    ///
    /// # Errors
    /// It is not there, or not answered.
    pub(crate) fn policy(&mut self) -> Result<Value, String> {
        let read = self.runtime.block_on(self.admin.read("/v1/policies"));
        let policies = read.map_err(|error| error.to_string())?;
        let all = policies["policies"].as_array().map_or(&[][..], Vec::as_slice);
        let found = all.iter().find(|policy| policy["policy"] == POLICY).cloned();
        found.ok_or_else(|| format!("there is no {POLICY} in {policies}"))
    }
}

/// The shipped routing plugin, as another revision of itself for each number: a custom section that means nothing.
pub(crate) fn revision(number: u32) -> Result<Vec<u8>, String> {
    let shipped = evenkeel_host::shipped().iter().find(|plugin| plugin.name == "route-nearest");
    let mut bytes = shipped.ok_or("route-nearest is not shipped")?.bytes.to_vec();
    let name = b"bench";
    let length = (1 + name.len() + 4) as u8;
    // Section 0, its length, the length of its name, its name, and what is in it.
    bytes.extend([0, length, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(number.to_le_bytes());
    Ok(bytes)
}
