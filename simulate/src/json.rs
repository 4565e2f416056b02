//! Looking into objects. What is not there is empty, as in Go.

use serde_json::Value;

/// The text at a JSON pointer.
pub fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The flag at a JSON pointer.
pub fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The entries of the object at a JSON pointer.
pub fn entries<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    value.pointer(pointer).and_then(Value::as_object).into_iter().flatten()
}

/// The elements of the list at a JSON pointer.
pub fn elements<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// It has been asked to go.
pub fn is_deleting(value: &Value) -> bool {
    value.pointer("/metadata/deletionTimestamp").is_some()
}

/// It has the condition `Ready`.
pub fn is_ready(value: &Value) -> bool {
    elements(value, "/status/conditions").any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
}
