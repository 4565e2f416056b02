//! How many resumed backups run at a time, per node and per backup target. A move is never delayed by this: it is only
//! asked when a backup could be made to run again now. Whoever asks with the oldest snapshot comes first; one that is kept
//! back by its node alone does not keep back those of other nodes.

use crate::{
    api::{ResumeState, VolumeHandoff, VolumeHandoffStatus},
    observation::Observation,
    policy::Policy,
};
use handoff_storage::{BackupState, StorageManager};
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::sync::{Mutex, PoisonError};

/// Who waits asks every few seconds; who has not for this long no longer waits.
const FORGOTTEN: SignedDuration = SignedDuration::from_secs(20);
/// Between a permission and the journal that shows that it was used.
const GRANTED: SignedDuration = SignedDuration::from_secs(10);
/// A run that the storage manager has not begun by then counts no longer: it waits for something else.
const BEGUN_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// Where a backup runs, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Node of the volume.
    pub node: String,
    /// Backup target.
    pub target: String,
}

/// A volume that could have a backup run again now.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Where.
    pub place: Place,
    /// When its snapshot froze the data.
    pub age: Timestamp,
}

/// Gives turns. Only the leader asks it; a new leader knows what runs from the journals.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who waits, and when it asked last.
    asks: HashMap<String, (Ask, Timestamp)>,
    /// Who was told to begin, and when.
    granted: HashMap<String, (Place, Timestamp)>,
}

/// What runs, counted.
#[derive(Debug, Default)]
struct Load {
    nodes: HashMap<String, u32>,
    targets: HashMap<String, u32>,
}

impl Load {
    fn add(&mut self, place: &Place) {
        *self.nodes.entry(place.node.clone()).or_default() += 1;
        *self.targets.entry(place.target.clone()).or_default() += 1;
    }

    fn has_room(&self, place: &Place, policy: &Policy) -> bool {
        let count = |of: &HashMap<String, u32>, key: &str| of.get(key).copied().unwrap_or(0);
        count(&self.nodes, &place.node) < policy.resumes_per_node
            && count(&self.targets, &place.target) < policy.resumes_per_target
    }
}

impl Pacer {
    /// Whether the volume may begin a run now, beside those of other volumes that run.
    pub(crate) fn may_begin(
        &self,
        volume: &str,
        ask: Ask,
        running: &HashMap<String, Place>,
        policy: &Policy,
        now: Timestamp,
    ) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { asks, granted } = &mut *state;
        asks.retain(|_, (_, at)| now.duration_since(*at) < FORGOTTEN);
        granted.retain(|v, (_, at)| now.duration_since(*at) < GRANTED && v != volume && !running.contains_key(v));
        asks.insert(volume.to_owned(), (ask, now));
        let mut load = Load::default();
        running.iter().filter(|(v, _)| *v != volume).for_each(|(_, place)| load.add(place));
        granted.values().for_each(|(place, _)| load.add(place));
        let mut queue = asks.iter().map(|(v, (ask, _))| (ask.age, v.clone(), ask.place.clone())).collect::<Vec<_>>();
        queue.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (_, next, place) in queue {
            let admitted = load.has_room(&place, policy);
            if next == volume {
                if admitted {
                    asks.remove(volume);
                    granted.insert(next, (place, now));
                }
                return admitted;
            }
            if admitted {
                load.add(&place);
            }
        }
        false
    }
}

/// What a decision asks for: a backup that was waiting is about to be looked at and run.
pub(crate) fn ask(
    handoff: &VolumeHandoff,
    before: &VolumeHandoffStatus,
    after: &VolumeHandoffStatus,
    obs: &Observation,
) -> Option<Ask> {
    let under_way = |state| matches!(state, ResumeState::Probing | ResumeState::Running);
    let was = |backup: &str| before.resumes.iter().any(|r| r.backup == backup && under_way(r.state));
    let begun = after.resumes.iter().find(|r| under_way(r.state) && !was(&r.backup))?;
    let checkpoint = handoff.spec.checkpoints.iter().find(|c| c.backup == begun.backup)?;
    let place = Place { node: obs.settled_node()?.to_owned(), target: checkpoint.target.clone() };
    Some(Ask { place, age: checkpoint.snapshot_created_at.unwrap_or(checkpoint.recorded_at) })
}

/// Volumes with a resumed backup that runs, by their journals.
pub(crate) fn running<'a>(
    handoffs: impl Iterator<Item = &'a VolumeHandoff>,
    storage: &dyn StorageManager,
    now: Timestamp,
) -> HashMap<String, Place> {
    let mut all = HashMap::new();
    for handoff in handoffs.filter(|h| !h.is_finished()) {
        let Some(status) = &handoff.status else { continue };
        let under_way = status.resumes.iter().find(|r| matches!(r.state, ResumeState::Probing | ResumeState::Running));
        let Some(resume) = under_way else { continue };
        let handle = &handoff.spec.volume.handle;
        let backup = storage.backups(handle).into_iter().find(|b| b.name == resume.backup);
        let old = resume.started_at.is_some_and(|at| now.duration_since(at) > BEGUN_WITHIN);
        if backup.is_none_or(|b| b.state == BackupState::Completed || old && b.state != BackupState::Running) {
            continue;
        }
        let checkpoint = handoff.spec.checkpoints.iter().find(|c| c.backup == resume.backup);
        let node = storage.volume(handle).and_then(|v| v.current_node);
        if let (Some(checkpoint), Some(node)) = (checkpoint, node) {
            all.insert(handoff.name_any(), Place { node, target: checkpoint.target.clone() });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn place(node: &str) -> Place {
        Place { node: node.into(), target: "default".into() }
    }

    fn ask(node: &str, age: i64) -> Ask {
        Ask { place: place(node), age: at(age) }
    }

    fn policy(per_node: u32, per_target: u32) -> Policy {
        Policy { resumes_per_node: per_node, resumes_per_target: per_target, ..Policy::default() }
    }

    #[test]
    fn the_oldest_snapshot_comes_first_and_each_has_its_turn() {
        let (pacer, policy, mut running) = (Pacer::default(), policy(1, 9), HashMap::new());
        running.insert("first".to_owned(), place("a"));
        // all ask while there is no room
        for (volume, age) in [("young", 30), ("old", 10), ("middle", 20)] {
            assert!(!pacer.may_begin(volume, ask("a", age), &running, &policy, at(100)), "{volume}");
        }
        let mut order = Vec::new();
        for turn in 0..3 {
            running.clear();
            for (volume, age) in [("young", 30), ("middle", 20), ("old", 10)] {
                let waits = !order.contains(&volume);
                if waits && pacer.may_begin(volume, ask("a", age), &running, &policy, at(101 + 11 * turn)) {
                    order.push(volume);
                    running.insert(volume.to_owned(), place("a"));
                }
            }
        }
        assert_eq!(order, ["old", "middle", "young"]);
    }

    #[test]
    fn a_full_node_does_not_keep_back_the_others() {
        let (pacer, policy) = (Pacer::default(), policy(1, 2));
        let running = HashMap::from([("runs".to_owned(), place("a"))]);
        for n in 0..9 {
            assert!(!pacer.may_begin(&format!("a{n}"), ask("a", n), &running, &policy, at(100)));
        }
        assert!(pacer.may_begin("b", ask("b", 50), &running, &policy, at(100)), "younger, but elsewhere");
        assert!(!pacer.may_begin("c", ask("c", 60), &running, &policy, at(101)), "the target is full");
    }

    #[test]
    fn two_that_ask_at_once_do_not_get_the_same_place() {
        let (pacer, policy, none) = (Pacer::default(), policy(1, 9), HashMap::new());
        assert!(pacer.may_begin("v", ask("a", 2), &none, &policy, at(100)));
        assert!(!pacer.may_begin("w", ask("a", 1), &none, &policy, at(101)), "granted, not in a journal yet");
        assert!(pacer.may_begin("w", ask("a", 1), &none, &policy, at(112)), "and never used");
    }

    #[test]
    fn who_asks_no_more_keeps_nobody_back() {
        let (pacer, policy) = (Pacer::default(), policy(1, 9));
        let full = HashMap::from([("runs".to_owned(), place("a"))]);
        assert!(!pacer.may_begin("scaled-away", ask("a", 1), &full, &policy, at(100)));
        assert!(!pacer.may_begin("waits", ask("a", 2), &HashMap::new(), &policy, at(101)), "an older one waits");
        assert!(pacer.may_begin("waits", ask("a", 2), &HashMap::new(), &policy, at(121)));
    }
}
