//! The time of day. Everything that is written down and compared with what others wrote goes by it; waits and leases go
//! by tokio's monotonic clock. A program that simulates a cluster drives both.

use jiff::Timestamp;
use std::{fmt, sync::Arc};

/// Where a replica reads the time of day.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn Fn() -> Timestamp + Send + Sync>>);

impl Clock {
    /// One that `now` drives, instead of this machine's.
    pub fn driven(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(Timestamp::now, |now| now())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Clock(driven)" } else { "Clock(system)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driven_clock_says_what_it_is_told() {
        let then: Timestamp = "2016-11-04T10:00:00Z".parse().unwrap();
        assert_eq!(Clock::driven(move || then).now(), then);
        assert!(Clock::default().now() > then);
    }
}
