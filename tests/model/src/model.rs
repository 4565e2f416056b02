//! The model: what is composed with what, its bounds, and all that may follow a state.

use crate::{
    cluster, lens,
    step::{Step, Watch},
    world::{
        Backup, Budget, Cr, Frozen, Kube, MAX_BACKUPS, MAX_VOLUMES, Pod, Stale, Storage, Ticket, Va, Volume, World,
    },
};
use handoff_coordinator::{
    api::{VolumeHandoffSpec, VolumeHandoffStatus},
    checkpoint,
    decide::{Decision, decide},
    observation::Observation,
    policy::Policy,
};
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp};
use std::cell::RefCell;

/// The decision function.
pub type Decide = fn(&VolumeHandoffSpec, &VolumeHandoffStatus, &Observation, &Policy, Timestamp) -> Decision;
/// The function that records a move.
pub type Merge = for<'a> fn(
    Option<&handoff_coordinator::api::VolumeHandoff>,
    &checkpoint::Start<'a>,
    &[&handoff_storage::BackupView],
    &Observation,
) -> Option<VolumeHandoffSpec>;

/// How the shell carries out a decision; anything but the default is a mutation.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shell {
    /// The journal is written before the actions.
    pub journal_first: bool,
    /// Before an action outside, the handoff must be as it was read, even if the journal needs no writing.
    pub fenced: bool,
    /// A pre-stage is placed under the version of the attach requests that was decided on.
    pub place_at_seen_version: bool,
    /// A reset carries the version of the backup that was decided on.
    pub reset_at_seen_version: bool,
    /// A request is withdrawn only if it carries our mark.
    pub withdraw_tests_mark: bool,
    /// A pre-stage is placed only where there is no request yet.
    pub place_tests_absence: bool,
    /// A handoff that is over is deleted alone, not with those of the pod's other volumes.
    pub forgets_one: bool,
    /// What is in flight is recorded for all volumes of the pod that leaves.
    pub records_all: bool,
}

impl Default for Shell {
    fn default() -> Self {
        Self {
            journal_first: true,
            fenced: true,
            place_at_seen_version: true,
            reset_at_seen_version: true,
            withdraw_tests_mark: true,
            place_tests_absence: true,
            forgets_one: true,
            records_all: true,
        }
    }
}

/// One small world: its size, its Longhorn, its faults, and the code under test.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// For people.
    pub name: &'static str,
    /// Nodes, 2 or 3; the first two hold the replicas.
    pub nodes: u8,
    /// Volumes of the pod.
    pub volumes: usize,
    /// Backups of each volume.
    pub backups: usize,
    /// Backups in flight at the beginning; the others may be asked for later.
    pub running: usize,
    /// How many volumes, the last ones, never have a backup: theirs were deleted before.
    pub bare: usize,
    /// A new pod is made while the old one still terminates.
    pub deployment: bool,
    /// Longhorn 1.7.0–1.7.2 and 1.8.0: a detach waits for the upload.
    pub waits: bool,
    /// All backups are of one recurring job.
    pub same_job: bool,
    /// Caches that may stand still.
    pub watches: &'static [Watch],
    /// How far the clock of Longhorn's managers is behind ours.
    pub clock_behind: SignedDuration,
    /// What may go wrong, how often.
    pub budget: Budget,
    /// The decision under test.
    pub decide: Decide,
    /// The record of a move under test.
    pub merge: Merge,
    /// The shell under test.
    pub shell: Shell,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "one volume, one backup",
            nodes: 2,
            volumes: 1,
            backups: 1,
            running: 1,
            bare: 0,
            deployment: false,
            waits: false,
            same_job: false,
            watches: &[],
            clock_behind: SignedDuration::ZERO,
            budget: Budget { moves: 1, ..Budget::default() },
            decide,
            merge: checkpoint::merge,
            shell: Shell::default(),
        }
    }
}

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// What breaks it.
    pub detail: String,
}

impl Violation {
    /// A violation of a rule.
    pub fn of(rule: &'static str, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into() }
    }
}

/// What may follow a state.
pub type Successor = (Step, Result<World, Violation>);

/// A decision in numbers; see [`crate::ours`].
pub type Remembered<T> = RefCell<HashMap<(Option<crate::world::Handoff>, Storage, Kube, u8), T>>;

/// A configuration with the decisions already made in it.
pub struct Model {
    /// The configuration.
    pub config: Config,
    pub(crate) decided: Remembered<Result<crate::ours::Decided, Violation>>,
    pub(crate) detected: Remembered<Option<crate::ours::Detected>>,
}

impl Model {
    /// A model of this configuration.
    pub fn new(config: Config) -> Self {
        Self { config, decided: RefCell::default(), detected: RefCell::default() }
    }

    /// Where it all begins: the pod runs on the first node, its backups upload from the second.
    pub fn initial(&self) -> World {
        let config = &self.config;
        let mut storage = Storage { at: Some(0), wanted: Some(0), ..Storage::default() };
        storage.tickets[0] = Ticket::Csi;
        for backup in storage.backups.iter_mut().take(config.running) {
            *backup = Backup { cr: Cr::Running, upload: Some(1), ..Backup::default() };
        }
        let mut world = World {
            desired: 1,
            next_uid: 1,
            kube: Kube {
                pods: [Some(Pod { uid: 0, node: Some(0), terminating: false, ready: true }), None],
                ..Kube::default()
            },
            left: config.budget,
            ..World::default()
        };
        for v in 0..config.volumes {
            world.volumes[v] = Volume { storage, ..Volume::default() };
            world.kube.vas[v][0] = (Va::Attached, 0);
        }
        for volume in world.volumes.iter_mut().take(config.volumes).rev().take(config.bare) {
            volume.storage.backups = [Backup { cr: Cr::Gone, ..Backup::default() }; MAX_BACKUPS];
        }
        world.replicas[0].leads = true;
        world
    }

    /// Everything that may follow.
    pub fn successors(&self, w: &World) -> Vec<Successor> {
        let (mut out, waits) = self.events(w);
        if !waits {
            match self.take(w, Step::Tick) {
                Ok(next) if next == *w => {}
                next => out.push((Step::Tick, next)),
            }
        }
        out
    }

    /// Everything that may follow but time that passes, and whether time waits for it.
    pub fn events(&self, w: &World) -> (Vec<Successor>, bool) {
        let mut steps = Vec::with_capacity(24);
        cluster::possible(&self.config, w, &mut steps);
        self.faults(w, &mut steps);
        let mut out = Vec::with_capacity(steps.len() + 4);
        for step in steps {
            out.push((step, self.take(w, step)));
        }
        let busy = self.work(w, &mut out);
        let waits = busy || answer_is_due(w) || w.frozen.as_ref().is_some_and(|f| f.age >= lens::MAX_LAG);
        (out, waits)
    }

    /// Carries out one step, and checks every rule about the state that follows.
    pub fn take(&self, w: &World, step: Step) -> Result<World, Violation> {
        let mut next = w.clone();
        self.step_of_ours(&mut next, step)?;
        self.step_of_cluster(&mut next, step)?;
        self.check_state(&next)?;
        Ok(next)
    }

    fn faults(&self, w: &World, out: &mut Vec<Step>) {
        let left = &w.left;
        for (p, replica) in w.replicas.iter().enumerate() {
            // without a plan only the gap in leading counts, and that is a crash without slow decisions
            let midway = replica.plan.is_some() || self.config.budget.slow == 0;
            if left.crashes > 0 && replica.leads && midway {
                out.push(Step::Crash(p));
            }
            let other_leads = w.replicas[1 - p].leads;
            // two that do the same at once are one; a second one counts while the first is in the middle of something
            let midway = w.replicas[1 - p].plan.is_some();
            if left.rivals > 0 && !replica.leads && other_leads && midway {
                out.push(Step::Rival(p));
            }
            if replica.leads && other_leads {
                out.push(Step::Resign(p));
            }
            if !replica.leads && !other_leads {
                out.push(Step::Lead(p));
            }
            if left.stalls > 0 && w.frozen.is_none() && replica.leads {
                out.extend(self.config.watches.iter().map(|watch| Step::Stall(p, *watch)));
            }
        }
        if w.frozen.is_some() {
            out.push(Step::CatchUp);
        }
    }

    /// Steps of our replicas. Whether one that sees everything has something to do at once: time waits for it.
    fn work(&self, w: &World, out: &mut Vec<Successor>) -> bool {
        let mut busy = false;
        for (p, replica) in w.replicas.iter().enumerate() {
            if let Some(plan) = &replica.plan {
                let step = if plan.wrote || !self.config.shell.journal_first && plan.acts[0].is_some() {
                    Step::Act(p)
                } else {
                    Step::Write(p)
                };
                out.push((step, self.take(w, step)));
            }
            if !replica.leads {
                continue;
            }
            let sees_all = w.frozen.as_ref().is_none_or(|f| usize::from(f.replica) != p);
            let mut steps = Vec::with_capacity(2 * MAX_VOLUMES + 1);
            steps.push(Step::Reap(p));
            for v in 0..self.config.volumes {
                let working = replica.plan.as_ref().is_some_and(|plan| usize::from(plan.volume) == v);
                if !working {
                    steps.push(Step::Reconcile(p, v));
                }
            }
            for step in steps {
                match self.take(w, step) {
                    Ok(next) if next == *w => {}
                    next => {
                        busy |= sees_all && replica.plan.is_none();
                        out.push((step, next));
                        if let (Step::Reconcile(p, v), true) = (step, w.left.slow > 0 && replica.plan.is_none()) {
                            let decided = self.take(w, Step::Decide(p, v));
                            let acts =
                                |w: &World| w.replicas[p].plan.as_ref().is_some_and(|plan| plan.acts[0].is_some());
                            if decided.as_ref().map_or(true, acts) {
                                out.push((Step::Decide(p, v), decided));
                            }
                        }
                    }
                }
            }
        }
        busy
    }

    /// Carries out a step of ours.
    fn step_of_ours(&self, w: &mut World, step: Step) -> Result<(), Violation> {
        match step {
            Step::Crash(p) => {
                w.left.crashes -= 1;
                w.replicas[p] = crate::world::Replica::default();
                if w.frozen.as_ref().is_some_and(|f| usize::from(f.replica) == p) {
                    w.frozen = None;
                }
            }
            Step::Rival(p) => {
                w.left.rivals -= 1;
                w.replicas[p].leads = true;
            }
            Step::Resign(p) => {
                w.replicas[p].leads = false;
                w.replicas[p].plan = None;
            }
            Step::Lead(p) => w.replicas[p].leads = true,
            Step::Stall(p, watch) => {
                w.left.stalls -= 1;
                let what = match watch {
                    Watch::Storage => Stale::Storage(w.volumes.map(|v| (v.storage.visible(), true, [true; 2]))),
                    Watch::Kube => Stale::Kube(w.kube),
                    Watch::Handoffs => Stale::Handoffs(w.volumes.map(|v| (v.handoff, true))),
                };
                w.frozen = Some(Box::new(Frozen { replica: u8::try_from(p).unwrap_or_default(), age: 0, what }));
            }
            Step::CatchUp => w.frozen = None,
            Step::Reconcile(p, v) => self.reconcile(w, p, v)?,
            Step::Decide(p, v) => {
                w.left.slow -= 1;
                self.decide(w, p, v)?;
            }
            Step::Write(p) => self.write(w, p)?,
            Step::Act(p) => self.act(w, p)?,
            Step::Reap(p) => self.reap(w, p),
            Step::Tick => self.tick(w)?,
            _ => {}
        }
        Ok(())
    }
}

/// Longhorn answers a probe well within the time it is given.
fn answer_is_due(w: &World) -> bool {
    w.volumes.iter().flat_map(|v| &v.storage.backups).any(|b| b.probed && b.remote && b.cr == Cr::Lost)
}
