//! A cluster in this process, for the real coordinator to run against: an API server, the parts of Kubernetes and
//! Longhorn that a move goes through, and a clock that jumps from one thing that is due to the next. What goes wrong is
//! drawn from a seed; what must hold whatever goes wrong is looked at all the time.

pub mod api;
pub mod chance;
pub mod cluster;
pub mod crash;
pub mod history;
pub mod json;
pub mod kubernetes;
pub mod longhorn;
pub mod replica;
pub mod storm;
pub mod time;
pub mod ways;
pub mod witness;
pub mod world;

use std::future::Future;

/// Runs a simulation to its end, on this thread, in its own time.
pub fn run<T>(simulation: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(simulation))
}
