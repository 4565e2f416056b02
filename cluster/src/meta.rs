//! Metadata of an object without `managedFields` and the like, which are longer than all the rest and read by nobody.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// For `#[serde(default, deserialize_with = "slim_meta")]`: the part of [`ObjectMeta`] that decisions and watches use,
/// the rest is skipped while it is parsed.
pub fn slim_meta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let read = Option::<SlimMeta>::deserialize(deserializer)?.unwrap_or_default();
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        creation_timestamp: read.creation_timestamp,
        deletion_timestamp: read.deletion_timestamp,
        labels: read.labels,
        annotations: read.annotations,
        owner_references: read.owner_references,
        ..ObjectMeta::default()
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_used_is_kept() {
        let wire = json!({"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
            "annotations": {"c": "d"}, "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-02T00:00:00Z",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "y"}]});
        let whole: ObjectMeta = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(slim_meta(&wire).unwrap(), whole);
        let mut more = wire;
        more["managedFields"] = json!([{"manager": "x"}]);
        more["invented"] = json!(1);
        assert_eq!(slim_meta(&more).unwrap(), whole);
        assert_eq!(slim_meta(json!(null)).unwrap(), ObjectMeta::default());
    }
}
