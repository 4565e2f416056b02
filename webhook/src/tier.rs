//! Marks by which a scheduler that asks the extender sees the pods that concern it, and only those. Both are off unless
//! they are configured: without them the extender, if there is one, is asked for every pod.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

use crate::{
    patch::Patch,
    pod::Spec,
    review::{Text, text},
};

/// The name that the API server gives to pods that name no scheduler.
const DEFAULT_SCHEDULER: &str = "default-scheduler";
const SCHEDULER_NAME: &str = "/spec/schedulerName";
const RESOURCES: &str = "/spec/containers/0/resources";

/// Which marks new pods get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchedulerTier {
    /// Name of a second scheduler; pods of the default scheduler are given to it.
    pub scheduler_name: Option<String>,
    /// An extended resource such as `volumehandoff.io/volume`, of which pods ask for one: the extender's
    /// `managedResources`, with `ignoredByScheduler: true`.
    pub marker: Option<String>,
}

impl SchedulerTier {
    /// The name of a second scheduler, if it is one that Kubernetes takes.
    pub fn parse_name(text: &str) -> Result<String, String> {
        if !is_domain(text) {
            return Err("it must be a DNS name in lower case".to_owned());
        }
        if text == DEFAULT_SCHEDULER {
            return Err(format!("it must be another scheduler than {DEFAULT_SCHEDULER}"));
        }
        Ok(text.to_owned())
    }

    /// The name of a marker, if it is one that Kubernetes takes.
    pub fn parse_marker(text: &str) -> Result<String, String> {
        let good = text.split_once('/').is_some_and(|(domain, name)| {
            is_domain(domain) && domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io") && is_name(name)
        });
        let wanted = "it must be an extended resource such as volumehandoff.io/volume";
        if good { Ok(text.to_owned()) } else { Err(wanted.to_owned()) }
    }
}

fn is_domain(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label =
        |l: &str| !l.is_empty() && l.len() <= 63 && l.chars().all(inner) && !l.starts_with('-') && !l.ends_with('-');
    text.len() <= 253 && text.split('.').all(label)
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63 && text.chars().all(inner) && text.starts_with(ends) && text.ends_with(ends)
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow)]
    resources: Option<Resources<'a>>,
}

/// The amounts are not ours to judge.
#[derive(Deserialize)]
struct Resources<'a> {
    #[serde(borrow)]
    requests: Option<Amounts<'a>>,
    #[serde(borrow)]
    limits: Option<Amounts<'a>>,
}

type Amounts<'a> = BTreeMap<Text<'a>, &'a RawValue>;

impl Resources<'_> {
    fn name(&self, resource: &str) -> bool {
        let amounts = self.requests.iter().chain(&self.limits);
        amounts.flat_map(BTreeMap::keys).any(|name| **name == *resource)
    }
}

/// Adds the marks that are configured and not there yet.
pub(crate) fn add(patch: &mut Patch, tier: &SchedulerTier, spec: &Spec<'_>) -> serde_json::Result<()> {
    if let Some(name) = &tier.scheduler_name {
        // who has asked for a scheduler keeps it
        if matches!(text(spec.scheduler_name.as_ref()), "" | DEFAULT_SCHEDULER) {
            patch.add(SCHEDULER_NAME, name)?;
        }
    }
    let (Some(marker), Some(containers)) = (&tier.marker, spec.containers) else { return Ok(()) };
    let containers: Vec<Container<'_>> = serde_json::from_str(containers.get())?;
    let Some(first) = containers.first() else { return Ok(()) };
    if containers.iter().filter_map(|c| c.resources.as_ref()).any(|resources| resources.name(marker)) {
        return Ok(());
    }
    // an extended resource is taken only when request and limit are the same
    let one = BTreeMap::from([(marker.as_str(), "1")]);
    let Some(resources) = &first.resources else {
        return patch.add(RESOURCES, BTreeMap::from([("requests", &one), ("limits", &one)]));
    };
    for (part, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        let at = format!("{RESOURCES}/{part}");
        match amounts {
            Some(_) => patch.add(&format!("{at}/{}", escaped(marker)), "1")?,
            None => patch.add(&at, &one)?,
        }
    }
    Ok(())
}

/// A name as a step of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tier(scheduler_name: Option<&str>, marker: Option<&str>) -> SchedulerTier {
        SchedulerTier { scheduler_name: scheduler_name.map(Into::into), marker: marker.map(Into::into) }
    }

    #[test]
    fn what_kubernetes_would_not_take_is_refused() {
        let long = "a".repeat(64);
        for (name, good) in [
            ("handoff-scheduler", true),
            ("a.b-c.d1", true),
            ("default-scheduler", false),
            ("", false),
            ("Handoff", false),
            ("-a", false),
            ("a..b", false),
            (long.as_str(), false),
        ] {
            assert_eq!(SchedulerTier::parse_name(name).is_ok(), good, "{name}");
        }
        for (marker, good) in [
            ("volumehandoff.io/volume", true),
            ("example.com/A_b.c-1", true),
            ("volume", false),
            ("kubernetes.io/volume", false),
            ("node.kubernetes.io/volume", false),
            ("volumehandoff.io/", false),
            ("volumehandoff.io/a/b", false),
            ("volumehandoff.io/-a", false),
            ("", false),
        ] {
            assert_eq!(SchedulerTier::parse_marker(marker).is_ok(), good, "{marker}");
        }
    }

    fn marked(spec: &Value, tier: &SchedulerTier) -> Value {
        let text = spec.to_string();
        let mut patch = Patch::default();
        add(&mut patch, tier, &serde_json::from_str(&text).unwrap()).unwrap();
        let mut pod = json!({"spec": spec});
        if let Some(patch) = patch.finish() {
            let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
            json_patch::patch(&mut pod, &patch).unwrap();
        }
        pod["spec"].take()
    }

    #[test]
    fn a_pod_of_the_default_scheduler_is_given_to_the_second_one() {
        let tier = tier(Some("handoff-scheduler"), None);
        for before in [json!({}), json!({"schedulerName": null}), json!({"schedulerName": "default-scheduler"})] {
            assert_eq!(marked(&before, &tier), json!({"schedulerName": "handoff-scheduler"}));
        }
        let theirs = json!({"schedulerName": "batch"});
        assert_eq!(marked(&theirs, &tier), theirs);
    }

    #[test]
    fn the_first_container_asks_for_one_of_the_marker() {
        let tier = tier(None, Some("volumehandoff.io/volume"));
        let one = json!({"volumehandoff.io/volume": "1"});
        for (before, after) in [
            (json!({}), json!({"requests": one, "limits": one})),
            (json!({"resources": null}), json!({"requests": one, "limits": one})),
            (json!({"resources": {}}), json!({"requests": one, "limits": one})),
            (
                json!({"resources": {"requests": {"cpu": "1"}, "claims": [], "invented": 1}}),
                json!({"requests": {"cpu": "1", "volumehandoff.io/volume": "1"}, "limits": one, "claims": [], "invented": 1}),
            ),
            (
                json!({"resources": {"requests": null, "limits": {"memory": "1Gi"}}}),
                json!({"requests": one, "limits": {"memory": "1Gi", "volumehandoff.io/volume": "1"}}),
            ),
        ] {
            let other = json!({"name": "sidecar"});
            let pod = marked(&json!({"containers": [before, other]}), &tier);
            assert_eq!(pod["containers"][0]["resources"], after, "{before}");
            assert_eq!(pod["containers"][1], other);
            assert_eq!(marked(&pod, &tier), pod, "a second call adds nothing");
        }
        let second = json!({"containers": [{}, {"resources": {"limits": {"volumehandoff.io/volume": "2"}}}]});
        assert_eq!(marked(&second, &tier), second, "marked by its owner");
        for none in [json!({}), json!({"containers": null}), json!({"containers": []})] {
            assert_eq!(marked(&none, &tier), none);
        }
    }
}
