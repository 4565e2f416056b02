//! `ExtenderArgs`, the question of `filter` and `prioritize`.

use handoff_coordinator::verdicts::{PodRef, Settings, settings::MODE};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    quick,
    wire::{Malformed, Text, go_struct, text},
};

const NAME: &str = "ExtenderArgs";

go_struct! {
    /// `ExtenderArgs`. The scheduler sends one of the lists and null for the other; with both, both are answered.
    Args {
        pod: Pod<'a> = "Pod",
        node_names: Vec<Text<'a>> = "NodeNames",
        nodes: NodeList<'a> = "Nodes",
    }
}

/// `v1.NodeList`; each node stays the text that it is.
#[derive(Deserialize)]
pub(crate) struct NodeList<'a> {
    #[serde(borrow, alias = "Items")]
    items: Option<Vec<&'a RawValue>>,
}

impl<'a> NodeList<'a> {
    pub(crate) fn items(&self) -> &[&'a RawValue] {
        self.items.as_deref().unwrap_or_default()
    }
}

/// As much of a `v1.Pod` as says which claims it uses. The object is Kubernetes', its keys have one spelling.
#[derive(Deserialize)]
pub(crate) struct Pod<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    spec: Option<Spec<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    annotations: Option<Annotations<'a>>,
}

/// Only this one matters to a judgement.
#[derive(Deserialize)]
struct Annotations<'a> {
    #[serde(borrow, rename = "volumehandoff.io/mode")]
    mode: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow)]
    volumes: Option<Vec<Option<Volume<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    persistent_volume_claim: Option<ClaimSource<'a>>,
    ephemeral: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSource<'a> {
    #[serde(borrow)]
    claim_name: Option<Text<'a>>,
}

impl<'a> Args<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let args = match quick::args(body) {
            Some(args) => args,
            None => serde_json::from_slice(body).map_err(|error| Malformed::Json(NAME, error))?,
        };
        if args.node_names.is_none() && args.nodes.is_none() {
            return Err(Malformed::Missing(NAME, "both NodeNames and Nodes are"));
        }
        Ok(args)
    }

    fn metadata(&self) -> Option<&Metadata<'a>> {
        self.pod.as_ref()?.metadata.as_ref()
    }

    pub(crate) fn namespace(&self) -> &str {
        text(self.metadata().and_then(|meta| meta.namespace.as_ref()))
    }

    fn pod_name(&self) -> &str {
        text(self.metadata().and_then(|meta| meta.name.as_ref()))
    }

    pub(crate) fn pod_ref(&self) -> PodRef {
        let uid = text(self.metadata().and_then(|meta| meta.uid.as_ref()));
        PodRef {
            namespace: self.namespace().to_owned(),
            name: self.pod_name().to_owned(),
            uid: (!uid.is_empty()).then(|| uid.to_owned()),
        }
    }

    /// What the pod asks for. A pod is scheduled as soon as it is made, so our cache may not show it yet.
    pub(crate) fn settings(&self) -> Settings {
        let mode = self.metadata().and_then(|meta| meta.annotations.as_ref()).and_then(|all| all.mode.as_deref());
        Settings::read(|key| if key == MODE { mode } else { None })
    }

    /// Names of the pod's claims, each once. An ephemeral volume's claim is named after pod and volume.
    pub(crate) fn claims(&self) -> Vec<String> {
        let volumes = self.pod.as_ref().and_then(|pod| pod.spec.as_ref()).and_then(|spec| spec.volumes.as_deref());
        let mut claims: Vec<String> = Vec::new();
        for volume in volumes.unwrap_or_default().iter().flatten() {
            let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(source), _) => text(source.claim_name.as_ref()).to_owned(),
                (None, Some(_)) if !self.pod_name().is_empty() => {
                    format!("{}-{}", self.pod_name(), text(volume.name.as_ref()))
                }
                _ => continue,
            };
            if !claim.is_empty() && !claims.contains(&claim) {
                claims.push(claim);
            }
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_the_pod() {
        let args = Args::parse(
            br#"{"NodeNames":[],"Nodes":null,"Pod":{"metadata":{"name":"web-0","namespace":"shop"},"spec":{"volumes":[
                {"name":"data","persistentVolumeClaim":{"claimName":"data-web-0"}},
                {"name":"same","persistentVolumeClaim":{"claimName":"data-web-0"}},
                {"name":"scratch","ephemeral":{}},{"name":"cfg","configMap":{}},{}]}}}"#,
        )
        .unwrap();
        assert_eq!(
            (args.namespace(), args.claims()),
            ("shop", vec!["data-web-0".to_owned(), "web-0-scratch".to_owned()])
        );
    }

    #[test]
    fn what_the_pod_asks_for() {
        use handoff_coordinator::verdicts::settings::Mode;
        for (metadata, mode) in [
            (r#"{"annotations":{"a":"b","volumehandoff.io/mode":"disabled"}}"#, Some(Mode::Disabled)),
            (r#"{"annotations":{"volumehandoff.io/mode":"observe"}}"#, Some(Mode::Observe)),
            (r#"{"annotations":{"volumehandoff.io/mode":"off"}}"#, None),
            (r#"{"annotations":{"volumehandoff.io/mode":null}}"#, None),
            (r#"{"annotations":null}"#, None),
            ("{}", None),
        ] {
            let body = format!(r#"{{"NodeNames":[],"Pod":{{"metadata":{metadata}}}}}"#);
            assert_eq!(Args::parse(body.as_bytes()).unwrap().settings().mode.value(), mode, "{metadata}");
        }
    }

    #[test]
    fn a_question_about_no_nodes_is_malformed() {
        for body in ["{}", r#"{"Pod":{},"Nodes":null,"NodeNames":null}"#] {
            assert!(matches!(Args::parse(body.as_bytes()), Err(Malformed::Missing(..))), "{body}");
        }
        for body in ["", "null", "[]", r#"{"NodeNames":"node-1"}"#, r#"{"NodeNames":[1]}"#] {
            assert!(matches!(Args::parse(body.as_bytes()), Err(Malformed::Json(..))), "{body}");
        }
    }
}
