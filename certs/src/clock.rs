//! The time certificates are judged by.

use jiff::Timestamp;
use std::{fmt, time::Duration};

/// Where the time comes from. Two readings, because they answer different questions: a certificate's dates are of the
/// wall clock, which someone may set; how long something has been so is of the monotonic one.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never runs backwards.
    fn monotonic(&self) -> Duration;
}

/// This machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
