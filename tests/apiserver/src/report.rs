//! What was checked, and what was seen.

use std::fmt::Display;

/// Collects checks and prints them as they are made.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    failed: Vec<String>,
    group: &'static str,
}

impl Report {
    /// Begins a group of checks.
    pub fn group(&mut self, name: &'static str) {
        println!("\n== {name}");
        self.group = name;
    }

    /// One claim, whether it held, and what was seen.
    pub fn check(&mut self, claim: &str, held: bool, saw: impl Display) {
        let saw = saw.to_string();
        let saw = if saw.is_empty() { saw } else { format!(": {saw}") };
        if held {
            self.passed += 1;
            println!("ok      {claim}{saw}");
        } else {
            self.failed.push(format!("{}: {claim}{saw}", self.group));
            println!("FAILED  {claim}{saw}");
        }
    }

    /// The last lines; whether everything held.
    pub fn end(&self) -> bool {
        println!();
        self.failed.iter().for_each(|failed| println!("FAILED  {failed}"));
        println!("{} passed, {} failed", self.passed, self.failed.len());
        self.failed.is_empty() && self.passed > 0
    }
}

/// A figure that nothing is demanded of.
pub fn figure(what: &str, value: impl Display) {
    println!("        {what}: {value}");
}
