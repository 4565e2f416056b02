//! `snapshots.longhorn.io` DELETE: a snapshot that an owed backup is to be resumed from is kept until that is done.

use handoff_coordinator::verdicts::Admission;
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
    match admission.snapshot_needed(namespace, name) {
        Some(message) => {
            tracing::info!(namespace, name, %message, "snapshot's deletion denied");
            Verdict::conflict(message)
        }
        None => Verdict::allowed(Outcome::Allowed),
    }
}
