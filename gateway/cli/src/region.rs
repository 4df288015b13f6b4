//! `evenkeel region`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::api::ApiArgs;
use crate::node::{DRAINS, asked, done, drain};
use crate::status::{rows, text};
use crate::{CommandError, say};

/// List and drain regions, and control fail-back.
#[derive(Args)]
pub(crate) struct RegionArgs {
    #[command(subcommand)]
    verb: RegionCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list` as in the API, `drain` as `{"accepted": true}`, others as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum RegionCommand {
    /// List regions with breaker, nodes and home rooms
    List,
    /// Move all rooms out of a region, and give its present and future nodes no new ones. The command returns at once;
    /// `node list` shows how many rooms are left, and the event `drained` reports the end for each node
    #[command(verbatim_doc_comment)]
    Drain {
        /// The region's name
        region: String,
        /// Time limit, as `60s`; rooms left by then are reported and move once there is capacity
        #[arg(long)]
        deadline: Option<String>,
    },
    /// End a drain
    Undrain {
        /// The region's name
        region: String,
    },
    /// Set whether rooms return to their home region once its nodes are trusted
    Failback {
        /// `auto`: return automatically, a few per second; `force`: also to nodes that are not trusted yet; `forbid`: stay
        mode: FailbackModeArg,
        /// The region's name; default: all regions
        region: Option<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum FailbackModeArg {
    Auto,
    Force,
    Forbid,
}

impl FailbackModeArg {
    fn name(self) -> &'static str {
        match self {
            FailbackModeArg::Auto => "auto",
            FailbackModeArg::Force => "force",
            FailbackModeArg::Forbid => "forbid",
        }
    }

    fn words(self, region: &str) -> String {
        let how = match self {
            FailbackModeArg::Auto => {
                "return automatically once its nodes are trusted, a few per second"
            }
            FailbackModeArg::Force => {
                "return, a few per second, also to nodes that are not trusted yet"
            }
            FailbackModeArg::Forbid => "do not return",
        };
        format!("rooms of {region} {how}")
    }
}

impl RegionArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let at =
            |region: &str, verb| format!("/v1/regions/{}:{verb}", evenkeel_client::escape(region));
        let (path, body, words) = match self.verb {
            RegionCommand::List => {
                let regions = self.api.operate(async |admin| admin.read("/v1/regions").await)?;
                if self.json {
                    say(&regions);
                } else {
                    rows(&regions, "regions").iter().for_each(|region| say(&line(region)));
                }
                return Ok(());
            }
            RegionCommand::Drain { region, deadline } => {
                self.api.post(&at(&region, "drain"), &drain(deadline))?;
                asked(self.json, &format!("{region} {DRAINS}"));
                return Ok(());
            }
            RegionCommand::Undrain { region } => {
                let words = format!("the nodes of {region} take rooms again");
                (at(&region, "undrain"), Value::Null, words)
            }
            RegionCommand::Failback { mode, region } => {
                let words = mode.words(region.as_deref().unwrap_or("all regions"));
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
        "{:<16} breaker {}{opens}, {} of {} nodes take rooms, {} rooms, {} displaced, failback {}",
        text(region, "region"),
        text(region, "breaker"),
        number("nodes_up"),
        number("nodes"),
        number("rooms"),
        number("rooms_displaced"),
        text(region, "failback"),
    )
}
