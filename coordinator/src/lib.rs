//! The coordinator: the `VolumeHandoff` object, the pure decision what comes next, and the shell that does it.

pub mod api;
mod asked;
mod binder;
pub mod checkpoint;
pub mod clock;
pub mod decide;
mod desk;
pub mod detect;
mod eviction;
pub mod handoffs;
pub mod holds;
pub mod lease;
pub mod metrics;
pub mod mode;
pub mod now;
pub mod observation;
mod pace;
mod patch;
pub mod phases;
pub mod placement;
pub mod policy;
pub mod progress;
pub mod queue;
pub mod reason;
pub mod score;
mod shell;
#[cfg(test)]
mod stage;
mod storage_last;
mod tell;
#[cfg(test)]
pub(crate) mod tests;
pub mod trace;
pub mod verdicts;
mod wake;

pub use shell::{Coordinator, Parts};
