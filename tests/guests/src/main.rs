//! Writes the plugins that mean harm into a folder, and says of each on a line of its own: its file, the hook it is for, and
//! what is to become of it (`refused CODE`, `fault WORD` or `curbed`).

use std::path::Path;
use std::process::ExitCode;

use evenkeel_guests::{Expected, hostile};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("evenkeel-guests: found no argument, expected a folder that is there");
        return ExitCode::from(2);
    };
    for (number, guest) in hostile().iter().enumerate() {
        let file = Path::new(&folder).join(format!("{number}.wasm"));
        if let Err(error) = std::fs::write(&file, &guest.bytes) {
            eprintln!("evenkeel-guests: {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
        let expected = match guest.expected {
            Expected::Refused(code) => format!("refused {code}"),
            Expected::Fault(fault) => format!("fault {fault}"),
            Expected::Curbed => "curbed -".to_owned(),
        };
        println!("{}\t{}\t{expected}\t{}", file.display(), guest.hook.name(), guest.name);
    }
    ExitCode::SUCCESS
}
