mod api;
mod authority;
mod cluster;
mod external;
mod secrecy;
mod tls;

use crate::{CertsConfig, Clock, Material, Serving, authority::Permits};
use jiff::{SignedDuration, Timestamp};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

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

const ALL: Permits = Permits { published: true, replace_ca: true };

/// `old` after a whole rotation of its CA, which ends at `at`.
fn rotated(old: &Material, at: Timestamp) -> Material {
    let announced = old.renewed(&config(), at - days(1), ALL).unwrap().unwrap();
    announced.renewed(&config(), at, ALL).unwrap().unwrap()
}

/// A clock that is set by hand.
#[derive(Debug)]
struct Hands(Mutex<(Timestamp, Duration)>);

impl Hands {
    fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(Mutex::new((now, Duration::ZERO))))
    }

    fn serving(now: Timestamp) -> (Arc<Self>, Serving) {
        let clock = Self::at(now);
        (clock.clone(), Serving::new(clock))
    }

    /// Time goes by.
    fn advance(&self, by: SignedDuration) {
        let mut hands = self.0.lock().unwrap();
        hands.0 += by;
        hands.1 += by.unsigned_abs();
    }

    /// Someone sets the wall clock.
    fn set(&self, now: Timestamp) {
        self.0.lock().unwrap().0 = now;
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().0
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().1
    }
}
