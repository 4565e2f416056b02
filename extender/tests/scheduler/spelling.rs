//! The same question in any spelling that Go's decoder would take gets the same answer.

use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::support::{data, post, table, unfit};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

/// Keys of the scheduler's own types.
const OWN: [&str; 12] = [
    "Pod",
    "Nodes",
    "NodeNames",
    "NodeNameToVictims",
    "NodeNameToMetaVictims",
    "Pods",
    "UID",
    "NumPDBViolations",
    "PodName",
    "PodNamespace",
    "PodUID",
    "Node",
];

/// How the keys are written, and what is strewn between them.
#[derive(Clone, Debug)]
struct Spelling {
    upper: Vec<bool>,
    strange: Vec<(String, Value)>,
    nulls: bool,
}

fn strange() -> impl Strategy<Value = (String, Value)> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!({"NodeNames": ["x"], "deep": [[{"Pod": 1}]]})),
    ];
    ("Zz[A-Za-z\u{e9}\"]{0,8}", value)
}

fn spelling() -> impl Strategy<Value = Spelling> {
    let parts = (vec(any::<bool>(), 24), vec(strange(), 0..4), any::<bool>());
    parts.prop_map(|(upper, strange, nulls)| Spelling { upper, strange, nulls })
}

impl Spelling {
    fn key(&self, key: &str) -> String {
        if !OWN.contains(&key) {
            return key.to_owned();
        }
        let case = |(at, c): (usize, char)| {
            if self.upper[at % self.upper.len()] { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
        };
        key.chars().enumerate().map(case).collect()
    }

    /// `depth` levels of the scheduler's own objects.
    fn write(&self, value: &Value, depth: usize) -> Value {
        match value {
            Value::Object(object) if depth > 0 => {
                let mut out = Map::new();
                for (key, value) in object {
                    if value.is_null() && !self.nulls {
                        continue;
                    }
                    out.insert(self.key(key), self.write(value, depth - 1));
                }
                out.extend(self.strange.clone());
                Value::Object(out)
            }
            other => other.clone(),
        }
    }
}

fn answer(path: &str, body: &Value) -> Value {
    let mut table = table(&[("node-2", unfit("x"))]);
    std::sync::Arc::get_mut(&mut table).unwrap().busy = vec!["u1"];
    std::sync::Arc::get_mut(&mut table).unwrap().bound = Some(Ok(()));
    RUNTIME.block_on(post(&table, path, body.to_string())).json()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn filter_and_prioritize(spelling in spelling(), full: bool) {
        let file = if full { "args-full-nodes" } else { "args-node-names" };
        let sent: Value = serde_json::from_str(&data(file)).unwrap();
        for path in ["/filter", "/prioritize"] {
            prop_assert_eq!(answer(path, &spelling.write(&sent, 1)), answer(path, &sent));
        }
    }

    #[test]
    fn preempt_and_bind(spelling in spelling(), full: bool) {
        let victims = json!({"Pods": [{"UID": "u1"}], "NumPDBViolations": 3});
        let other = json!({"Pods": [if full { json!({"metadata": {"uid": "u2"}}) } else { json!({"UID": "u2"}) }],
            "NumPDBViolations": 1});
        let form = if full { "NodeNameToVictims" } else { "NodeNameToMetaVictims" };
        let plain = json!({"Pod": {}, form: {"a": victims, "b": other}});
        let wanted = json!({"NodeNameToMetaVictims": {"b": {"Pods": [{"UID": "u2"}], "NumPDBViolations": 1}}});
        prop_assert_eq!(&answer("/preempt", &plain), &wanted);
        let mut spelt = spelling.write(&plain, 1);
        let nodes = spelt[spelling.key(form)].as_object_mut().unwrap();
        for victims in nodes.values_mut() {
            let mut again = spelling.write(victims, 1);
            for pod in again[spelling.key("Pods")].as_array_mut().unwrap() {
                *pod = spelling.write(pod, 1);
            }
            *victims = again;
        }
        prop_assert_eq!(&answer("/preempt", &spelt), &wanted);
        let binding = json!({"PodName": "a", "PodNamespace": "b", "PodUID": "c", "Node": "d"});
        prop_assert_eq!(answer("/bind", &spelling.write(&binding, 1)), json!({"Error": ""}));
    }
}
