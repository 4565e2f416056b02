//! Claims and figures, for people: each claim with what was found, each figure with what it must be.

use crate::{
    budget,
    journey::{Compared, Outcome},
    metrics::Histogram,
    observer::suffix,
    s3::Blocks,
    timeline::{Step, Timeline},
};
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

/// Share of a backup that may be uploaded again for each cut.
const AGAIN: f64 = 0.05;

/// A claim, and whether it held.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Claim {
    /// What is claimed.
    #[serde(rename = "claim")]
    pub text: String,
    /// Whether it held.
    pub holds: bool,
    /// What was found.
    pub found: String,
}

impl Claim {
    /// A claim with what was found.
    pub fn new(claim: &str, holds: bool, found: impl Into<String>) -> Self {
        Self { text: claim.to_owned(), holds, found: found.into() }
    }
}

/// What must hold for a move with Handoff and a backup in flight.
pub fn claims(outcome: &Outcome) -> Vec<Claim> {
    let mut claims = vec![
        Claim::new("the pod runs on another node", outcome.stuck.is_none(), arrival(outcome)),
        Claim::new("the drain ended by itself", outcome.drain.code == Some(0), drain(outcome)),
        Claim::new("the node was still cordoned then", outcome.drain.still_cordoned, String::new()),
        compared("the moved volume's data is equal", &outcome.moved),
        Claim::new("no pre-stage is left", outcome.prestages.is_empty(), outcome.prestages.join(", ")),
    ];
    if let Some(disturbed) = &outcome.disturbed {
        let when = format!("{} at {:.1} s", disturbed.who, disturbed.at);
        claims.push(Claim::new(disturbed.how.claim(), disturbed.done, when));
    }
    let Some(backup) = &outcome.backup else { return claims };
    let lost = outcome.timeline.has(Step::BackupLost);
    let interrupted =
        if lost { format!("lost {}", outcome.timeline.note(Step::BackupLost)) } else { "never lost".into() };
    claims.push(Claim::new("the move interrupted the backup", lost, interrupted));
    let own = backup.end.same && backup.end.word == "Completed";
    let end = format!("{} {}{}", backup.name, backup.end.word, suffix(&backup.end.error));
    claims.push(Claim::new("the backup completed under its own name", own, end));
    if let Some(blocks) = backup.blocks {
        claims.push(few_blocks(blocks, 1));
    }
    if let Some(restored) = &backup.restored {
        claims.push(compared("the restored data equals the snapshot's", restored));
    }
    claims
}

/// That what was in the target already was not sent again, after so many cuts of the upload.
pub fn few_blocks(blocks: Blocks, cuts: u8) -> Claim {
    let found = format!("{} again of {} blocks, {:.1} %", blocks.again, blocks.blocks, blocks.ratio() * 100.0);
    let few = blocks.blocks > 0 && blocks.ratio() <= AGAIN * f64::from(cuts);
    Claim::new("only missing blocks were uploaded", few, found)
}

/// A comparison as a claim.
pub fn compared(claim: &str, compared: &Compared) -> Claim {
    match compared {
        Compared::Equal(files) => Claim::new(claim, true, format!("{files} files")),
        Compared::Differs(how) => Claim::new(claim, false, how),
    }
}

/// Where the pod arrived, or did not.
pub fn arrival(outcome: &Outcome) -> String {
    match (outcome.ready(), &outcome.stuck) {
        (Some(seconds), _) => format!("{} → {} in {seconds:.1} s", outcome.from, outcome.timeline.note(Step::Ready)),
        (None, Some(stuck)) => format!("not running, {stuck}"),
        (None, None) => "not running".to_owned(),
    }
}

/// How the drain ended.
pub fn drain(outcome: &Outcome) -> String {
    let drain = &outcome.drain;
    match drain.code {
        Some(0) => format!("after {:.1} s", drain.seconds),
        Some(code) => format!("exit code {code}: {}", drain.complaint),
        None => format!("still at it after {:.0} s{}", drain.seconds, suffix(&drain.complaint)),
    }
}

/// Prints claims, each on a line.
pub fn print_claims(claims: &[Claim]) {
    for claim in claims {
        println!("  {} {}{}", if claim.holds { "ok  " } else { "FAIL" }, claim.text, suffix(&claim.found));
    }
}

/// A table whose first column is text and whose others are figures.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(head.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Steps of several moves side by side, in seconds after each drain began.
pub fn side_by_side(moves: &[(&str, &Timeline)]) -> Table {
    let mut head = vec!["seconds after the drain began"];
    head.extend(moves.iter().map(|(label, _)| *label));
    let mut table = table(&head);
    for step in Step::ALL {
        if moves.iter().any(|(_, timeline)| timeline.has(step)) {
            let times =
                moves.iter().map(|(_, timeline)| timeline.at(step).map_or("–".to_owned(), |at| format!("{at:.1}")));
            table.add_row(std::iter::once(step.label().to_owned()).chain(times));
        }
    }
    table
}

/// Where each second goes, mean per phase, for groups of moves.
pub fn budgets(groups: &[(&str, Vec<&Timeline>)]) -> Table {
    let mut head = vec!["seconds that each phase adds, mean"];
    head.extend(groups.iter().map(|(label, _)| *label));
    let mut table = table(&head);
    let means: Vec<_> = groups.iter().map(|(_, moves)| budget::mean(moves)).collect();
    let cell = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.1}"));
    for (i, (phase, _)) in budget::PHASES.iter().enumerate() {
        let row = means.iter().map(|mean| cell(mean.as_ref().map(|m| m[i])));
        table.add_row(std::iter::once((*phase).to_owned()).chain(row));
    }
    let sums = means.iter().map(|mean| cell(mean.as_ref().map(|m| m.iter().sum())));
    table.add_row(std::iter::once("drain → Ready".to_owned()).chain(sums));
    table
}

/// The value that half of the values do not exceed, and the largest.
pub fn median_and_max(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = *sorted.last()?;
    Some((sorted[(sorted.len() - 1) / 2], last))
}

/// `≤ 20 ms (12 reviews)`.
pub fn reviews(histogram: &Histogram) -> String {
    match histogram.median_at_most() {
        Some(ms) => format!("≤ {ms} ms ({} reviews)", histogram.count()),
        None => "no review seen".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_lower_middle() {
        assert_eq!(median_and_max(&[4.0, 1.0, 3.0, 2.0]), Some((2.0, 4.0)));
        assert_eq!(median_and_max(&[]), None);
    }
}
