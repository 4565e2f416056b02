//! The log, on standard error so that the output of the tools stays clean.

use crate::args::LogFormat;
use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

/// Starts the log. An unreadable filter is an error that shows it.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("bad log filter {filter:?}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Human => log.compact().try_init(),
    }
    .map_err(|e| anyhow!("cannot start the log: {e}"))
}
