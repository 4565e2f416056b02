//! What is printed, and how: a table for people, JSON or YAML for programs. Colours only on a terminal, and not with
//! `NO_COLOR`.

use anyhow::Context;
use clap::{
    Args, ValueEnum,
    builder::styling::{AnsiColor, Style},
};
use comfy_table::{Table, presets};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// How a report is printed.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// How the answer is printed.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What a command has to say.
pub trait Report: Serialize {
    /// For people; may hold ANSI styles.
    fn text(&self) -> String;
}

/// The report in a format, with a line end.
pub fn render(report: &impl Report, format: Format) -> anyhow::Result<String> {
    let mut text = match format {
        Format::Table => report.text(),
        Format::Json => serde_json::to_string_pretty(report).context("cannot write JSON")?,
        Format::Yaml => serde_saphyr::to_string(report).context("cannot write YAML")?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Prints a report on standard output.
pub fn print(report: &impl Report, format: Format) -> anyhow::Result<()> {
    write(&render(report, format)?)
}

/// Writes to standard output; whoever has stopped reading is no error.
pub fn write(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Columns without a frame, and no blanks at the ends of lines.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let text = table.to_string();
    // each column begins with a blank
    let lines = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

/// What colour a text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Doubtful,
    /// Not as it should be.
    Bad,
    /// A heading.
    Heading,
}

/// A text in a colour.
pub fn paint(tone: Tone, text: &str) -> String {
    let style = match tone {
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Doubtful => AnsiColor::Yellow.on_default(),
        Tone::Bad => AnsiColor::Red.on_default().bold(),
        Tone::Heading => Style::new().bold(),
    };
    format!("{style}{text}{style:#}")
}

/// A duration in words, in whole seconds: `1m 20s`.
pub fn span(duration: SignedDuration) -> String {
    let whole = SignedDuration::from_secs(duration.as_secs());
    if whole.is_zero() { "0s".to_owned() } else { format!("{whole:#}") }
}

/// `1m 20s ago`, or `in 20s`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", span(at.duration_since(now)))
    } else {
        format!("{} ago", span(now.duration_since(at)))
    }
}

/// Says on standard error what is waited for, if a person looks on; the line goes when this is dropped.
#[derive(Debug, Default)]
pub struct Progress {
    shown: String,
}

impl Progress {
    /// What is waited for now.
    pub fn say(&mut self, text: &str) {
        if text != self.shown && io::stderr().is_terminal() {
            let _ = write!(anstream::stderr(), "\r\x1b[K{text} …");
            text.clone_into(&mut self.shown);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.shown.is_empty() {
            let _ = write!(anstream::stderr(), "\r\x1b[K");
        }
    }
}

/// Asks for a yes on the terminal. Without a terminal there is nobody to ask: an error that names `--yes`.
pub fn confirm(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        anyhow::bail!("{question} There is no terminal to ask on: say --yes");
    }
    let _ = write!(anstream::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct One {
        name: &'static str,
    }

    impl Report for One {
        fn text(&self) -> String {
            table(["NAME", "WHY"], [[self.name.to_owned(), String::new()]])
        }
    }

    #[test]
    fn a_report_in_three_formats() {
        let one = One { name: "a" };
        assert_eq!(render(&one, Format::Table).unwrap(), "NAME  WHY\na\n");
        let back = |text: &str| serde_saphyr::from_str::<serde_json::Value>(text).unwrap();
        let (json, yaml) = (render(&one, Format::Json).unwrap(), render(&one, Format::Yaml).unwrap());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), back(&yaml));
        assert_eq!(back(&yaml)["name"], "a");
    }

    #[test]
    fn times_are_in_words() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let second = SignedDuration::from_secs;
        assert_eq!(relative(now - second(80), now), "1m 20s ago");
        assert_eq!(relative(now + SignedDuration::from_millis(3_900), now), "in 3s");
        assert_eq!(relative(now, now), "0s ago");
    }

    #[test]
    fn colours_go_when_nobody_sees_them() {
        let painted = paint(Tone::Bad, "broken");
        assert!(painted.contains("\x1b["));
        let mut plain = anstream::StripStream::new(Vec::new());
        plain.write_all(painted.as_bytes()).unwrap();
        assert_eq!(plain.into_inner(), b"broken");
    }

    #[test]
    fn without_a_terminal_there_must_be_a_yes() {
        assert!(confirm("Sure?", true).unwrap());
        if !io::stdin().is_terminal() {
            assert!(confirm("Sure?", false).unwrap_err().to_string().contains("--yes"));
        }
    }
}
