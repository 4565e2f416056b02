//! The name of a node in a full-node list.
//!
//! A Node object is 5 KB, its name is within the first hundred bytes, and the parse of the whole body has already
//! seen that the rest is JSON. So the name is looked up with a visitor that stops the parser as soon as it has it,
//! instead of reading every node a second time.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::wire::Text;

/// `metadata.name` of an object, if it has one.
pub(crate) fn name(node: &RawValue) -> Option<Text<'_>> {
    let mut found = None;
    let mut json = serde_json::Deserializer::from_str(node.get());
    // The result says nothing: stopping early is an error to serde, and an object without a name is not.
    let _stopped = json.deserialize_map(Path { keys: &["metadata", "name"], found: &mut found });
    found
}

/// Walks down `keys`, the last of which is the string to find.
struct Path<'f, 'a> {
    keys: &'static [&'static str],
    found: &'f mut Option<Text<'a>>,
}

impl<'a> Visitor<'a> for Path<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let [wanted, below @ ..] = self.keys else { return Err(A::Error::custom("no key to look for")) };
        while let Some(key) = map.next_key::<Text<'a>>()? {
            if *key != **wanted {
                map.next_value::<IgnoredAny>()?;
            } else if below.is_empty() {
                *self.found = Some(map.next_value()?);
                return Err(A::Error::custom("found"));
            } else {
                return map.next_value_seed(Path { keys: below, found: self.found });
            }
        }
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for Path<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(json: &str) -> Option<String> {
        let node: &RawValue = serde_json::from_str(json).unwrap();
        name(node).map(|name| name.to_string())
    }

    #[test]
    fn the_name_is_found_wherever_it_stands() {
        for json in [
            r#"{"metadata":{"name":"node-1","labels":{"name":"x"}},"spec":{}}"#,
            r#"{"kind":"Node","status":{"metadata":{"name":"x"}},"metadata":{"labels":{"name":"x"},"name":"node-1"}}"#,
            r#"{"metadata":{"n\u0061me":"node\u002d1"}}"#,
        ] {
            assert_eq!(name_of(json).as_deref(), Some("node-1"), "{json}");
        }
    }

    #[test]
    fn what_has_no_name_has_none() {
        for json in ["null", "7", "[]", "{}", r#"{"metadata":null}"#, r#"{"metadata":{"name":7}}"#, r#"{"name":"x"}"#] {
            assert_eq!(name_of(json), None, "{json}");
        }
    }
}
