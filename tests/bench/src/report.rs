//! The table.

use crate::{
    caches::{self, Part, Taken},
    instructions,
    load::{Bench, By},
    ours::{WORLD, Work},
};
use anyhow::ensure;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde_json::Value;
use std::{collections::HashMap, path::PathBuf, time::Duration};

/// How long and how often is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Rounds; ours and the comparator take turns, and the median counts.
    pub rounds: usize,
    /// Seconds of each throughput measurement.
    pub seconds: f64,
    /// Requests of each latency measurement.
    pub requests: usize,
    /// Without caches and callgrind.
    pub only_requests: bool,
    /// Where callgrind's profiles go.
    pub profiles: PathBuf,
}

/// What one request costs.
type PerRequest = HashMap<(Work, By), f64>;

/// Measures everything and prints it.
pub fn run(effort: &Effort) -> anyhow::Result<()> {
    println!("load of the machine before: {}", load_average());
    let bench = Bench::start()?;
    for work in Work::ALL {
        check(&bench, work)?;
    }
    let mut rows = Rows::new(effort);
    rows.rate(&bench, Work::Create, "CREATE review, look-up + patch, 16 connections, req/s", "≥ 2.5×")?;
    rows.reviews(&bench)?;
    rows.times(&bench, Work::FilterNames, "filter, 5,000 names, p99 ms", 0.99, 10, "≤ 2")?;
    rows.rate(&bench, Work::FilterNames, "filter, 5,000 names, 16 connections, req/s", "≥ 2×")?;
    rows.times(&bench, Work::Prioritize, "prioritize, 5,000 names, p99 ms", 0.99, 10, "")?;
    rows.times(&bench, Work::FilterNodes, "filter, 1,000 full nodes, p50 ms", 0.5, 100, "≤ 15")?;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("filter, 5,000 full nodes of 10 kB over TLS, {name} ms");
        rows.times(&bench, Work::FilterAllNodes, &name, quantile, 250, "")?;
    }
    bench.stop()?;
    let found: PerRequest = instructions::cpu_all()?.into_iter().map(|(work, by, time)| ((work, by), time)).collect();
    rows.per_request("CPU µs per request, without TLS", 1.0, &found);
    if !effort.only_requests {
        match instructions::count_all(&effort.profiles) {
            Ok(found) => rows.instructions(found),
            Err(error) => println!("no instructions counted: {error:#}"),
        }
        rows.caches("caches of Kubernetes", &caches::measure(Part::Kubernetes)?, ["≤ 150", "≤ 10"]);
        rows.caches("caches with Longhorn's objects", &caches::measure(Part::All)?, ["", ""]);
    }
    println!("load of the machine after: {}", load_average());
    println!("{}", rows.table);
    Ok(())
}

/// Measures reviews at one connection only, and prints them.
pub fn one_connection(effort: &Effort) -> anyhow::Result<()> {
    println!("load of the machine before: {}", load_average());
    let bench = Bench::start()?;
    let mut rows = Rows::new(effort);
    rows.reviews(&bench)?;
    bench.stop()?;
    println!("{}", rows.table);
    Ok(())
}

/// Counts instructions only, of all handlers, and prints them.
pub fn instructions(effort: &Effort) -> anyhow::Result<()> {
    let mut rows = Rows::new(effort);
    rows.instructions(instructions::count_all(&effort.profiles)?);
    println!("{}", rows.table);
    Ok(())
}

/// Both handlers must say the same, or the comparison means nothing.
fn check(bench: &Bench, work: Work) -> anyhow::Result<()> {
    let [ours, typed] = By::BOTH.map(|by| bench.answer(work, by).and_then(|body| meaning(work, &body)));
    let (ours, typed) = (ours?, typed?);
    ensure!(ours == typed, "{work:?}: we say {ours}, the comparator says {typed}");
    Ok(())
}

/// What an answer comes to, whatever its form.
fn meaning(work: Work, body: &[u8]) -> anyhow::Result<Value> {
    let answer: Value = serde_json::from_slice(body)?;
    Ok(match work {
        Work::Create => {
            let response = &answer["response"];
            ensure!(response["patchType"] == "JSONPatch", "no patch: {answer}");
            response["allowed"].clone()
        }
        Work::Delete | Work::Evict | Work::Bind => answer["response"]["allowed"].clone(),
        Work::FilterNames => Value::from(vec![
            answer["NodeNames"].clone(),
            answer["FailedAndUnresolvableNodes"].as_object().map_or(0, serde_json::Map::len).into(),
        ]),
        Work::Prioritize => {
            let score = |of: &Value| (of["Host"].as_str().unwrap_or_default().to_owned(), of["Score"].as_i64());
            let scores = answer.as_array().into_iter().flatten().map(score).collect::<Vec<_>>();
            // who is left out has 0, and only differences count
            let all = scores.len() == WORLD.2;
            let worst = scores.iter().filter_map(|(_, score)| *score).min().filter(|_| all).unwrap_or_default();
            let better = scores.into_iter().filter(|(_, score)| *score > Some(worst));
            better.map(|(host, score)| (host, score.unwrap_or_default() - worst)).collect()
        }
        Work::FilterNodes | Work::FilterAllNodes => answer["Nodes"]["items"].as_array().map_or(0, Vec::len).into(),
    })
}

struct Rows<'e> {
    effort: &'e Effort,
    table: Table,
}

impl<'e> Rows<'e> {
    fn new(effort: &'e Effort) -> Self {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN).set_header(["work", "ours", "comparator", "ratio", "target"]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Self { effort, table }
    }

    fn rate(&mut self, bench: &Bench, work: Work, name: &str, target: &str) -> anyhow::Result<()> {
        let time = Duration::from_secs_f64(self.effort.seconds);
        let [ours, typed] = self.in_turns(|by| bench.rate(work, by, 16, time))?;
        self.add(name, &format!("{ours:.0}"), &format!("{typed:.0}"), Some(ours / typed), target);
        Ok(())
    }

    /// One review after the other.
    fn reviews(&mut self, bench: &Bench) -> anyhow::Result<()> {
        self.times(bench, Work::Create, "CREATE review, 1 connection, p50 ms", 0.5, 1, "≤ 0.08")?;
        self.times(bench, Work::Delete, "DELETE review, volume not ours, p50 ms", 0.5, 1, "≤ 0.048")?;
        self.times(bench, Work::Evict, "eviction review, no backup in flight, p50 ms", 0.5, 1, "≤ 0.1")?;
        self.times(bench, Work::Bind, "binding review, p50 ms", 0.5, 1, "≤ 20")?;
        self.times(bench, Work::Bind, "binding review, p99 ms", 0.99, 1, "≤ 20")
    }

    /// `fewer` divides the number of requests, for those that take long.
    fn times(
        &mut self,
        bench: &Bench,
        work: Work,
        name: &str,
        quantile: f64,
        fewer: usize,
        target: &str,
    ) -> anyhow::Result<()> {
        let count = (self.effort.requests / fewer).max(20);
        let [ours, typed] = self.in_turns(|by| Ok(bench.times(work, by, count)?.quantile(quantile)))?;
        self.add(name, &format!("{ours:.3}"), &format!("{typed:.3}"), Some(typed / ours), target);
        Ok(())
    }

    /// The median of each.
    fn in_turns(&self, mut measure: impl FnMut(By) -> anyhow::Result<f64>) -> anyhow::Result<[f64; 2]> {
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..self.effort.rounds {
            for (by, values) in By::BOTH.into_iter().zip(&mut found) {
                values.push(measure(by)?);
            }
        }
        Ok(found.map(|mut values| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        }))
    }

    fn instructions(&mut self, found: Vec<(Work, By, f64)>) {
        let found: PerRequest = found.into_iter().map(|(work, by, count)| ((work, by), count)).collect();
        self.per_request("thousands of instructions per request, without TLS", 1e3, &found);
    }

    fn per_request(&mut self, unit: &str, divisor: f64, found: &PerRequest) {
        for work in Work::ALL {
            let [Some(ours), Some(typed)] = By::BOTH.map(|by| found.get(&(work, by))) else { continue };
            let name = format!("{work:?}, {unit}");
            let [ours_shown, typed_shown] = [ours, typed].map(|value| format!("{:.0}", value / divisor));
            self.add(&name, &ours_shown, &typed_shown, Some(typed / ours), "");
        }
    }

    fn caches(&mut self, name: &str, taken: &Taken, [memory, cpu]: [&str; 2]) {
        let (pods, volumes, nodes) = caches::WORLD;
        let name = format!("{name}: {pods} pods, {volumes} volumes, {nodes} nodes");
        self.add(&format!("{name}: MB after a re-list"), &format!("{:.0}", taken.relisted_mb), "", None, memory);
        self.add(&format!("{name}: MB after the first list"), &format!("{:.0}", taken.listed_mb), "", None, "");
        self.add(&format!("{name}: MB at the peak"), &format!("{:.0}", taken.peak_mb), "", None, "");
        self.add(&format!("{name}: CPU s to fill"), &format!("{:.1}", taken.listed_cpu_s), "", None, cpu);
    }

    fn add(&mut self, name: &str, ours: &str, typed: &str, ratio: Option<f64>, target: &str) {
        let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}×"));
        println!("{name}: {ours} {typed} {ratio} {target}");
        self.table.add_row([name, ours, typed, &ratio, target]);
    }
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}
