//! How long a backup is going to take, from how its progress went so far. In memory and in each replica: what is lost
//! with a restart is a better guess, not a deadline.

use handoff_storage::BackupView;
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp};
use std::{collections::VecDeque, sync::Mutex, sync::MutexGuard, sync::PoisonError};

/// Steps kept per backup: the last ones say more about the link than the first ones.
const STEPS: usize = 8;
/// Backups kept. More than a cluster uploads at a time; past it, the guess is made from the backup's age.
const BACKUPS: usize = 4096;
/// A backup not heard of for this long is forgotten.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Percent, and when it was first seen.
type Step = (u8, Timestamp);

/// Progress of the backups in flight.
#[derive(Debug, Default)]
pub struct Progress {
    of: Mutex<HashMap<String, VecDeque<Step>>>,
}

impl Progress {
    fn of(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Step>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what is seen of a volume's backups.
    pub fn note(&self, backups: &[BackupView], now: Timestamp) {
        let mut of = self.of();
        for backup in backups {
            if !backup.in_flight() {
                of.remove(&backup.uid);
                continue;
            }
            if !of.contains_key(&backup.uid) && of.len() >= BACKUPS {
                of.retain(|_, steps| steps.back().is_some_and(|(_, at)| now.duration_since(*at) < FORGET_AFTER));
                if of.len() >= BACKUPS {
                    continue;
                }
            }
            step(of.entry(backup.uid.clone()).or_default(), backup.progress, now);
        }
    }

    /// How long the backup still takes; `None` when nothing can be said.
    pub fn remaining(&self, backup: &BackupView, now: Timestamp) -> Option<SignedDuration> {
        let of = self.of();
        let first = of.get(&backup.uid).and_then(|steps| steps.front()).copied();
        drop(of);
        // one step says nothing of the speed; the age of the backup does, and errs on the long side if it was queued
        let by_age = || backup.created.and_then(|created| remaining((0, created), backup.progress, now));
        first.and_then(|first| remaining(first, backup.progress, now)).or_else(by_age)
    }
}

fn step(steps: &mut VecDeque<Step>, percent: u8, now: Timestamp) {
    match steps.back() {
        Some((last, _)) if *last == percent => return,
        // it runs anew
        Some((last, _)) if *last > percent => steps.clear(),
        _ => {}
    }
    if steps.len() == STEPS {
        steps.pop_front();
    }
    steps.push_back((percent, now));
}

/// At the mean speed since `first`. Up to now and not up to the last step: one that has stalled gets slower and slower.
fn remaining((from, since): Step, percent: u8, now: Timestamp) -> Option<SignedDuration> {
    let done = percent.checked_sub(from).filter(|done| *done > 0)?;
    let took = now.duration_since(since);
    let left = i32::from(100_u8.saturating_sub(percent));
    (took > SignedDuration::ZERO).then(|| took.saturating_mul(left) / i32::from(done))
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_storage::BackupState;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn backup(progress: u8, state: BackupState) -> BackupView {
        BackupView {
            name: "b".into(),
            uid: "u".into(),
            resource_version: "1".into(),
            state,
            progress,
            snapshot: "s".into(),
            target: "default".into(),
            target_unavailable: None,
            mode: "incremental".into(),
            recurring_job: None,
            replica_address: None,
            error: None,
            ended_at: None,
            asked_at: None,
            created: Some(at(-100)),
            uploaded_bytes: None,
        }
    }

    /// The guess at `now` after these steps.
    fn guess(steps: &[(u8, i64)], now: i64) -> Option<i64> {
        let progress = Progress::default();
        let mut last = backup(0, BackupState::Running);
        for (percent, second) in steps {
            last = backup(*percent, BackupState::Running);
            progress.note(std::slice::from_ref(&last), at(*second));
        }
        progress.remaining(&last, at(now)).map(|left| left.as_secs())
    }

    #[test]
    fn the_guess_follows_the_steps() {
        for (what, steps, now, wanted) in [
            ("nothing uploaded yet", &[(0, 0)][..], 10, None),
            ("only its age is known: 50 % in 100 s", &[(50, 0)], 0, Some(100)),
            ("10 % a second", &[(0, 0), (10, 1), (20, 2), (90, 9)], 9, Some(1)),
            ("stalled since: slower and slower", &[(0, 0), (90, 9)], 90, Some(10)),
            ("one per mille of what it was", &[(0, 0), (1, 60)], 60, Some(5940)),
            ("it runs anew: the old run does not count", &[(80, 0), (99, 1), (10, 100), (20, 105)], 105, Some(40)),
            ("complete but for the state", &[(10, 0), (100, 9)], 9, Some(0)),
            (
                "the last steps count: slow at first, then fast",
                &[
                    (1, 0),
                    (2, 100),
                    (3, 200),
                    (10, 201),
                    (20, 202),
                    (30, 203),
                    (40, 204),
                    (50, 205),
                    (60, 206),
                    (70, 207),
                ],
                207,
                Some(3),
            ),
        ] {
            assert_eq!(guess(steps, now), wanted, "{what}");
        }
    }

    #[test]
    fn a_backup_that_is_over_is_forgotten_and_the_number_is_bounded() {
        let progress = Progress::default();
        progress.note(&[backup(10, BackupState::Running)], at(0));
        progress.note(&[backup(10, BackupState::Lost)], at(1));
        assert!(progress.of().is_empty());
        let many = (0..BACKUPS + 10).map(|n| BackupView { uid: n.to_string(), ..backup(1, BackupState::Queued) });
        progress.note(&many.collect::<Vec<_>>(), at(2));
        assert_eq!(progress.of().len(), BACKUPS);
        let late = at(2) + FORGET_AFTER;
        progress.note(&[BackupView { uid: "new".into(), ..backup(1, BackupState::Queued) }], late);
        assert_eq!(progress.of().len(), 1, "old ones make room");
    }
}
