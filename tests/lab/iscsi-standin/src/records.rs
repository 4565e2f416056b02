//! What `iscsiadm` remembers between calls: files `nodes/TARGET` (address of its portal) and
//! `sessions/TARGET` (number of its loop device).
//!
//! Records outlive the things they speak of; whether a session lives is for the caller to find
//! out from the loop device. Each file appears whole, by renaming, as other engines on the node
//! may read at the same time.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

/// The records under one directory.
#[derive(Debug, Clone)]
pub struct Records {
    nodes: PathBuf,
    sessions: PathBuf,
}

impl Records {
    /// Records in `dir`, which need not exist yet.
    pub fn new(dir: &Path) -> Self {
        Self { nodes: dir.join("nodes"), sessions: dir.join("sessions") }
    }

    /// Remembers where a target was discovered.
    pub fn add_node(&self, target: &str, portal: IpAddr) -> Result<()> {
        write(&self.nodes, target, &portal.to_string())
    }

    /// Where a target was discovered.
    pub fn node(&self, target: &str) -> Option<IpAddr> {
        read(&self.nodes, target)
    }

    /// Forgets a target.
    pub fn remove_node(&self, target: &str) -> Result<()> {
        remove(&self.nodes, target)
    }

    /// Remembers the loop device of a session.
    pub fn add_session(&self, target: &str, minor: u32) -> Result<()> {
        write(&self.sessions, target, &minor.to_string())
    }

    /// Forgets a session.
    pub fn remove_session(&self, target: &str) -> Result<()> {
        remove(&self.sessions, target)
    }

    /// Every session on record with its loop device, by name. Unreadable records are left out.
    pub fn sessions(&self) -> Vec<(String, u32)> {
        let entries = fs::read_dir(&self.sessions).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut sessions: Vec<(String, u32)> =
            names.filter_map(|name| read(&self.sessions, &name).map(|minor| (name, minor))).collect();
        sessions.sort();
        sessions
    }
}

/// A target's name becomes a file's name: it must not lead elsewhere, and a leading dot is ours.
fn file(dir: &Path, target: &str) -> Result<PathBuf> {
    ensure!(
        !target.is_empty() && !target.starts_with('.') && !target.contains(['/', '\0']),
        "bad target name {target:?}"
    );
    Ok(dir.join(target))
}

fn write(dir: &Path, target: &str, text: &str) -> Result<()> {
    let path = file(dir, target)?;
    let new = dir.join(format!(".{}", process::id()));
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("writing record {}", path.display()))
}

fn read<T: FromStr>(dir: &Path, target: &str) -> Option<T> {
    let path = file(dir, target).ok()?;
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn remove(dir: &Path, target: &str) -> Result<()> {
    let path = file(dir, target)?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing record {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_persist_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path());
        assert_eq!(records.sessions(), []);
        assert_eq!(records.node("iqn:a"), None);
        records.remove_node("iqn:a").unwrap();

        let ip: IpAddr = "10.1.2.3".parse().unwrap();
        records.add_node("iqn:a", ip).unwrap();
        records.add_session("iqn:b", 12).unwrap();
        records.add_session("iqn:a", 3).unwrap();
        records.add_session("iqn:a", 4).unwrap();

        let records = Records::new(dir.path());
        assert_eq!(records.node("iqn:a"), Some(ip));
        assert_eq!(records.sessions(), [("iqn:a".into(), 4), ("iqn:b".into(), 12)]);
        records.remove_session("iqn:a").unwrap();
        records.remove_node("iqn:a").unwrap();
        assert_eq!(records.sessions(), [("iqn:b".into(), 12)]);
        assert_eq!(records.node("iqn:a"), None);
    }

    #[test]
    fn half_written_and_odd_files_are_no_sessions() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path());
        records.add_session("iqn:a", 1).unwrap();
        fs::write(dir.path().join("sessions/.99"), "5").unwrap();
        fs::write(dir.path().join("sessions/iqn:b"), "").unwrap();
        assert_eq!(records.sessions(), [("iqn:a".into(), 1)]);
    }

    #[test]
    fn names_stay_in_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path());
        for name in ["", ".", "..", "../x", "a/b", ".hidden"] {
            assert!(records.add_session(name, 1).is_err(), "{name}");
            assert!(records.remove_node(name).is_err(), "{name}");
            assert_eq!(records.node(name), None, "{name}");
        }
    }
}
