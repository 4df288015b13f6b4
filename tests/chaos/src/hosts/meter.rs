//! Counts datagrams by the gateway's host that sent them, in the kernel.

use std::collections::BTreeMap;
use std::process::Command;

use evenkeel_lab::network::{Host, INTERFACE};
use serde_json::Value;

use super::{QUIC, UDP};
use crate::{firewall, word};

/// One counter for each gateway's host, named after it.
pub(super) struct Meter(());

impl Meter {
    /// Counts datagrams of the gateways' listeners.
    pub(super) fn of_listeners(host: &Host, gateways: &[Host]) -> Result<Meter, String> {
        Meter::set(host, gateways, &format!("udp sport {{ {UDP}, {QUIC} }}"))
    }

    /// Counts media on trunk legs and on port legs, but no signed messages.
    pub(super) fn of_media(host: &Host, gateways: &[Host]) -> Result<Meter, String> {
        // The first byte of bundles, of encrypted datagrams, of numbered bundles and their repair, and of RTP.
        Meter::set(host, gateways, "meta l4proto udp @th,64,8 { 0xe0, 0xe3-0xe5, 0x80-0xbf }")
    }

    fn set(host: &Host, gateways: &[Host], datagrams: &str) -> Result<Meter, String> {
        let mut rules = format!(
            "add table netdev media\nflush table netdev media\n\
             add chain netdev media in {{ type filter hook ingress device \"{INTERFACE}\" priority 0; }}\n"
        );
        for host in gateways {
            let (name, mac) = (host.name(), host.mac());
            rules += &format!(
                "add counter netdev media {name}\n\
                 add rule netdev media in ether saddr {mac} {datagrams} counter name {name}\n"
            );
        }
        let _inside = host.enter()?;
        firewall::load(&rules)?;
        Ok(Meter(()))
    }

    /// Reads the counters of all gateways' hosts and sets them to 0.
    pub(super) fn read(&self, host: &Host) -> Result<BTreeMap<String, u64>, String> {
        let _inside = host.enter()?;
        let listed = Command::new("nft").args(["-j", "reset", "counters"]).output();
        let listed = listed.map_err(|error| format!("needs nft (nftables): {error}"))?;
        let listed: Value = serde_json::from_slice(&listed.stdout)
            .map_err(|error| format!("nft lists no counters: {error}"))?;
        let counters = listed["nftables"].as_array().into_iter().flatten();
        let counters = counters.map(|object| &object["counter"]);
        let read = |counter: &Value| Some((word(&counter["name"]), counter["packets"].as_u64()?));
        Ok(counters.filter_map(read).collect())
    }
}
