//! The time in a simulation: tokio's paused clock, which jumps from one thing that is due to the next. Each machine has a
//! clock of its own, which may go wrong.

use handoff_coordinator::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// When simulations begin, in seconds of Unix time.
const BEGIN: i64 = 1_800_000_000;

/// A machine's clock.
#[derive(Clone, Debug)]
pub struct Time {
    origin: Instant,
    /// How far it is ahead of the others, in milliseconds.
    ahead: Arc<AtomicI64>,
}

impl Time {
    /// Starts now; call it inside the runtime.
    pub fn start() -> Self {
        Self { origin: Instant::now(), ahead: Arc::default() }
    }

    /// The clock of another machine.
    #[must_use]
    pub fn of_another(&self) -> Self {
        Self { origin: self.origin, ahead: Arc::default() }
    }

    /// How long the simulation runs.
    pub fn passed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        let begin = Timestamp::from_second(BEGIN).unwrap_or_default();
        begin + self.passed() + SignedDuration::from_millis(self.ahead.load(Ordering::Relaxed))
    }

    /// The time of day in whole seconds, as Kubernetes writes it.
    pub fn stamp(&self) -> String {
        self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Someone sets this machine's clock: it is so far ahead of the others from now on.
    pub fn set_ahead(&self, by: SignedDuration) {
        self.ahead.store(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// For a replica on this machine.
    pub fn clock(&self) -> Clock {
        let time = self.clone();
        Clock::driven(move || time.now())
    }
}
