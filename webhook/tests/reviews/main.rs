//! The router in process, with reviews in the form that the API server sends them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounds;
mod garbage;
mod recorded;
mod support;
mod table;
mod untouched;
