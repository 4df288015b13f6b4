//! Writes the hostile plugins into a folder and prints a line for each: file, hook, expected outcome (`refused CODE`,
//! `fault NAME` or `curbed -`), file of its predecessor (`-` for none), and name, separated by tabs.

use std::path::Path;
use std::process::ExitCode;

use evenkeel_guests::{Expected, hostile};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("evenkeel-guests: found no argument, expected an existing folder");
        return ExitCode::from(2);
    };
    for (number, guest) in hostile().iter().enumerate() {
        let file = Path::new(&folder).join(format!("{number}.wasm"));
        let before = Path::new(&folder).join(format!("{number}-before.wasm"));
        let files = [(&file, Some(&guest.bytes)), (&before, guest.before.as_ref())];
        for (file, bytes) in files {
            if let Some(Err(error)) = bytes.map(|bytes| std::fs::write(file, bytes)) {
                eprintln!("evenkeel-guests: {}: {error}", file.display());
                return ExitCode::FAILURE;
            }
        }
        let before = guest.before.as_ref().map_or("-".into(), |_| before.to_string_lossy());
        let expected = match guest.expected {
            Expected::Refused(code) => format!("refused {code}"),
            Expected::Fault(fault) => format!("fault {fault}"),
            Expected::Curbed => "curbed -".to_owned(),
        };
        let (file, hook, name) = (file.display(), guest.hook.name(), &guest.name);
        println!("{file}\t{hook}\t{expected}\t{before}\t{name}");
    }
    ExitCode::SUCCESS
}
