//! Opting in and out. An annotation on the pod counts before one on the claim, that before one on the storage class,
//! that before one on the namespace, and the default of the installation comes last. A value that an annotation may
//! not have is warned of and counts as absent.

use crate::{api::VolumeHandoff, observation::Observation, shell::Coordinator};
use handoff_cluster::{
    Index, ObjectKey, Volume,
    settings::{ALLOW_SNAPSHOT_DELETION, EVICTION_POLICY, Given, MAX_HOLD, MODE, Mode, Setting, Settings},
};
use std::fmt;

/// What the four objects around one claim ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// The pod.
    pub pod: Settings,
    /// The claim.
    pub claim: Settings,
    /// The storage class of the claim.
    pub class: Settings,
    /// The namespace of the claim.
    pub namespace: Settings,
}

/// An object that an annotation can be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The pod.
    Pod,
    /// The claim.
    Claim,
    /// The storage class.
    Class,
    /// The namespace.
    Namespace,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod",
            Self::Claim => "claim",
            Self::Class => "storage class",
            Self::Namespace => "namespace",
        })
    }
}

impl Layers {
    fn each(&self) -> [(Layer, &Settings); 4] {
        [
            (Layer::Pod, &self.pod),
            (Layer::Claim, &self.claim),
            (Layer::Class, &self.class),
            (Layer::Namespace, &self.namespace),
        ]
    }

    /// The most specific valid value.
    pub fn resolve<T: Copy>(&self, setting: impl Fn(&Given) -> &Setting<T>, default: T) -> T {
        let set = self.each().into_iter().find_map(|(_, given)| match setting(given) {
            Setting::Set(value) => Some(*value),
            Setting::Unset | Setting::Invalid { .. } => None,
        });
        set.unwrap_or(default)
    }

    /// How much Handoff does.
    pub fn mode(&self, default: Mode) -> Mode {
        self.resolve(|given| &given.mode, default)
    }

    /// A sentence for each value that an annotation may not have.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (layer, given) in self.each().into_iter().filter(|(_, given)| !given.is_empty()) {
            let mut warn = |annotation: &str, invalid: Option<(&str, String)>| {
                warnings.extend(invalid.map(|(value, why)| {
                    format!("handoff: annotation {annotation} of the {layer} is \"{value}\" and ignored: it {why}")
                }));
            };
            warn(MODE, invalid(&given.mode));
            warn(EVICTION_POLICY, invalid(&given.eviction_policy));
            warn(MAX_HOLD, invalid(&given.max_hold));
            warn(ALLOW_SNAPSHOT_DELETION, invalid(&given.allow_snapshot_deletion));
        }
        warnings
    }
}

fn invalid<T>(setting: &Setting<T>) -> Option<(&str, String)> {
    match setting {
        Setting::Invalid { value, why } => Some((value, why.to_string())),
        Setting::Unset | Setting::Set(_) => None,
    }
}

/// What the objects around a claim ask for; `pod` is what the pod does.
pub fn layers(index: &Index, pod: &Settings, claim: &ObjectKey) -> Layers {
    let found = index.claim(claim);
    let class = found.as_ref().and_then(|c| match c.class.as_deref() {
        Some(name) => index.class(name),
        // a volume that was there already has no class; one that is yet to be made gets the default one
        None => index.default_class().filter(|_| c.volume.is_none()),
    });
    Layers {
        pod: pod.clone(),
        claim: found.map(|c| c.settings.clone()).unwrap_or_default(),
        class: class.map(|c| c.settings.clone()).unwrap_or_default(),
        namespace: index.settings_of_namespace(&claim.namespace),
    }
}

/// Those of a pod's claims for which everything is to be done; `pod` is what the pod asks for.
pub fn enabled(index: &Index, namespace: &str, pod: &Settings, claims: &[String], default: Mode) -> Vec<String> {
    let mode = |claim: &str| layers(index, pod, &ObjectKey::new(namespace, claim)).mode(default);
    claims.iter().filter(|claim| mode(claim) == Mode::Enabled).cloned().collect()
}

impl Coordinator {
    /// What is asked for around one volume of a pod.
    pub(crate) fn layers(&self, pod: &Settings, volume: &Volume) -> Layers {
        let index = self.cluster.read();
        volume.claim.as_ref().map(|claim| layers(&index, pod, claim)).unwrap_or_default()
    }

    /// How much is to be done for one volume of a pod.
    pub(crate) fn mode(&self, pod: &Settings, volume: &Volume) -> Mode {
        self.layers(pod, volume).mode(self.policy.mode)
    }

    /// How much is to be done for a volume, whichever pod it has now. While it has none, what its last pod asked for
    /// still counts: it is in the handoff.
    pub(crate) fn mode_now(&self, volume: &Volume, obs: &Observation, handoff: Option<&VolumeHandoff>) -> Mode {
        let pod = obs.workload().or_else(|| obs.pods.iter().max_by_key(|p| p.created)).map(|p| p.settings.clone());
        let recorded = || handoff.and_then(|h| h.spec.pod.mode.as_deref());
        let pod = pod.unwrap_or_else(|| Settings::read(|key| if key == MODE { recorded() } else { None }));
        self.mode(&pod, volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handoff_cluster::{Claim, Namespace, StorageClass};

    fn mode(value: &str) -> Settings {
        Settings::read(|key| (key == MODE && !value.is_empty()).then_some(value))
    }

    fn of(pod: &str, claim: &str, class: &str, namespace: &str) -> Layers {
        Layers { pod: mode(pod), claim: mode(claim), class: mode(class), namespace: mode(namespace) }
    }

    #[test]
    fn the_most_specific_valid_value_counts() {
        use Mode::{Disabled, Enabled, Observe};
        for (pod, claim, class, namespace, default, wanted) in [
            ("", "", "", "", Enabled, Enabled),
            ("", "", "", "", Disabled, Disabled),
            ("", "", "", "", Observe, Observe),
            ("", "", "", "enabled", Disabled, Enabled),
            ("", "", "disabled", "enabled", Enabled, Disabled),
            ("", "observe", "disabled", "enabled", Enabled, Observe),
            ("enabled", "observe", "disabled", "disabled", Disabled, Enabled),
            ("disabled", "", "", "enabled", Enabled, Disabled),
            ("", "", "observe", "", Enabled, Observe),
            ("", "enabled", "", "disabled", Disabled, Enabled),
            // invalid ones count as absent
            ("off", "observe", "", "", Enabled, Observe),
            ("off", "no", "yes", "disabled", Enabled, Disabled),
            ("off", "no", "yes", "1", Observe, Observe),
        ] {
            let layers = of(pod, claim, class, namespace);
            assert_eq!(layers.mode(default), wanted, "{pod}/{claim}/{class}/{namespace}, default {default}");
        }
    }

    #[test]
    fn invalid_values_are_named() {
        assert!(of("enabled", "observe", "disabled", "").warnings().is_empty());
        let warnings = of("off", "", "", "1").warnings();
        assert_eq!(warnings.len(), 2);
        assert_eq!(
            warnings[0],
            "handoff: annotation volumehandoff.io/mode of the pod is \"off\" and ignored: \
             it must be enabled, observe or disabled"
        );
        assert!(warnings[1].contains("of the namespace is \"1\""), "{}", warnings[1]);
        let claim = Settings::read(|key| {
            [(EVICTION_POLICY, "never"), (MAX_HOLD, "5h")].iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
        });
        let warnings = Layers { claim, ..Layers::default() }.warnings();
        assert!(warnings[0].contains("must be Checkpoint or FinishIfNear"), "{}", warnings[0]);
        assert!(warnings[1].contains("at most 100s"), "{}", warnings[1]);
    }

    #[test]
    fn the_objects_are_found_from_the_claim() {
        let key = ObjectKey::new("shop", "data");
        let mut index = Index::default();
        assert_eq!(layers(&index, &mode("observe"), &key), of("observe", "", "", ""), "a claim that is not known yet");
        index.put_claim(Claim {
            key: key.clone(),
            uid: "u".into(),
            volume: None,
            class: Some("fast".into()),
            requested_bytes: None,
            settings: mode("enabled"),
        });
        index.put_class(StorageClass {
            name: "fast".into(),
            provisioner: "d".into(),
            waits_for_pod: false,
            is_default: false,
            parameters: std::collections::BTreeMap::new(),
            settings: mode("disabled"),
        });
        index.put_namespace(Namespace { name: "shop".into(), settings: mode("observe") });
        assert_eq!(layers(&index, &mode(""), &key), of("", "enabled", "disabled", "observe"));
    }
}
