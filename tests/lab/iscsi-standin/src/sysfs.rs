//! Gives a loop device the `/sys/block/DISK/device/timeout` of a SCSI disk.
//!
//! go-iscsi-helper writes that file after each login, and loop devices have none. So a small tmpfs
//! goes over `/sys/block` in this mount namespace: links to the real devices, and for ours a
//! directory with links to all that the real one holds, plus `device/timeout`.
//! `/sys/class/block` stays as it is.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

const BLOCK: &str = "/sys/block";
const REAL: &str = "/sys/class/block";
const TIMEOUT: &str = "30\n"; // a SCSI disk's default, in seconds

/// Shows the timeout of `disk` (as `loop3`), laying the tmpfs if it is not there yet.
pub fn show_timeout(disk: &str) -> Result<()> {
    let overlaid = fs::metadata(BLOCK)?.dev() != fs::metadata("/sys/class")?.dev();
    if !overlaid {
        let options = c"mode=755,size=1m";
        mount("iscsi-standin", BLOCK, "tmpfs", MountFlags::empty(), options)
            .with_context(|| format!("mounting a tmpfs over {BLOCK}"))?;
    }
    populate(Path::new(BLOCK), Path::new(REAL), disk).with_context(|| format!("filling {BLOCK} for {disk}"))
}

/// Takes the timeout away again; the rest of the disk's directory may stay.
pub fn hide_timeout(disk: &str) {
    let _ = fs::remove_dir_all(Path::new(BLOCK).join(disk).join("device"));
}

fn populate(block: &Path, real: &Path, disk: &str) -> Result<()> {
    for entry in fs::read_dir(real)?.flatten() {
        let link = block.join(entry.file_name());
        let partition = entry.path().join("partition").exists();
        if !partition && link.symlink_metadata().is_err() {
            symlink(fs::canonicalize(entry.path())?, link)?;
        }
    }
    let own = block.join(disk);
    if own.symlink_metadata().is_ok_and(|m| m.is_symlink()) {
        fs::remove_file(&own)?;
    }
    fs::create_dir_all(own.join("device"))?;
    for entry in fs::read_dir(real.join(disk))?.flatten() {
        let link = own.join(entry.file_name());
        if link.symlink_metadata().is_err() {
            symlink(entry.path(), link)?;
        }
    }
    Ok(fs::write(own.join("device/timeout"), TIMEOUT)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_all_disks_and_a_timeout_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        let (block, real) = (dir.path().join("block"), dir.path().join("class"));
        fs::create_dir(&block).unwrap();
        for disk in ["sda", "sda1", "loop3", "loop4"] {
            fs::create_dir_all(real.join(disk)).unwrap();
            fs::write(real.join(disk).join("size"), disk).unwrap();
        }
        fs::write(real.join("sda1/partition"), "1").unwrap();

        for disk in ["loop3", "loop3", "loop4"] {
            populate(&block, &real, disk).unwrap();
        }
        for disk in ["sda", "loop3", "loop4"] {
            assert_eq!(fs::read_to_string(block.join(disk).join("size")).unwrap(), disk);
        }
        assert!(!block.join("sda1").exists(), "partitions are not listed in /sys/block");
        assert!(!block.join("sda/device").exists());
        for disk in ["loop3", "loop4"] {
            assert_eq!(fs::read_to_string(block.join(disk).join("device/timeout")).unwrap(), TIMEOUT);
        }
        assert!(!real.join("loop3/device").exists(), "nothing is written through the links");
    }
}
