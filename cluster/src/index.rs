//! The joined index. Plain data: events go in, answers come out, no I/O.

use crate::{
    class::{Namespace, StorageClass},
    compact::{Claims, Pods, Volumes},
    settings::Settings,
    slim::{Attachment, Claim, CsiNode, Node, ObjectKey, Pod, Volume},
};
use hashbrown::{HashMap, HashSet};
use std::{collections::BTreeSet, sync::Arc};

/// What an event touched, as far as others care.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Something around the `PersistentVolume` of this name.
    Volume(String),
    /// Something about the node of this name.
    Node(String),
}

/// How nodes are at one moment: a picture that stays as it is while the index goes on.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    leaving: Arc<HashSet<String>>,
    /// Node → attachments that were asked for and are not done.
    attaching: Arc<HashMap<String, usize>>,
}

impl Moment {
    /// Whether the node is known to be cordoned, not ready, or about to go, so that nobody should be sent to it.
    pub fn is_leaving(&self, node: &str) -> bool {
        self.leaving.contains(node)
    }

    /// How many volumes are being attached to the node.
    pub fn attaching(&self, node: &str) -> usize {
        self.attaching.get(node).copied().unwrap_or_default()
    }

    // what is shared with a picture is copied only when it changes

    fn set_leaving(&mut self, node: &str, leaving: bool) {
        if leaving && !self.is_leaving(node) {
            Arc::make_mut(&mut self.leaving).insert(node.to_owned());
        } else if !leaving && self.is_leaving(node) {
            Arc::make_mut(&mut self.leaving).remove(node);
        }
    }

    fn begin_attaching(&mut self, node: &str) {
        *Arc::make_mut(&mut self.attaching).entry_ref(node).or_default() += 1;
    }

    fn end_attaching(&mut self, node: &str) {
        let left = match self.attaching(node) {
            0 => return,
            count => count - 1,
        };
        let attaching = Arc::make_mut(&mut self.attaching);
        if left == 0 {
            attaching.remove(node);
        } else {
            attaching.insert(node.to_owned(), left);
        }
    }
}

/// Volume ⇄ `PersistentVolume` ⇄ claim ⇄ pod ⇄ node.
#[derive(Debug, Default)]
pub struct Index {
    pods: Pods,
    claims: Claims,
    volumes: Volumes,
    nodes: HashMap<String, Arc<Node>>,
    emptied: BTreeSet<String>,
    now: Moment,
    csi_nodes: HashMap<String, Arc<CsiNode>>,
    attachments: HashMap<String, Arc<Attachment>>,
    attachments_of_volume: HashMap<String, HashSet<String>>,
    classes: HashMap<String, Arc<StorageClass>>,
    namespaces: HashMap<String, Namespace>,
    drivers_version: u64,
}

impl Index {
    /// The pod of this key.
    pub fn pod(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        self.pods.get(key)
    }

    /// All pods, in no order.
    pub fn pods(&self) -> impl Iterator<Item = Arc<Pod>> {
        self.pods.values()
    }

    /// All pods that mount the claim, in no order.
    pub fn pods_of_claim(&self, claim: &ObjectKey) -> Vec<Arc<Pod>> {
        self.pods.of_claim(claim)
    }

    /// The claim of this key.
    pub fn claim(&self, key: &ObjectKey) -> Option<Arc<Claim>> {
        self.claims.get(key)
    }

    /// The volume of a claim, by the claim's own `spec.volumeName`.
    pub fn volume_of_claim(&self, claim: &ObjectKey) -> Option<Arc<Volume>> {
        self.volume(self.claims.volume_of(claim)?)
    }

    /// The `PersistentVolume` of this name.
    pub fn volume(&self, name: &str) -> Option<Arc<Volume>> {
        self.volumes.get(name)
    }

    /// The `PersistentVolume` with this driver and handle.
    pub fn volume_of_handle(&self, driver: &str, handle: &str) -> Option<Arc<Volume>> {
        self.volumes.of_handle(driver, handle)
    }

    /// All volumes of one driver.
    pub fn volumes_of_driver<'a>(&'a self, driver: &'a str) -> impl Iterator<Item = Arc<Volume>> {
        self.volumes.of_driver(driver)
    }

    /// The pods that mount the volume through its claim.
    pub fn pods_of_volume(&self, volume: &Volume) -> Vec<Arc<Pod>> {
        volume.claim.as_ref().map(|c| self.pods_of_claim(c)).unwrap_or_default()
    }

    /// The `VolumeAttachment`s of a `PersistentVolume`.
    pub fn attachments_of(&self, volume: &str) -> Vec<Arc<Attachment>> {
        let names = self.attachments_of_volume.get(volume).into_iter().flatten();
        names.filter_map(|n| self.attachments.get(n)).cloned().collect()
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.get(name).cloned()
    }

    /// Names of the nodes that are being emptied: a few of thousands, and asked for all the time.
    pub fn emptied(&self) -> impl Iterator<Item = &String> {
        self.emptied.iter()
    }

    /// Whether the node is known to be cordoned, not ready, or about to go.
    pub fn is_leaving(&self, name: &str) -> bool {
        self.now.is_leaving(name)
    }

    /// What [`Self::is_leaving`] and [`Self::attaching`] say now, for asking about many nodes.
    pub fn now(&self) -> Moment {
        self.now.clone()
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Whether the driver's node plugin is registered on the node.
    pub fn has_driver(&self, node: &str, driver: &str) -> bool {
        self.csi_nodes.get(node).is_some_and(|n| n.drivers.iter().any(|d| d == driver))
    }

    /// The storage class of this name.
    pub fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(name).cloned()
    }

    /// The class of claims that name none. Of several the API takes the newest; here it is one of them.
    pub fn default_class(&self) -> Option<Arc<StorageClass>> {
        self.classes.values().find(|class| class.is_default).cloned()
    }

    /// What is asked for by annotation on a namespace.
    pub fn settings_of_namespace(&self, name: &str) -> Settings {
        self.namespaces.get(name).map(|namespace| namespace.settings.clone()).unwrap_or_default()
    }

    /// How many volumes are being attached to the node now.
    pub fn attaching(&self, node: &str) -> usize {
        self.now.attaching(node)
    }

    /// Changes whenever [`Self::has_driver`] may answer otherwise than before.
    pub fn drivers_version(&self) -> u64 {
        self.drivers_version
    }

    fn volumes_of_pod(&self, pod: &Pod) -> Vec<Change> {
        let claims = pod.claims.iter().map(|c| ObjectKey::new(&pod.key.namespace, c));
        claims.filter_map(|c| self.claims.volume_of(&c).map(Into::into)).map(Change::Volume).collect()
    }

    /// Takes in a new or changed object; says what it touched.
    pub fn put_pod(&mut self, pod: Pod) -> Vec<Change> {
        let old = self.pods.get(&pod.key);
        if old.as_deref() == Some(&pod) {
            return Vec::new();
        }
        let mut changes = old.map(|old| self.volumes_of_pod(&old)).unwrap_or_default();
        changes.extend(self.volumes_of_pod(&pod));
        self.pods.insert(pod);
        changes
    }

    /// Forgets an object; says what it touched.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> Vec<Change> {
        self.pods.remove(key).map(|old| self.volumes_of_pod(&old)).unwrap_or_default()
    }

    /// Takes in a new or changed object; says what it touched.
    pub fn put_claim(&mut self, claim: Claim) -> Vec<Change> {
        let change = claim.volume.clone().map(Change::Volume);
        self.claims.insert(claim);
        change.into_iter().collect()
    }

    /// Forgets an object; says what it touched.
    pub fn remove_claim(&mut self, key: &ObjectKey) -> Vec<Change> {
        let old = self.claims.remove(key);
        old.and_then(|c| c.volume).map(Change::Volume).into_iter().collect()
    }

    /// Takes in a new or changed object; says what it touched.
    pub fn put_volume(&mut self, volume: Volume) -> Vec<Change> {
        self.volumes.insert(&volume);
        vec![Change::Volume(volume.name)]
    }

    /// Forgets an object; says what it touched.
    pub fn remove_volume(&mut self, ObjectKey { name, .. }: &ObjectKey) -> Vec<Change> {
        self.volumes.remove(name).map(|old| Change::Volume(old.name)).into_iter().collect()
    }

    /// Takes in a new or changed object; says what it touched.
    pub fn put_node(&mut self, node: Node) -> Vec<Change> {
        // nodes report their status all the time; only a difference that matters is news
        if self.nodes.get(&node.name).is_some_and(|old| **old == node) {
            return Vec::new();
        }
        let change = Change::Node(node.name.clone());
        if node.is_emptied() {
            self.emptied.insert(node.name.clone());
        } else {
            self.emptied.remove(&node.name);
        }
        self.now.set_leaving(&node.name, node.is_emptied() || !node.ready);
        self.nodes.insert(node.name.clone(), Arc::new(node));
        vec![change]
    }

    /// Forgets an object; says what it touched.
    pub fn remove_node(&mut self, ObjectKey { name, .. }: &ObjectKey) -> Vec<Change> {
        self.emptied.remove(name);
        self.now.set_leaving(name, false);
        self.nodes.remove(name).map(|_| Change::Node(name.clone())).into_iter().collect()
    }

    /// Takes in a new or changed object; says what it touched.
    pub fn put_csi_node(&mut self, node: CsiNode) -> Vec<Change> {
        if self.csi_nodes.get(&node.name).is_some_and(|old| **old == node) {
            return Vec::new();
        }
        let change = Change::Node(node.name.clone());
        self.csi_nodes.insert(node.name.clone(), Arc::new(node));
        self.drivers_version += 1;
        vec![change]
    }

    /// Forgets an object; says what it touched.
    pub fn remove_csi_node(&mut self, ObjectKey { name, .. }: &ObjectKey) -> Vec<Change> {
        let Some(_) = self.csi_nodes.remove(name) else { return Vec::new() };
        self.drivers_version += 1;
        vec![Change::Node(name.clone())]
    }

    /// Takes in a new or changed object; says what it touched.
    pub fn put_attachment(&mut self, attachment: Attachment) -> Vec<Change> {
        let change = Change::Volume(attachment.volume.clone());
        let names = self.attachments_of_volume.entry(attachment.volume.clone()).or_default();
        names.insert(attachment.name.clone());
        if attachment.is_under_way() {
            self.now.begin_attaching(&attachment.node);
        }
        if let Some(old) = self.attachments.insert(attachment.name.clone(), Arc::new(attachment)) {
            self.no_longer_under_way(&old);
        }
        vec![change]
    }

    /// Forgets an object; says what it touched.
    pub fn remove_attachment(&mut self, ObjectKey { name, .. }: &ObjectKey) -> Vec<Change> {
        let Some(old) = self.attachments.remove(name) else { return Vec::new() };
        self.no_longer_under_way(&old);
        if let Some(set) = self.attachments_of_volume.get_mut(&old.volume) {
            set.remove(name);
            if set.is_empty() {
                self.attachments_of_volume.remove(&old.volume);
            }
        }
        vec![Change::Volume(old.volume.clone())]
    }

    /// The volumes of all claims that are like this. Looks at every claim: for what changes once in a while.
    fn volumes_of_claims(&self, like: impl Fn(&Claim) -> bool) -> Vec<Change> {
        let claims = self.claims.values().filter(|claim| like(claim));
        claims.filter_map(|claim| claim.volume).map(Change::Volume).collect()
    }

    /// Takes in a new or changed object; says what it touched: its volumes, if something else is asked for now.
    pub fn put_class(&mut self, class: StorageClass) -> Vec<Change> {
        let (name, settings) = (class.name.clone(), class.settings.clone());
        let old = self.classes.insert(name.clone(), Arc::new(class));
        if old.map(|class| class.settings.clone()).unwrap_or_default() == settings {
            return Vec::new();
        }
        self.volumes_of_claims(|claim| claim.class.as_ref() == Some(&name))
    }

    /// Forgets an object; says what it touched.
    pub fn remove_class(&mut self, ObjectKey { name, .. }: &ObjectKey) -> Vec<Change> {
        if self.classes.remove(name).is_none_or(|class| class.settings.is_empty()) {
            return Vec::new();
        }
        self.volumes_of_claims(|claim| claim.class.as_ref() == Some(name))
    }

    /// Takes in a new or changed object; says what it touched: its volumes, if something else is asked for now.
    pub fn put_namespace(&mut self, namespace: Namespace) -> Vec<Change> {
        let name = namespace.name.clone();
        if self.namespaces.get(&name) == Some(&namespace) {
            return Vec::new();
        }
        self.namespaces.insert(name.clone(), namespace);
        self.volumes_of_claims(|claim| claim.key.namespace == name)
    }

    /// Forgets an object; says what it touched.
    pub fn remove_namespace(&mut self, ObjectKey { name, .. }: &ObjectKey) -> Vec<Change> {
        if self.namespaces.remove(name).is_none() {
            return Vec::new();
        }
        self.volumes_of_claims(|claim| claim.key.namespace == *name)
    }

    fn no_longer_under_way(&mut self, old: &Attachment) {
        if old.is_under_way() {
            self.now.end_attaching(&old.node);
        }
    }

    pub(crate) fn pod_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.pods.keys()
    }

    pub(crate) fn claim_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.claims.keys()
    }

    pub(crate) fn volume_keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.volumes.keys()
    }

    pub(crate) fn node_keys(&self) -> Vec<ObjectKey> {
        cluster_scoped(self.nodes.keys())
    }

    pub(crate) fn csi_node_keys(&self) -> Vec<ObjectKey> {
        cluster_scoped(self.csi_nodes.keys())
    }

    pub(crate) fn class_keys(&self) -> Vec<ObjectKey> {
        cluster_scoped(self.classes.keys())
    }

    pub(crate) fn namespace_keys(&self) -> Vec<ObjectKey> {
        cluster_scoped(self.namespaces.keys())
    }

    pub(crate) fn attachment_keys(&self) -> Vec<ObjectKey> {
        cluster_scoped(self.attachments.keys())
    }
}

fn cluster_scoped<'a>(names: impl Iterator<Item = &'a String>) -> Vec<ObjectKey> {
    names.map(|name| ObjectKey::new("", name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, claims: &[&str], node: Option<&str>) -> Pod {
        Pod {
            key: ObjectKey::new("ns", name),
            uid: name.into(),
            node: node.map(Into::into),
            terminating: false,
            finished: false,
            ready: false,
            created: None,
            claims: claims.iter().map(ToString::to_string).collect(),
            owner_kind: None,
            labels: std::collections::BTreeMap::new(),
            settings: Settings::default(),
        }
    }

    fn claim(name: &str, volume: &str) -> Claim {
        Claim {
            key: ObjectKey::new("ns", name),
            uid: "u".into(),
            volume: Some(volume.into()),
            class: None,
            requested_bytes: None,
            settings: Settings::default(),
        }
    }

    fn joined() -> Index {
        let mut index = Index::default();
        index.put_volume(Volume {
            name: "pv".into(),
            driver: "d".into(),
            handle: "h".into(),
            claim: Some(ObjectKey::new("ns", "c")),
            shared: false,
        });
        index.put_claim(claim("c", "pv"));
        index
    }

    #[test]
    fn a_pod_is_found_from_its_volume_and_forgotten_when_it_goes() {
        let mut index = joined();
        assert_eq!(index.put_pod(pod("p", &["c"], Some("a"))), [Change::Volume("pv".into())]);
        let volume = index.volume_of_handle("d", "h").unwrap();
        assert_eq!(index.pods_of_volume(&volume).len(), 1);
        assert_eq!(index.remove_pod(&ObjectKey::new("ns", "p")), [Change::Volume("pv".into())]);
        assert!(index.pods_of_volume(&volume).is_empty());
        assert!(!index.pods.has_links());
    }

    #[test]
    fn an_unchanged_pod_is_no_news_and_a_changed_claim_touches_both_volumes() {
        let mut index = joined();
        index.put_claim(claim("c2", "pv2"));
        index.put_pod(pod("p", &["c"], None));
        assert!(index.put_pod(pod("p", &["c"], None)).is_empty());
        assert_eq!(index.put_pod(pod("p", &["c2"], None)), [Change::Volume("pv".into()), Change::Volume("pv2".into())]);
    }

    #[test]
    fn what_is_asked_for_around_a_volume_touches_it_when_it_changes() {
        let of = |mode: &'static str| Settings::read(|key| (key == crate::settings::MODE).then_some(mode));
        let mut index = joined();
        index.put_claim(Claim { class: Some("fast".into()), ..claim("c", "pv") });
        let touched = [Change::Volume("pv".into())];
        let namespace = |name: &str, mode| Namespace { name: name.into(), settings: of(mode) };
        assert_eq!(index.put_namespace(namespace("ns", "disabled")), touched);
        assert!(index.put_namespace(namespace("ns", "disabled")).is_empty(), "nothing new");
        assert!(index.put_namespace(namespace("other", "disabled")).is_empty(), "nothing there");
        assert_eq!(index.remove_namespace(&ObjectKey::new("", "ns")), touched);
        let class = |settings| StorageClass {
            name: "fast".into(),
            provisioner: "d".into(),
            waits_for_pod: false,
            is_default: false,
            parameters: std::collections::BTreeMap::new(),
            settings,
        };
        assert!(index.put_class(class(Settings::default())).is_empty(), "it asks for nothing");
        assert_eq!(index.put_class(class(of("observe"))), touched);
        assert_eq!(index.remove_class(&ObjectKey::new("", "fast")), touched);
    }

    #[test]
    fn nodes_that_are_emptied_are_known_without_a_look_at_the_others() {
        let mut index = Index::default();
        let node = |name: &str, cordoned, leaving| Node {
            name: name.into(),
            cordoned,
            ready: true,
            tainted: leaving,
            leaving,
        };
        index.put_node(node("a", true, false));
        index.put_node(node("b", false, false));
        index.put_node(node("c", false, true));
        assert!(index.emptied().eq(["a", "c"]));
        index.put_node(node("a", false, false));
        index.remove_node(&ObjectKey::new("", "c"));
        assert!(index.emptied().next().is_none());
    }

    #[test]
    fn nodes_that_leave_are_known_without_a_look_at_them() {
        let mut index = Index::default();
        let good = Node { name: "a".into(), cordoned: false, ready: true, tainted: true, leaving: false };
        for (node, leaves) in [
            (Node { cordoned: true, ..good.clone() }, true),
            (good.clone(), false),
            (Node { ready: false, ..good.clone() }, true),
            (Node { leaving: true, ..good.clone() }, true),
        ] {
            index.put_node(node.clone());
            assert_eq!(index.is_leaving("a"), leaves, "{node:?}");
        }
        index.remove_node(&ObjectKey::new("", "a"));
        assert!(!index.is_leaving("a") && index.now.leaving.is_empty());
    }

    fn attachment(name: &str, node: &str, attached: bool) -> Attachment {
        Attachment {
            name: name.into(),
            node: node.into(),
            volume: "pv".into(),
            attached,
            deleting: false,
            attach_error: None,
            created: None,
        }
    }

    #[test]
    fn attachments_under_way_are_counted_by_node() {
        let mut index = joined();
        for (name, node) in [("1", "a"), ("2", "a"), ("3", "b")] {
            index.put_attachment(attachment(name, node, false));
        }
        index.put_attachment(attachment("1", "a", false));
        assert_eq!(["a", "b", "c"].map(|n| index.attaching(n)), [2, 1, 0]);
        index.put_attachment(attachment("1", "a", true));
        index.put_attachment(Attachment { deleting: true, ..attachment("3", "b", false) });
        assert_eq!(["a", "b"].map(|n| index.attaching(n)), [1, 0]);
        for name in ["1", "2", "3", "4"] {
            index.remove_attachment(&ObjectKey::new("", name));
        }
        assert_eq!(["a", "b"].map(|n| index.attaching(n)), [0, 0]);
        assert!(index.now.attaching.is_empty());
    }

    #[test]
    fn a_picture_of_the_nodes_stays_as_it_is() {
        let node =
            |name: &str, cordoned| Node { name: name.into(), cordoned, ready: true, tainted: false, leaving: false };
        let mut index = Index::default();
        index.put_node(node("a", true));
        index.put_attachment(attachment("1", "a", false));
        let before = index.now();
        index.put_node(node("a", false));
        index.put_node(node("b", true));
        index.put_attachment(attachment("1", "b", false));
        for (moment, leaving, attaching) in [(before, [true, false], [1, 0]), (index.now(), [false, true], [0, 1])] {
            assert_eq!(["a", "b"].map(|n| moment.is_leaving(n)), leaving);
            assert_eq!(["a", "b"].map(|n| moment.attaching(n)), attaching);
        }
    }

    #[test]
    fn a_driver_that_comes_or_goes_is_a_new_version() {
        let mut index = Index::default();
        let node = CsiNode { name: "a".into(), drivers: vec!["d".into()] };
        assert_eq!(index.put_csi_node(node.clone()), [Change::Node("a".into())]);
        let version = index.drivers_version();
        assert!(index.put_csi_node(node).is_empty() && index.drivers_version() == version, "no news");
        index.remove_csi_node(&ObjectKey::new("", "a"));
        assert!(!index.has_driver("a", "d") && index.drivers_version() != version);
    }

    #[test]
    fn attachments_are_found_by_volume() {
        let mut index = joined();
        index.put_attachment(attachment("csi-1", "a", true));
        assert_eq!(index.attachments_of("pv").len(), 1);
        assert_eq!(index.remove_attachment(&ObjectKey::new("", "csi-1")), [Change::Volume("pv".into())]);
        assert!(index.attachments_of("pv").is_empty());
    }
}
