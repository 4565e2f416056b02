//! Preferred node affinity as a JSON Patch that only ever adds.
//!
//! A term names its node by `matchFields` with the key `metadata.name`: the only field the API knows there, with
//! exactly one value per requirement, allowed in preferred terms as well as in required ones. The label
//! `kubernetes.io/hostname` is no substitute, as it may differ from the node's name.

use handoff_coordinator::verdicts::PreferredNode;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{
    patch::Patch,
    review::{Text, text},
};

const AFFINITY: &str = "/spec/affinity";
const NODE_AFFINITY: &str = "/spec/affinity/nodeAffinity";
const PREFERRED: &str = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";
const PREFERRED_END: &str = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution/-";

/// `spec.affinity`, as far as it decides where a new term goes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Affinity<'a> {
    #[serde(borrow)]
    node_affinity: Option<NodeAffinity<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeAffinity<'a> {
    #[serde(borrow)]
    preferred_during_scheduling_ignored_during_execution: Option<Vec<Preferred<'a>>>,
}

#[derive(Deserialize)]
struct Preferred<'a> {
    weight: Option<i64>,
    #[serde(borrow)]
    preference: Option<Preference<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preference<'a> {
    match_expressions: Option<Vec<IgnoredAny>>,
    #[serde(borrow)]
    match_fields: Option<Vec<Requirement<'a>>>,
}

#[derive(Deserialize)]
struct Requirement<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    operator: Option<Text<'a>>,
    #[serde(borrow)]
    values: Option<Vec<Text<'a>>>,
}

impl Preferred<'_> {
    /// Whether this is the term we would write for `node`.
    fn is_for(&self, node: &PreferredNode) -> bool {
        let Some(preference) = &self.preference else { return false };
        let [field] = preference.match_fields.as_deref().unwrap_or_default() else { return false };
        let [value] = field.values.as_deref().unwrap_or_default() else { return false };
        self.weight == Some(i64::from(weight(node)))
            && preference.match_expressions.as_ref().is_none_or(Vec::is_empty)
            && text(field.key.as_ref()) == "metadata.name"
            && text(field.operator.as_ref()) == "In"
            && **value == *node.name
    }
}

/// The API server rejects a pod for any other weight, and no pod may fail because of us.
fn weight(node: &PreferredNode) -> i32 {
    node.weight.clamp(1, 100)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewAffinity<'n> {
    node_affinity: NewNodeAffinity<'n>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewNodeAffinity<'n> {
    preferred_during_scheduling_ignored_during_execution: Vec<NewPreferred<'n>>,
}

#[derive(Serialize)]
struct NewPreferred<'n> {
    weight: i32,
    preference: NewPreference<'n>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewPreference<'n> {
    match_fields: [NewRequirement<'n>; 1],
}

#[derive(Serialize)]
struct NewRequirement<'n> {
    key: &'static str,
    operator: &'static str,
    values: [&'n str; 1],
}

/// Makes a pod with `affinity` prefer `nodes`, where it does not do so already. Terms that are there
/// stay as they are, whoever wrote them, and ours are not written a second time when the webhook is called again.
pub(crate) fn add(
    patch: &mut Patch,
    affinity: Option<&Affinity<'_>>,
    nodes: &[PreferredNode],
) -> serde_json::Result<()> {
    let node_affinity = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
    let preferred = node_affinity.and_then(|node| node.preferred_during_scheduling_ignored_during_execution.as_deref());
    let terms: Vec<NewPreferred<'_>> = nodes
        .iter()
        .enumerate()
        .filter(|(at, node)| {
            !node.name.is_empty()
                && !nodes[..*at].iter().any(|earlier| earlier.name == node.name)
                && !preferred.unwrap_or_default().iter().any(|term| term.is_for(node))
        })
        .map(|(_, node)| NewPreferred {
            weight: weight(node),
            preference: NewPreference {
                match_fields: [NewRequirement { key: "metadata.name", operator: "In", values: [&node.name] }],
            },
        })
        .collect();
    if terms.is_empty() {
        return Ok(());
    }
    // `add` to a member that exists would replace it, so each parent is written only where there is none. A null
    // counts as none.
    if preferred.is_some() {
        return terms.into_iter().try_for_each(|term| patch.add(PREFERRED_END, term));
    }
    if node_affinity.is_some() {
        return patch.add(PREFERRED, terms);
    }
    let node_affinity = NewNodeAffinity { preferred_during_scheduling_ignored_during_execution: terms };
    if affinity.is_some() {
        patch.add(NODE_AFFINITY, node_affinity)
    } else {
        patch.add(AFFINITY, NewAffinity { node_affinity })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "preferredDuringSchedulingIgnoredDuringExecution";

    fn node(name: &str, weight: i32) -> PreferredNode {
        PreferredNode { name: name.to_owned(), weight }
    }

    fn term(name: &str, weight: i32) -> Value {
        json!({"weight": weight, "preference": {"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [name]}]}})
    }

    /// The pod's affinity after our patch; `None` when there was nothing to patch.
    fn patched(affinity: &Value, nodes: &[PreferredNode]) -> Option<Value> {
        let text = affinity.to_string();
        let parsed: Option<Affinity<'_>> = serde_json::from_str(&text).unwrap();
        let mut patch = Patch::default();
        add(&mut patch, parsed.as_ref(), nodes).unwrap();
        let operations: json_patch::Patch = serde_json::from_slice(&patch.finish()?).unwrap();
        let mut pod = json!({"spec": {"affinity": affinity}});
        json_patch::patch(&mut pod, &operations).unwrap();
        Some(pod["spec"]["affinity"].take())
    }

    #[test]
    fn parents_are_made_where_there_are_none() {
        let wanted = json!({"nodeAffinity": {KEY: [term("node-2", 50), term("node-3", 10)]}});
        let nodes = [node("node-2", 50), node("node-3", 10)];
        for before in [
            json!(null),
            json!({}),
            json!({"nodeAffinity": null}),
            json!({"nodeAffinity": {}}),
            json!({"nodeAffinity": {KEY: null}}),
            json!({"nodeAffinity": {KEY: []}}),
        ] {
            assert_eq!(patched(&before, &nodes).unwrap(), wanted, "{before}");
        }
    }

    #[test]
    fn what_is_there_stays() {
        let other = json!({"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}],
            "invented": {"deep": [1, null]}}, "invented": 7});
        let before = json!({
            "podAntiAffinity": {"invented": true},
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []},
                KEY: [other], "invented": "x"},
            "invented": [1, 2]});
        let mut wanted = before.clone();
        wanted["nodeAffinity"][KEY].as_array_mut().unwrap().push(term("node-2", 50));
        assert_eq!(patched(&before, &[node("node-2", 50)]).unwrap(), wanted);
    }

    #[test]
    fn ours_are_added_once() {
        let nodes = [node("node-2", 50), node("node-3", 10), node("node-2", 20)];
        let once = patched(&json!(null), &nodes).unwrap();
        assert_eq!(once, json!({"nodeAffinity": {KEY: [term("node-2", 50), term("node-3", 10)]}}));
        assert_eq!(patched(&once, &nodes), None);
        let again = patched(&once, &[node("node-2", 50), node("node-4", 1)]).unwrap();
        assert_eq!(again["nodeAffinity"][KEY].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_term_that_only_looks_like_ours_is_not_ours() {
        for (path, value) in [
            ("/weight", json!(51)),
            ("/preference/matchFields/0/operator", json!("NotIn")),
            ("/preference/matchFields/0/values", json!(["node-2", "node-3"])),
            ("/preference/matchExpressions", json!([{"key": "zone", "operator": "Exists"}])),
        ] {
            let mut theirs = term("node-2", 50);
            theirs["preference"]["matchExpressions"] = json!([]);
            *theirs.pointer_mut(path).unwrap() = value;
            let before = json!({"nodeAffinity": {KEY: [theirs]}});
            let after = patched(&before, &[node("node-2", 50)]).unwrap();
            assert_eq!(after["nodeAffinity"][KEY], json!([theirs, term("node-2", 50)]), "{path}");
        }
    }

    #[test]
    fn no_weight_makes_the_pod_invalid() {
        let after = patched(&json!(null), &[node("a", 0), node("b", -5), node("c", 1000), node("", 5)]).unwrap();
        assert_eq!(after["nodeAffinity"][KEY], json!([term("a", 1), term("b", 1), term("c", 100)]));
    }
}
