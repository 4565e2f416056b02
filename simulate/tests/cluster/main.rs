//! Replicas of Handoff in a simulated cluster: one program, so that it is linked once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod clocks;
mod histories;
mod moves;
