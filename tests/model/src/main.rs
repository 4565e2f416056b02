//! Runs the model check and prints what it visited: `handoff-model [small|large] [states] [part of a name]`.

use handoff_model::{
    explore::Bounds,
    pairs::{explore, fits},
    suite,
};
use std::process::ExitCode;

/// More than any of the worlds has that are searched as wholes.
const STATES: usize = 8_000_000;
/// More than any of the worlds has that are searched as pairs, which take 50 bytes each.
const PAIRS: usize = 120_000_000;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let suite = if args.next().is_some_and(|a| a == "large") { suite::large() } else { suite::small() };
    let states = args.next().and_then(|a| a.parse().ok());
    let part = args.next().unwrap_or_default();
    let mut code = ExitCode::SUCCESS;
    for config in suite.into_iter().filter(|config| config.name.contains(&part)) {
        let states = states.unwrap_or(if fits(&config) { PAIRS } else { STATES });
        let report = explore(config, Bounds { states });
        println!("{report}");
        if report.broken.is_some() || !report.complete {
            code = ExitCode::FAILURE;
        }
    }
    code
}
