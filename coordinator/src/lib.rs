//! The coordinator: the `VolumeHandoff` object, the pure decision what comes next, and the shell that does it.

pub mod api;
pub mod checkpoint;
pub mod decide;
mod desk;
pub mod detect;
pub mod handoffs;
pub mod lease;
pub mod metrics;
pub mod observation;
mod placement;
pub mod policy;
pub mod queue;
mod shell;
mod storage_last;
mod tell;
pub mod verdicts;

pub use shell::{Coordinator, Parts};
