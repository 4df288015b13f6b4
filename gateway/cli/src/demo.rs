//! `evenkeel demo`.

use evenkeel_config::AdminSettings;
use evenkeel_lab::demo::{self, DemoOptions};

use crate::CommandError;

pub(crate) fn run(options: &DemoOptions) -> Result<(), CommandError> {
    let failed = |error: String| CommandError::Failed(error);
    let evenkeel = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let socket = AdminSettings::default_socket();
    if options.serve {
        AdminSettings::prepare_folder(&socket).map_err(|error| failed(error.to_string()))?;
    }
    match demo::run(options, &evenkeel, &socket) {
        Ok(true) => Ok(()),
        // The report is the last line.
        Ok(false) if options.json => Err(failed(String::new())),
        Ok(false) => Err(failed("a check of the demo failed; see FAILED above".into())),
        Err(error) => Err(failed(error.to_string())),
    }
}
