//! What an account of the chart may do, beside what a command that runs under it has asked for.

use serde::Deserialize;
use std::collections::BTreeSet;

/// Group, resource, verb and name; the name is empty for all.
type Right = (String, String, String, String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rules {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

/// What of `asked` (method and path) the template grants nobody, and what it grants that nobody asked. Namespaces are not
/// looked at.
pub fn compare(template: &str, asked: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    let granted = granted(template);
    let asked = asked.iter().filter_map(|call| right(call)).collect::<BTreeSet<_>>();
    let covers = |g: &Right, a: &Right| (&g.0, &g.1, &g.2) == (&a.0, &a.1, &a.2) && (g.3.is_empty() || g.3 == a.3);
    let text = |r: &Right| format!("{} {}.{} {}", r.2, r.1, r.0, r.3).trim().to_owned();
    let missing = asked.iter().filter(|a| !granted.iter().any(|g| covers(g, a))).map(text);
    let idle = granted.iter().filter(|g| !asked.iter().any(|a| covers(g, a))).map(text);
    (missing.collect(), idle.collect())
}

/// The rules of a template are plain YAML, whatever is around them.
fn granted(template: &str) -> BTreeSet<Right> {
    let mut all = BTreeSet::new();
    for document in template.split("\n---\n") {
        let Some((_, rules)) = document.split_once("\nrules:\n") else { continue };
        let rules: Rules = serde_saphyr::from_str(&format!("rules:\n{rules}")).unwrap();
        for rule in rules.rules {
            let names = if rule.resource_names.is_empty() { vec![String::new()] } else { rule.resource_names };
            for (group, resource) in rule.api_groups.iter().flat_map(|g| rule.resources.iter().map(move |r| (g, r))) {
                for (verb, name) in rule.verbs.iter().flat_map(|v| names.iter().map(move |n| (v, n))) {
                    all.insert((group.clone(), resource.clone(), verb.clone(), name.clone()));
                }
            }
        }
    }
    all
}

/// As the API server's authorizer sees a call; `None` for what belongs to no group.
fn right(call: &str) -> Option<Right> {
    let (method, path) = call.split_once(' ')?;
    let mut words = path.trim_start_matches('/').split('/').collect::<Vec<_>>();
    let (group, head) = match *words.first()? {
        "api" => (String::new(), 2),
        "apis" => ((*words.get(1)?).to_owned(), 3),
        _ => return None,
    };
    words.drain(..head);
    if words.first() == Some(&"namespaces") && words.len() > 2 {
        words.drain(..2);
    }
    let name = words.get(1).copied().unwrap_or_default();
    let verb = match (method, name) {
        ("GET", "") => "list",
        ("GET", _) => "get",
        ("POST", _) => "create",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        (other, _) => other,
    };
    let sub = words.get(2).map(|sub| format!("/{sub}")).unwrap_or_default();
    Some((group, format!("{}{sub}", words.first()?), verb.to_owned(), name.to_owned()))
}

#[test]
fn a_call_is_seen_as_an_authorizer_sees_it() {
    let of = |call| right(call).map(|(group, resource, verb, name)| [group, resource, verb, name].join(" "));
    assert_eq!(of("GET /version"), None);
    assert_eq!(of("GET /api/v1/nodes").as_deref(), Some(" nodes list "));
    assert_eq!(of("GET /api/v1/namespaces/a/pods/p:8080/proxy/metrics").as_deref(), Some(" pods/proxy get p:8080"));
    assert_eq!(of("DELETE /apis/apps/v1/namespaces/a/deployments/d").as_deref(), Some("apps deployments delete d"));
    let template = "kind: Role\nrules:\n- {apiGroups: [''], resources: [pods], resourceNames: [a], verbs: [get, list]}";
    let asked = ["GET /api/v1/pods/a", "GET /api/v1/pods/b"].map(ToOwned::to_owned).into();
    assert_eq!(compare(template, &asked), (vec!["get pods. b".to_owned()], vec!["list pods. a".to_owned()]));
}
