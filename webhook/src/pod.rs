//! The few fields of a Pod that decide whether it concerns us.

use handoff_coordinator::verdicts::{
    ClaimTemplate, Settings,
    settings::{EVICTION_POLICY, MAX_HOLD, MODE},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    affinity::Affinity,
    review::{Text, owned, text},
};

#[derive(Deserialize)]
pub(crate) struct Pod<'a> {
    #[serde(borrow)]
    pub(crate) metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    pub(crate) spec: Option<Spec<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata<'a> {
    #[serde(borrow)]
    pub(crate) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) namespace: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) uid: Option<Text<'a>>,
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(borrow)]
    annotations: Option<Annotations<'a>>,
    #[serde(borrow)]
    owner_references: Option<Vec<Owner<'a>>>,
}

/// The annotations that are read here. The names are those of [`handoff_coordinator::verdicts::settings`].
#[derive(Deserialize)]
struct Annotations<'a> {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
    #[serde(borrow, rename = "volumehandoff.io/mode")]
    mode: Option<Text<'a>>,
    #[serde(borrow, rename = "volumehandoff.io/eviction-policy")]
    eviction_policy: Option<Text<'a>>,
    #[serde(borrow, rename = "volumehandoff.io/max-hold")]
    max_hold: Option<Text<'a>>,
}

impl Annotations<'_> {
    fn settings(&self) -> Settings {
        Settings::read(|key| match key {
            MODE => self.mode.as_deref(),
            EVICTION_POLICY => self.eviction_policy.as_deref(),
            MAX_HOLD => self.max_hold.as_deref(),
            _ => None,
        })
    }
}

#[derive(Deserialize)]
struct Owner<'a> {
    #[serde(borrow)]
    kind: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec<'a> {
    #[serde(borrow)]
    node_name: Option<Text<'a>>,
    #[serde(borrow)]
    volumes: Option<Vec<Volume<'a>>>,
    #[serde(borrow)]
    pub(crate) affinity: Option<Affinity<'a>>,
    #[serde(borrow)]
    pub(crate) scheduler_name: Option<Text<'a>>,
    /// Read only where a marker is configured.
    #[serde(borrow)]
    pub(crate) containers: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    persistent_volume_claim: Option<ClaimSource<'a>>,
    #[serde(borrow)]
    ephemeral: Option<Ephemeral<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ephemeral<'a> {
    #[serde(borrow)]
    volume_claim_template: Option<Template<'a>>,
}

#[derive(Deserialize)]
struct Template<'a> {
    #[serde(borrow)]
    metadata: Option<TemplateMetadata<'a>>,
    #[serde(borrow)]
    spec: Option<TemplateSpec<'a>>,
}

#[derive(Deserialize)]
struct TemplateMetadata<'a> {
    #[serde(borrow)]
    annotations: Option<Annotations<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TemplateSpec<'a> {
    #[serde(borrow)]
    storage_class_name: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSource<'a> {
    #[serde(borrow)]
    claim_name: Option<Text<'a>>,
}

impl Pod<'_> {
    /// Empty while the API server has still to make one from `generateName`.
    pub(crate) fn name(&self) -> &str {
        text(self.metadata.as_ref().and_then(|meta| meta.name.as_ref()))
    }

    /// A daemon set's pod never goes to another node; its volumes, if any, stay where they are.
    pub(crate) fn is_of_daemon_set(&self) -> bool {
        let owners = self.metadata.as_ref().and_then(|meta| meta.owner_references.as_deref()).unwrap_or_default();
        owners.iter().any(|owner| text(owner.kind.as_ref()) == "DaemonSet")
    }

    /// The API's picture of a pod that a kubelet runs from a file.
    pub(crate) fn is_mirror(&self) -> bool {
        let annotations = self.metadata.as_ref().and_then(|meta| meta.annotations.as_ref());
        annotations.is_some_and(|annotations| annotations.mirror.is_some())
    }

    /// The node it is on, or will be.
    pub(crate) fn node(&self) -> Option<String> {
        owned(self.spec.as_ref().and_then(|spec| spec.node_name.as_ref()))
    }

    pub(crate) fn is_assigned(&self) -> bool {
        !text(self.spec.as_ref().and_then(|spec| spec.node_name.as_ref())).is_empty()
    }

    pub(crate) fn is_terminating(&self) -> bool {
        self.metadata.as_ref().is_some_and(|meta| meta.deletion_timestamp.is_some())
    }

    /// Whether the pod has any volume with a claim, also one whose name is not known yet.
    pub(crate) fn has_claims(&self) -> bool {
        self.volumes().iter().any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some())
    }

    /// Names of the claims, each once. An ephemeral volume's claim is named after the pod, so it is left out as long
    /// as the pod has no name.
    pub(crate) fn claims(&self) -> Vec<String> {
        let mut claims: Vec<String> = Vec::new();
        for volume in self.volumes() {
            let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(source), _) => text(source.claim_name.as_ref()).to_owned(),
                (None, Some(_)) if !self.name().is_empty() => {
                    format!("{}-{}", self.name(), text(volume.name.as_ref()))
                }
                _ => continue,
            };
            if !claim.is_empty() && !claims.contains(&claim) {
                claims.push(claim);
            }
        }
        claims
    }

    /// Claims that will be made from the pod's own templates.
    pub(crate) fn templates(&self) -> Vec<ClaimTemplate> {
        let ephemeral = self.volumes().iter().filter_map(|volume| volume.ephemeral.as_ref());
        let template = ephemeral.map(|ephemeral| ephemeral.volume_claim_template.as_ref()).map(|template| {
            let annotations = template.and_then(|t| t.metadata.as_ref()).and_then(|meta| meta.annotations.as_ref());
            let spec = template.and_then(|t| t.spec.as_ref());
            ClaimTemplate {
                class: owned(spec.and_then(|spec| spec.storage_class_name.as_ref())),
                settings: annotations.map(Annotations::settings).unwrap_or_default(),
            }
        });
        template.collect()
    }

    /// Its annotations of ours.
    pub(crate) fn settings(&self) -> Settings {
        let annotations = self.metadata.as_ref().and_then(|meta| meta.annotations.as_ref());
        annotations.map(Annotations::settings).unwrap_or_default()
    }

    fn volumes(&self) -> &[Volume<'_>] {
        self.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: &str) -> Pod<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn claims_are_named_once_and_in_order() {
        let json = r#"{"metadata":{"name":"web-0"},"spec":{"volumes":[
            {"name":"data","persistentVolumeClaim":{"claimName":"data-web-0"}},
            {"name":"again","persistentVolumeClaim":{"claimName":"data-web-0","readOnly":true}},
            {"name":"scratch","ephemeral":{"volumeClaimTemplate":{"spec":{}}}},
            {"name":"cfg","configMap":{"name":"cfg"}},
            {"name":"none","persistentVolumeClaim":null}]}}"#;
        assert_eq!(pod(json).claims(), ["data-web-0", "web-0-scratch"]);
        assert!(pod(json).has_claims());
    }

    #[test]
    fn an_ephemeral_claim_waits_for_the_pods_name() {
        let json = r#"{"metadata":{"generateName":"web-"},"spec":{"volumes":[{"name":"s","ephemeral":{}}]}}"#;
        assert!(pod(json).claims().is_empty());
        assert!(pod(json).has_claims());
        assert_eq!(pod(json).templates().len(), 1);
    }

    #[test]
    fn what_is_asked_for_is_read_from_the_pod_and_from_its_templates() {
        use handoff_coordinator::verdicts::settings::Mode;
        let json = r#"{"metadata":{"annotations":{"volumehandoff.io/mode":"observe","other":"x"}},"spec":{"volumes":[
            {"name":"s","ephemeral":{"volumeClaimTemplate":{"metadata":{"annotations":{"volumehandoff.io/mode":"disabled"}},
                "spec":{"storageClassName":"fast"}}}},
            {"name":"t","ephemeral":{"volumeClaimTemplate":{"spec":{}}}}]}}"#;
        let pod = pod(json);
        assert_eq!(pod.settings().mode.value(), Some(Mode::Observe));
        let [first, second] = pod.templates().try_into().unwrap();
        assert_eq!((first.class.as_deref(), first.settings.mode.value()), (Some("fast"), Some(Mode::Disabled)));
        assert!(second.class.is_none() && second.settings.is_empty());
    }

    #[test]
    fn absent_and_null_are_the_same() {
        for json in [
            "{}",
            r#"{"metadata":null,"spec":null}"#,
            r#"{"metadata":{"annotations":null,"ownerReferences":null,"deletionTimestamp":null},
                "spec":{"volumes":null,"nodeName":"","affinity":null}}"#,
        ] {
            let pod = pod(json);
            assert!(!pod.has_claims() && !pod.is_of_daemon_set() && !pod.is_mirror(), "{json}");
            assert!(!pod.is_assigned() && !pod.is_terminating(), "{json}");
        }
    }
}
