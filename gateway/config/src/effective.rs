//! The configuration in force: `evenkeel.toml` with the keys that it leaves out. Secrets are the names of their files, as the
//! file has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use evenkeel_host::UnsignedPlugins;
use evenkeel_model::ClientBreakerSettings;
use evenkeel_process::unix_us;
use serde::Serialize;
use toml::{Table, Value};

use super::alert::AlertReceiver;
use super::check::spell;
use super::config::GatewayConfig;
use super::dependency::DependencySettings;
use super::gateway::Traceparent;
use super::listen::ListenIngress;
use super::node::NodeConfig;
use super::plugin::SetOrigin;

/// The configuration in force, and where it came from.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ConfigInForce {
    /// The file as named on the command line. `None`: the built-in configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// SHA-256 of the file, in hexadecimal, as it was read last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The time at which the file was read last and accepted, Unix time in microseconds.
    pub read_us: u64,
    /// Tables that differ in the file, and wait for a restart.
    pub requires_restart: Vec<String>,
    /// The files of policy sets, by name; `embedded` without one.
    pub policies: BTreeMap<Arc<str>, String>,
    /// The tables of `evenkeel.toml`.
    pub configuration: Table,
}

impl ConfigInForce {
    /// The configuration with which a gateway starts.
    pub fn at_start(settings: &GatewayConfig) -> ConfigInForce {
        ConfigInForce::after_reload(settings, settings, Vec::new())
    }

    /// The configuration after a reload: nodes, witnesses, receivers of advice and alerts, dependencies, policy sets, registries, `[trust]`, and
    /// secrets of clients and of the group are those of the new file, all else is as at the start.
    pub fn after_reload(
        started: &GatewayConfig,
        new: &GatewayConfig,
        requires_restart: Vec<String>,
    ) -> ConfigInForce {
        let mut configuration = started.effective();
        let reloaded = new.effective();
        for path in [
            &["node"][..],
            &["trust"],
            &["registry"],
            &["advice"],
            &["alert"],
            &["dependency"],
            &["gateway", "policies"],
            &["cluster", "witness"],
        ] {
            copy_key(&mut configuration, &reloaded, path);
        }
        if started.admin.tcp.is_some() && new.admin.tcp.is_some() {
            copy_key(&mut configuration, &reloaded, &["admin", "token_file"]);
            copy_key(&mut configuration, &reloaded, &["admin", "read_token_file"]);
        }
        copy_key(&mut configuration, &reloaded, &["webrtc", "token_key_file"]);
        if !requires_restart.iter().any(|key| key.starts_with("[cluster] ")) {
            copy_key(&mut configuration, &reloaded, &["cluster", "secret_file"]);
        }
        let origin = |origin: &SetOrigin| match origin {
            SetOrigin::Shipped => "embedded".to_owned(),
            SetOrigin::File(path) => path.display().to_string(),
        };
        let sets = new.sets.iter().map(|set| (Arc::clone(&set.name), origin(&set.origin)));
        let file = new.written.file.clone();
        ConfigInForce {
            sha256: file.is_some().then(|| HEXLOWER.encode(&new.written.sha256)),
            file,
            read_us: unix_us(SystemTime::now()),
            requires_restart,
            policies: sets.collect(),
            configuration,
        }
    }
}

/// Replaces the value at this path by that of another table, or removes it.
fn copy_key(to: &mut Table, from: &Table, path: &[&str]) {
    let Some((key, rest)) = path.split_first() else { return };
    if !rest.is_empty() {
        if let (Some(Value::Table(to)), Some(Value::Table(from))) =
            (to.get_mut(*key), from.get(*key))
        {
            copy_key(to, from, rest);
        }
        return;
    }
    match from.get(*key) {
        Some(value) => _ = to.insert((*key).to_owned(), value.clone()),
        None => _ = to.remove(*key),
    }
}

/// Adds the keys that a table lacks, also within its tables and lists of tables.
fn complete(written: &mut Table, all: Table) {
    for (key, value) in all {
        let Some(found) = written.get_mut(&key) else {
            written.insert(key, value);
            continue;
        };
        match (found, value) {
            (Value::Table(written), Value::Table(all)) => complete(written, all),
            (Value::Array(written), Value::Array(all)) => {
                for (written, all) in written.iter_mut().zip(all) {
                    if let (Value::Table(written), Value::Table(all)) = (written, all) {
                        complete(written, all);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A table with these keys.
fn table<const N: usize>(keys: [(&str, Value); N]) -> Value {
    Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

impl GatewayConfig {
    /// The written keys, and the values of all others that have one.
    fn effective(&self) -> Table {
        let mut all = self.written.tables.clone();
        if let Value::Table(settings) = self.settings() {
            complete(&mut all, settings);
        }
        complete(&mut all, self.lists());
        for (key, settings) in [
            ("cluster", self.group_settings()),
            ("index", self.index_settings()),
            ("webrtc", self.webrtc.is_some().then(webrtc)),
        ] {
            if let (Some(Value::Table(written)), Some(Value::Table(settings))) =
                (all.get_mut(key), settings)
            {
                complete(written, settings);
            }
        }
        all
    }

    /// Keys with values that hold without them.
    fn settings(&self) -> Value {
        let (gateway, limits, breaker, timings) =
            (&self.gateway, &self.limits, &self.breaker, &self.detector);
        let networks = gateway.node_networks.iter().map(ToString::to_string);
        let regions = self.regions.iter().map(|name| table([("name", (&**name).into())]));
        let listens = self.listens.iter().map(|listen| {
            let key = match listen.ingress {
                ListenIngress::Udp { .. } => "udp",
                ListenIngress::Quic { .. } => "quic",
            };
            table([(key, listen.address.to_string().into())])
        });
        let traceparent = match self.admin.traceparent {
            Traceparent::Link => "link",
            Traceparent::Parent => "parent",
        };
        let unsigned = match self.trust.unsigned {
            UnsignedPlugins::Allow => "allow",
            UnsignedPlugins::Refuse => "refuse",
        };
        let reach = |every, after| {
            table([("probe_interval", spell(every).into()), ("down_after", spell(after).into())])
        };
        table([
            (
                "gateway",
                table([
                    ("region", (&*gateway.region).into()),
                    ("drain_timeout", spell(gateway.drain_timeout).into()),
                    ("node_networks", networks.collect::<Vec<_>>().into()),
                    ("sandbox", gateway.sandbox.into()),
                ]),
            ),
            ("listen", listens.collect::<Vec<_>>().into()),
            ("region", regions.collect::<Vec<_>>().into()),
            ("node", self.nodes.iter().map(node).collect::<Vec<_>>().into()),
            (
                "admin",
                table([
                    ("socket", self.admin.socket.display().to_string().into()),
                    ("traceparent", traceparent.into()),
                    ("drills", self.admin.drills.into()),
                ]),
            ),
            (
                "telemetry",
                table([
                    ("sample_ratio", self.telemetry.sample_ratio.into()),
                    ("metrics_interval", spell(self.telemetry.metrics_interval).into()),
                ]),
            ),
            (
                "limits",
                table([
                    ("sessions", limits.sessions.into()),
                    ("session_data_mib", limits.session_data_mib.into()),
                    ("repair_memory", limits.repair_memory.into()),
                    ("workers", (self.workers() as i64).into()),
                    ("early_packets", u32::from(limits.early_packets).into()),
                    ("early_for", spell(limits.early_for).into()),
                    ("batch_delay", spell(limits.batch_delay).into()),
                    ("misses_per_prefix", limits.misses_per_prefix.into()),
                    ("connections_max", limits.connections_max.into()),
                    ("connections_per_source", limits.connections_per_source.into()),
                    ("churn_percent", limits.churn_percent.into()),
                    ("moves_per_minute", u32::from(limits.moves_per_minute).into()),
                    ("failbacks_per_second", u32::from(limits.failbacks_per_second).into()),
                ]),
            ),
            (
                "detector",
                table([
                    ("in_region", reach(timings.probe_every_near, timings.down_after_near)),
                    ("cross_region", reach(timings.probe_every_far, timings.down_after_far)),
                    ("probe_slack", spell(timings.probe_slack).into()),
                    ("silence", spell(timings.silence_min).into()),
                    ("silence_arrivals", timings.silence_arrivals.into()),
                    ("stall_threshold", spell(timings.own_stall).into()),
                    ("base_ejection_time", spell(timings.ejection).into()),
                    ("max_ejection_time", spell(timings.ejection_max).into()),
                    ("wary_for", spell(timings.wary_for).into()),
                    ("panic_percent", timings.panic_percent.into()),
                    ("panic_for", spell(timings.panic_for).into()),
                ]),
            ),
            (
                "breaker",
                table([
                    ("loss_percent", (breaker.loss_ppm / 10_000).into()),
                    ("r_factor", (breaker.r_factor_centi / 100).into()),
                    ("failure_percent", breaker.circuit.share_percent.into()),
                    ("min_sessions", breaker.circuit.sessions_min.into()),
                    ("open_for", spell(breaker.circuit.open_for).into()),
                    ("max_open_for", spell(breaker.circuit.open_for_max).into()),
                    ("half_open_percent", breaker.circuit.half_open_percent.into()),
                    ("clients", client_breakers(&self.client_breakers)),
                ]),
            ),
            (
                "forecast",
                table([
                    ("enabled", self.forecast.enabled.into()),
                    ("horizon", spell(self.forecast.horizon).into()),
                    ("early_start", self.forecast.early_start.into()),
                ]),
            ),
            ("elastic", table([("exceed_for_calls", self.elastic.exceeded_for_calls.into())])),
            ("trust", table([("unsigned", unsigned.into())])),
        ])
    }

    /// Lists that are left out if they are empty.
    fn lists(&self) -> Table {
        let alerts: Vec<Value> = self.alerts.iter().map(alert_receiver).collect();
        let dependencies = self.dependencies.iter().map(|dependency| {
            let DependencySettings { every, timeout, .. } = dependency;
            table([("every", spell(*every).into()), ("timeout", spell(*timeout).into())])
        });
        let registries = self.registries.iter().map(|registry| {
            let is_plain = registry.url().is_some_and(|url| !url.is_https());
            table([("plain_http", is_plain.into())])
        });
        let lists = [
            ("alert", alerts),
            ("dependency", dependencies.collect()),
            ("registry", registries.collect()),
        ];
        let written = lists.into_iter().filter(|(_, list)| !list.is_empty());
        written.map(|(key, list)| (key.to_owned(), list.into())).collect()
    }

    fn group_settings(&self) -> Option<Value> {
        let group = self.cluster.as_ref()?;
        Some(table([
            ("preferred", group.preferred.into()),
            ("hold_down", spell(group.hold_down).into()),
            ("hold_down_max", spell(group.hold_down_max).into()),
        ]))
    }

    fn index_settings(&self) -> Option<Value> {
        let index = self.index.as_ref()?;
        Some(table([
            ("bucket", index.bucket.as_str().into()),
            ("replicas", u32::from(index.replicas).into()),
            ("votes", index.votes.into()),
        ]))
    }
}

/// Lists of `[webrtc]` that are empty without a key.
fn webrtc() -> Value {
    let none = || Value::Array(Vec::new());
    table([("origins", none()), ("ice_server", none())])
}

fn client_breakers(ClientBreakerSettings { action, circuit }: &ClientBreakerSettings) -> Value {
    table([
        ("action", action.name().into()),
        ("failure_percent", circuit.share_percent.into()),
        ("min_sessions", circuit.sessions_min.into()),
        ("open_for", spell(circuit.open_for).into()),
        ("max_open_for", spell(circuit.open_for_max).into()),
        ("half_open_percent", circuit.half_open_percent.into()),
    ])
}

fn alert_receiver(receiver: &AlertReceiver) -> Value {
    let tiers = receiver.tiers.iter().map(|tier| tier.name());
    let mut keys = Table::new();
    keys.insert("kind".to_owned(), receiver.kind.name().into());
    keys.insert("tiers".to_owned(), tiers.collect::<Vec<_>>().into());
    if let Some(escalation) = &receiver.escalation {
        let tiers = escalation.tiers.iter().map(|tier| tier.name());
        keys.insert("escalate_after".to_owned(), spell(escalation.after).into());
        keys.insert("escalate_tiers".to_owned(), tiers.collect::<Vec<_>>().into());
    }
    keys.into()
}

/// Keys of a node that it has with its driver, whether they are written or not.
fn node(node: &NodeConfig) -> Value {
    let mut keys = Table::new();
    keys.insert("standby".to_owned(), node.standby.into());
    keys.insert("keeps_ssrc".to_owned(), node.keeps_ssrc.into());
    keys.insert("srtp".to_owned(), node.srtp.name().into());
    keys.extend(node.driver.keys.clone());
    if node.trunk().is_some() {
        keys.insert("canary".to_owned(), node.canary.into());
    }
    if let Some(start) = &node.start {
        keys.insert("start".to_owned(), table([("timeout", spell(start.within).into())]));
    }
    keys.into()
}

#[cfg(test)]
mod tests;
