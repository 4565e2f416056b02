//! The parts of the binary: flags, wiring, listeners. A library, so that the programs that measure run the very same
//! listener and wiring as `handoff serve`.

mod agent;
mod args;
#[cfg(test)]
mod budgets;
mod clock;
mod commands;
mod crd;
pub mod listen;
mod logs;
mod observe;
mod otlp;
pub mod page;
pub mod permissions;
mod serve;

pub use agent::mounts::source_at;
pub use args::{Args, ServeArgs};

use args::Command;
use commands::{
    End, cordon_check, doctor, explain, history, orders, plan, reference, release, simulate, status, uninstall,
};
use handoff_coordinator::api::OrderKind;
use std::process::ExitCode;

/// Does what the command line says.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let end = match args.command {
        Command::Serve(args) => serve::run(*args).await.map(|()| End::Yes),
        Command::Agent(args) => agent::run(args).await.map(|()| End::Yes),
        Command::Status(args) => status::run(*args).await,
        Command::Explain(args) => explain::run(*args).await,
        Command::Plan(args) => plan::run(*args).await,
        Command::CordonCheck(args) => cordon_check::run(*args).await,
        Command::Doctor(args) => doctor::run(*args).await,
        Command::History(args) => history::run(*args).await,
        Command::Release(args) => release::run(*args).await,
        Command::Resume(args) => orders::run(*args, OrderKind::Resume).await,
        Command::Abandon(args) => orders::run(*args, OrderKind::Abandon).await,
        Command::Simulate(args) => simulate::run(*args).await,
        Command::Uninstall(args) => uninstall::run(*args).await,
        Command::Crd => crd::print().map(|()| End::Yes),
        Command::Completion(args) => reference::completion(&args),
        Command::Man(args) => reference::man(&args),
        Command::Markdown => reference::markdown(),
    };
    end.map(ExitCode::from)
}
