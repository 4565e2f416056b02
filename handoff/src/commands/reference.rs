//! `handoff completion`, `handoff man` and the page docs/cli.md: all made from the flags themselves.

use super::{End, output};
use crate::args;
use anyhow::Context;
use clap::{Arg, Args, Command, CommandFactory, ValueHint};
use clap_complete::Shell;
use std::{fmt::Write, path::PathBuf};

/// `handoff completion`.
#[derive(Args, Debug)]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `handoff man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Write one page per command into this directory, in place of the first page to standard output.
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
}

/// Prints a completion script.
pub fn completion(args: &CompletionArgs) -> anyhow::Result<End> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::Args::command(), "handoff", &mut script);
    output::write(&String::from_utf8(script).context("the script is not text")?)?;
    Ok(End::Yes)
}

/// Prints the man page, or writes all of them.
pub fn man(args: &ManArgs) -> anyhow::Result<End> {
    let command = args::Args::command();
    if let Some(directory) = &args.directory {
        clap_mangen::generate_to(command, directory)
            .with_context(|| format!("cannot write man pages to {}", directory.display()))?;
        return Ok(End::Yes);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).context("cannot make the man page")?;
    output::write(&String::from_utf8(page).context("the man page is not text")?)?;
    Ok(End::Yes)
}

/// Prints docs/cli.md.
pub fn markdown() -> anyhow::Result<End> {
    output::write(&page(args::Args::command()))?;
    Ok(End::Yes)
}

/// Heading of the flags that say which cluster.
const CLUSTER: &str = "Cluster";

const INTRO: &str = "\
# Commands

Made from the flags by `make cli-docs`; a test compares. What is said of commands and flags is in `handoff COMMAND --help` and
in the man pages, too (`handoff man --directory DIR`).

As a plugin of kubectl: `ln -s \"$(command -v handoff)\" ~/.local/bin/kubectl-handoff`, in any directory of `PATH`; then
`kubectl handoff status`. Completion: `source <(handoff completion bash)`.

`-o json` and `-o yaml` print what the table shows, with times in RFC 3339 and durations in seconds. Colours are used on a
terminal only, and not with `NO_COLOR`. What is waited for is said on standard error.

| exit code | meaning |
|---|---|
| 0 | done, or yes |
| 1 | it could not be done: the message says why |
| 2 | the command line cannot be understood |
| 3 | no. `doctor`: something required is missing; `cordon-check`: not now, ask again; `uninstall`: refused, backups are owed; `resume`, `abandon`: written, but no replica has taken the order yet; `simulate`: an invariant did not hold |
| 4 | `cordon-check`: not before somebody has done something |

Who may do what: the roles `handoff-view` (`status`, `history`) and `handoff-edit` (`release`, `resume`, `abandon`) are part
of the cluster's own `view` and `edit`. `explain`, `plan` and `cordon-check` look at nodes, volumes and Longhorn in the whole
cluster: bind `handoff-inspect` for them. `doctor`, `uninstall` and `release node/NAME`, which writes what all replicas share,
are for administrators.
";

/// The page.
fn page(mut command: Command) -> String {
    command.build();
    let mut text = INTRO.to_owned();
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help").collect::<Vec<_>>();
    text.push_str("\n| command | what it does |\n|---|---|\n");
    for sub in &shown {
        let name = sub.get_name();
        let _ = writeln!(text, "| [`{name}`](#handoff-{name}) | {} |", about(sub));
    }
    let with_cluster = shown.iter().find(|c| c.get_arguments().any(is_of_cluster));
    if let Some(sub) = with_cluster {
        text.push_str("\n## Flags that say which cluster\nThey are those of kubectl.\n\n");
        table(&mut text, sub.get_arguments().filter(|a| is_of_cluster(a)));
    }
    for sub in shown {
        let _ = write!(text, "\n## handoff {}\n{}\n\n", sub.get_name(), about(sub));
        let flags =
            sub.get_arguments().filter(|a| !is_of_cluster(a) && !matches!(a.get_id().as_str(), "help" | "version"));
        let flags = flags.collect::<Vec<_>>();
        let and = if flags.is_empty() { "Takes" } else { "And" };
        if !flags.is_empty() {
            table(&mut text, flags.into_iter());
        }
        if sub.get_arguments().any(is_of_cluster) {
            let _ = write!(text, "\n{and} the [flags that say which cluster](#flags-that-say-which-cluster).\n");
        }
    }
    text
}

fn is_of_cluster(arg: &Arg) -> bool {
    arg.get_help_heading() == Some(CLUSTER)
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn table<'a>(text: &mut String, args: impl Iterator<Item = &'a Arg>) {
    text.push_str("| flag | what | default | variable |\n|---|---|---|---|\n");
    for arg in args.filter(|a| !a.is_hide_set()) {
        let values = arg.get_value_names().into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let takes = arg.get_action().takes_values();
        let value = if takes && !arg.is_positional() { format!(" {values}") } else { String::new() };
        let name = match (arg.get_short(), arg.get_long()) {
            (Some(short), Some(long)) => format!("-{short}, --{long}{value}"),
            (None, Some(long)) => format!("--{long}{value}"),
            (Some(short), None) => format!("-{short}{value}"),
            (None, None) => values,
        };
        let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let possible = arg.get_possible_values();
        let possible = possible.iter().filter(|_| takes).map(|v| format!("`{}`", v.get_name())).collect::<Vec<_>>();
        let possible = if possible.is_empty() { String::new() } else { format!(" ({})", possible.join(", ")) };
        let default = arg.get_default_values().iter().filter(|_| takes).map(|v| v.to_string_lossy().into_owned());
        let default = default.filter(|v| !v.is_empty()).map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" ");
        let variable = arg.get_env().map(|v| format!("`{}`", v.to_string_lossy())).unwrap_or_default();
        let help = help.replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(text, "| `{name}` | {help}{possible} | {default} | {variable} |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_that_of_these_flags() {
        let written = include_str!("../../../docs/cli.md");
        let (made, written) = (page(args::Args::command()), written.lines().collect::<Vec<_>>());
        for (line, made) in made.lines().enumerate() {
            assert_eq!(written.get(line), Some(&made), "line {}: run `make cli-docs`", line + 1);
        }
        assert_eq!(made.lines().count(), written.len(), "run `make cli-docs`");
    }

    #[test]
    fn every_shell_has_its_script_and_every_command_its_page() {
        use clap::ValueEnum;
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut args::Args::command(), "handoff", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("cordon-check"), "{shell}");
        }
        let directory = std::env::temp_dir().join(format!("handoff-man-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        man(&ManArgs { directory: Some(directory.clone()) }).unwrap();
        for command in args::Args::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let page = directory.join(format!("handoff-{}.1", command.get_name()));
            assert!(std::fs::read_to_string(&page).is_ok_and(|p| p.contains(".SH NAME")), "{}", page.display());
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_flags_make_sense_together() {
        args::Args::command().debug_assert();
    }
}
