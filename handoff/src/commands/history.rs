//! `handoff history`: the moves that the handoffs remember, and the Events of Handoff.

use super::{
    End,
    connection::{Cluster, ClusterArgs},
    look,
    output::{self, OutputArgs, Report, Tone, paint, relative},
};
use anyhow::Context;
use clap::Args;
use handoff_coordinator::api::{Trigger, VolumeHandoff};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event;
use kube::{ResourceExt, api::ListParams};
use serde::Serialize;

/// How Handoff reports itself in Events.
const REPORTER: &str = "handoff";

/// `handoff history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// Only what is not older than this, such as `2h`. The API server forgets Events after an hour, by default.
    #[arg(long, value_name = "DURATION")]
    pub since: Option<SignedDuration>,
    /// All namespaces; this is so unless one is named.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// What has happened.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Moves, the newest first.
    pub moves: Vec<Move>,
    /// Events, the oldest first.
    pub events: Vec<Told>,
    #[serde(skip)]
    now: Timestamp,
}

/// One move.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// Namespace of the claim.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The volume.
    pub volume: String,
    /// When it began.
    pub started_at: Timestamp,
    /// What started it; not remembered of earlier moves.
    pub trigger: Option<Trigger>,
    /// The node that was left.
    pub from: String,
    /// The node that was reached.
    pub to: Option<String>,
    /// From the trigger to a ready workload; none as long as it is not ready.
    pub seconds: Option<f64>,
    /// `1/2 safe`; not remembered of earlier moves.
    pub backups: String,
}

/// One Event.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// When it was last told.
    pub at: Timestamp,
    /// Something is wrong.
    pub warning: bool,
    /// Namespace of what it is about.
    pub namespace: String,
    /// What it is about, as in `Pod/db-0`.
    pub object: String,
    /// For machines.
    pub reason: String,
    /// For people.
    pub note: String,
}

/// Lists moves and Events.
pub async fn run(args: HistoryArgs) -> anyhow::Result<End> {
    let cluster = args.cluster.connect().await?;
    let now = Timestamp::now();
    let after = args.since.map(|since| now - since);
    let handoffs = look::handoffs(&cluster, cluster.named.as_deref()).await?;
    let report = history(&handoffs, &events(&cluster).await?, after, now);
    output::print(&report, args.output.output)?;
    Ok(End::Yes)
}

async fn events(cluster: &Cluster) -> anyhow::Result<Vec<Event>> {
    let params = ListParams::default().fields(&format!("reportingController={REPORTER}"));
    Ok(cluster.objects::<Event>(cluster.named.as_deref()).list(&params).await.context("cannot list Events")?.items)
}

/// What the handoffs remember and the Events tell of the time after `after`.
fn history(handoffs: &[VolumeHandoff], events: &[Event], after: Option<Timestamp>, now: Timestamp) -> History {
    let is_meant = |at: Timestamp| after.is_none_or(|after| at >= after);
    let mut moves = handoffs.iter().flat_map(moves_of).filter(|m| is_meant(m.started_at)).collect::<Vec<_>>();
    moves.sort_by_key(|m| std::cmp::Reverse(m.started_at));
    let mut events = events.iter().filter_map(told).filter(|told| is_meant(told.at)).collect::<Vec<_>>();
    events.sort_by(|a, b| (a.at, &a.object).cmp(&(b.at, &b.object)));
    History { moves, events, now }
}

fn moves_of(handoff: &VolumeHandoff) -> Vec<Move> {
    let (spec, journal) = (&handoff.spec, handoff.journal());
    let of = |started_at, trigger, from: &str, to, duration: &str, backups: &str| Move {
        namespace: handoff.namespace().unwrap_or_default(),
        claim: spec.volume.claim.clone(),
        volume: handoff.name_any(),
        started_at,
        trigger,
        from: from.to_owned(),
        to,
        seconds: seconds(duration),
        backups: backups.to_owned(),
    };
    // the journal may still be about the move before
    let current = journal.move_started_at == Some(spec.triggered_at);
    let mut moves = Vec::new();
    if current {
        let (to, duration) = (journal.to.clone(), journal.duration.as_str());
        moves.push(of(spec.triggered_at, Some(spec.trigger), &spec.from, to, duration, &journal.backups_safe));
    } else {
        moves.push(of(spec.triggered_at, Some(spec.trigger), &spec.from, None, "", ""));
        if let Some(started) = journal.move_started_at {
            let (to, duration) = (journal.to.clone(), journal.duration.as_str());
            moves.push(of(started, None, &journal.from, to, duration, &journal.backups_safe));
        }
    }
    moves.extend(journal.history.iter().map(|p| of(p.started_at, None, &p.from, p.to.clone(), &p.duration, "")));
    moves
}

/// `14.2s` → 14.2.
pub fn seconds(duration: &str) -> Option<f64> {
    duration.strip_suffix('s')?.parse().ok()
}

fn told(event: &Event) -> Option<Told> {
    if event.reporting_controller.as_deref() != Some(REPORTER) {
        return None;
    }
    let regarding = event.regarding.clone().unwrap_or_default();
    let last = event.series.as_ref().map(|s| s.last_observed_time.0).or(event.event_time.as_ref().map(|t| t.0));
    Some(Told {
        at: last.or_else(|| event.creation_timestamp().map(|t| t.0))?,
        warning: event.type_.as_deref() == Some("Warning"),
        namespace: regarding.namespace.unwrap_or_default(),
        object: format!("{}/{}", regarding.kind.unwrap_or_default(), regarding.name.unwrap_or_default()),
        reason: event.reason.clone().unwrap_or_default(),
        note: event.note.clone().unwrap_or_default(),
    })
}

impl Report for History {
    fn text(&self) -> String {
        let mut parts = Vec::new();
        if self.moves.is_empty() {
            parts.push("No move is remembered: handoffs are kept for an hour after the last one.".to_owned());
        } else {
            let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            let rows = self.moves.iter().map(|m| {
                [
                    relative(m.started_at, self.now),
                    m.namespace.clone(),
                    m.claim.clone(),
                    m.trigger.map_or_else(|| "-".to_owned(), |t| format!("{t:?}")),
                    m.from.clone(),
                    dash(m.to.clone().unwrap_or_default()),
                    m.seconds.map_or_else(|| "-".to_owned(), |s| format!("{s:.1}s")),
                    dash(m.backups.clone()),
                ]
            });
            let header = ["BEGAN", "NAMESPACE", "CLAIM", "TRIGGER", "FROM", "TO", "READY AFTER", "BACKUPS"];
            parts.push(output::table(header, rows));
        }
        if !self.events.is_empty() {
            let rows = self.events.iter().map(|e| {
                let reason = if e.warning { format!("{} (!)", e.reason) } else { e.reason.clone() };
                [relative(e.at, self.now), format!("{}/{}", e.namespace, e.object), reason, e.note.clone()]
            });
            let table = output::table(["TOLD", "ABOUT", "REASON", "NOTE"], rows);
            parts.push(format!("{}\n{table}", paint(Tone::Heading, "Events")));
        }
        parts.join("\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, handoff};
    use super::*;
    use serde_json::json;

    fn event(second: i64, reporter: &str, reason: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {"name": format!("e{second}"), "namespace": "shop"},
            "eventTime": at(second), "reportingController": reporter, "reason": reason, "note": "a sentence",
            "type": "Normal", "regarding": {"kind": "Pod", "name": "db-0", "namespace": "shop"},
        }))
        .unwrap()
    }

    #[test]
    fn moves_of_all_pages_and_our_events_in_order_of_time() {
        let mut one = handoff("one");
        let journal = one.status.as_mut().unwrap();
        journal.duration = "14.2s".into();
        journal.history = serde_json::from_value(json!([
            {"startedAt": at(-100), "from": "b", "to": "a", "move": "9.0s"},
            {"startedAt": at(-200), "from": "a"},
        ]))
        .unwrap();
        let events = [event(9, "handoff", "VolumeMoved"), event(1, "handoff", "Begun"), event(5, "kubelet", "Pulled")];
        let report = history(&[handoff("two"), one.clone()], &events, None, at(50));
        let moves = report.moves.iter().map(|m| (m.volume.as_str(), m.started_at, m.seconds)).collect::<Vec<_>>();
        assert_eq!(moves[2..], [("one", at(-100), Some(9.0)), ("one", at(-200), None)]);
        assert_eq!(report.events.iter().map(|e| e.reason.as_str()).collect::<Vec<_>>(), ["Begun", "VolumeMoved"]);
        let text = report.text();
        assert!(text.contains("14.2s") && text.contains("shop/Pod/db-0"), "{text}");

        let recent = history(&[one], &events, Some(at(0)), at(50));
        assert_eq!((recent.moves.len(), recent.events.len()), (1, 2));
    }

    #[test]
    fn a_journal_about_the_move_before_is_not_taken_for_this_one() {
        let mut next = handoff("one");
        next.spec.triggered_at = at(500);
        next.status.as_mut().unwrap().duration = "14.2s".into();
        let report = history(&[next], &[], None, at(501));
        let moves = report.moves.iter().map(|m| (m.started_at, m.seconds)).collect::<Vec<_>>();
        assert_eq!(moves, [(at(500), None), (at(0), Some(14.2))]);
    }
}
