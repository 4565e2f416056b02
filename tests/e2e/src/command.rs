//! From the command line to a command, and back to a cluster as it was.

use crate::{
    args::{Args, Command},
    bench::{self, Bench},
    cli, demo, interruptions, moves, storm,
};
use anyhow::Result;

/// Runs the command; whether every claim held.
pub async fn run(args: Args) -> Result<bool> {
    let bench = Bench::open(args.common, args.command.data()).await?;
    let work = async {
        match args.command {
            Command::Demo(demo) => demo::run(&bench, &demo).await,
            Command::Moves(moves) => moves::run(&bench, &moves).await,
            Command::Interrupt(interrupt) => interruptions::run(&bench, &interrupt).await,
            Command::Storm(args) => storm::run(&bench, &args).await,
            Command::Ci(ci) => moves::ci(&bench, &ci).await,
            Command::Cli(args) => cli::run(&bench, &args).await,
        }
    };
    let result = bench::until_interrupted(Box::pin(work)).await;
    let left = bench.leave().await;
    let held = result?; // says more than what followed from it
    left.map(|()| held)
}
