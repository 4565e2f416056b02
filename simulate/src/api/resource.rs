//! The resources that the simulated API server serves, and the paths they are under.

/// A resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version it is served in.
    pub version: &'static str,
    /// Plural, as in paths.
    pub plural: &'static str,
    /// Kind of its objects.
    pub kind: &'static str,
    /// Its status can only be written through the subresource of that name, and nothing else can be written there.
    pub has_status: bool,
}

macro_rules! resources {
    ($($name:ident: $group:literal $version:literal $plural:literal $kind:literal $status:literal;)*) => {
        $(
            #[doc = concat!("`", $plural, "` of group `", $group, "`.")]
            pub const $name: Resource =
                Resource { group: $group, version: $version, plural: $plural, kind: $kind, has_status: $status };
        )*
        const ALL: &[Resource] = &[$($name),*];
    };
}

resources! {
    PODS: "" "v1" "pods" "Pod" true;
    NODES: "" "v1" "nodes" "Node" true;
    NAMESPACES: "" "v1" "namespaces" "Namespace" true;
    CLAIMS: "" "v1" "persistentvolumeclaims" "PersistentVolumeClaim" true;
    VOLUMES: "" "v1" "persistentvolumes" "PersistentVolume" true;
    CONFIG_MAPS: "" "v1" "configmaps" "ConfigMap" false;
    EVENTS: "events.k8s.io" "v1" "events" "Event" false;
    LEASES: "coordination.k8s.io" "v1" "leases" "Lease" false;
    BUDGETS: "policy" "v1" "poddisruptionbudgets" "PodDisruptionBudget" true;
    CSI_NODES: "storage.k8s.io" "v1" "csinodes" "CSINode" false;
    ATTACHMENTS: "storage.k8s.io" "v1" "volumeattachments" "VolumeAttachment" true;
    CLASSES: "storage.k8s.io" "v1" "storageclasses" "StorageClass" false;
    HANDOFFS: "volumehandoff.io" "v1alpha1" "volumehandoffs" "VolumeHandoff" true;
    LONGHORN_VOLUMES: "longhorn.io" "v1beta2" "volumes" "Volume" true;
    ENGINES: "longhorn.io" "v1beta2" "engines" "Engine" true;
    REPLICAS: "longhorn.io" "v1beta2" "replicas" "Replica" true;
    TICKETS: "longhorn.io" "v1beta2" "volumeattachments" "VolumeAttachment" true;
    BACKUPS: "longhorn.io" "v1beta2" "backups" "Backup" true;
    SNAPSHOTS: "longhorn.io" "v1beta2" "snapshots" "Snapshot" true;
    LONGHORN_NODES: "longhorn.io" "v1beta2" "nodes" "Node" true;
    INSTANCE_MANAGERS: "longhorn.io" "v1beta2" "instancemanagers" "InstanceManager" true;
    ENGINE_IMAGES: "longhorn.io" "v1beta2" "engineimages" "EngineImage" true;
    BACKUP_TARGETS: "longhorn.io" "v1beta2" "backuptargets" "BackupTarget" true;
    SETTINGS: "longhorn.io" "v1beta2" "settings" "Setting" false;
}

impl Resource {
    fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        ALL.iter().find(|r| r.group == group && r.version == version && r.plural == plural).copied()
    }

    /// `group/version`, as in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// What a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The resource.
    pub resource: Resource,
    /// Namespace; empty for all of them, and for resources without.
    pub namespace: String,
    /// Name; empty for collections.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
}

impl Target {
    /// Reads a path such as `/apis/longhorn.io/v1beta2/namespaces/longhorn-system/backups/b/status`.
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let (group, version) = match parts.next()? {
            "api" => ("", parts.next()?),
            "apis" => (parts.next()?, parts.next()?),
            _ => return None,
        };
        let rest = parts.collect::<Vec<_>>();
        let (namespace, rest) = match rest.as_slice() {
            // an object of kind Namespace has a path of this form, too
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return None,
        };
        Some(Self {
            resource: Resource::find(group, version, plural)?,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let read = |path: &str| {
            let t = Target::parse(path)?;
            Some((t.resource, t.namespace, t.name, t.subresource))
        };
        let of = |r: Resource, ns: &str, name: &str, sub: &str| Some((r, ns.into(), name.into(), sub.into()));
        assert_eq!(read("/api/v1/pods"), of(PODS, "", "", ""));
        assert_eq!(read("/api/v1/namespaces/shop/pods/db-0/eviction"), of(PODS, "shop", "db-0", "eviction"));
        assert_eq!(read("/api/v1/namespaces/shop"), of(NAMESPACES, "", "shop", ""));
        assert_eq!(read("/apis/storage.k8s.io/v1/volumeattachments/va"), of(ATTACHMENTS, "", "va", ""));
        assert_eq!(
            read("/apis/longhorn.io/v1beta2/namespaces/longhorn-system/backups/b/status"),
            of(BACKUPS, "longhorn-system", "b", "status")
        );
        for unknown in ["/", "/version", "/apis/example.net/v1/things", "/api/v1/a/b/c/d/e"] {
            assert_eq!(read(unknown), None, "{unknown}");
        }
    }
}
