//! The desk with an API server and a storage manager of its own: what is answered, and what is written for it.

pub(crate) mod api;
mod evictions;
mod modes;
mod snapshots;
mod storage_pods;
mod traces;
pub(crate) mod world;
