//! `evenkeel plugin`.

use clap::{Args, Subcommand};

use crate::Failure;
use crate::signing::{Key, Sign};

/// Sign plugins, and make the keys for it.
#[derive(Args)]
pub(crate) struct Plugin {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Sign(Sign),
    Key(Key),
}

impl Plugin {
    pub(crate) fn act(self) -> Result<(), Failure> {
        match self.verb {
            Verb::Sign(sign) => sign.act(),
            Verb::Key(key) => key.act(),
        }
    }

    pub(crate) fn json(&self) -> bool {
        match &self.verb {
            Verb::Sign(sign) => sign.json,
            Verb::Key(key) => key.json,
        }
    }
}
