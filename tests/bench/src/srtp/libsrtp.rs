//! The process of `tests/bench/srtp/libsrtp.c`, which is compiled when it starts.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use evenkeel_media::srtp::SrtpProfile;

use super::Round;

const SOURCE: &str = include_str!("../../srtp/libsrtp.c");

/// The process, on the core of the thread that started it.
pub(crate) struct Libsrtp {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    version: String,
}

impl Libsrtp {
    /// Compiles and starts the program in this folder.
    ///
    /// # Errors
    /// Returns why libsrtp cannot be measured here, such as a header that is not installed.
    pub(crate) fn start(folder: &Path) -> Result<Libsrtp, String> {
        let (source, program) = (folder.join("libsrtp.c"), folder.join("libsrtp"));
        std::fs::write(&source, SOURCE)
            .map_err(|error| format!("cannot write {}: {error}", source.display()))?;
        let mut compiler = Command::new("cc");
        let compiled = compiler.arg("-O2").arg("-o").arg(&program).arg(&source).arg("-lsrtp2");
        let compiled = compiled.output().map_err(|error| format!("cannot run cc: {error}"))?;
        if !compiled.status.success() {
            let said = String::from_utf8_lossy(&compiled.stderr);
            let error = said.lines().find(|line| line.contains("error")).unwrap_or(&said);
            return Err(format!("cc: {} (libsrtp2-dev)", error.trim()));
        }
        let program = std::path::absolute(program).map_err(|error| error.to_string())?;
        let mut command = Command::new(&program);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the process has no pipes".to_owned());
        };
        let output = BufReader::new(output);
        let mut peer = Libsrtp { process, input, output, version: String::new() };
        peer.version = peer.read()?;
        Ok(peer)
    }

    /// The version of libsrtp and the library of its ciphers: `libsrtp2 2.5.0 with NSS 3.87.1`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Measures a round.
    ///
    /// # Errors
    /// The process ended, or its answer has no two numbers.
    pub(crate) fn round(&mut self, profile: SrtpProfile) -> Result<Round, String> {
        writeln!(self.input, "{}", profile.name()).map_err(|error| format!("libsrtp: {error}"))?;
        let answer = self.read()?;
        let mut numbers = answer.split(' ').map(str::parse::<f64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(protect)), Some(Ok(unprotect))) => Ok([protect, unprotect]),
            _ => Err(format!("libsrtp: found `{answer}`, expected two numbers")),
        }
    }

    fn read(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err("libsrtp: the process ended, see its error above".to_owned()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("libsrtp: {error}")),
        }
    }
}

impl Drop for Libsrtp {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
