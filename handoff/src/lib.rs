//! The parts of the binary: flags, wiring, listeners. A library, so that the programs that measure run the very same
//! listener and wiring as `handoff serve`.

mod agent;
mod args;
mod clock;
mod crd;
mod explain;
pub mod listen;
mod logs;
mod nodes;
mod observe;
mod otlp;
pub mod page;
pub mod permissions;
mod serve;
mod status;
mod wiring;

pub use args::{Args, ServeArgs};
pub use observe::figures::Reviews;
pub use wiring::{Caches, Core};

use args::Command;

/// Does what the command line says.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Agent(args) => agent::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Crd => crd::print(),
    }
}
