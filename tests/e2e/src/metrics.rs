//! The time that Handoff's reviews take, from its own histogram. Replicas come and go during a drain, so their figures
//! are read again and again and what they add is summed up here.

use crate::{
    cluster::{Cluster, POD, Read},
    handoff::{NAMESPACE, PODS},
};
use anyhow::{Context, Result};
use kube::{api::GetParams, core::Request};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

const METRIC: &str = "handoff_review_seconds_bucket{";
const METRICS_PORT: u16 = 8080;

/// Reviews by upper bound of their time, not cumulated. The key is the bound in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Histogram(BTreeMap<u64, u64>);

impl Histogram {
    /// Reviews counted.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            *self.0.entry(*bound).or_default() += count;
        }
    }

    /// The upper bound of the bucket that the median lies in, in milliseconds: the median is at most this.
    pub fn median_at_most(&self) -> Option<f64> {
        let half = self.count().div_ceil(2);
        let mut seen = 0;
        let mut buckets = self.0.iter();
        let bound = buckets.find(|(_, count)| {
            seen += **count;
            seen >= half && half > 0
        });
        bound.map(|(micros, _)| u32::try_from(*micros).map_or(f64::INFINITY, |m| f64::from(m) / 1000.0))
    }
}

/// Reads the histogram of one hook from all replicas.
pub struct Reviews {
    cluster: Cluster,
    hook: &'static str,
    last: BTreeMap<String, BTreeMap<u64, u64>>,
    /// What was added since the start.
    pub added: Histogram,
}

impl Reviews {
    /// Starts counting now.
    pub async fn start(cluster: &Cluster, hook: &'static str) -> Result<Self> {
        let mut reviews = Self { cluster: cluster.clone(), hook, last: BTreeMap::new(), added: Histogram::default() };
        reviews.read().await?;
        reviews.added = Histogram::default();
        Ok(reviews)
    }

    /// Reads all replicas once. One that does not answer is leaving or starting.
    pub async fn read(&mut self) -> Result<()> {
        for pod in self.cluster.list(&POD, NAMESPACE, PODS).await? {
            if let Ok(text) = self.page(pod.name()).await {
                self.take(pod.name(), &cumulated(&text, self.hook));
            }
        }
        Ok(())
    }

    /// Reads until told to stop, by dropping the future.
    pub async fn keep_reading(&mut self) -> ! {
        loop {
            let _ = self.read().await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    async fn page(&self, pod: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let name = format!("{pod}:{METRICS_PORT}/proxy/metrics");
        let request = Request::new(path).get(&name, &GetParams::default()).context("bad request")?;
        let answer = tokio::time::timeout(Duration::from_secs(2), self.cluster.client.request_text(request));
        answer.await.context("no answer")?.context("cannot read metrics")
    }

    /// What a replica counted since it was read last; one that counted less than before was restarted.
    fn take(&mut self, pod: &str, now: &BTreeMap<u64, u64>) {
        let before = self.last.insert(pod.to_owned(), now.clone()).unwrap_or_default();
        let restarted = before.iter().any(|(bound, count)| now.get(bound).is_none_or(|n| n < count));
        let mut below = 0;
        for (bound, count) in now {
            let old = if restarted { 0 } else { before.get(bound).copied().unwrap_or(0) };
            let up_to_here = count - old;
            *self.added.0.entry(*bound).or_default() += up_to_here.saturating_sub(below);
            below = up_to_here;
        }
    }
}

/// Cumulated counts by upper bound, all outcomes together.
fn cumulated(page: &str, hook: &str) -> BTreeMap<u64, u64> {
    let mut all = BTreeMap::new();
    let hook = format!("hook=\"{hook}\"");
    for line in page.lines().filter(|line| line.starts_with(METRIC) && line.contains(&hook)) {
        let bound = line.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(bound, _)| bound);
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
        let (Some(bound), Some(count)) = (bound, count) else { continue };
        *all.entry(micros(bound)).or_default() += count;
    }
    all
}

/// A bound in seconds, as `0.005` or `5e-5`, in microseconds.
fn micros(bound: &str) -> u64 {
    let seconds = bound.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.and_then(|s| u64::try_from(s.as_micros()).ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"
handoff_review_seconds_bucket{hook="eviction",outcome="allowed",le="0.005"} 3
handoff_review_seconds_bucket{hook="eviction",outcome="allowed",le="0.05"} 4
handoff_review_seconds_bucket{hook="eviction",outcome="allowed",le="+Inf"} 4
handoff_review_seconds_bucket{hook="eviction",outcome="skipped",le="0.005"} 1
handoff_review_seconds_bucket{hook="eviction",outcome="skipped",le="0.05"} 1
handoff_review_seconds_bucket{hook="eviction",outcome="skipped",le="+Inf"} 1
handoff_review_seconds_bucket{hook="storage-eviction",outcome="held",le="0.005"} 9
"#;

    #[test]
    fn outcomes_of_one_hook_are_summed() {
        assert_eq!(cumulated(PAGE, "eviction"), [(5_000, 4), (50_000, 5), (u64::MAX, 5)].into());
    }

    #[test]
    fn the_median_is_bounded_by_its_bucket() {
        let histogram = Histogram([(5_000, 1), (50_000, 2), (u64::MAX, 0)].into());
        assert_eq!(histogram.median_at_most(), Some(50.0));
        assert_eq!(Histogram([(5_000, 2), (50_000, 2)].into()).median_at_most(), Some(5.0));
        assert_eq!(Histogram::default().median_at_most(), None);
    }
}
