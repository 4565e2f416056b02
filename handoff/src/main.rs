//! `handoff`: the admission webhook, scheduler extender and controller in one binary, and the tools to look at it.

use clap::Parser;
use handoff::Args;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match handoff::run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("handoff: {error:#}");
            ExitCode::FAILURE
        }
    }
}
