//! A JSON Patch (RFC 6902) that consists of `add` operations only.

use serde::Serialize;

/// The operations so far, as JSON text.
#[derive(Default)]
pub(crate) struct Patch(Vec<u8>);

#[derive(Serialize)]
struct Add<'p, V> {
    op: &'static str,
    path: &'p str,
    value: V,
}

impl Patch {
    pub(crate) fn add(&mut self, path: &str, value: impl Serialize) -> serde_json::Result<()> {
        self.0.push(if self.0.is_empty() { b'[' } else { b',' });
        serde_json::to_writer(&mut self.0, &Add { op: "add", path, value })
    }

    /// The whole patch; `None` when there is nothing in it.
    pub(crate) fn finish(mut self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.push(b']');
        Some(self.0)
    }
}
