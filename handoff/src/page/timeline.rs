//! The drawing of a move: two lanes of rectangles in a fixed coordinate system, each lane with its own scale, because a move
//! takes seconds and a backup that is resumed can take hours.

use super::view::seconds;
use handoff_coordinator::phases::{Phase, Span};
use jiff::Timestamp;

/// Width of the drawing in its own units.
pub const WIDTH: f64 = 600.0;
/// Nothing that has a length is drawn narrower.
const NARROWEST: f64 = 2.0;
/// From this width on a rectangle has room for its name.
const ROOM: f64 = 46.0;

/// A rectangle, in units of [`WIDTH`].
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// What it is.
    pub phase: Phase,
    /// Its left edge.
    pub x: f64,
    /// Its width.
    pub width: f64,
    /// It goes on.
    pub open: bool,
}

impl Piece {
    /// There is room for its name.
    pub fn has_room(&self) -> bool {
        self.width >= ROOM
    }
}

/// The drawing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// Hold, detach, attach, ready: from the trigger to the workload ready or to now.
    pub passage: Vec<Piece>,
    /// Where something was recorded, in the same lane.
    pub checkpoints: Vec<f64>,
    /// What the lane spans, in words.
    pub passage_took: String,
    /// The backups that run again: from the trigger to the end of the last one or to now.
    pub resume: Option<Piece>,
    /// What that lane spans, in words.
    pub resume_took: String,
    /// All of it in one sentence.
    pub words: String,
}

impl Bar {
    /// Of a move that began at `started`; what lasts is drawn up to `end`.
    pub fn of(spans: &[Span], checkpoints: &[Timestamp], started: Timestamp, end: Timestamp) -> Self {
        let until = |span: &Span| span.until.unwrap_or(end).max(span.since);
        let in_lane = |span: &&Span| matches!(span.phase, Phase::Hold | Phase::Detach | Phase::Attach | Phase::Ready);
        let lane_end = spans.iter().filter(in_lane).map(until).max().unwrap_or(started);
        let scale = Scale::new(started, lane_end);
        let passage = spans.iter().filter(in_lane).map(|span| scale.piece(span, until(span))).collect::<Vec<_>>();
        let resume = spans.iter().find(|span| span.phase == Phase::Resume);
        let resumed = resume.map(|span| Scale::new(started, until(span)).piece(span, until(span)));
        let words = spans.iter().map(|span| {
            let took = seconds(until(span).duration_since(span.since));
            let so_far = if span.until.is_none() { " so far" } else { "" };
            format!("{} {took}{so_far}", span.phase.as_str())
        });
        let words = words.collect::<Vec<_>>().join(", ");
        Self {
            checkpoints: checkpoints.iter().map(|at| scale.x(*at)).collect(),
            passage_took: if passage.is_empty() { String::new() } else { seconds(lane_end.duration_since(started)) },
            passage,
            resume_took: resume.map(|span| seconds(until(span).duration_since(span.since))).unwrap_or_default(),
            resume: resumed,
            words: if words.is_empty() { "nothing is known of its phases".to_owned() } else { words },
        }
    }
}

struct Scale {
    start: Timestamp,
    seconds: f64,
}

impl Scale {
    fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, seconds: end.duration_since(start).as_secs_f64().max(0.001) }
    }

    fn x(&self, at: Timestamp) -> f64 {
        let part = at.duration_since(self.start).as_secs_f64() / self.seconds;
        (part * WIDTH).clamp(0.0, WIDTH)
    }

    fn piece(&self, span: &Span, until: Timestamp) -> Piece {
        let x = self.x(span.since).min(WIDTH - NARROWEST);
        let width = (self.x(until) - x).max(NARROWEST);
        Piece { phase: span.phase, x, width, open: span.until.is_none() }
    }
}
