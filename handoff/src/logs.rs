//! The log, on standard error so that the output of the tools stays clean.

use crate::args::LogFormat;
use anyhow::{Context, anyhow};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt};

/// Starts the log. An unreadable filter is an error that shows it.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    log(format, filter, std::io::stderr)?.try_init().map_err(|e| anyhow!("cannot start the log: {e}"))
}

fn log<W>(format: LogFormat, filter: &str, to: W) -> anyhow::Result<Box<dyn Subscriber + Send + Sync>>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).with_context(|| format!("bad log filter {filter:?}"))?;
    // colours are for a terminal, and a log goes to a file
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(to);
    Ok(match format {
        LogFormat::Json => Box::new(log.json().flatten_event(true).finish()),
        LogFormat::Human => Box::new(log.compact().finish()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str) -> String {
        let page = Page::default();
        let writer = page.clone();
        let log = log(format, filter, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(log, || {
            tracing::info!(handoff = "pv", owed = ?["b1"], "moving from a\nto b");
            tracing::debug!("not at this level");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_of_json_is_one_object_whatever_is_in_it() {
        let text = logged(LogFormat::Json, "info");
        let [line] = &text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["level"], &line["handoff"]), (&"INFO".into(), &"pv".into()));
        assert_eq!(line["message"], "moving from a\nto b");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && line["target"].is_string(), "{line}");
    }

    #[test]
    fn people_get_text() {
        let text = logged(LogFormat::Human, "info");
        assert!(text.contains("moving from a") && text.contains("handoff=") && !text.contains('{'), "{text}");
        assert_eq!(logged(LogFormat::Human, "warn"), "");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_shown() {
        let error = start(LogFormat::Json, "handoff=loud").unwrap_err();
        assert!(error.to_string().contains("handoff=loud"), "{error}");
    }
}
