//! `handoff doctor`: every precondition of an installation that works, each with what to do if it does not hold.

mod admission;
mod cluster;
mod installed;
mod longhorn;
mod rbac;
mod scheduler;

use super::{
    End,
    connection::{Cluster, ClusterArgs},
    output::{self, OutputArgs, Progress, Report, Tone, paint},
};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

/// `handoff doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Name of our webhook configurations, mutating and validating.
    #[arg(long, env = "HANDOFF_WEBHOOK_CONFIGURATION", default_value = "handoff")]
    pub webhook_configuration: String,
    /// Name of the Secret with the certificates.
    #[arg(long, env = "HANDOFF_CERTS_SECRET", default_value = "handoff-certs")]
    pub certs_secret: String,
    /// Namespace of the agents.
    #[arg(long, value_name = "NAMESPACE", default_value = "handoff-agent")]
    pub agent_namespace: String,
    /// Only what is not as it should be.
    #[arg(short, long)]
    pub quiet: bool,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// How it stands with one precondition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// It holds.
    Ok,
    /// Handoff works without it, but not as well as it could.
    Warning,
    /// It does not hold, and Handoff does not work without it.
    Failed,
    /// It could not be looked at.
    Unknown,
}

/// One precondition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is looked at.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What was seen.
    pub says: String,
    /// What to do; empty when nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Check {
    fn new(name: impl Into<String>, state: State, says: impl Into<String>, fix: impl Into<String>) -> Self {
        let fix = if state == State::Ok { String::new() } else { fix.into() };
        Self { name: name.into(), state, says: says.into(), fix }
    }

    /// Handoff does not work without it.
    pub fn required(name: impl Into<String>, holds: bool, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, if holds { State::Ok } else { State::Failed }, says, fix)
    }

    /// Handoff works without it, less well.
    pub fn advised(name: impl Into<String>, holds: bool, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, if holds { State::Ok } else { State::Warning }, says, fix)
    }

    /// It could not be looked at.
    pub fn unknown(name: impl Into<String>, error: &kube::Error) -> Self {
        let fix = match error {
            kube::Error::Api(status) if status.code == 403 => "look at it as somebody who may: an administrator",
            _ => "see that the API server can be reached, and try again",
        };
        Self::new(name, State::Unknown, format!("could not be looked at: {error}"), fix)
    }
}

/// All that was looked at.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// Handoff can work: nothing that is required is missing.
    pub healthy: bool,
    /// Each precondition.
    pub checks: Vec<Check>,
    #[serde(skip)]
    quiet: bool,
}

/// Looks at everything.
pub async fn run(args: DoctorArgs) -> anyhow::Result<End> {
    let cluster = args.cluster.connect().await?;
    let checks = examine(&cluster, &args, Timestamp::now()).await?;
    let report = diagnosis(checks, args.quiet);
    output::print(&report, args.output.output)?;
    Ok(if report.healthy { End::Yes } else { End::No })
}

async fn examine(at: &Cluster, args: &DoctorArgs, now: Timestamp) -> anyhow::Result<Vec<Check>> {
    let mut progress = Progress::default();
    let mut checks = cluster::api(at).await?;
    progress.say("looking at Longhorn");
    checks.extend(longhorn::look(at).await);
    progress.say("looking at Handoff");
    checks.extend(installed::look(at, &args.agent_namespace, now).await);
    progress.say("looking at webhooks and certificates");
    checks.extend(admission::look(at, &args.webhook_configuration, &args.certs_secret, now).await);
    progress.say("looking at permissions");
    checks.extend(rbac::look(at).await);
    progress.say("asking the replicas for their metrics");
    checks.extend(scheduler::look(at).await);
    progress.say("asking the kubelets for their configuration");
    checks.extend(cluster::nodes(at).await);
    Ok(checks)
}

fn diagnosis(checks: Vec<Check>, quiet: bool) -> Diagnosis {
    Diagnosis { healthy: checks.iter().all(|c| c.state != State::Failed), checks, quiet }
}

impl Report for Diagnosis {
    fn text(&self) -> String {
        let shown = self.checks.iter().filter(|c| !self.quiet || c.state != State::Ok);
        let mut lines = shown.map(Check::text).collect::<Vec<_>>();
        let count = |state: State| self.checks.iter().filter(|c| c.state == state).count();
        let [ok, warnings, failed, unknown] = [State::Ok, State::Warning, State::Failed, State::Unknown].map(count);
        let tone = if failed > 0 { Tone::Bad } else { Tone::Good };
        let summary = format!("{ok} ok, {warnings} warning(s), {failed} failed, {unknown} could not be looked at");
        lines.push(format!("\n{}", paint(tone, &summary)));
        lines.join("\n")
    }
}

impl Check {
    fn text(&self) -> String {
        let (tone, word) = match self.state {
            State::Ok => (Tone::Good, "ok     "),
            State::Warning => (Tone::Doubtful, "warning"),
            State::Failed => (Tone::Bad, "FAILED "),
            State::Unknown => (Tone::Doubtful, "unknown"),
        };
        let fix = if self.fix.is_empty() { String::new() } else { format!("\n        → {}", self.fix) };
        format!("{} {}: {}{fix}", paint(tone, word), self.name, self.says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{fake::Api as Fake, rights};
    use clap::FromArgMatches;
    use serde_json::json;

    #[tokio::test]
    async fn the_charts_test_may_look_at_all_but_the_kubelets() {
        let api = Fake::default();
        api.put(
            "/version",
            json!({"major": "1", "minor": "36", "gitVersion": "", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        );
        api.put("/api/v1/nodes/a", json!({"metadata": {"name": "a"}}));
        let pod = json!({"metadata": {"name": "handoff-1"}, "status": {"phase": "Running"}});
        api.put("/api/v1/namespaces/handoff-system/pods/handoff-1", pod);
        let flags = DoctorArgs::augment_args(clap::Command::new("doctor")).get_matches_from(["doctor"]);
        let args = DoctorArgs::from_arg_matches(&flags).unwrap();
        examine(&api.cluster("shop"), &args, Timestamp::now()).await.unwrap();
        let template = include_str!("../../../../deploy/helm/handoff/templates/test.yaml");
        let (missing, idle) = rights::compare(template, &api.asked());
        assert_eq!((missing, idle), (vec!["get nodes/proxy. a".to_owned()], Vec::new()));
    }

    #[test]
    fn only_what_is_required_makes_it_unhealthy() {
        let of = |state| Check::new("x", state, "says", "do this");
        for (states, healthy) in [
            (&[State::Ok, State::Warning, State::Unknown][..], true),
            (&[State::Ok, State::Failed], false),
            (&[], true),
        ] {
            assert_eq!(diagnosis(states.iter().copied().map(of).collect(), false).healthy, healthy, "{states:?}");
        }
    }

    #[test]
    fn what_does_not_hold_has_its_fix_and_what_holds_has_none() {
        let checks = vec![Check::required("a", true, "fine", "fix a"), Check::required("b", false, "broken", "fix b")];
        let report = diagnosis(checks, true);
        let text = report.text();
        assert!(text.contains("b: broken\n        → fix b"), "{text}");
        assert!(!text.contains("a: fine") && !text.contains("fix a"), "quiet: {text}");
        assert!(text.contains("1 ok, 0 warning(s), 1 failed"), "{text}");
    }
}
