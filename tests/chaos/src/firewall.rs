//! Packet filters inside the namespace.

use std::io::Write;
use std::process::{Command, Stdio};

/// Filter rules, removed on drop.
pub(crate) struct Firewall(());

impl Firewall {
    /// Creates a table without rules.
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

    /// Drops ICMP port unreachable from now on, as for a host that died.
    pub(crate) fn drop_icmp(&self) -> Result<(), String> {
        load("add rule ip chaos out icmp type destination-unreachable drop\n")
    }

    /// Drops packets to this UDP port from now on.
    pub(crate) fn block(&self, port: u16) -> Result<(), String> {
        load(&format!("add rule ip chaos in udp dport {port} drop\n"))
    }

    pub(crate) fn clear(&self) -> Result<(), String> {
        load("flush table ip chaos\n")
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        // The rules end with the namespace anyway.
        let _gone = load("delete table ip chaos\n");
    }
}

/// Loads rules in the network namespace of this thread.
pub(crate) fn load(rules: &str) -> Result<(), String> {
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
