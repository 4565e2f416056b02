//! What Handoff knows of the Kubernetes side: watch caches with slim types, joined into one index
//! volume ⇄ `PersistentVolume` ⇄ claim ⇄ pod ⇄ node.
//!
//! Only what a decision needs is kept of each object; the rest is dropped as it comes off the wire.

mod class;
mod compact;
mod index;
mod json;
pub mod live;
mod meta;
mod quantity;
pub mod settings;
mod slim;
mod watch;

pub use class::{Namespace, StorageClass};
pub use index::{Change, Index, Moment};
pub use json::put_json;
pub use meta::slim_meta;
pub use slim::{Attachment, Claim, CsiNode, Node, ObjectKey, Pod, Volume};
pub use watch::{Cache, Cached, ClusterCache, OnChange, Task, Watched};
