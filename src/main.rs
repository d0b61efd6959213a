//! Arguments, configuration, verb, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    walrelay::cli::main()
}
