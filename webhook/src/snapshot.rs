//! `snapshots.longhorn.io` DELETE: a snapshot that an owed backup is to be resumed from is kept until that is done.

use handoff_coordinator::verdicts::{
    Admission, SnapshotVerdict,
    settings::{Allowed, Setting},
};
use serde::Deserialize;

use crate::{
    observe::Outcome,
    review::{Request, Subject, Text, text},
    verdict::Verdict,
};

#[derive(Deserialize)]
pub(crate) struct Snapshot<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    annotations: Option<Annotations<'a>>,
}

#[derive(Deserialize)]
struct Annotations<'a> {
    #[serde(borrow, rename = "volumehandoff.io/allow-snapshot-deletion")]
    allow: Option<Text<'a>>,
}

pub(crate) fn is_ours(subject: &Subject<'_>) -> bool {
    matches!(subject, Subject { group: "longhorn.io", resource: "snapshots", subresource: "", operation: "DELETE" })
}

pub(crate) fn judge(admission: &dyn Admission, request: &Request<'_, Snapshot<'_>>) -> Verdict {
    let metadata = request.old_object.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let name = match request.name() {
        "" => text(metadata.and_then(|meta| meta.name.as_ref())),
        name => name,
    };
    if name.is_empty() {
        return Verdict::misrouted("a snapshot without a name");
    }
    let namespace = match request.namespace() {
        "" => text(metadata.and_then(|meta| meta.namespace.as_ref())),
        namespace => namespace,
    };
    let message = match admission.delete_snapshot(namespace, name) {
        SnapshotVerdict::Allow { note: None } => return Verdict::allowed(Outcome::Allowed),
        SnapshotVerdict::Allow { note: Some(note) } => return Verdict::allowed(Outcome::Allowed).warn(&note),
        SnapshotVerdict::Needed { message } => message,
    };
    let annotation = metadata.and_then(|meta| meta.annotations.as_ref()).and_then(|all| all.allow.as_deref());
    let message = match Setting::<Allowed>::read(annotation) {
        Setting::Set(Allowed(true)) => {
            tracing::info!(namespace, name, %message, "snapshot given up by its annotation");
            return Verdict::allowed(Outcome::Allowed).warn(&format!("handoff: given up by annotation: {message}"));
        }
        Setting::Invalid { value, why } => format!("{message}; on the snapshot it is {value:?} now, it {why}"),
        Setting::Set(Allowed(false)) | Setting::Unset => message,
    };
    tracing::info!(namespace, name, %message, "snapshot's deletion denied");
    Verdict::conflict(message)
}
