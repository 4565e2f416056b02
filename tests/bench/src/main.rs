//! What Handoff costs: times, instructions and memory, side by side with handlers written the usual way. Prints
//! figures and judges none of them.

mod api;
mod caches;
mod client;
mod instructions;
mod load;
mod ours;
mod report;
mod typed;
mod world;

use clap::{Parser, Subcommand};
use report::Effort;
use std::path::PathBuf;

/// Prints a table: work, ours, comparator, ratio, target.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds; ours and the comparator take turns, and the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each throughput measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Requests of each latency measurement.
    #[arg(long, default_value_t = 5000)]
    requests: usize,
    /// Leave caches and instructions out.
    #[arg(long)]
    only_requests: bool,
    /// Folder for callgrind's profiles.
    #[arg(long, default_value = "target/profiles")]
    profiles: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Caches only.
    Caches { part: caches::Part },
    /// Reviews at one connection only. Under `taskset -c 0`, client and server share a processor, and no time is spent on
    /// waking another one.
    OneConnection,
    /// Instructions only.
    Instructions,
    /// CPU time only.
    Cpu,
    /// Fills caches from an API server and says what that took.
    #[command(hide = true)]
    Fill { part: caches::Part, url: String },
    /// Calls one of the handlers some times; for a profiler.
    #[command(hide = true)]
    Drive { which: usize },
}

fn main() -> anyhow::Result<()> {
    let Args { command, rounds, seconds, requests, only_requests, profiles } = Args::parse();
    let effort = Effort { rounds: rounds.max(1), seconds, requests, only_requests, profiles };
    match command {
        None => report::run(&effort),
        Some(Command::Caches { part }) => {
            println!("{:#?}", caches::measure(part)?);
            Ok(())
        }
        Some(Command::OneConnection) => report::one_connection(&effort),
        Some(Command::Instructions) => report::instructions(&effort),
        Some(Command::Cpu) => {
            for (work, by, microseconds) in instructions::cpu_all()? {
                println!("{work:?} {by:?}: {microseconds:.1} µs of CPU per request");
            }
            Ok(())
        }
        Some(Command::Fill { part, url }) => caches::fill(part, &url),
        Some(Command::Drive { which }) => instructions::drive(which),
    }
}
