//! What the page shows, as plain data: from handoffs, holds and the time.

use super::timeline::Bar;
use handoff_coordinator::{
    api::{Phase, PreStageOutcome, Resume, ResumeState, Step, VolumeHandoff, VolumeHandoffStatus},
    metrics::Held,
    now::OpenHold,
    phases,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::cmp::Reverse;

/// Rows of each table; what is beyond is counted.
const OWED_ROWS: usize = 50;
const MOVE_ROWS: usize = 50;
/// Steps told of one move.
const STEPS: usize = 60;

/// What is known of the replica that shows the page.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// Its pod.
    pub name: String,
    /// It leads.
    pub leads: bool,
    /// What is not ready yet; with it, what is shown may be incomplete.
    pub missing: Vec<&'static str>,
}

/// The page.
#[derive(Debug)]
pub struct View {
    /// When it was made.
    pub now: Timestamp,
    /// Who made it.
    pub replica: Replica,
    /// Backups that are owed, the oldest first.
    pub owed: Vec<Owed>,
    /// How many more there are.
    pub more_owed: usize,
    /// Evictions that are held.
    pub holds: Vec<Hold>,
    /// Moves, the newest first.
    pub moves: Vec<Move>,
    /// How many more there are.
    pub more_moves: usize,
}

/// An owed backup.
#[derive(Debug)]
pub struct Owed {
    /// Namespace of the claim.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The backup.
    pub backup: String,
    /// When it was recorded.
    pub since: Timestamp,
    /// How far it was then, percent.
    pub progress: u8,
    /// What happens with it.
    pub state: String,
    /// Times it was made to run again.
    pub attempts: u32,
}

/// Evictions of one kind that are held.
#[derive(Debug)]
pub struct Hold {
    /// What is held.
    pub what: &'static str,
    /// How many.
    pub count: usize,
    /// The first denial among them.
    pub since: Timestamp,
    /// The first deadline among them.
    pub deadline: Timestamp,
}

/// A move.
#[derive(Debug)]
pub struct Move {
    /// Of this page's only one: an `id` in HTML.
    pub id: String,
    /// Namespace of the claim.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The pod; empty for a move that is history.
    pub pod: String,
    /// Node that was left.
    pub from: String,
    /// Node that was reached, or will be.
    pub to: Option<String>,
    /// What started it.
    pub trigger: String,
    /// When.
    pub started: Timestamp,
    /// How it stands.
    pub state: &'static str,
    /// Trigger to ready, if it got there.
    pub took: Option<SignedDuration>,
    /// `1/2 safe`; empty for a move that is history.
    pub backups: String,
    /// What became of the pre-stage; empty without one.
    pub prestage: &'static str,
    /// Its phases, drawn.
    pub bar: Bar,
    /// Its steps.
    pub steps: Vec<Step>,
}

impl View {
    /// Of these handoffs and holds at `now`.
    pub fn of<'a>(
        replica: Replica,
        handoffs: impl Iterator<Item = &'a VolumeHandoff> + Clone,
        holds: &[OpenHold],
        now: Timestamp,
    ) -> Self {
        let mut owed = handoffs.clone().flat_map(|handoff| owed(handoff, now)).collect::<Vec<_>>();
        owed.sort_by(|a, b| (a.since, &a.backup).cmp(&(b.since, &b.backup)));
        let more_owed = owed.len().saturating_sub(OWED_ROWS);
        owed.truncate(OWED_ROWS);
        let mut moves = handoffs.flat_map(moves).collect::<Vec<_>>();
        moves.sort_by_key(|m| (Reverse(m.started()), m.handoff.name_any()));
        let more_moves = moves.len().saturating_sub(MOVE_ROWS);
        // only what is shown is drawn
        let moves = moves.into_iter().take(MOVE_ROWS).map(|m| m.shown(now)).collect();
        let holds = Held::ALL.into_iter().filter_map(|what| held(holds, what)).collect();
        Self { now, replica, owed, more_owed, holds, moves, more_moves }
    }
}

fn owed(handoff: &VolumeHandoff, now: Timestamp) -> impl Iterator<Item = Owed> + use<'_> {
    let resumes = handoff.status.as_ref().map(|s| s.resumes.as_slice()).unwrap_or_default();
    handoff.owed().map(move |checkpoint| {
        let resume = resumes.iter().find(|r| r.backup == checkpoint.backup);
        Owed {
            namespace: handoff.namespace().unwrap_or_default(),
            claim: handoff.spec.volume.claim.clone(),
            backup: checkpoint.backup.clone(),
            since: checkpoint.recorded_at,
            progress: checkpoint.progress,
            state: state(resume, now),
            attempts: resume.map_or(0, |r| r.attempts),
        }
    })
}

/// In our own words: the storage manager's are for those who may read the object.
fn state(resume: Option<&Resume>, now: Timestamp) -> String {
    let Some(resume) = resume else { return "recorded".to_owned() };
    match (resume.state, resume.next_try_at) {
        (ResumeState::Probing, _) => "asking whether it is complete".to_owned(),
        (ResumeState::Running, _) => "runs again".to_owned(),
        (_, Some(at)) if at > now => format!("failed, tried again in {}", seconds(at.duration_since(now))),
        _ => "in flight, or waits for its turn".to_owned(),
    }
}

fn held(holds: &[OpenHold], what: Held) -> Option<Hold> {
    let of = || holds.iter().filter(move |hold| hold.what == what);
    let (since, deadline) = (of().map(|h| h.since).min()?, of().map(|h| h.deadline).min()?);
    let name = match what {
        Held::Pod => "pod that waits for its backup",
        Held::InstanceManager => "instance manager",
        Held::CsiController => "CSI controller",
        Held::Handoff => "Handoff",
    };
    Some(Hold { what: name, count: of().count(), since, deadline })
}

/// A move as it is in a handoff: the present one, or one of its history.
struct Recorded<'a> {
    handoff: &'a VolumeHandoff,
    past: Option<&'a handoff_coordinator::api::PastMove>,
}

fn moves(handoff: &VolumeHandoff) -> impl Iterator<Item = Recorded<'_>> {
    let history = handoff.status.as_ref().map(|s| s.history.as_slice()).unwrap_or_default();
    let past = history.iter().map(move |past| Recorded { handoff, past: Some(past) });
    [Recorded { handoff, past: None }].into_iter().chain(past)
}

impl Recorded<'_> {
    fn started(&self) -> Timestamp {
        self.past.map_or(self.handoff.spec.triggered_at, |past| past.started_at)
    }

    fn shown(&self, now: Timestamp) -> Move {
        let (handoff, started) = (self.handoff, self.started());
        let spec = &handoff.spec;
        let of_this = |status: &&VolumeHandoffStatus| status.move_started_at == Some(started);
        let status = handoff.status.as_ref().filter(of_this);
        let steps = match self.past {
            Some(past) => past.timeline.clone(),
            None => status.map(|s| s.timeline.clone()).unwrap_or_default(),
        };
        let hold = if self.past.is_some() { None } else { spec.hold };
        let mut spans = phases::of_move(hold, started, &steps);
        let ready = spans.iter().find(|s| s.phase == phases::Phase::Total).and_then(|s| s.until);
        let over = self.past.is_some() || status.is_some_and(|s| s.finished_at.is_some());
        if over {
            // what never ended does not last until today
            spans.retain(|span| span.until.is_some());
        }
        let ends = steps.iter().map(|s| s.at).max().unwrap_or(started);
        let recorded = || spec.checkpoints.iter().map(|c| c.recorded_at).filter(|at| *at >= started);
        let checkpoints = if self.past.is_some() { Vec::new() } else { recorded().collect() };
        let bar = Bar::of(&spans, &checkpoints, started, if over { ends } else { now });
        let trigger = match self.past {
            Some(_) => steps.first().map(|s| s.what.clone()).unwrap_or_default(),
            None => spec.trigger.as_str().to_owned(),
        };
        Move {
            id: format!("move-{}-{}", handoff.name_any(), started.as_millisecond()),
            namespace: handoff.namespace().unwrap_or_default(),
            claim: spec.volume.claim.clone(),
            pod: if self.past.is_some() { String::new() } else { spec.pod.name.clone() },
            from: self.past.map_or_else(|| spec.from.clone(), |past| past.from.clone()),
            to: self.past.map_or_else(|| status.and_then(|s| s.to.clone()), |past| past.to.clone()),
            trigger,
            started,
            state: self.state(status, ready.is_some()),
            took: ready.map(|at| at.duration_since(started)),
            backups: status.filter(|_| self.past.is_none()).map(|s| s.backups_safe.clone()).unwrap_or_default(),
            prestage: status.and_then(|s| s.prestage.as_ref()).map_or("", |p| match p.outcome {
                None => "placed",
                Some(PreStageOutcome::Adopted) => "used",
                Some(PreStageOutcome::Withdrawn) => "withdrawn",
            }),
            bar,
            steps: steps.into_iter().take(STEPS).collect(),
        }
    }

    fn state(&self, status: Option<&VolumeHandoffStatus>, ready: bool) -> &'static str {
        match (self.past, status.and_then(|s| s.phase)) {
            (Some(_), _) => {
                if ready {
                    "moved"
                } else {
                    "replaced by the next move"
                }
            }
            (None, None) => "recorded",
            (None, Some(Phase::Checkpointed)) => "recorded, the pod has not left",
            (None, Some(Phase::Moving)) => "moving",
            (None, Some(Phase::Attached)) => "attached, the pod is starting",
            (None, Some(Phase::Resuming)) => "backups are owed",
            (None, Some(Phase::Complete)) => {
                if ready {
                    "complete"
                } else {
                    "complete, no pod came"
                }
            }
            (None, Some(Phase::Failed)) => "a backup is lost",
        }
    }
}

/// `0.4 s`, `14.2 s`, `2 min 5 s`, `3 h 4 min`, `2 d 1 h`.
pub fn seconds(duration: SignedDuration) -> String {
    let all = duration.as_secs();
    match all {
        ..0 => "0 s".to_owned(),
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", all / 60, all % 60),
        3600..86_400 => format!("{} h {} min", all / 3600, all % 3600 / 60),
        _ => format!("{} d {} h", all / 86_400, all % 86_400 / 3600),
    }
}
