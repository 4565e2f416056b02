//! Every permission of `deploy/kustomize/rbac.yaml` taken away, one at a time: Handoff says which one is missing, once.

use crate::{
    bench::{Bench, SOON},
    control_plane::User,
    http::{Read, eventually},
    process::{Process, free_port},
    report::figure,
};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{ffi::OsStr, path::Path, time::Duration};

/// What Handoff says of a permission that it does not have.
const SAID: &str = "missing permission: ";
/// What it says when it has looked at all of them.
const LOOKED: &str = "permissions looked at";

/// One verb on one resource, as one rule of a role.
struct Atom {
    /// Path of its role.
    role: String,
    group: String,
    resource: String,
    verb: String,
    name: Option<String>,
    namespace: String,
}

impl Atom {
    fn rule(&self) -> Value {
        let mut rule = json!({"apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb]});
        if let Some(name) = &self.name {
            rule["resourceNames"] = json!([name]);
        }
        rule
    }

    /// The words by which whoever reads the log finds the line in rbac.yaml.
    fn words(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let name = self.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
        let place = if self.namespace.is_empty() { String::new() } else { format!(" in namespace {}", self.namespace) };
        format!("{SAID}{} {}{group}{name}{place};", self.verb, self.resource)
    }
}

pub async fn run(bench: &mut Bench) -> Result<()> {
    let atoms = atoms(bench).await?;
    figure("permissions", atoms.len());
    let all = log_of_a_start(bench, "permissions-all").await?;
    let lines = said(&all);
    bench.report.check("with all permissions nothing is missing", lines.is_empty(), lines.join(" | "));
    let mut unclear = Vec::new();
    for (at, atom) in atoms.iter().enumerate() {
        let kept = |a: &&Atom| a.role == atom.role && !std::ptr::eq(*a, atom);
        set_rules(bench, &atom.role, atoms.iter().filter(kept)).await?;
        settle(bench, atom, false).await?;
        let log = log_of_a_start(bench, &format!("permissions-{at}")).await?;
        let lines = said(&log);
        if lines.len() != 1 || !lines[0].contains(&atom.words()) {
            unclear.push(format!("without '{}': {}", atom.words(), lines.join(" | ")));
        }
        set_rules(bench, &atom.role, atoms.iter().filter(|a| a.role == atom.role)).await?;
        settle(bench, atom, true).await?;
    }
    let saw = format!("{} of {} {}", atoms.len() - unclear.len(), atoms.len(), unclear.join("; "));
    bench.report.check("each one that is taken away is named, once, and nothing else is", unclear.is_empty(), saw);
    Ok(())
}

/// The role of `deploy/scheduler/bind`, which other checks may have left: nobody needs it but for the verb bind.
const OPTIONAL: &str = "handoff-bind";

/// All that Handoff's service account has been granted, as the API server stores it.
async fn atoms(bench: &Bench) -> Result<Vec<Atom>> {
    let mut atoms = Vec::new();
    for kind in ["clusterrole", "role"] {
        let bindings = bench.admin.get(&format!("/apis/rbac.authorization.k8s.io/v1/{kind}bindings")).await?.ok()?;
        let to_us = |b: &&Value| {
            let ours = |s: &Value| s.text("/name") == "handoff" && s.text("/namespace") == "handoff-system";
            b.items("/subjects").iter().any(ours)
        };
        for binding in bindings.items("/items").iter().filter(to_us) {
            let namespace = binding.text("/metadata/namespace").to_owned();
            let place = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
            let role = binding.text("/roleRef/name");
            if role == OPTIONAL {
                continue;
            }
            let role = format!("/apis/rbac.authorization.k8s.io/v1{place}/{kind}s/{role}");
            let rules = bench.admin.get(&role).await?.ok()?;
            rules.items("/rules").iter().for_each(|rule| atoms.extend(split(&role, &namespace, rule)));
        }
    }
    if atoms.is_empty() {
        bail!("nothing is granted to Handoff");
    }
    Ok(atoms)
}

fn split(role: &str, namespace: &str, granted: &Value) -> Vec<Atom> {
    let texts =
        |field: &str| granted.items(field).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let names = texts("/resourceNames").into_iter().map(Some).collect::<Vec<_>>();
    let names = if names.is_empty() { vec![None] } else { names };
    let mut atoms = Vec::new();
    for group in texts("/apiGroups") {
        for resource in texts("/resources") {
            for verb in texts("/verbs") {
                atoms.extend(names.iter().map(|name| Atom {
                    role: role.to_owned(),
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    name: name.clone(),
                    namespace: namespace.to_owned(),
                }));
            }
        }
    }
    atoms
}

async fn set_rules(bench: &Bench, role: &str, atoms: impl Iterator<Item = &Atom>) -> Result<()> {
    let rules = atoms.map(Atom::rule).collect::<Vec<_>>();
    bench.admin.merge(role, &json!({"rules": rules})).await.map(drop)
}

/// Waits until the API server goes by the changed role.
async fn settle(bench: &Bench, atom: &Atom, allowed: bool) -> Result<()> {
    let handoff = bench.plane.api(User::Handoff)?;
    let (resource, subresource) = atom.resource.split_once('/').unwrap_or((&atom.resource, ""));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
        "resourceAttributes": {"group": atom.group, "resource": resource, "subresource": subresource,
            "verb": atom.verb, "name": atom.name.clone().unwrap_or_default(), "namespace": atom.namespace}}});
    let settled = eventually(SOON, async || {
        let answer = handoff.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await?.ok()?;
        Ok((answer["status"]["allowed"] == json!(allowed)).then_some(()))
    });
    settled.await?.with_context(|| format!("the API server does not go by the role without '{}'", atom.words()))
}

/// Starts one replica more and returns its log as soon as it has looked at its permissions.
async fn log_of_a_start(bench: &Bench, name: &str) -> Result<String> {
    let kubeconfig = bench.plane.kubeconfig(User::Handoff)?;
    let mut arguments = ["serve", "--pod-name=permissions", "--namespace=handoff-system", "--address=127.0.0.1"]
        .map(str::to_owned)
        .to_vec();
    for port in ["webhook", "extender", "metrics"] {
        arguments.push(format!("--{port}-port={}", free_port()?));
    }
    arguments.extend(["--log-format=human".to_owned(), "--log=info".to_owned()]);
    let env = [("KUBECONFIG", OsStr::new(&kubeconfig))];
    let mut process = Process::start(name, &bench.plane.logs(), bench.replicas.program(), &arguments, &env)?;
    let log = bench.plane.logs().join(format!("{name}.log"));
    let looked = eventually(Duration::from_secs(30), async || {
        process.check()?;
        let text = read(&log)?;
        Ok(text.contains(LOOKED).then_some(text))
    });
    let text = looked.await?.context("a replica does not look at its permissions")?;
    process.kill();
    Ok(text)
}

fn read(log: &Path) -> Result<String> {
    std::fs::read_to_string(log).context("cannot read a log")
}

fn said(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(SAID)).collect()
}
