//! `evenkeel region`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::api::{Api, segment};
use crate::node::{DRAINS, asked, done, drain};
use crate::status::{rows, text};
use crate::{Failure, say};

/// List regions; drain them, and say whether rooms go back to them.
#[derive(Args)]
pub(crate) struct Region {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    api: Api,
    /// Say it as JSON: `list` as the API does, `drain` as `{"accepted": true}`, all else as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Every region with its breaker, its nodes and the rooms that belong there
    List,
    /// Let none of its nodes take new rooms, nor those that come there later, and move the rooms to other regions. They take no new ones when this
    /// returns; `node list` says how many they still have, and the event `drained` of each when it is empty
    #[command(verbatim_doc_comment)]
    Drain {
        /// The region's name
        region: String,
        /// When it is to be empty, as `60s`; what is left by then is told, and stays until it fits elsewhere
        #[arg(long)]
        deadline: Option<String>,
    },
    /// Let its nodes take rooms again
    Undrain {
        /// The region's name
        region: String,
    },
    /// Say whether rooms that belong to a region go back there once its nodes are trusted again
    Failback {
        /// `auto`: by themselves, a few a second; `force`: to nodes that are not trusted yet as well; `forbid`: not at all
        mode: Mode,
        /// The region's name; default: all of them
        region: Option<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Auto,
    Force,
    Forbid,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Force => "force",
            Mode::Forbid => "forbid",
        }
    }

    /// What is so from now on.
    fn words(self, region: &str) -> String {
        let how = match self {
            Mode::Auto => "go back there by themselves once its nodes are trusted, a few a second",
            Mode::Force => "go back there, a few a second, though its nodes are not trusted yet",
            Mode::Forbid => "do not go back there",
        };
        format!("rooms that belong to {region} {how}")
    }
}

impl Region {
    pub(crate) fn act(self) -> Result<(), Failure> {
        let at = |region: &str, verb| format!("/v1/regions/{}:{verb}", segment(region));
        let (path, body, words) = match self.verb {
            Verb::List => {
                let regions = self.api.operate(async |admin| admin.read("/v1/regions").await)?;
                if self.json {
                    say(&regions);
                } else {
                    rows(&regions, "regions").iter().for_each(|region| say(&line(region)));
                }
                return Ok(());
            }
            Verb::Drain { region, deadline } => {
                self.api.post(&at(&region, "drain"), &drain(deadline))?;
                asked(self.json, &format!("{region} {DRAINS}"));
                return Ok(());
            }
            Verb::Undrain { region } => {
                let words = format!("the nodes of {region} may take rooms again");
                (at(&region, "undrain"), Value::Null, words)
            }
            Verb::Failback { mode, region } => {
                let words = mode.words(region.as_deref().unwrap_or("every region"));
                let all = || "/v1/regions:failback".to_owned();
                let path = region.map_or_else(all, |region| at(&region, "failback"));
                (path, json!({"mode": mode.name()}), words)
            }
        };
        self.api.post(&path, &body)?;
        done(self.json, &words);
        Ok(())
    }
}

fn line(region: &Value) -> String {
    let number = |key: &str| region[key].as_u64().unwrap_or(0);
    let opens = match region["half_open_in_ms"].as_u64() {
        Some(ms) => format!(" for {} s", ms.div_ceil(1_000)),
        None => String::new(),
    };
    format!(
        "{:<16} breaker {}{opens}, {} of {} nodes take rooms, {} rooms, {} away, failback {}",
        text(region, "region"),
        text(region, "breaker"),
        number("nodes_up"),
        number("nodes"),
        number("rooms"),
        number("rooms_displaced"),
        text(region, "failback"),
    )
}
