//! Events on the pod and on the claim. Best effort: an Event that is not written stops nothing.

use crate::{api::VolumeHandoff, observation::Observation};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, ResourceExt,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// Writes Events.
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
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            // the API server refuses notes of more than 1 kB
            note: Some(note.chars().take(1000).collect()),
            action: "Handoff".to_owned(),
            secondary: None,
        };
        let namespace = handoff.namespace();
        let claim = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            name: Some(handoff.spec.volume.claim.clone()),
            uid: handoff.owner_references().first().map(|o| o.uid.clone()),
            namespace: namespace.clone(),
            ..ObjectReference::default()
        };
        let (name, uid) = match obs.workload() {
            Some(pod) => (pod.key.name.clone(), pod.uid.clone()),
            None => (handoff.spec.pod.name.clone(), handoff.spec.pod.uid.clone()),
        };
        let pod = ObjectReference { kind: Some("Pod".to_owned()), name: Some(name), uid: Some(uid), ..claim.clone() };
        for object in [claim, pod] {
            if let Err(error) = self.recorder.publish(&event, &object).await {
                tracing::warn!(reason, %error, "event not written");
            }
        }
    }
}
