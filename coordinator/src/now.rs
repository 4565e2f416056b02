//! What is the case right now, looked up in the caches when someone asks: no figure can lag behind or be left over from
//! a time when this replica led. Every replica shows the same, up to the delay of its watches.

use crate::{
    api::{Phase, VolumeHandoff},
    metrics::{ByCache, ByKind, ByPhase, Held},
    policy::after,
    shell::Coordinator,
};
use handoff_cluster::{Pod, Watched};
use hashbrown::{HashMap, HashSet};
use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use std::{
    fmt,
    sync::{Arc, Weak},
};

/// An eviction that would be answered 429 if it were asked for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHold {
    /// What is held.
    pub what: Held,
    /// The first denial.
    pub since: Timestamp,
    /// From here on it is allowed.
    pub deadline: Timestamp,
}

/// What is owed over all handoffs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// Backups.
    pub backups: usize,
    /// When the first of them was recorded.
    pub since: Option<Timestamp>,
}

/// What is owed over all `handoffs`.
pub fn owed<'a>(handoffs: impl Iterator<Item = &'a VolumeHandoff>) -> Owed {
    handoffs.flat_map(VolumeHandoff::owed).fold(Owed::default(), |owed, checkpoint| Owed {
        backups: owed.backups + 1,
        since: Some(owed.since.map_or(checkpoint.recorded_at, |since| since.min(checkpoint.recorded_at))),
    })
}

/// The hold of a handoff's pod, if its eviction would still be denied: the pod has not left, and what it waits for is
/// not done.
fn hold_of(handoff: &VolumeHandoff, stays: bool, now: Timestamp) -> Option<OpenHold> {
    let hold = handoff.spec.hold.filter(|hold| hold.since <= now && now < hold.deadline)?;
    let waits = stays && handoff.owed().next().is_some();
    waits.then_some(OpenHold { what: Held::Pod, since: hold.since, deadline: hold.deadline })
}

impl Coordinator {
    /// All watches.
    pub fn watches(&self) -> Vec<Watched> {
        let ours = [self.cluster.watches(), self.handoffs.watches(), self.holds.watches()].concat();
        ours.into_iter().chain(self.storage.watches()).collect()
    }

    /// All handoffs, in no order.
    pub fn handoffs(&self) -> Vec<Arc<VolumeHandoff>> {
        self.handoffs.read().iter().cloned().collect()
    }

    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        self.leadership.is_held()
    }

    /// Holds that are open at `now`.
    pub fn open_holds(&self, now: Timestamp) -> Vec<OpenHold> {
        let handoffs = self.handoffs();
        let mut denied = self.holds.all();
        denied.retain(|_, since| *since <= now && now < after(*since, self.policy.storage_hold));
        let mut wanted = denied.keys().map(String::as_str).collect::<HashSet<_>>();
        wanted.extend(handoffs.iter().filter(|h| h.spec.hold.is_some()).map(|h| h.spec.pod.uid.as_str()));
        if wanted.is_empty() {
            return Vec::new();
        }
        let mut pods: HashMap<String, Arc<Pod>> = HashMap::new();
        for pod in self.cluster.read().pods().filter(|p| wanted.contains(p.uid.as_str())) {
            pods.insert(pod.uid.clone(), pod.clone());
        }
        let stays = |uid: &str| pods.get(uid).is_some_and(|pod| pod.stays());
        let mut open = handoffs.iter().filter_map(|h| hold_of(h, stays(&h.spec.pod.uid), now)).collect::<Vec<_>>();
        for (uid, since) in &denied {
            let pod = pods.get(uid).filter(|pod| pod.stays());
            let Some(what) = pod.and_then(|pod| self.held_as(pod)) else { continue };
            open.push(OpenHold { what, since: *since, deadline: after(*since, self.policy.storage_hold) });
        }
        open
    }
}

/// The figures of now.
pub struct Figures(Weak<Coordinator>);

impl Figures {
    /// Of this coordinator, as long as it is there.
    pub fn of(coordinator: &Arc<Coordinator>) -> Self {
        Self(Arc::downgrade(coordinator))
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        match self.0.upgrade() {
            Some(coordinator) => encode(encoder, &coordinator, coordinator.clock.now()),
            None => Ok(()),
        }
    }
}

fn encode(mut encoder: DescriptorEncoder<'_>, coordinator: &Coordinator, now: Timestamp) -> fmt::Result {
    let handoffs = coordinator.handoffs();
    let holds = coordinator.open_holds(now);
    let owed = owed(handoffs.iter().map(AsRef::as_ref));
    let seconds = |d: SignedDuration| d.as_secs_f64().max(0.0);
    one(&mut encoder, "handoff_leader", "1 while this replica leads", i64::from(coordinator.leads()))?;
    one(&mut encoder, "handoff_backups_owed", "Backups owed now", count(owed.backups))?;
    let oldest = owed.since.map_or(0.0, |since| seconds(now.duration_since(since)));
    one(&mut encoder, "handoff_backups_owed_oldest_seconds", "Age of the oldest of them; 0 without one", oldest)?;
    let of_phase =
        |phase: Phase| handoffs.iter().filter(|h| h.status.as_ref().and_then(|s| s.phase) == Some(phase)).count();
    let phases = Phase::ALL.map(|phase| (ByPhase { phase: phase.as_str() }, count(of_phase(phase))));
    many(&mut encoder, "handoff_handoffs", "VolumeHandoffs by phase", phases)?;
    let of_kind = |what: Held| holds.iter().filter(|hold| hold.what == what).count();
    let kinds = Held::ALL.map(|what| (ByKind { kind: what.as_str() }, count(of_kind(what))));
    many(&mut encoder, "handoff_holds_open", "Evictions that are held now", kinds)?;
    if let Some(deadline) = holds.iter().map(|hold| hold.deadline).min() {
        let left = seconds(deadline.duration_since(now));
        one(
            &mut encoder,
            "handoff_hold_left_seconds",
            "Time to the first deadline; absent while nothing is held",
            left,
        )?;
    }
    let watches = coordinator.watches();
    let cache = |watched: &Watched| ByCache { cache: watched.name };
    let synced = watches.iter().map(|w| (cache(w), i64::from(w.is_synced())));
    many(&mut encoder, "handoff_cache_synced", "1 once the first list of a watch is in", synced)?;
    let stale = watches.iter().map(|w| (cache(w), i64::from(w.is_stale())));
    many(&mut encoder, "handoff_cache_stale", "1 while a watch has failed for 30 s and goes on failing", stale)?;
    let ages = watches.iter().filter_map(|w| Some((cache(w), w.age()?.as_secs_f64())));
    let help = "Time since a watch brought something last; kinds that do not change are old and as they should be";
    many(&mut encoder, "handoff_cache_age_seconds", help, ages)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn one(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn many<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::world::{MINUTE, World, asked, at, manager, settings};
    use handoff_storage::BackupState;
    use prometheus_client::{encoding::text, registry::Registry};

    fn page(coordinator: &Arc<Coordinator>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Figures::of(coordinator)));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        page
    }

    #[tokio::test]
    async fn a_hold_is_open_until_its_pod_leaves_its_backup_ends_or_its_deadline() {
        let mut world = World { leads: true, ..World::default() };
        world.claim = settings(&[("volumehandoff.io/eviction-policy", "FinishIfNear")]);
        world.replica().judge_eviction(&asked(), false, at(0)).await;
        let replica = world.replica();
        let held = OpenHold { what: Held::Pod, since: at(0), deadline: at(60) };
        assert_eq!(replica.open_holds(at(30)), [held]);
        assert_eq!(replica.open_holds(at(60)), [], "over");
        world.pod.terminating = true;
        assert_eq!(world.replica().open_holds(at(30)), [], "it leaves");
        world.pod.uid = "another".into();
        assert_eq!(world.replica().open_holds(at(30)), [], "it has left");
    }

    #[tokio::test]
    async fn a_storage_pod_counts_as_what_it_is() {
        // between pods
        let world = World { cordoned: vec!["a"], known: false, ..World::default() };
        let replica = world.replica();
        replica.hold_storage(&manager(), false, at(0)).await;
        let deadline = at(100);
        assert_eq!(replica.open_holds(at(1)), [OpenHold { what: Held::InstanceManager, since: at(0), deadline }]);
        assert_eq!(replica.open_holds(at(100)), []);
    }

    #[tokio::test]
    async fn what_is_owed_shows_on_every_replica() {
        let world = World::default();
        world.replica().judge_eviction(&asked(), false, at(0)).await;
        let standby = Arc::new(world.replica());
        let page = page(&standby);
        for line in ["handoff_backups_owed 1", "handoff_leader 0", "handoff_holds_open{kind=\"Pod\"} 0"] {
            assert!(page.contains(&format!("\n{line}\n")), "{line} in {page}");
        }
        assert!(!page.contains("handoff_hold_left_seconds"), "nothing is held: {page}");
        let handoffs = standby.handoffs();
        let owed = owed(handoffs.iter().map(AsRef::as_ref));
        assert_eq!(owed.backups, 1);
        // the record is written at the moment of the review, by this machine's clock
        assert!(owed.since.is_some_and(|since| Timestamp::now().duration_since(since) < MINUTE));
        world.set_backup(90, BackupState::Completed);
        drop(standby);
    }

    #[tokio::test]
    async fn without_a_coordinator_there_is_nothing_to_say() {
        let gone = Arc::new(World::default().replica());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Figures::of(&gone)));
        drop(gone);
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        assert_eq!(page, "# EOF\n");
    }
}
