//! Bounds of the extender.

use std::time::Duration;

/// What calls of the scheduler may take. The listener's limits on connections hold besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtenderConfig {
    /// Time from the head of a call to its answer. It must be less than `httpTimeout` in the scheduler's configuration,
    /// or the scheduler has given up before it gets an answer that lets every node pass. Default 800 ms.
    pub deadline: Duration,
    /// Longest body in bytes; 413 beyond. 5,000 nodes of 10 kB each are 50 MB. Default 64 MiB.
    pub body: usize,
    /// Bodies longer than this are judged on the blocking pool, so that the milliseconds that thousands of full Node
    /// objects take are not taken from the reviews that share the runtime, and count as large. Lists of names stay
    /// below it. Default 1 MiB.
    pub blocking_above: usize,
    /// Bytes that all large bodies together may take in memory. A call waits for its share until the deadline. Not
    /// less than [`Self::body`]. Default 64 MiB.
    pub large_bodies: usize,
    /// The same for bodies that are not large; lists of names never wait for full nodes. Default 16 MiB.
    pub small_bodies: usize,
}

impl Default for ExtenderConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(800),
            body: 64 << 20,
            blocking_above: 1 << 20,
            large_bodies: 64 << 20,
            small_bodies: 16 << 20,
        }
    }
}

impl ExtenderConfig {
    /// Names the first value that makes no sense.
    pub fn check(&self) -> Result<(), String> {
        // the listener cuts requests after 10 s
        if self.deadline.is_zero() || self.deadline > Duration::from_secs(5) {
            return Err(format!("extender-deadline must be more than 0 s and at most 5 s, it is {:?}", self.deadline));
        }
        if self.body < self.blocking_above {
            return Err(format!("extender-body must be at least {} bytes, it is {}", self.blocking_above, self.body));
        }
        if self.large_bodies < self.body {
            return Err(format!(
                "extender-bodies must not be less than extender-body: {} bytes, {} bytes",
                self.large_bodies, self.body
            ));
        }
        if self.small_bodies < self.blocking_above {
            return Err(format!(
                "extender needs {} bytes for lists of names, not {}",
                self.blocking_above, self.small_bodies
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_is_named() {
        let good = ExtenderConfig::default();
        assert_eq!(good.check(), Ok(()));
        for (bad, named) in [
            (ExtenderConfig { deadline: Duration::ZERO, ..good }, "extender-deadline"),
            (ExtenderConfig { deadline: Duration::from_secs(6), ..good }, "extender-deadline"),
            (ExtenderConfig { body: 1000, ..good }, "extender-body"),
            (ExtenderConfig { body: 100 << 20, ..good }, "extender-bodies"),
            (ExtenderConfig { small_bodies: 1000, ..good }, "lists of names"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
