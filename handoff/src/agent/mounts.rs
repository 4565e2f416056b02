//! Whether a volume is staged on this node, from our own mount table. The kubelet's staging directory is mounted into
//! our container read-only with `HostToContainer` propagation: what the host unmounts goes from our table too, and we
//! keep nothing mounted by looking.

use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Where the kubelet has a CSI volume staged: `<plugins>/<driver>/<sha256 of the handle>/globalmount`
/// (kubernetes `pkg/volume/csi/csi_attacher.go`, `makeDeviceMountPath`).
pub fn staging_path(plugins: &str, driver: &str, handle: &str) -> String {
    let mut path = format!("{}/{driver}/", plugins.trim_end_matches('/'));
    for byte in Sha256::digest(handle.as_bytes()) {
        let _ = write!(path, "{byte:02x}");
    }
    path + "/globalmount"
}

/// What is mounted at a path, by the text of `/proc/self/mountinfo` (proc(5)): the source of the topmost mount there.
pub fn source_at<'t>(mountinfo: &'t str, path: &str) -> Option<&'t str> {
    let at = |line: &'t str| {
        let (place, filesystem) = line.split_once(" - ")?;
        let found = place.split(' ').nth(4)? == path;
        found.then(|| filesystem.split(' ').nth(1)).flatten()
    };
    mountinfo.lines().rev().find_map(at)
}

/// After an encrypted volume is unmounted its mapping is still to be closed, so that an unmount proves nothing.
pub fn proves_by_unmount(source: &str) -> bool {
    !source.starts_with("/dev/mapper/") && !source.starts_with("/dev/dm-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGINS: &str = "/var/lib/kubelet/plugins/kubernetes.io/csi";
    // as a node with Longhorn 1.10.0 shows it
    const TABLE: &str = "\
3525 209 0:55 / /var/lib/kubelet/pods/1/volumes/kubernetes.io~projected/t rw,relatime shared:531 - tmpfs tmpfs rw
3526 209 7:0 / /var/lib/kubelet/plugins/kubernetes.io/csi/driver.longhorn.io/fbf1e4ed4215eafd14aa82624284a3205982b7da002e7dd80efa5c6ba7c91421/globalmount rw,relatime shared:532 - ext4 /dev/longhorn/pvc-e0638f1d-b692-4442-9fed-2a61e1568591 rw
";

    #[test]
    fn a_staged_volume_is_found_by_its_handle() {
        let path = staging_path(PLUGINS, "driver.longhorn.io", "pvc-e0638f1d-b692-4442-9fed-2a61e1568591");
        assert_eq!(source_at(TABLE, &path), Some("/dev/longhorn/pvc-e0638f1d-b692-4442-9fed-2a61e1568591"));
        assert_eq!(staging_path(&format!("{PLUGINS}/"), "driver.longhorn.io", "x").matches("//").count(), 0);
        let other = staging_path(PLUGINS, "driver.longhorn.io", "pvc-other");
        assert_eq!(source_at(TABLE, &other), None);
    }

    #[test]
    fn odd_lines_hide_nothing() {
        let table = format!("\ngarbage\n1 2 3 - \n{TABLE} - \n");
        let path = staging_path(PLUGINS, "driver.longhorn.io", "pvc-e0638f1d-b692-4442-9fed-2a61e1568591");
        assert!(source_at(&table, &path).is_some());
    }

    #[test]
    fn an_encrypted_volume_is_not_proven_by_its_unmount() {
        assert!(proves_by_unmount("/dev/longhorn/pvc-1"));
        assert!(!proves_by_unmount("/dev/mapper/pvc-1"));
        assert!(!proves_by_unmount("/dev/dm-3"));
    }
}
