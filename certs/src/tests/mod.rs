mod api;
mod authority;
mod cluster;
mod tls;

use crate::{CertsConfig, Material};
use jiff::{SignedDuration, Timestamp};

fn config() -> CertsConfig {
    CertsConfig::new("handoff-system", "handoff-certs", vec!["handoff.handoff-system.svc".to_owned()])
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

/// Whole seconds, as in certificates.
fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap()
}

fn material(now: Timestamp) -> Material {
    Material::create(&config(), now).unwrap()
}
