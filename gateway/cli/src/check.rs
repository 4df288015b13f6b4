//! `evenkeel check`.

use std::io::IsTerminal;

use clap::Args;
use evenkeel_config::{Colour, InvalidSetting};
use evenkeel_server::serve;

use crate::{CommandError, ConfigArgs, say};

/// Check a configuration and print its errors. Exit code 2: it is invalid.
#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    place: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl CheckArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let place = self.place.serve();
        match place.check() {
            Ok(notes) => {
                if self.json {
                    say(&serde_json::json!({"ok": true, "errors": [], "notes": notes}));
                } else {
                    say(&"The configuration is valid.");
                    notes.iter().for_each(|note| say(&format!("Note: {note}.")));
                }
                Ok(())
            }
            Err(serve::ServeError::Invalid(invalid)) => Err(wrong(&invalid, self.json)),
            Err(failure) => Err(CommandError::Wrong(failure.to_string())),
        }
    }
}

/// Prints the errors: as JSON on standard output, or as text on standard error.
pub(crate) fn wrong(invalid: &[InvalidSetting], json: bool) -> CommandError {
    if json {
        say(&serde_json::json!({"ok": false, "errors": invalid}));
        return CommandError::Wrong(String::new());
    }
    let colour = if std::io::stderr().is_terminal() { Colour::Ansi } else { Colour::Plain };
    eprint!("{}", InvalidSetting::render(invalid, colour));
    let errors = if invalid.len() == 1 { "error" } else { "errors" };
    CommandError::Wrong(format!("{} {errors} in the configuration", invalid.len()))
}
