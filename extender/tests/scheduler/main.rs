//! The router in process, with arguments in the form that the scheduler sends them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod bounds;
mod garbage;
mod recorded;
mod spelling;
mod support;
mod verbs;
