//! `cli`: the tools as people call them, on a real cluster: as `handoff` and as a plugin of kubectl, in every format. What
//! they print must be what the format says, and their exit code what docs/cli.md says of it.

use crate::{
    args::CliArgs,
    bench::Bench,
    cluster::Read,
    report::{Claim, print_claims},
    settle,
    workload::{self, NAMESPACE_NAME},
};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};
use tempfile::TempDir;
use tokio::process::Command;

/// An exit code of docs/cli.md that a report must come with, by what the report says.
type Expected = fn(&Value) -> Option<i32>;

/// `cli`: whether every claim held.
pub async fn run(bench: &Bench, args: &CliArgs) -> Result<bool> {
    bench.with_handoff().await.context("installing Handoff")?;
    workload::deploy(&bench.cluster, args.workload, &bench.common.image).await?;
    let running = settle::settle(bench).await?;
    let claim = format!("pvc/{}", workload::claim(&bench.cluster, &running).await?);
    let (pod, node) = (format!("pod/{}", running.pod), format!("node/{}", running.node));
    let tools = Tools::of(&args.handoff)?;

    let yes: Expected = |_| Some(0);
    let reports: [(&[&str], Expected); 10] = [
        (&["status"], yes),
        (&["status", "-n", NAMESPACE_NAME], yes),
        (&["explain", &pod, "-n", NAMESPACE_NAME], yes),
        (&["explain", &claim, "-n", NAMESPACE_NAME], yes),
        (&["explain", &node], yes),
        (&["plan", &running.node], yes),
        (&["cordon-check", &running.node], answered),
        (&["doctor"], healthy),
        (&["history"], yes),
        (&["uninstall", "--dry-run"], withdrawable),
    ];
    let mut claims = Vec::new();
    for (words, expected) in reports {
        for way in [Way::Program, Way::Plugin] {
            claims.extend(tools.report(way, words, expected).await?);
        }
    }
    for (words, code) in [
        (&["explain", "pod/nobody", "-n", NAMESPACE_NAME][..], 1),
        (&["status", "--context", "nowhere"], 1),
        (&["resume", &pod, "-n", NAMESPACE_NAME], 1),
        (&["plan"], 2),
        (&["nonsense"], 2),
    ] {
        claims.push(tools.refusal(words, code).await?);
    }
    claims.extend(tools.texts().await?);
    let listed = workload::kubectl(&["get", "vho", "-A"]).await;
    claims.push(Claim::new("kubectl get vho -A", listed.is_ok(), String::new()));
    print_claims(&claims);
    let (passed, failed): (Vec<_>, Vec<_>) = claims.iter().partition(|c| c.holds);
    println!("{} passed, {} failed", passed.len(), failed.len());
    Ok(failed.is_empty())
}

fn answered(report: &Value) -> Option<i32> {
    match report.text("/answer") {
        "Safe" => Some(0),
        "Wait" => Some(3),
        "Blocked" => Some(4),
        _ => None,
    }
}

/// A working installation is what this runs on.
fn healthy(report: &Value) -> Option<i32> {
    (report.pointer("/healthy")? == &Value::Bool(true)).then_some(0)
}

fn withdrawable(report: &Value) -> Option<i32> {
    let refused = report.pointer("/refused")?.as_bool()?;
    let steps = report.items("/steps").iter().map(|s| s.text("/what")).collect::<Vec<_>>();
    let all = ["mutatingWebhooks", "validatingWebhooks", "replicas", "lease", "secret"];
    all.iter().all(|what| steps.contains(what)).then_some(if refused { 3 } else { 0 })
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Program,
    Plugin,
}

/// The program, and a directory of `PATH` in which it is a plugin.
struct Tools {
    program: PathBuf,
    path: OsString,
    /// It goes with this.
    _plugins: TempDir,
}

impl Tools {
    fn of(program: &Path) -> Result<Self> {
        let program = program.canonicalize().with_context(|| format!("no program {}", program.display()))?;
        let plugins = tempfile::tempdir().context("a directory for the plugin")?;
        std::os::unix::fs::symlink(&program, plugins.path().join("kubectl-handoff"))
            .context("a link to the program")?;
        let old = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([plugins.path().to_owned()].into_iter().chain(env::split_paths(&old)));
        Ok(Self { program, path: path.context("PATH")?, _plugins: plugins })
    }

    async fn call(&self, way: Way, words: &[&str]) -> Result<Output> {
        let mut command = match way {
            Way::Program => Command::new(&self.program),
            Way::Plugin => {
                let mut kubectl = Command::new("kubectl");
                kubectl.arg("handoff");
                kubectl
            }
        };
        command.args(words).env("PATH", &self.path).stdin(Stdio::null()).kill_on_drop(true);
        command.output().await.with_context(|| format!("cannot run {way:?} {}", words.join(" ")))
    }

    /// One report in each format.
    async fn report(&self, way: Way, words: &[&str], expected: Expected) -> Result<Vec<Claim>> {
        let name = match way {
            Way::Program => format!("handoff {}", words.join(" ")),
            Way::Plugin => format!("kubectl handoff {}", words.join(" ")),
        };
        let mut claims = Vec::new();
        for format in ["table", "json", "yaml"] {
            let output = self.call(way, &[words, &["-o", format]].concat()).await?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let (holds, found) = match format {
                "table" => {
                    let said = !text.trim().is_empty() && !text.contains('\u{1b}');
                    (said && matches!(output.status.code(), Some(0 | 3 | 4)), format!("{} lines", text.lines().count()))
                }
                _ => match parsed(format, &text) {
                    Ok(report) => {
                        let code = expected(&report);
                        (code.is_some() && code == output.status.code(), format!("{code:?} expected"))
                    }
                    Err(error) => (false, error.to_string()),
                },
            };
            let said =
                if holds { String::new() } else { format!(": {}{text}", String::from_utf8_lossy(&output.stderr)) };
            claims.push(Claim::new(&format!("{name} -o {format}"), holds, format!("{}, {found}{said}", output.status)));
        }
        Ok(claims)
    }

    /// What cannot be done is an error on standard error, and nothing on standard output.
    async fn refusal(&self, words: &[&str], code: i32) -> Result<Claim> {
        let output = self.call(Way::Program, words).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        let holds = output.status.code() == Some(code) && output.stdout.is_empty() && !said.trim().is_empty();
        let found = format!("{}: {}", output.status, said.lines().next().unwrap_or_default());
        Ok(Claim::new(&format!("handoff {} ends with {code}", words.join(" ")), holds, found))
    }

    /// What is printed for other programs.
    async fn texts(&self) -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for (words, begins) in [
            (&["completion", "bash"][..], "_handoff"),
            (&["completion", "zsh"], "#compdef handoff"),
            (&["completion", "fish"], "# Print an optspec"),
            (&["man"], ".ie"),
            (&["--version"], "handoff "),
            (&["--help"], "Pods move within seconds"),
        ] {
            let output = self.call(Way::Program, words).await?;
            let text = String::from_utf8_lossy(&output.stdout);
            let first = text.lines().next().unwrap_or_default();
            let holds = output.status.success() && text.starts_with(begins);
            claims.push(Claim::new(&format!("handoff {}", words.join(" ")), holds, first));
        }
        let output = self.call(Way::Program, &["crd"]).await?;
        let crd = parsed("yaml", &String::from_utf8_lossy(&output.stdout));
        let holds = crd.is_ok_and(|crd| crd.text("/metadata/name") == "volumehandoffs.volumehandoff.io");
        claims.push(Claim::new("handoff crd prints the definition", holds, output.status.to_string()));
        Ok(claims)
    }
}

fn parsed(format: &str, text: &str) -> Result<Value> {
    match format {
        "json" => serde_json::from_str(text).context("no JSON"),
        _ => serde_saphyr::from_str(text).context("no YAML"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_exit_code_follows_from_the_report() {
        assert_eq!(answered(&json!({"answer": "Blocked"})), Some(4));
        assert_eq!(answered(&json!({})), None);
        assert_eq!(healthy(&json!({"healthy": false})), None, "the test needs a working installation");
        let steps =
            ["mutatingWebhooks", "validatingWebhooks", "replicas", "lease", "secret"].map(|w| json!({"what": w}));
        assert_eq!(withdrawable(&json!({"refused": true, "steps": steps})), Some(3));
        assert_eq!(withdrawable(&json!({"refused": false, "steps": steps[1..]})), None);
    }

    #[tokio::test]
    async fn what_a_program_prints_and_ends_with_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("handoff");
        let script = "#!/bin/sh\necho '{\"answer\": \"Wait\"}'\nexit 3\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let tools = Tools::of(&program).unwrap();
        let held = |claims: Vec<Claim>| claims.iter().map(|c| c.holds).collect::<Vec<_>>();
        assert_eq!(held(tools.report(Way::Program, &["x"], answered).await.unwrap()), [true, true, true]);
        assert_eq!(held(tools.report(Way::Program, &["x"], |_| Some(0)).await.unwrap()), [true, false, false]);
        assert!(!tools.refusal(&["x"], 3).await.unwrap().holds, "it says on standard output what is an error");
    }
}
