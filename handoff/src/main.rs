//! `handoff`: the admission webhook, scheduler extender and controller in one binary, and the tools to look at it.

use handoff::Args;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::read(std::env::args_os()) {
        Ok(args) => args,
        // help and version come this way, too
        Err(error) => error.exit(),
    };
    match handoff::run(args).await {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("handoff: {error:#}");
            ExitCode::FAILURE
        }
    }
}
