//! What the namespace keeps to itself.

use std::io::Write;
use std::process::{Command, Stdio};

/// Rules of ours, gone when this is dropped.
pub(crate) struct Firewall(());

impl Firewall {
    /// One without rules.
    ///
    /// # Errors
    /// nftables is missing, or refuses.
    pub(crate) fn raise() -> Result<Firewall, String> {
        load(
            "add table ip chaos\nflush table ip chaos\n\
             add chain ip chaos out { type filter hook output priority 0; }\n\
             add chain ip chaos in { type filter hook input priority 0; }\n",
        )?;
        Ok(Firewall(()))
    }

    /// From now on nobody hears that a port is closed: a host that died says nothing.
    pub(crate) fn hush(&self) -> Result<(), String> {
        load("add rule ip chaos out icmp type destination-unreachable drop\n")
    }

    /// From now on nothing comes to this UDP port.
    pub(crate) fn block(&self, port: u16) -> Result<(), String> {
        load(&format!("add rule ip chaos in udp dport {port} drop\n"))
    }

    /// No rules any more.
    pub(crate) fn clear(&self) -> Result<(), String> {
        load("flush table ip chaos\n")
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        // The namespace goes with the process anyway.
        let _gone = load("delete table ip chaos\n");
    }
}

fn load(rules: &str) -> Result<(), String> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("needs nft (nftables): {error}"))?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(rules.as_bytes()).map_err(|error| format!("nft: {error}"))?;
    }
    match nft.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("nft refuses {rules:?}: {status}")),
        Err(error) => Err(format!("nft: {error}")),
    }
}
