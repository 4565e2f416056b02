//! Storage classes and namespaces: what a claim without a volume is going to be, and what holds for all in it.

use crate::{meta::slim_meta, settings::Settings, slim::name_of};
use k8s_openapi::{
    api::{core::v1::Namespace as FullNamespace, storage::v1::StorageClass as FullClass},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A `StorageClass`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageClass {
    /// Name.
    pub name: String,
    /// The CSI driver that makes its volumes.
    pub provisioner: String,
    /// `volumeBindingMode: WaitForFirstConsumer`: a volume is made when a pod has been given a node.
    pub waits_for_pod: bool,
    /// Claims that name no class get this one.
    pub is_default: bool,
    /// Parameters of the driver.
    pub parameters: BTreeMap<String, String>,
    /// Annotations of ours.
    pub settings: Settings,
}

/// Marks the default class.
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = FullClass)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WireClass {
    #[serde(default, deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
    #[serde(default)]
    provisioner: String,
    volume_binding_mode: Option<String>,
    parameters: Option<BTreeMap<String, String>>,
}

impl From<WireClass> for StorageClass {
    fn from(w: WireClass) -> Self {
        let annotations = w.metadata.annotations.as_ref();
        Self {
            name: name_of(&w.metadata),
            provisioner: w.provisioner,
            waits_for_pod: w.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            is_default: annotations.and_then(|a| a.get(IS_DEFAULT)).is_some_and(|v| v == "true"),
            parameters: w.parameters.unwrap_or_default(),
            settings: Settings::of(annotations),
        }
    }
}

/// A namespace with annotations of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// Annotations of ours.
    pub settings: Settings,
}

#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = FullNamespace)]
pub(crate) struct WireNamespace {
    #[serde(default, deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
}

impl WireNamespace {
    /// `None` for namespaces without annotations of ours: nothing is to be known of them.
    pub(crate) fn slim(self) -> Option<Namespace> {
        let settings = Settings::of(self.metadata.annotations.as_ref());
        (!settings.is_empty()).then(|| Namespace { name: name_of(&self.metadata), settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Mode;
    use serde_json::{from_value, json};

    #[test]
    fn a_class_keeps_what_a_placement_needs() {
        let wire: WireClass = from_value(json!({
            "metadata": {"name": "fast", "annotations": {IS_DEFAULT: "true", "volumehandoff.io/mode": "observe"}},
            "provisioner": "driver.longhorn.io", "volumeBindingMode": "WaitForFirstConsumer",
            "parameters": {"numberOfReplicas": "2"}, "invented": 1
        }))
        .unwrap();
        let class = StorageClass::from(wire);
        assert!(class.is_default && class.waits_for_pod);
        assert_eq!(class.settings.mode.value(), Some(Mode::Observe));
        assert_eq!(class.parameters["numberOfReplicas"], "2");
        let wire: WireClass = from_value(json!({"metadata": {"name": "plain"}, "provisioner": "x"})).unwrap();
        let class = StorageClass::from(wire);
        assert!(!class.is_default && !class.waits_for_pod && class.settings.is_empty());
    }

    #[test]
    fn a_namespace_that_says_nothing_is_not_kept() {
        let wire: WireNamespace = from_value(json!({"metadata": {"name": "shop", "annotations": {"x": "y"}}})).unwrap();
        assert_eq!(wire.slim(), None);
        let wire: WireNamespace =
            from_value(json!({"metadata": {"name": "shop", "annotations": {"volumehandoff.io/mode": "no"}}})).unwrap();
        assert!(!wire.slim().unwrap().settings.is_empty(), "an invalid value is kept to warn of it");
    }
}
