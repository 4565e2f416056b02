//! The merge patch (RFC 7386) between two states of an object as this version knows it. What it does not know, as the
//! fields of a newer version beside which it runs during an upgrade, is in neither state, and so it stays. Lists are
//! replaced as a whole.

use serde_json::{Map, Value};

/// The patch that turns `before` into `after`. Fields that only `before` has become null, which removes them.
pub fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let mut patch = gone.collect::<Map<String, Value>>();
    for (key, next) in after {
        match before.get(key) {
            Some(same) if same == next => {}
            Some(other) => drop(patch.insert(key.clone(), difference(other, next))),
            None => drop(patch.insert(key.clone(), next.clone())),
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_neither_side_knows_stays() {
        let before =
            json!({"phase": "Moving", "to": "b", "prestage": {"node": "b", "outcome": "Adopted"}, "list": [1, 2]});
        let after = json!({"phase": "Attached", "prestage": {"node": "c"}, "list": [1], "move": "3.1s"});
        let patch = difference(&before, &after);
        assert_eq!(
            patch,
            json!({"phase": "Attached", "to": null, "prestage": {"node": "c", "outcome": null}, "list": [1], "move": "3.1s"})
        );
        let mut stored = before.clone();
        stored["later"] = json!("kept");
        stored["prestage"]["later"] = json!("kept");
        json_patch::merge(&mut stored, &patch);
        let mut wanted = after;
        wanted["later"] = json!("kept");
        wanted["prestage"]["later"] = json!("kept");
        assert_eq!(stored, wanted);
        assert_eq!(difference(&before, &before), json!({}), "nothing to write");
    }
}
