//! The `evenkeel` program; `evenkeel --help` says what it can do.

use std::process::ExitCode;

fn main() -> ExitCode {
    evenkeel_server::main()
}
