//! How long a move will take: from the moves that were seen, and where there are none, from what was measured elsewhere.

use super::history::seconds;
use handoff_coordinator::api::VolumeHandoff;
use serde::Serialize;

/// Median of the measured moves with kubelets at their default of 10 s; see README.md.
const MEASURED_SECONDS: f64 = 18.2;

/// How long a move will take, and why that is said.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// From the eviction to a ready pod.
    pub seconds: f64,
    /// What that rests on.
    pub source: String,
}

/// For a pod with these volumes. Its own moves say most, then those of other volumes here.
pub fn estimate(handoffs: &[VolumeHandoff], volumes: &[String]) -> Estimate {
    let of = |handoff: &VolumeHandoff| {
        let journal = handoff.journal();
        let past = journal.history.iter().filter_map(|past| seconds(&past.duration)).collect::<Vec<_>>();
        past.into_iter().chain(seconds(&journal.duration)).collect::<Vec<_>>()
    };
    let is_own = |h: &&VolumeHandoff| volumes.contains(&h.spec.volume.volume);
    let own = handoffs.iter().filter(is_own).flat_map(of).collect::<Vec<_>>();
    if let Some(seconds) = median(&own) {
        return Estimate { seconds, source: format!("median of {} earlier moves of this pod's volumes", own.len()) };
    }
    let all = handoffs.iter().flat_map(of).collect::<Vec<_>>();
    if let Some(seconds) = median(&all) {
        return Estimate { seconds, source: format!("median of {} moves remembered in this cluster", all.len()) };
    }
    let source = "no move is remembered here: median of Handoff's own measurement with kubelets that report every 10 s";
    Estimate { seconds: MEASURED_SECONDS, source: source.to_owned() }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, handoff};
    use super::*;
    use serde_json::json;

    fn moved(volume: &str, last: &str, before: &[&str]) -> VolumeHandoff {
        let mut handoff = handoff(volume);
        let journal = handoff.status.as_mut().unwrap();
        journal.duration = last.to_owned();
        let past = before.iter().map(|d| json!({"startedAt": at(-9), "from": "b", "move": d}));
        journal.history = serde_json::from_value(past.collect()).unwrap();
        handoff
    }

    #[test]
    fn what_is_nearest_says_most() {
        let handoffs = [moved("one", "10.0s", &["30.0s", "12.0s"]), moved("two", "20.0s", &["", "22.0s"])];
        for (volume, seconds, source) in
            [("one", 12.0, "3 earlier moves"), ("two", 21.0, "2 earlier moves"), ("three", 20.0, "5 moves remembered")]
        {
            let estimate = estimate(&handoffs, &[volume.to_owned()]);
            assert!((estimate.seconds - seconds).abs() < 1e-9, "{estimate:?}");
            assert!(estimate.source.contains(source), "{estimate:?}");
        }
        let none = estimate(&[moved("one", "", &[])], &["one".to_owned()]);
        assert!(none.source.contains("measurement"), "{none:?}");
    }
}
