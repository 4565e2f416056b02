//! The kinds of patches, and what of an object each endpoint may change.

use super::{refusal::Refusal, resource::Target};
use crate::json::text;
use serde_json::Value;

/// What a body is meant as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The whole object.
    Whole,
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Steps,
}

impl Content {
    /// By the `Content-Type` of a PATCH. Server-side apply and strategic merges are not served: nobody here uses them.
    pub fn of_patch(kind: &str) -> Result<Self, Refusal> {
        match kind.split(';').next().unwrap_or_default() {
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/json-patch+json" => Ok(Self::Steps),
            other => Err(Refusal::new(415, "UnsupportedMediaType", format!("no patches of type {other} here"))),
        }
    }
}

/// Makes of `value` what `body` says, under the version it names, if it names one.
pub fn apply(target: &Target, content: Content, value: &mut Value, mut body: Value) -> Result<(), Refusal> {
    let before = value.clone();
    if content != Content::Steps {
        let wanted = body.get_mut("metadata").and_then(|meta| meta.as_object_mut()?.remove("resourceVersion"));
        if wanted.is_some_and(|v| !v.is_null() && v != before["metadata"]["resourceVersion"]) {
            return Err(Refusal::conflict());
        }
    }
    match content {
        Content::Whole => *value = body,
        Content::Merge => json_patch::merge(value, &body),
        Content::Steps => {
            let steps: json_patch::Patch =
                serde_json::from_value(body).map_err(|e| Refusal::new(400, "BadRequest", e.to_string()))?;
            json_patch::patch(value, &steps).map_err(|e| Refusal::invalid(e.to_string()))?;
            let wanted = text(value, "/metadata/resourceVersion");
            if !wanted.is_empty() && wanted != text(&before, "/metadata/resourceVersion") {
                return Err(Refusal::conflict());
            }
        }
    }
    if target.subresource == "status" {
        let status = value.get("status").cloned();
        *value = before;
        set_or_remove(value, status);
    } else if target.resource.has_status {
        set_or_remove(value, before.get("status").cloned());
    }
    Ok(())
}

fn set_or_remove(value: &mut Value, status: Option<Value>) {
    match status {
        Some(status) => value["status"] = status,
        None => drop(value.as_object_mut().and_then(|object| object.remove("status"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(path: &str, content: Content, body: Value) -> Result<Value, u16> {
        let mut value =
            json!({"metadata": {"resourceVersion": "7"}, "spec": {"a": 1, "b": 2}, "status": {"state": "Error"}});
        let target = Target::parse(&format!("/apis/longhorn.io/v1beta2/namespaces/n/backups/x{path}")).unwrap();
        apply(&target, content, &mut value, body).map_err(|refusal| refusal.code)?;
        Ok(json!({"spec": value["spec"], "status": value["status"]}))
    }

    #[test]
    fn each_endpoint_changes_its_own_part() {
        let both = json!({"spec": {"a": null}, "status": {"state": ""}});
        let of = |path| patched(path, Content::Merge, both.clone());
        assert_eq!(of(""), Ok(json!({"spec": {"b": 2}, "status": {"state": "Error"}})));
        assert_eq!(of("/status"), Ok(json!({"spec": {"a": 1, "b": 2}, "status": {"state": ""}})));
    }

    #[test]
    fn a_version_that_is_named_must_be_the_present_one() {
        let under = |version: &str| {
            let body = json!({"metadata": {"resourceVersion": version}, "spec": {"a": 3}});
            patched("", Content::Merge, body).map(drop)
        };
        assert_eq!(under("7"), Ok(()));
        assert_eq!(under("6"), Err(409));
    }

    #[test]
    fn a_test_that_fails_changes_nothing() {
        let steps =
            |value: u8| json!([{"op": "test", "path": "/spec/a", "value": value}, {"op": "remove", "path": "/spec/a"}]);
        assert_eq!(patched("", Content::Steps, steps(1)).unwrap()["spec"], json!({"b": 2}));
        assert_eq!(patched("", Content::Steps, steps(2)), Err(422));
        assert!(Content::of_patch("application/apply-patch+yaml").is_err());
    }
}
