//! A model check of the decision: the real `decide`, the real record of a move and the shell's order of work,
//! composed with a small model of Kubernetes and Longhorn. See `docs/model.md`.

pub mod cluster;
pub mod explore;
pub mod history;
pub mod lens;
pub mod model;
pub mod mutants;
pub mod ours;
pub mod pairs;
pub mod rules;
pub mod step;
pub mod story;
pub mod suite;
pub mod world;
