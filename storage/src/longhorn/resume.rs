//! Making a lost backup run again: probe, then status reset.
//!
//! Longhorn takes a backup up when `status.lastSyncedAt` is zero and its state is not final, whatever happened before
//! (longhorn-manager `controller/backup_controller.go`); blocks that are in the target already are not sent again
//! (backupstore `deltablock.go`). `/status` is not covered by Longhorn's admission webhooks.

use super::{api_error, wire::Backup};
use crate::StorageError;
use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// Asks Longhorn to read the backup's own record in the target. If that says complete, Longhorn sets the state to
/// Completed within a fraction of a second; otherwise it changes nothing.
pub async fn probe(api: &Api<Backup>, name: &str, now: Timestamp) -> Result<(), StorageError> {
    // metav1.Time has whole seconds
    let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let patch = json!({"spec": {"syncRequestedAt": at}});
    let sent = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    sent.map(drop).map_err(|e| api_error(format!("probe of backup {name}"), e))
}

/// Resets the status of a lost backup so that Longhorn runs it again on `node`. Refused as stale by the API server
/// when the backup is no longer at `resource_version`: a backup that just became complete must never be reset,
/// since its record in the target would be overwritten.
pub async fn reset(api: &Api<Backup>, name: &str, resource_version: &str, node: &str) -> Result<(), StorageError> {
    let patch = json!({
        "metadata": {"resourceVersion": resource_version},
        "status": {
            "state": "", "error": "", "progress": 0, "replicaAddress": "", "url": "", "lastSyncedAt": null,
            "messages": null, "ownerID": node,
        },
    });
    let sent = api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    sent.map(drop).map_err(|e| api_error(format!("reset of backup {name}"), e))
}
