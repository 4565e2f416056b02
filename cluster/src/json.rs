//! Objects taken in as JSON, without a watch: for tests of the layers above.

use crate::{
    index::{Change, Index},
    slim::{WireAttachment, WireClaim, WireCsiNode, WireNode, WirePod, WireVolume},
    watch::Cached,
};

/// Reads an object of kind `K` and puts it into its store, as a watch would.
pub fn put_json<S, K: Cached<S>>(store: &mut S, json: &[u8]) -> serde_json::Result<Vec<K::Change>> {
    Ok(serde_json::from_slice::<K>(json)?.put(store))
}

impl Index {
    /// Takes in an object of the kind with this plural, e.g. `pods`. `None`: no such kind is kept.
    pub fn put_json(&mut self, plural: &str, json: &[u8]) -> Option<serde_json::Result<Vec<Change>>> {
        Some(match plural {
            "pods" => put_json::<_, WirePod>(self, json),
            "persistentvolumeclaims" => put_json::<_, WireClaim>(self, json),
            "persistentvolumes" => put_json::<_, WireVolume>(self, json),
            "nodes" => put_json::<_, WireNode>(self, json),
            "csinodes" => put_json::<_, WireCsiNode>(self, json),
            "volumeattachments" => put_json::<_, WireAttachment>(self, json),
            "storageclasses" => put_json::<_, crate::class::WireClass>(self, json),
            "namespaces" => put_json::<_, crate::class::WireNamespace>(self, json),
            _ => return None,
        })
    }
}
