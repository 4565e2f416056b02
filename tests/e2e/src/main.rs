//! `handoff-e2e`: moves pods with real `kubectl drain`s on a real cluster with real Longhorn, watches what happens,
//! and says whether every claim of Handoff holds. `demo` shows it, `moves` measures it, `ci` tests it.

mod args;
mod backup;
mod bench;
mod budget;
mod cluster;
mod demo;
mod drain;
mod handoff;
mod journey;
mod lab;
mod metrics;
mod moves;
mod observer;
mod report;
mod restore;
mod s3;
mod settle;
mod timeline;
mod workload;

use args::{Args, Command};
use bench::Bench;
use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("handoff-e2e: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every claim held.
async fn run(args: Args) -> anyhow::Result<bool> {
    let bench = Bench::open(args.common).await?;
    let work = async {
        match args.command {
            Command::Demo(demo) => demo::run(&bench, &demo).await,
            Command::Moves(moves) => moves::run(&bench, &moves).await,
            Command::Ci(ci) => moves::ci(&bench, &ci).await,
        }
    };
    let result = bench::until_interrupted(work).await;
    bench.leave().await?;
    result
}
