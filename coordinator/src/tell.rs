//! Events on the pod, on the claim and on the `VolumeHandoff`. Best effort: an Event that is not written stops nothing.

use crate::{
    api::{GROUP, VolumeHandoff},
    observation::Observation,
    reason::Reason,
};
use handoff_cluster::{Pod, Volume};
use hashbrown::HashMap;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, ResourceExt,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The same is not said again of the same object within this time: `kubectl drain` asks for an eviction every 5 s.
const ONCE_IN: Duration = Duration::from_mins(6);
/// So much is remembered of what was said; beyond it, all is forgotten.
const REMEMBERED: usize = 10_000;

/// The objects that an Event is about. One without a name is left out.
#[derive(Clone, Debug, Default)]
pub struct About {
    namespace: Option<String>,
    claim: String,
    claim_uid: Option<String>,
    pod: String,
    pod_uid: String,
    handoff: String,
    handoff_uid: Option<String>,
}

impl About {
    /// A pod and the claim of one of its volumes.
    pub fn of(pod: &Pod, volume: &Volume) -> Self {
        Self {
            namespace: Some(pod.key.namespace.clone()),
            claim: volume.claim.as_ref().map(|claim| claim.name.clone()).unwrap_or_default(),
            pod: pod.key.name.clone(),
            pod_uid: pod.uid.clone(),
            ..Self::default()
        }
    }

    /// A handoff, its claim, and the pod that uses the volume now or is leaving it.
    pub fn handoff(handoff: &VolumeHandoff, workload: Option<&Pod>) -> Self {
        let spec = &handoff.spec;
        let (pod, pod_uid) = match workload {
            Some(pod) => (pod.key.name.clone(), pod.uid.clone()),
            None => (spec.pod.name.clone(), spec.pod.uid.clone()),
        };
        Self {
            namespace: handoff.namespace(),
            claim: spec.volume.claim.clone(),
            claim_uid: handoff.owner_references().first().map(|o| o.uid.clone()),
            pod,
            pod_uid,
            handoff: handoff.name_any(),
            handoff_uid: handoff.uid(),
        }
    }

    fn objects(self) -> impl Iterator<Item = ObjectReference> {
        let namespace = self.namespace;
        let object = move |api_version: &str, kind: &str, name: String, uid: Option<String>| ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
            name: Some(name),
            uid,
            namespace: namespace.clone(),
            ..ObjectReference::default()
        };
        let all = [
            object("v1", "PersistentVolumeClaim", self.claim, self.claim_uid),
            object("v1", "Pod", self.pod, Some(self.pod_uid)),
            object(&format!("{GROUP}/v1alpha1"), "VolumeHandoff", self.handoff, self.handoff_uid),
        ];
        all.into_iter().filter(|object| object.name.as_ref().is_some_and(|name| !name.is_empty()))
    }
}

/// What was said: kind and name of the object, its UID, reason and note.
type Said = (String, String, &'static str, String);

/// Writes Events.
pub struct Teller {
    client: Client,
    reporter: Reporter,
    said: Mutex<HashMap<Said, Instant>>,
}

impl Teller {
    /// Events are reported by `handoff`, instance `identity`.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: "handoff".to_owned(), instance: Some(identity.to_owned()) };
        Self { client, reporter, said: Mutex::default() }
    }

    /// One Event on the handoff, one on the claim and one on the pod that uses the volume now (or is leaving it).
    pub async fn tell(&self, handoff: &VolumeHandoff, obs: &Observation, reason: Reason, note: &str) {
        let about = About::handoff(handoff, obs.workload().map(AsRef::as_ref));
        self.tell_about(about, reason, note).await;
    }

    /// One Event on each of the objects.
    pub async fn tell_about(&self, about: About, reason: Reason, note: &str) {
        let event = Event {
            type_: if reason.is_warning() { EventType::Warning } else { EventType::Normal },
            reason: reason.as_str().to_owned(),
            // the API server refuses notes of more than 1 kB
            note: Some(shortened(note).to_owned()),
            action: "Handoff".to_owned(),
            secondary: None,
        };
        // a recorder takes Events that differ in their note only for one, and keeps the first note: two backups of one
        // pod that are complete would be one. So each Event has a recorder of its own, and what is the same is seen here.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        for object in about.objects().filter(|object| self.is_new(object, reason, note)) {
            if let Err(error) = recorder.publish(&event, &object).await {
                tracing::warn!(reason = reason.as_str(), %error, "event not written");
            }
        }
    }

    fn is_new(&self, object: &ObjectReference, reason: Reason, note: &str) -> bool {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let what = format!("{} {}/{}", text(&object.kind), text(&object.namespace), text(&object.name));
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| at.elapsed() < ONCE_IN);
        if said.len() >= REMEMBERED {
            said.clear();
        }
        said.insert((what, text(&object.uid), reason.as_str(), note.to_owned()), Instant::now()).is_none()
    }
}

/// At most 1000 bytes of it.
fn shortened(note: &str) -> &str {
    note.get(..1000).unwrap_or_else(|| {
        let end = (0..=1000.min(note.len())).rev().find(|end| note.is_char_boundary(*end));
        &note[..end.unwrap_or(0)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::api::Api;
    use crate::{api::VolumeHandoff, decide::tests::spec};

    fn handoff() -> VolumeHandoff {
        let mut handoff = VolumeHandoff::new("pv", spec(&["b1"]));
        handoff.metadata.namespace = Some("shop".into());
        handoff.metadata.uid = Some("h".into());
        handoff
    }

    #[tokio::test]
    async fn pod_claim_and_handoff_are_told_once() {
        let api = Api::default();
        let teller = Teller::new(api.client(), "handoff-0");
        let (handoff, obs) = (handoff(), Observation::default());
        for _ in 0..3 {
            teller.tell(&handoff, &obs, Reason::BackupCompleted, "backup b1 is complete").await;
        }
        let told = |api: &Api| {
            let mut kinds =
                api.objects("/events/").into_iter().map(|e| e["regarding"]["kind"].to_string()).collect::<Vec<_>>();
            kinds.sort();
            kinds
        };
        assert_eq!(told(&api), ["\"PersistentVolumeClaim\"", "\"Pod\"", "\"VolumeHandoff\""]);
        teller.tell(&handoff, &obs, Reason::BackupCompleted, "backup b2 is complete").await;
        assert_eq!(told(&api).len(), 6, "another backup is another fact");
        let of_handoff =
            api.objects("/events/").into_iter().find(|e| e["regarding"]["kind"] == "VolumeHandoff").unwrap();
        assert_eq!(of_handoff["regarding"]["apiVersion"], "volumehandoff.io/v1alpha1");
        assert_eq!((&of_handoff["regarding"]["uid"], &of_handoff["type"]), (&"h".into(), &"Normal".into()));
        assert!(api.asked().iter().all(|line| line.starts_with("POST")), "{:?}", api.asked());
    }

    #[tokio::test]
    async fn what_has_no_name_gets_no_event() {
        let api = Api::default();
        let teller = Teller::new(api.client(), "handoff-0");
        let about = About { pod: "db-0".into(), ..About::default() };
        teller.tell_about(about, Reason::WouldResume, "x").await;
        assert_eq!(api.asked().len(), 1);
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let long = "é".repeat(600);
        assert_eq!(shortened(&long).len(), 1000);
        assert_eq!(shortened(&format!("x{long}")).len(), 999);
    }
}
