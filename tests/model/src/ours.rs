//! Our replicas: the real detection, the real record of a move and the real decision, in the order of work of the
//! shell: look, record what was not announced, decide, write the journal under its `resourceVersion`, then one action
//! after the other, each under its own precondition.

use crate::{
    cluster::set_ticket,
    lens,
    model::{Model, Violation},
    rules,
    world::{
        Act, Cr, Handoff, Journal, Kube, MAX_ACTS, MAX_BACKUPS, Plan, Resumed, Staged, Stale, Storage, Ticket, Va,
        World,
    },
};
use handoff_cluster::{ObjectKey, Volume as ClusterVolume};
use handoff_coordinator::{api::Trigger, checkpoint::Start, detect, observation::Observation};

/// What a replica sees of a volume, and which of the objects are still so.
pub struct View {
    storage: Storage,
    kube: Kube,
    handoff: Option<Handoff>,
    tickets_same: bool,
    backups_same: [bool; MAX_BACKUPS],
    handoff_same: bool,
}

/// A decision in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    /// The journal.
    pub journal: Journal,
    /// The actions.
    pub acts: [Option<Act>; MAX_ACTS],
    /// Ticks until the next look that was asked for.
    pub wake: Option<u8>,
}

/// A move that was not announced: the pod, the trigger, backups as bits.
pub type Detected = (u8, Trigger, u8);

impl Model {
    fn view(w: &World, p: usize, v: usize) -> View {
        let volume = &w.volumes[v];
        let mut kube = w.kube;
        let mut view = View {
            storage: volume.storage.visible(),
            kube,
            handoff: volume.handoff,
            tickets_same: true,
            backups_same: [true; MAX_BACKUPS],
            handoff_same: true,
        };
        match w.frozen.as_deref().filter(|f| usize::from(f.replica) == p).map(|f| &f.what) {
            Some(Stale::Storage(seen)) => (view.storage, view.tickets_same, view.backups_same) = seen[v],
            Some(Stale::Kube(seen)) => kube = *seen,
            Some(Stale::Handoffs(seen)) => (view.handoff, view.handoff_same) = seen[v],
            None => {}
        }
        // one volume's attachments only, so that decisions about both are remembered alike
        kube.vas = [kube.vas[v], Default::default()];
        view.kube = kube;
        view
    }

    fn observe(&self, view: &View) -> Observation {
        let unfinished = view.handoff.is_some_and(|h| !h.is_finished());
        lens::observation(&self.config, 0, &view.storage, &view.kube, unfinished)
    }

    /// What the decision under test says to this view. Each distinct question is asked once.
    fn decided(&self, view: &View, handoff: &Handoff) -> Result<Decided, Violation> {
        let key = (Some(*handoff), view.storage, view.kube, 0);
        if let Some(known) = self.decided.borrow().get(&key) {
            return known.clone();
        }
        let seen = View { handoff: Some(*handoff), ..View { ..*view } };
        let obs = self.observe(&seen);
        let (spec, before) = (lens::spec(&self.config, handoff), lens::status(&self.config, handoff));
        let policy = lens::policy();
        let decision = (self.config.decide)(&spec, &before, &obs, &policy, lens::now());
        let checked = rules::check_decision(&self.config, &spec, &before, &obs, &decision).map(|()| Decided {
            journal: lens::journal_of(&decision.status, &spec, &view.storage.backups),
            acts: lens::acts_of(&decision.actions),
            wake: decision.wake_at.map(lens::ticks_until),
        });
        self.decided.borrow_mut().insert(key, checked.clone());
        checked
    }

    fn detected(&self, view: &View) -> Option<Detected> {
        let key = (view.handoff, view.storage, view.kube, 0);
        if let Some(known) = self.detected.borrow().get(&key) {
            return *known;
        }
        let obs = self.observe(view);
        let object = view.handoff.map(|h| lens::object(&self.config, &h));
        let found = detect::find_unannounced(object.as_ref(), &obs, &lens::policy(), lens::now());
        let found = found.map(|(pod, trigger, backups)| {
            let bits = backups.iter().fold(0, |bits, b| bits | 1 << lens::backup_of(&b.name));
            (pod.uid.trim_start_matches('p').parse().unwrap_or_default(), trigger, bits)
        });
        self.detected.borrow_mut().insert(key, found);
        found
    }

    /// Records a move as the shell does: on what is remembered first, and on what is there if that has changed.
    fn record(&self, w: &mut World, v: usize, by: Option<usize>, view: &View, (uid, trigger, backups): Detected) {
        let obs = self.observe(view);
        let Some(pod) = obs.pod(&lens::uid(uid)).cloned() else { return };
        let chosen = obs.backups.iter().filter(|b| backups & (1 << lens::backup_of(&b.name)) != 0).collect::<Vec<_>>();
        let volume = ClusterVolume {
            name: "v".into(),
            driver: "d".into(),
            handle: "v".into(),
            claim: Some(ObjectKey::new("ns", "c")),
            shared: false,
        };
        let start = Start { volume: &volume, claim_uid: None, pod: &pod, trigger, hold: None, now: lens::now() };
        let merge = |h: Option<Handoff>| {
            let object = h.map(|h| lens::object(&self.config, &h));
            (self.config.merge)(object.as_ref(), &start, &chosen, &obs)
        };
        let Some(mut spec) = merge(view.handoff) else { return };
        let there = w.volumes[v].handoff;
        if !view.handoff_same {
            let Some(again) = merge(there) else { return };
            spec = again;
        }
        let mut new = lens::handoff_of(&spec, there.as_ref());
        if self.config.budget.stalls == 0 {
            // only a cache that lags could tell a new checkpoint from an old one
            new.checkpoints.iter_mut().flatten().for_each(|age| *age = lens::RECORDED);
        }
        let volume = &mut w.volumes[v];
        for b in (0..MAX_BACKUPS).filter(|b| new.checkpoints[*b].is_some()) {
            volume.known |= 1 << b;
            if !new.journal.resumes[b].is_some_and(|(r, _)| r.is_final()) {
                volume.owed |= 1 << b;
            }
        }
        volume.handoff = Some(new);
        w.touch_handoff(v, by);
    }

    fn records(&self, v: usize) -> bool {
        v == 0 || self.config.shell.records_all
    }

    /// A review: whatever replica answers it records what is in flight on the pod's volumes.
    pub fn review(&self, w: &mut World, stale: bool) {
        let lagging = w.frozen.as_ref().map_or(0, |f| usize::from(f.replica));
        // any replica serves: the one that lags, or one that does not
        let p = if stale { lagging } else { 1 - lagging };
        for v in (0..self.config.volumes).filter(|v| self.records(*v)) {
            let view = Self::view(w, p, v);
            let Some(pod) = view.kube.pods().find(|pod| pod.runs()).copied() else { continue };
            let in_flight = (0..MAX_BACKUPS).filter(|b| view.storage.backups[*b].cr.in_flight());
            let bits = in_flight.fold(0_u8, |bits, b| bits | 1 << b);
            if bits != 0 {
                self.record(w, v, stale.then_some(p), &view, (pod.uid, Trigger::Eviction, bits));
            }
        }
    }

    /// Looks and decides; the rest is the replica's plan.
    pub fn decide(&self, w: &mut World, p: usize, v: usize) -> Result<(), Violation> {
        let mut view = Self::view(w, p, v);
        if let Some(found) = self.detected(&view).filter(|_| self.records(v)) {
            self.record(w, v, Some(p), &view, found);
            let (handoff, same) = (w.volumes[v].handoff, true);
            (view.handoff, view.handoff_same) = (handoff, same);
        }
        let Some(handoff) = view.handoff else { return Ok(()) };
        let decided = self.decided(&view, &handoff)?;
        let changed = decided.journal != handoff.journal;
        if !changed && decided.acts[0].is_none() {
            return Ok(());
        }
        w.replicas[p].plan = Some(Box::new(Plan {
            volume: u8::try_from(v).unwrap_or_default(),
            wrote: false,
            journal: decided.journal,
            changed,
            acts: decided.acts,
            handoff_same: view.handoff_same,
            tickets_same: view.tickets_same,
            backups_same: view.backups_same,
        }));
        Ok(())
    }

    /// Looks, decides, writes and acts without anything in between.
    pub fn reconcile(&self, w: &mut World, p: usize, v: usize) -> Result<(), Violation> {
        let busy_with = w.replicas[p].plan.take();
        self.decide(w, p, v)?;
        if self.config.shell.journal_first {
            self.write(w, p)?;
        }
        while w.replicas[p].plan.as_ref().is_some_and(|plan| plan.acts[0].is_some()) {
            self.act(w, p)?;
        }
        if !self.config.shell.journal_first {
            self.write(w, p)?;
        }
        w.replicas[p].plan = busy_with;
        Ok(())
    }

    /// Writes the journal, or drops the plan when the object is not as it was read.
    pub fn write(&self, w: &mut World, p: usize) -> Result<(), Violation> {
        let Some(mut plan) = w.replicas[p].plan.take() else { return Ok(()) };
        let v = usize::from(plan.volume);
        let must_be_same = plan.changed || self.config.shell.fenced;
        let Some(handoff) = w.volumes[v].handoff.filter(|_| plan.handoff_same || !must_be_same) else { return Ok(()) };
        if plan.changed {
            rules::check_verdicts(&w.volumes[v], &handoff.journal, &plan.journal)?;
            let volume = &mut w.volumes[v];
            volume.handoff = Some(Handoff { journal: plan.journal, ..handoff });
            for b in 0..MAX_BACKUPS {
                if plan.journal.resumes[b].is_some_and(|(r, _)| r.is_final()) {
                    volume.owed &= !(1 << b);
                    volume.cut &= !(1 << b);
                    volume.failed[b] = 0;
                }
            }
            for b in 0..MAX_BACKUPS {
                if matches!(plan.journal.resumes[b], Some((Resumed::Probing { age: 0 }, _))) {
                    forget_request(w, v, b);
                }
            }
            w.touch_handoff(v, Some(p));
        }
        plan.wrote = true;
        w.replicas[p].plan = plan.acts[0].is_some().then_some(plan);
        Ok(())
    }

    /// Carries out the next action of the plan.
    pub fn act(&self, w: &mut World, p: usize) -> Result<(), Violation> {
        let Some(mut plan) = w.replicas[p].plan.take() else { return Ok(()) };
        let Some(act) = plan.acts[0] else { return Ok(()) };
        plan.acts.rotate_left(1);
        plan.acts[MAX_ACTS - 1] = None;
        let (v, now) = (usize::from(plan.volume), *plan);
        let unfinished = plan.acts[0].is_some() || !plan.wrote;
        w.replicas[p].plan = unfinished.then_some(plan);
        if !now.wrote && now.changed {
            return Err(Violation::of(rules::JOURNAL, format!("{act:?} before the journal says so")));
        }
        self.effect(w, v, act, &now)
    }

    fn effect(&self, w: &mut World, v: usize, act: Act, plan: &Plan) -> Result<(), Violation> {
        let shell = &self.config.shell;
        let recorded = |w: &World, b: u8| w.volumes[v].known & (1 << b) != 0;
        match act {
            Act::Place(n) => {
                let storage = &w.volumes[v].storage;
                let there = storage.tickets[usize::from(n)];
                let stale = shell.place_at_seen_version && !plan.tickets_same;
                if storage.refused || stale || (shell.place_tests_absence && there != Ticket::None) {
                    return Ok(());
                }
                if there == Ticket::Csi {
                    return Err(Violation::of(rules::FOREIGN, "a request of CSI is overwritten"));
                }
                set_ticket(w, v, n, Ticket::Ours);
            }
            Act::Withdraw(n) => match w.volumes[v].storage.tickets[usize::from(n)] {
                Ticket::Ours => set_ticket(w, v, n, Ticket::None),
                Ticket::Csi if !shell.withdraw_tests_mark => {
                    return Err(Violation::of(rules::FOREIGN, "a request of CSI is removed"));
                }
                Ticket::Csi | Ticket::None => {}
            },
            Act::Wake(n) => {
                let va = &mut w.kube.vas[v][usize::from(n)].0;
                if *va == Va::Failed {
                    *va = Va::Wants;
                }
            }
            Act::Probe(b) => {
                if !recorded(w, b) {
                    return Err(Violation::of(rules::FOREIGN, format!("b{b} is probed and was never recorded")));
                }
                let volume = &mut w.volumes[v];
                let backup = &mut volume.storage.backups[usize::from(b)];
                if !backup.cr.exists() {
                    return Ok(());
                }
                // Longhorn takes a request that is later than the end of the run, by the times written down
                let later = backup.ended > 0 || !self.config.clock_behind.is_zero();
                if backup.cr == Cr::Lost && later {
                    backup.probed = backup.remote || backup.upload.is_some();
                    volume.asked |= 1 << b;
                }
                backup.asked = Some(0);
                w.touch_backup(v, usize::from(b));
            }
            Act::Reset(b, _) => {
                return Self::reset(w, v, usize::from(b), shell.reset_at_seen_version, plan, recorded(w, b));
            }
            Act::Forget => {
                // the version is the one that was read, so a journal just written refuses it
                if plan.handoff_same && !plan.changed {
                    let others = (0..self.config.volumes).filter(|o| !shell.forgets_one && *o != v);
                    for v in others.chain([v]) {
                        w.volumes[v].handoff = None;
                        w.touch_handoff(v, None);
                    }
                }
            }
        }
        Ok(())
    }

    fn reset(w: &mut World, v: usize, b: usize, versioned: bool, plan: &Plan, recorded: bool) -> Result<(), Violation> {
        let volume = &mut w.volumes[v];
        let backup = &mut volume.storage.backups[b];
        if !backup.cr.exists() || (versioned && !plan.backups_same[b]) {
            return Ok(());
        }
        if !recorded {
            return Err(Violation::of(rules::FOREIGN, format!("b{b} is reset and was never recorded")));
        }
        if backup.cr != Cr::Lost {
            return Err(Violation::of(rules::COMPLETE, format!("b{b} is reset while it is {:?}", backup.cr)));
        }
        if backup.remote {
            return Err(Violation::of(rules::COMPLETE, format!("b{b} is reset and complete in the target")));
        }
        if volume.asked & (1 << b) == 0 {
            return Err(Violation::of(rules::COMPLETE, format!("b{b} is reset without a probe")));
        }
        (backup.cr, backup.fresh, backup.probed, backup.asked) = (Cr::Queued, true, false, None);
        volume.asked &= !(1 << b);
        volume.rerun |= 1 << b;
        w.touch_backup(v, b);
        Ok(())
    }

    /// Withdraws pre-stages that no handoff knows of.
    pub fn reap(&self, w: &mut World, p: usize) {
        for v in 0..self.config.volumes {
            let view = Self::view(w, p, v);
            let known = view.handoff.and_then(|h| h.journal.staged).filter(|s| s.outcome.is_none());
            let ours = view.storage.ours().filter(|n| known.is_none_or(|s| s.node != *n)).collect::<Vec<_>>();
            for n in ours {
                if w.volumes[v].storage.tickets[usize::from(n)] == Ticket::Ours {
                    set_ticket(w, v, n, Ticket::None);
                }
            }
        }
    }

    /// Time passes for everything that has an age.
    pub fn tick(&self, w: &mut World) -> Result<(), Violation> {
        let rested = w.replicas.iter().position(|r| r.leads && r.plan.is_none());
        let rested = rested.filter(|p| w.frozen.as_ref().is_none_or(|f| usize::from(f.replica) != *p));
        let before =
            rested.map(|p| (0..self.config.volumes).map(|v| self.outlook(w, p, v)).collect::<Result<Vec<_>, _>>());
        for volume in w.volumes.iter_mut().take(self.config.volumes) {
            older_storage(&mut volume.storage);
            volume.handoff.iter_mut().for_each(older_handoff);
        }
        for plan in w.replicas.iter_mut().filter_map(|r| r.plan.as_deref_mut()) {
            older_journal(&mut plan.journal);
        }
        if let Some(frozen) = w.frozen.as_deref_mut() {
            frozen.age += 1;
            match &mut frozen.what {
                Stale::Storage(seen) => seen.iter_mut().for_each(|(s, ..)| older_storage(s)),
                Stale::Handoffs(seen) => seen.iter_mut().filter_map(|(h, _)| h.as_mut()).for_each(older_handoff),
                Stale::Kube(_) => {}
            }
        }
        if let (Some(p), Some(before)) = (rested, before.transpose()?) {
            rules::check_rest(self, w, p, &before)?;
        }
        Ok(())
    }

    /// What a replica would decide about a volume now, if there is a handoff.
    pub fn outlook(&self, w: &World, p: usize, v: usize) -> Result<Option<(Journal, Decided)>, Violation> {
        let view = Self::view(w, p, v);
        let Some(handoff) = view.handoff else { return Ok(None) };
        Ok(Some((handoff.journal, self.decided(&view, &handoff)?)))
    }
}

/// The journal speaks of a new probe: a request that is older does not count, in nobody's eyes.
fn forget_request(w: &mut World, v: usize, b: usize) {
    w.volumes[v].storage.backups[b].asked = None;
    if let Some(Stale::Storage(seen)) = w.frozen.as_deref_mut().map(|f| &mut f.what) {
        seen[v].0.backups[b].asked = None;
    }
}

fn older(age: &mut u8, cap: u8) {
    *age = (*age + 1).min(cap);
}

fn older_storage(storage: &mut Storage) {
    if storage.tickets.contains(&Ticket::Ours) {
        older(&mut storage.ours_age, lens::EXPIRY + 1);
    }
    for backup in &mut storage.backups {
        backup.fresh = false;
        backup.asked.iter_mut().for_each(|age| older(age, 1));
        if matches!(backup.cr, Cr::Lost | Cr::Completed) {
            older(&mut backup.ended, 1);
        }
    }
}

fn older_handoff(handoff: &mut Handoff) {
    older(&mut handoff.age, lens::SETTLE);
    handoff.checkpoints.iter_mut().flatten().for_each(|age| older(age, lens::RECORDED));
    older_journal(&mut handoff.journal);
}

fn older_journal(journal: &mut Journal) {
    if let Some(Staged { age, outcome: None, .. }) = &mut journal.staged {
        older(age, lens::EXPIRY);
    }
    for (i, age) in journal.ages.iter_mut().enumerate() {
        if journal.seen & (1 << i) != 0 {
            older(age, lens::SETTLE);
        }
    }
    for (resumed, _) in journal.resumes.iter_mut().flatten() {
        match resumed {
            Resumed::Waiting { next } => *next = next.saturating_sub(1),
            Resumed::Probing { age } => older(age, 1),
            Resumed::Running { age, .. } => older(age, 2),
            _ => {}
        }
    }
    if let Some(age) = &mut journal.finished {
        older(age, 1);
    }
}
