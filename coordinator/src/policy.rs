//! Bounds of a handoff. Every value has a unit in its type and a safe default; the binary reads them from flags.

use handoff_cluster::settings::{EvictionPolicy, LONGEST_HOLD, Mode};
use jiff::{SignedDuration, Timestamp};

/// This long after `at`, at the end of time at most: `at` may come from an object that people can edit.
pub fn after(at: Timestamp, wait: SignedDuration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Bounds of a handoff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How much is done for whatever no annotation speaks of. Default: everything.
    pub mode: Mode,
    /// What happens to an eviction while a backup is in flight and no annotation says. Default: `Checkpoint`.
    pub eviction_policy: EvictionPolicy,
    /// An eviction is held no longer than this under `FinishIfNear`, where no annotation says. Default 60 s, at most
    /// 100 s.
    pub eviction_hold: SignedDuration,
    /// A pre-stage that nobody adopted is withdrawn after this. Default 120 s.
    pub prestage_expiry: SignedDuration,
    /// How long a lost backup is given to turn out complete before it is reset. Default 2.5 s: a complete one flips
    /// within 0.2 s.
    pub probe_wait: SignedDuration,
    /// How often a backup is made to run again before it is given up. Default 80: more than six hours, which is
    /// as long as its snapshot is protected; a backup target that is away for a night costs no backup.
    pub resume_attempts: u32,
    /// Resumed backups that may run at a time whose volumes are on the same node. Default 2: each reads a whole volume.
    pub resumes_per_node: u32,
    /// The same, to the same backup target. Default 8.
    pub resumes_per_target: u32,
    /// Wait after the first failed run; doubles with each. Default 15 s.
    pub resume_backoff: SignedDuration,
    /// Upper bound of that wait. Default 300 s: twice the age at which the backup target's locks lapse.
    pub resume_backoff_max: SignedDuration,
    /// A backup is resumed this long after the volume settled even if the pod is not ready, or storage has not left
    /// the drained node. Default 60 s.
    pub settle_wait: SignedDuration,
    /// A pod of the storage manager is kept on its node no longer than this in all. Default 100 s.
    pub storage_hold: SignedDuration,
    /// A snapshot is protected no longer than this after its checkpoint. Default 6 h.
    pub snapshot_protection: SignedDuration,
    /// What was recorded from one replica's cache may be missing in another's for so long; only then a backup that is
    /// not there counts as deleted. Default 10 s.
    pub cache_lag: SignedDuration,
    /// A finished handoff is kept for people to read. Default 1 h.
    pub retention: SignedDuration,
    /// A backup that was lost while nobody watched is taken up if it ended no longer ago than this. Default 1 h.
    pub lost_max_age: SignedDuration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Enabled,
            eviction_policy: EvictionPolicy::Checkpoint,
            eviction_hold: SignedDuration::from_secs(60),
            prestage_expiry: SignedDuration::from_secs(120),
            probe_wait: SignedDuration::from_millis(2_500),
            resume_attempts: 80,
            resumes_per_node: 2,
            resumes_per_target: 8,
            resume_backoff: SignedDuration::from_secs(15),
            resume_backoff_max: SignedDuration::from_secs(300),
            settle_wait: SignedDuration::from_secs(60),
            storage_hold: SignedDuration::from_secs(100),
            snapshot_protection: SignedDuration::from_hours(6),
            cache_lag: SignedDuration::from_secs(10),
            retention: SignedDuration::from_hours(1),
            lost_max_age: SignedDuration::from_hours(1),
        }
    }
}

impl Policy {
    /// Names the first value that makes no sense.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("prestage-expiry", self.prestage_expiry),
            ("probe-wait", self.probe_wait),
            ("resume-backoff", self.resume_backoff),
            ("settle-wait", self.settle_wait),
            ("eviction-hold", self.eviction_hold),
            ("storage-hold", self.storage_hold),
            ("snapshot-protection", self.snapshot_protection),
            ("retention", self.retention),
        ];
        if let Some((name, value)) = positive.into_iter().find(|(_, v)| *v <= SignedDuration::ZERO) {
            return Err(format!("{name} must be more than 0 s, it is {value:#}"));
        }
        for (name, value) in [("storage-hold", self.storage_hold), ("eviction-hold", self.eviction_hold)] {
            if value > LONGEST_HOLD {
                return Err(format!("{name} must be at most 100 s, it is {value:#}"));
            }
        }
        let counts = [
            ("resume-attempts", self.resume_attempts),
            ("resumes-per-node", self.resumes_per_node),
            ("resumes-per-target", self.resumes_per_target),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(format!("{name} must be at least 1"));
        }
        if self.resume_backoff_max < self.resume_backoff {
            return Err("resume-backoff-max must not be less than resume-backoff".to_owned());
        }
        Ok(())
    }

    /// Wait after the `failures`-th failed run.
    pub fn backoff(&self, failures: u32) -> SignedDuration {
        let factor = 1_i32.checked_shl(failures.saturating_sub(1)).filter(|f| *f > 0).unwrap_or(i32::MAX);
        self.resume_backoff.checked_mul(factor).unwrap_or(self.resume_backoff_max).min(self.resume_backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let policy = Policy::default();
        assert_eq!(policy.check(), Ok(()));
        let waits = [1, 2, 3, 5, 6, 99].map(|n| policy.backoff(n).as_secs());
        assert_eq!(waits, [15, 30, 60, 240, 300, 300]);
    }

    /// A target that was away for 20 minutes used the attempts up, and a good backup was given up.
    #[test]
    fn a_target_may_be_away_for_a_night() {
        let policy = Policy::default();
        let waits = (1..policy.resume_attempts).map(|n| policy.backoff(n).as_secs());
        assert!(waits.sum::<i64>() >= 6 * 3600);
    }

    #[test]
    fn a_bad_value_is_named() {
        let policy = Policy { storage_hold: SignedDuration::from_secs(101), ..Policy::default() };
        assert!(policy.check().unwrap_err().contains("storage-hold"));
        let policy = Policy { eviction_hold: SignedDuration::from_mins(2), ..Policy::default() };
        assert!(policy.check().unwrap_err().contains("eviction-hold"));
        let policy = Policy { resumes_per_node: 0, ..Policy::default() };
        assert!(policy.check().unwrap_err().contains("resumes-per-node"));
        let policy = Policy { retention: SignedDuration::ZERO, ..Policy::default() };
        assert!(policy.check().unwrap_err().contains("retention"));
    }
}
