//! Runs the model check and prints what it visited: `handoff-model [small|large] [states]`.

use handoff_model::{
    explore::{Bounds, explore},
    model::Model,
    suite,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let suite = if args.next().is_some_and(|a| a == "large") { suite::large() } else { suite::small() };
    let states = args.next().and_then(|a| a.parse().ok()).unwrap_or(8_000_000);
    let mut code = ExitCode::SUCCESS;
    for config in suite {
        let report = explore(&Model::new(config), Bounds { states });
        println!("{report}");
        if report.broken.is_some() || !report.complete {
            code = ExitCode::FAILURE;
        }
    }
    code
}
