//! Longhorn: its version, the settings that matter to us, and its backup targets.

use super::Check;
use crate::commands::connection::Cluster;
use handoff_storage::{PreStageGate, longhorn::gates_of};
use kube::{
    ResourceExt,
    api::{DynamicObject, ListParams},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// A failed backup that Longhorn deletes earlier than this, in minutes, may be gone before it is resumed.
const SHORTEST_TTL_MINUTES: u64 = 360;

/// All of Longhorn.
pub async fn look(cluster: &Cluster) -> Vec<Check> {
    let list = async |kind: &str, plural: &str| {
        let api = cluster.longhorn_objects(kind, plural);
        api.list(&ListParams::default()).await.map(|list| list.items)
    };
    let mut checks = match list("Setting", "settings").await {
        Ok(settings) => of_settings(&cluster.longhorn, &values(&settings)),
        Err(kube::Error::Api(status)) if status.code == 404 => of_settings(&cluster.longhorn, &BTreeMap::new()),
        Err(error) => vec![Check::unknown("Longhorn", &error)],
    };
    checks.push(match list("BackupTarget", "backuptargets").await {
        Ok(targets) => of_targets(&targets),
        Err(error) => Check::unknown("backup target", &error),
    });
    checks
}

fn values(settings: &[DynamicObject]) -> BTreeMap<String, String> {
    let value = |s: &DynamicObject| Some((s.name_any(), s.data.get("value")?.as_str()?.to_owned()));
    settings.iter().filter_map(value).collect()
}

fn of_settings(namespace: &str, settings: &BTreeMap<String, String>) -> Vec<Check> {
    let get = |name: &str| settings.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let Some(version) = get("current-longhorn-version") else {
        let says = format!("no Longhorn is found in namespace {namespace}");
        let fix = "install Longhorn, or say where it is: --longhorn-namespace here, HANDOFF_LONGHORN_NAMESPACE in the Deployment";
        return vec![Check::required("Longhorn", false, says, fix)];
    };
    let gates = gates_of(version);
    let (known, what) = match gates.prestage {
        PreStageGate::Needed => (true, "volumes are asked for early, which this version needs"),
        PreStageGate::Useful => (true, "volumes are asked for early"),
        PreStageGate::Off => {
            (false, "this version was never looked at: volumes are not asked for early, backups are still resumed")
        }
    };
    let mut checks = vec![Check::advised("Longhorn", known, format!("{version}: {what}"), "use Longhorn 1.7 to 1.12")];
    let policy = get("node-drain-policy").unwrap_or("block-if-contains-last-replica");
    checks.push(Check::advised(
        "node-drain-policy",
        !policy.starts_with("block-for-eviction"),
        policy,
        "with this policy Longhorn moves replicas during a drain and lets no volume move before that is done; \
         block-if-contains-last-replica is its default",
    ));
    let ttl = get("failed-backup-ttl").and_then(|v| v.parse::<u64>().ok()).unwrap_or(1440);
    checks.push(Check::advised(
        "failed-backup-ttl",
        ttl == 0 || ttl >= SHORTEST_TTL_MINUTES,
        if ttl == 0 { "failed backups are kept".to_owned() } else { format!("failed backups are kept for {ttl} minutes") },
        format!("Longhorn may delete an interrupted backup before it is resumed: set it to 0 or to {SHORTEST_TTL_MINUTES} and more"),
    ));
    let cleans = get("auto-cleanup-when-delete-backup") == Some("true");
    checks.push(Check::advised(
        "auto-cleanup-when-delete-backup",
        !cleans,
        if cleans { "deleting a backup deletes its snapshot" } else { "deleting a backup leaves its snapshot" },
        "a backup that is deleted while owed cannot be made anew then; set it to false if backups are deleted by hand",
    ));
    checks
}

fn of_targets(targets: &[DynamicObject]) -> Check {
    const NAME: &str = "backup target";
    let text =
        |t: &DynamicObject, path: &str| t.data.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let used = targets.iter().filter(|t| !text(t, "/spec/backupTargetURL").is_empty()).collect::<Vec<_>>();
    if used.is_empty() {
        return Check::advised(
            NAME,
            false,
            "none is set",
            "without backups there is nothing to interrupt; set a backup target in Longhorn",
        );
    }
    let away = used.iter().filter(|t| t.data.pointer("/status/available") != Some(&Value::Bool(true)));
    let away = away.map(|t| {
        let conditions = t.data.pointer("/status/conditions").and_then(Value::as_array);
        let why = conditions.into_iter().flatten().find_map(|c| c["message"].as_str().filter(|m| !m.is_empty()));
        format!("{}{}", t.name_any(), why.map(|w| format!(" ({w})")).unwrap_or_default())
    });
    let away = away.collect::<Vec<_>>().join(", ");
    let says = if away.is_empty() { format!("{} available", used.len()) } else { format!("not available: {away}") };
    Check::advised(
        NAME,
        away.is_empty(),
        says,
        "owed backups wait until it is: look at its address and credentials in Longhorn",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};
    use serde_json::json;

    fn settings(values: &[(&str, &str)]) -> Vec<Check> {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        of_settings("longhorn-system", &values)
    }

    #[test]
    fn settings_that_matter() {
        let version = ("current-longhorn-version", "v1.10.0");
        assert!(settings(&[version]).iter().all(|c| c.state == State::Ok), "{:?}", settings(&[version]));
        assert_eq!(settings(&[])[0].state, State::Failed);
        assert!(settings(&[])[0].says.contains("longhorn-system"));
        for (name, value, state) in [
            ("current-longhorn-version", "v1.13.0", State::Warning),
            ("current-longhorn-version", "v1.8.0", State::Ok),
            ("node-drain-policy", "block-for-eviction", State::Warning),
            ("node-drain-policy", "always-allow", State::Ok),
            ("failed-backup-ttl", "30", State::Warning),
            ("failed-backup-ttl", "0", State::Ok),
            ("auto-cleanup-when-delete-backup", "true", State::Warning),
        ] {
            let checks = settings(&[version, (name, value)]);
            let named = if name == "current-longhorn-version" { "Longhorn" } else { name };
            let check = checks.iter().find(|c| c.name == named).unwrap();
            assert_eq!(check.state, state, "{name}={value}");
        }
    }

    #[test]
    fn targets_that_are_away_are_named() {
        let target = |name: &str, url: &str, available: bool| {
            serde_json::from_value::<DynamicObject>(json!({"metadata": {"name": name},
                "spec": {"backupTargetURL": url}, "status": {"available": available,
                    "conditions": [{"message": if available { "" } else { "no route to host" }}]}}))
            .unwrap()
        };
        assert_eq!(of_targets(&[target("default", "s3://b@r/", true), target("unused", "", false)]).state, State::Ok);
        let away = of_targets(&[target("default", "s3://b@r/", false)]);
        assert_eq!((away.state, away.says.as_str()), (State::Warning, "not available: default (no route to host)"));
        assert_eq!(of_targets(&[target("default", "", false)]).state, State::Warning);
    }
}
