//! How long the storage manager has had to answer a probe. The time of day cannot say that: a clock that is set forward while
//! a backup is probed would make silence count as an answer that there was no time to give. So it is counted from the
//! moment at which this replica sees the probe, by the clock that nobody sets.

use handoff_storage::{BackupState, BackupView};
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp};
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// So many backups are remembered; beyond it all are forgotten, and probes get their time anew.
const REMEMBERED: usize = 10_000;

/// Probes that were seen here.
#[derive(Debug, Default)]
pub struct Asked {
    /// UID of the backup → its probe, and since when it is seen.
    seen: Mutex<HashMap<String, (Timestamp, Instant)>>,
}

impl Asked {
    /// How much of `wait` is left for the answer to the probe of a lost backup. `None`: it has had its time, or there is
    /// no probe.
    pub fn left(&self, backup: &BackupView, wait: SignedDuration) -> Option<SignedDuration> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(asked) = backup.asked_at.filter(|_| backup.state == BackupState::Lost) else {
            seen.remove(&backup.uid);
            return None;
        };
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        let entry = seen.entry_ref(&backup.uid).or_insert_with(|| (asked, Instant::now()));
        if entry.0 != asked {
            *entry = (asked, Instant::now());
        }
        let waited = SignedDuration::try_from(entry.1.elapsed()).unwrap_or(SignedDuration::MAX);
        (waited < wait).then(|| wait - waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{at, backup};
    use std::time::Duration;

    const WAIT: SignedDuration = SignedDuration::from_millis(2500);

    #[tokio::test(start_paused = true)]
    async fn each_probe_has_its_time_from_when_it_is_seen() {
        let asked = Asked::default();
        let mut lost = backup("b1", BackupState::Lost, Some(0.0));
        assert_eq!(asked.left(&lost, WAIT), None, "nobody has asked");
        lost.asked_at = Some(at(1.0));
        assert_eq!(asked.left(&lost, WAIT), Some(WAIT));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(asked.left(&lost, WAIT), Some(SignedDuration::from_millis(500)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(asked.left(&lost, WAIT), None);
        lost.asked_at = Some(at(9.0));
        assert_eq!(asked.left(&lost, WAIT), Some(WAIT), "another probe");
        lost.state = BackupState::Running;
        assert_eq!(asked.left(&lost, WAIT), None);
    }
}
