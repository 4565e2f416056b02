//! The program; see the library for what it is.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    iscsi_standin::run(&args)
}
