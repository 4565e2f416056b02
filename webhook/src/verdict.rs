//! The verdicts a route can come to, independent of the wire format.

use crate::observe::Outcome;

/// The longest warning. The API server turns each into an HTTP header and drops all of them past 4,096 bytes.
const WARNING_CHARS: usize = 256;
/// The most warnings in one answer.
const WARNINGS: usize = 4;

/// What the review is answered with.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// `Some` denies.
    pub(crate) denial: Option<Denial>,
    pub(crate) warnings: Vec<String>,
    /// JSON Patch, as JSON text.
    pub(crate) patch: Option<Vec<u8>>,
}

/// The part of `metav1.Status` that reaches the client; the API server passes code and reason on untouched.
#[derive(Debug)]
pub(crate) struct Denial {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn allowed(outcome: Outcome) -> Self {
        Self { outcome, denial: None, warnings: Vec::new(), patch: None }
    }

    pub(crate) fn skipped() -> Self {
        Self::allowed(Outcome::Skipped)
    }

    pub(crate) fn patched(patch: Vec<u8>) -> Self {
        Self { patch: Some(patch), ..Self::allowed(Outcome::Patched) }
    }

    /// Adds a warning for whoever made the request, as long as there is room.
    pub(crate) fn warn(mut self, text: &str) -> Self {
        if self.warnings.len() < WARNINGS {
            self.warnings.push(one_line(text, WARNING_CHARS));
        }
        self
    }

    /// The review is not what its route is for, i.e. the webhook configuration is wrong. That must not block anything.
    pub(crate) fn misrouted(what: &str) -> Self {
        tracing::warn!(review = what, "review of a kind that this route is not for: allowed unseen");
        Self::allowed(Outcome::Misrouted).warn(&format!("handoff: not judged, this webhook is not for {what}"))
    }

    /// "Not yet", for evictions: the only answer that every evictor retries. It has no `retryAfterSeconds`, because
    /// with one the client library retries by itself ten times and the user sees none of the messages.
    pub(crate) fn held(message: String) -> Self {
        Self::denied(Outcome::Held, Denial { code: 429, reason: "TooManyRequests", message })
    }

    /// "There is no such pod any more", for evictions: every evictor counts it as success.
    pub(crate) fn gone(message: String) -> Self {
        Self::denied(Outcome::Gone, Denial { code: 404, reason: "NotFound", message })
    }

    pub(crate) fn conflict(message: String) -> Self {
        Self::denied(Outcome::Denied, Denial { code: 409, reason: "Conflict", message })
    }

    fn denied(outcome: Outcome, denial: Denial) -> Self {
        Self { denial: Some(denial), ..Self::allowed(outcome) }
    }
}

/// `text` without control characters and with at most `limit` characters.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let text = text.trim();
    if text.chars().nth(limit).is_none() {
        return text.chars().map(clean).collect();
    }
    text.chars().take(limit.saturating_sub(3)).map(clean).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_line_is_one_line_and_bounded() {
        assert_eq!(one_line(" a\nb\tc ", 10), "a b c");
        assert_eq!(one_line("äöüäö", 5), "äöüäö");
        assert_eq!(one_line("äöüäöü", 5), "äö...");
        assert_eq!(one_line("", 5), "");
    }
}
