//! The page in HTML. Whatever comes from the cluster is escaped by the template.

use super::{
    timeline::{Bar, Piece, WIDTH},
    view::{Hold, Move, Owed, View, seconds},
};
use handoff_coordinator::phases::Phase;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

/// The whole page. The script replaces what is in `main`.
pub fn page(view: &View) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Handoff: moves" }
                link rel="stylesheet" href="moves.css";
                script src="moves.js" defer {}
            }
            body {
                a.skip href="#content" { "Skip to the tables" }
                header {
                    h1 { "Handoff" }
                    p {
                        "Volumes that move with a backup in flight. Times are UTC. "
                        a href="moves" { "Refresh" }
                        " "
                        button #updates type="button" hidden { "Pause updates" }
                    }
                    p #trouble role="status" {}
                }
                main #content tabindex="-1" {
                    (standing(view))
                    (owed(view))
                    (holds(&view.holds, view.now))
                    (moves(view))
                }
            }
        }
    }
}

fn standing(view: &View) -> Markup {
    let replica = &view.replica;
    html! {
        p {
            "As " (replica.name) " sees it at " (time(view.now))
            @if replica.leads { ", which leads" }
            "."
        }
        @if !replica.missing.is_empty() {
            p.warning { strong { "Incomplete:" } " waiting for " (replica.missing.join(", ")) "." }
        }
    }
}

fn owed(view: &View) -> Markup {
    html! {
        section aria-labelledby="owed" {
            h2 #owed { "Owed backups" }
            @if view.owed.is_empty() {
                p { "Nothing is owed." }
            } @else {
                (table("owed-table", "owed", &["Backup", "Claim", "Owed for", "Was at", "Runs", "Now"], &html! {
                    @for backup in &view.owed { (owed_row(backup, view.now)) }
                }))
                (more(view.more_owed))
            }
        }
    }
}

fn owed_row(owed: &Owed, now: Timestamp) -> Markup {
    html! {
        tr {
            th scope="row" { (owed.backup) }
            td { (owed.namespace) "/" (owed.claim) }
            td { (seconds(now.duration_since(owed.since))) }
            td { (owed.progress) " %" }
            td { (owed.attempts) }
            td { (owed.state) }
        }
    }
}

fn holds(holds: &[Hold], now: Timestamp) -> Markup {
    html! {
        @if !holds.is_empty() {
            section aria-labelledby="holds" {
                h2 #holds { "Evictions that are held" }
                ul {
                    @for hold in holds {
                        li {
                            (hold.count) " × " (hold.what) ", for " (seconds(now.duration_since(hold.since)))
                            ", at most " (seconds(hold.deadline.duration_since(now))) " more"
                        }
                    }
                }
            }
        }
    }
}

fn moves(view: &View) -> Markup {
    html! {
        section aria-labelledby="moves" {
            h2 #moves { "Moves" }
            @if view.moves.is_empty() {
                p { "No volume with a backup in flight has moved, as far as is on record." }
            } @else {
                (legend())
                (table("moves-table", "moves", &["Claim", "Began", "From → to", "Took", "State", "Timeline"], &html! {
                    @for m in &view.moves { (move_row(m, view.now)) }
                }))
                (more(view.more_moves))
            }
        }
    }
}

fn move_row(m: &Move, now: Timestamp) -> Markup {
    let to = m.to.as_deref().unwrap_or("?");
    html! {
        tr {
            th scope="row" {
                (m.namespace) "/" (m.claim)
                @if !m.pod.is_empty() { br; span.small { "pod " (m.pod) } }
            }
            td { (time(m.started)) br; span.small { (seconds(now.duration_since(m.started))) " ago, " (m.trigger) } }
            td { (m.from) " → " (to) }
            td { (m.took.map_or_else(|| "–".to_owned(), seconds)) }
            td { (m.state) @if !m.backups.is_empty() { br; span.small { "backups " (m.backups) } } }
            td.timeline {
                (drawing(&m.bar))
                details id=(m.id) {
                    // a name of its own for those who hear it among fifty others
                    summary id={ "steps-" (m.id) } aria-label={ "Steps of the move of " (m.claim) } { "Steps" }
                    @if !m.prestage.is_empty() { p { "Pre-stage: " (m.prestage) } }
                    ol {
                        @for step in &m.steps {
                            li { "+" (seconds(step.at.duration_since(m.started))) " " (step.what) }
                        }
                    }
                }
            }
        }
    }
}

/// A table may be wider than the window: then it scrolls by itself, also with the keyboard.
fn table(id: &str, heading: &str, columns: &[&str], rows: &Markup) -> Markup {
    html! {
        div.scrolls id=(id) role="region" aria-labelledby=(heading) tabindex="0" {
            table {
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { (rows) }
            }
        }
    }
}

fn more(rows: usize) -> Markup {
    html! { @if rows > 0 { p { "And " (rows) " more: " code { "kubectl get vho -A" } "." } } }
}

fn legend() -> Markup {
    let phases = [Phase::Hold, Phase::Detach, Phase::Attach, Phase::Ready, Phase::Resume];
    html! {
        ul.legend aria-label="Legend" {
            li { svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true" { (diamond(6.0, 6.0)) } " checkpoint" }
            @for phase in phases {
                li {
                    svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true" {
                        rect class=(phase.as_str()) width="12" height="12" {}
                    }
                    " " (phase.as_str())
                }
            }
        }
    }
}

fn drawing(bar: &Bar) -> Markup {
    let height = if bar.resume.is_some() { 44 } else { 22 };
    html! {
        svg.bar viewBox={ "0 0 " (WIDTH + 90.0) " " (height) } role="img" aria-label={ "Timeline: " (bar.words) } {
            rect.lane x="0" y="2" width=(WIDTH) height="18" {}
            @for piece in &bar.passage { (drawn(piece, 2)) }
            @for x in &bar.checkpoints { (diamond(x.clamp(5.0, WIDTH - 5.0), 11.0)) }
            text.took x=(WIDTH + 6.0) y="16" { (bar.passage_took) }
            @if let Some(piece) = &bar.resume {
                rect.lane x="0" y="24" width=(WIDTH) height="18" {}
                (drawn(piece, 24))
                text.took x=(WIDTH + 6.0) y="38" { (bar.resume_took) }
            }
        }
    }
}

fn drawn(piece: &Piece, y: u8) -> Markup {
    let class = if piece.open { format!("{} open", piece.phase.as_str()) } else { piece.phase.as_str().to_owned() };
    html! {
        rect class=(class) x=(round(piece.x)) y=(y) width=(round(piece.width)) height="18" {}
        @if piece.has_room() {
            text.name x=(round(piece.x + 12.0)) y=(y + 14) { (piece.phase.as_str()) }
        }
    }
}

fn diamond(x: f64, y: f64) -> Markup {
    let (x, y) = (round(x), round(y));
    html! { path.checkpoint d={ "M" (x) " " (y) "m-5 0l5-5l5 5l-5 5z" } {} }
}

fn round(units: f64) -> f64 {
    (units * 10.0).round() / 10.0
}

fn time(at: Timestamp) -> Markup {
    html! { time datetime=(format!("{at:.3}")) { (at.strftime("%Y-%m-%d %H:%M:%S").to_string()) } }
}
