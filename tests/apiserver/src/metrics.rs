//! Figures in Prometheus' text format.

/// The sum of all samples of `metric` whose labels contain every one of `labels` (`hook="eviction"`).
pub fn sum(page: &str, metric: &str, labels: &[&str]) -> f64 {
    let samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        let (found, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        labels.iter().all(|label| found.contains(label)).then(|| value.trim().parse::<f64>().ok()).flatten()
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_metric_with_the_given_labels_counts() {
        let page = "# TYPE a counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\"} 4\na_totals{x=\"1\"} 50\nb 7\n";
        assert!((sum(page, "a_total", &["x=\"1\""]) - 3.0).abs() < 1e-9);
        assert!((sum(page, "a_total", &[]) - 7.0).abs() < 1e-9);
        assert!((sum(page, "b", &[]) - 7.0).abs() < 1e-9);
    }
}
