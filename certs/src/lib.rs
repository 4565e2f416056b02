//! The certificates Handoff serves with, from one of three [`Source`]s, and the rustls side that takes new ones over
//! without closing a connection.
//!
//! - Our own: a CA and a server certificate in a Secret that all replicas share, a client certificate for kube-scheduler
//!   in a second Secret, and the `caBundle` of the webhook configurations. Only the replica that leads writes.
//! - cert-manager's: the same Secrets, written by it; we only read.
//! - Files, a mounted Secret for instance.
//!
//! Every replica runs a [`Keeper`] on what it serves with, a [`Serving`]. Whatever goes wrong, the certificate in use
//! stays in use.

mod authority;
mod bundle;
mod certificate;
mod clock;
mod config;
mod error;
mod files;
mod identity;
mod inspect;
mod issue;
mod key;
mod resolver;
mod rotate;
mod secret;
mod serving;
mod source;

#[cfg(test)]
mod tests;

pub use authority::{CA_OVERLAP, Material, SCHEDULER_NAME};
pub use bundle::{BundleState, WebhookNames, publish};
pub use clock::{Clock, SystemClock};
pub use config::CertsConfig;
pub use error::Error;
pub use identity::Identity;
pub use inspect::{Inspected, inspect, verify};
pub use resolver::{SwapResolver, SwapRoots, server_config, server_config_mtls};
pub use rotate::{Keeper, PATIENCE};
pub use secret::{read_external_secret, read_own_secret};
pub use serving::{Serving, Status};
pub use source::Source;
