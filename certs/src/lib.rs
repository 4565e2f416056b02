//! Certificates Handoff makes for itself: a CA and a server certificate in a Secret that all replicas share, a client
//! certificate for kube-scheduler in a second Secret, the `caBundle` of the webhook configurations, and the rustls side
//! that takes new certificates over without closing a connection.
//!
//! Every replica calls [`ensure`] at start, loads the result into [`Serving`] and then runs [`run`]. The replica that
//! leads also renews and publishes.
//!
//! A new CA is signed by the old one as well, and that certificate is sent along with each leaf. Who knows only the old
//! CA (kube-scheduler reads its CA file once, an apiserver learns of a new `caBundle` a moment late) accepts the new
//! leaf at once, so one write rotates everything without a gap.

mod authority;
mod bundle;
mod certificate;
mod config;
mod error;
mod resolver;
mod rotate;
mod secret;

#[cfg(test)]
mod tests;

pub use authority::{Identity, Material, SCHEDULER_NAME};
pub use bundle::{BundleState, WebhookNames, publish};
pub use config::CertsConfig;
pub use error::Error;
pub use resolver::{Serving, SwapResolver, SwapRoots, server_config, server_config_mtls};
pub use rotate::{follow, maintain, run};
pub use secret::{ensure, ensure_scheduler};
