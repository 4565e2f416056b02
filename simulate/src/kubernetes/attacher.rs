//! external-attacher with Longhorn's CSI plugin: calls `ControllerPublish` and `ControllerUnpublish`, and waits longer
//! after each failure, unless the attachment changes.

use crate::{
    api::{
        Follow,
        resource::{ATTACHMENTS, VOLUMES},
    },
    cluster::{Cluster, key},
    json::{is_deleting, text},
    longhorn::csi,
};
use handoff_cluster::ObjectKey;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const BY: &str = "external-attacher";
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// Runs for ever.
pub async fn run(cluster: Arc<Cluster>) {
    let mut attachments = Follow::new(&cluster.store, ATTACHMENTS);
    let mut known = BTreeSet::new();
    loop {
        for change in attachments.next().await {
            let uid = text(&change.object.value, "/metadata/uid").to_owned();
            if change.what == "DELETED" {
                known.remove(&uid);
            } else if known.insert(uid) {
                tokio::spawn(follow(cluster.clone(), change.object.key(), change.object.value.clone()));
            }
        }
    }
}

/// From the making of an attachment to its end.
async fn follow(cluster: Arc<Cluster>, of: ObjectKey, object: Value) {
    let volume = text(&object, "/spec/source/persistentVolumeName");
    let Some(volume) = cluster.store.get(VOLUMES, &key("", volume)) else { return };
    let handle = text(&volume.value, "/spec/csi/volumeHandle");
    let node = text(&object, "/spec/nodeName");
    let deleted = || cluster.store.until(ATTACHMENTS, &of, |now| now.is_null() || is_deleting(now));
    tokio::select! {
        biased;
        _ = deleted() => {}
        () = publish(&cluster, &of, handle, node) => {}
    }
    deleted().await;
    let mut wait = FIRST_WAIT;
    cluster.longhorn.attacher_leads().await;
    while let Err(why) = csi::unpublish(&cluster, handle, node).await {
        cluster.store.change(BY, ATTACHMENTS, &of, |now| now["status"]["detachError"] = json!({"message": why}));
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    cluster.store.change(BY, ATTACHMENTS, &of, |now| {
        now["status"]["attached"] = json!(false);
        now["metadata"]["finalizers"] = json!([]);
    });
}

/// Attaches, and never returns.
async fn publish(cluster: &Cluster, of: &ObjectKey, handle: &str, node: &str) {
    let mut wait = FIRST_WAIT;
    let mut news = cluster.store.news_of(ATTACHMENTS, of);
    loop {
        cluster.longhorn.attacher_leads().await;
        match csi::publish(cluster, handle, node).await {
            Ok(()) => break,
            Err(why) => {
                cluster.store.change(BY, ATTACHMENTS, of, |now| now["status"]["attachError"] = json!({"message": why}));
                news.mark_unchanged();
                // any change of the object is a reason to try again at once
                let _ = tokio::time::timeout(wait, news.changed()).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
    cluster.store.change(BY, ATTACHMENTS, of, |now| now["status"] = json!({"attached": true}));
    std::future::pending::<()>().await;
}
