//! What the examples share, and what is not about Kafka: options, exit statuses, progress.

#![allow(dead_code, unused_imports, reason = "each example is a program and uses a part of this")]

mod options; // the command line, by a table
mod progress; // a bar on the terminal

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

pub use self::options::{Args, Opt, Spec, Usage, flag, many, one, optional, some};
pub use self::progress::Progress;

/// `Ok(true)`: all went well. `Ok(false)`: it ran and has said what failed.
pub type Outcome = Result<bool, Box<dyn Error>>;

/// Runs an example: status 0 if all went well, 1 if something failed, 2 if it was asked wrongly.
/// What the library logs goes to stderr, warnings and worse unless `RUST_LOG` says otherwise.
pub fn main(spec: &'static Spec, run: impl FnOnce(&Args) -> Outcome) -> ExitCode {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("warn"));
    let args = match spec.parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            // Whoever reads it may have seen enough and closed the pipe.
            let _ = write!(std::io::stdout(), "{}", spec.help());
            return ExitCode::SUCCESS;
        }
        Err(usage) => return complain(&usage, 2),
    };
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => complain(&*error, status(&*error)),
    }
}

fn status(error: &(dyn Error + 'static)) -> u8 {
    let config = matches!(error.downcast_ref(), Some(kafka_producer::Error::Config(_)));
    if config || error.is::<Usage>() { 2 } else { 1 }
}

fn complain(error: &dyn Error, status: u8) -> ExitCode {
    let hint = if status == 2 { "\n(--help lists the options)" } else { "" };
    let _ = writeln!(std::io::stderr(), "error: {error}{hint}");
    ExitCode::from(status)
}
