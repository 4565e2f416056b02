//! `handoff-e2e`: moves pods with real `kubectl drain`s on a real cluster with real Longhorn, watches what happens,
//! and says whether every claim of Handoff holds. `demo` shows it, `moves` measures it, `ci` tests it.

mod args;
mod attacher;
mod backup;
mod bench;
mod budget;
mod cli;
mod cluster;
mod command;
mod demo;
mod drain;
mod handoff;
mod interruptions;
mod journal;
mod journey;
mod lab;
mod metrics;
mod moves;
mod observer;
mod prometheus;
mod report;
mod restore;
mod s3;
mod settle;
mod storm;
mod tickets;
mod timeline;
mod workload;

use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(command::run(args::Args::parse())).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("handoff-e2e: {error:#}");
            ExitCode::from(2)
        }
    }
}
