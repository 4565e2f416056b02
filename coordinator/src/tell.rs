//! Events on the pod and on the claim. Best effort: an Event that is not written stops nothing.

use crate::{api::VolumeHandoff, observation::Observation};
use handoff_cluster::{Pod, Volume};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, ResourceExt,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// The two objects that an Event is about.
#[derive(Clone, Debug, Default)]
pub struct About {
    namespace: Option<String>,
    claim: String,
    claim_uid: Option<String>,
    pod: String,
    pod_uid: String,
}

impl About {
    /// A pod and the claim of one of its volumes.
    pub fn of(pod: &Pod, volume: &Volume) -> Self {
        Self {
            namespace: Some(pod.key.namespace.clone()),
            claim: volume.claim.as_ref().map(|claim| claim.name.clone()).unwrap_or_default(),
            claim_uid: None,
            pod: pod.key.name.clone(),
            pod_uid: pod.uid.clone(),
        }
    }
}

/// Writes Events.
#[derive(Clone)]
pub struct Teller {
    recorder: Recorder,
}

impl Teller {
    /// Events are reported by `handoff`, instance `identity`.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: "handoff".to_owned(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// One Event on the claim and one on the pod that uses the volume now (or is leaving it).
    pub async fn tell(&self, handoff: &VolumeHandoff, obs: &Observation, warning: bool, reason: &str, note: &str) {
        let (pod, pod_uid) = match obs.workload() {
            Some(pod) => (pod.key.name.clone(), pod.uid.clone()),
            None => (handoff.spec.pod.name.clone(), handoff.spec.pod.uid.clone()),
        };
        let about = About {
            namespace: handoff.namespace(),
            claim: handoff.spec.volume.claim.clone(),
            claim_uid: handoff.owner_references().first().map(|o| o.uid.clone()),
            pod,
            pod_uid,
        };
        self.tell_about(about, warning, reason, note).await;
    }

    /// One Event on the claim and one on the pod.
    pub async fn tell_about(&self, about: About, warning: bool, reason: &str, note: &str) {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            // the API server refuses notes of more than 1 kB
            note: Some(note.chars().take(1000).collect()),
            action: "Handoff".to_owned(),
            secondary: None,
        };
        let About { namespace, claim, claim_uid, pod, pod_uid } = about;
        let claim = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            name: Some(claim),
            uid: claim_uid,
            namespace,
            ..ObjectReference::default()
        };
        let pod =
            ObjectReference { kind: Some("Pod".to_owned()), name: Some(pod), uid: Some(pod_uid), ..claim.clone() };
        for object in [claim, pod] {
            if let Err(error) = self.recorder.publish(&event, &object).await {
                tracing::warn!(reason, %error, "event not written");
            }
        }
    }
}
