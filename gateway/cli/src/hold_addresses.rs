//! `evenkeel hold-addresses`, which `evenkeel run` starts to add the group's addresses to interfaces.

use clap::Args;

use crate::CommandError;

/// Hold addresses of a group as ordered; started by the gateway.
#[derive(Args)]
pub(crate) struct HoldAddresses {
    /// Address, prefix length and interface
    #[arg(value_name = "192.0.2.10/24@eth0", required = true)]
    addresses: Vec<String>,
}

impl HoldAddresses {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        evenkeel_group::hold_addresses(&self.addresses)
            .map_err(|error| CommandError::Failed(error.to_string()))
    }
}
