//! Where one volume can run, prepared for asking about many nodes.

use crate::model::HostTable;
use std::{collections::BTreeSet, sync::Arc};

/// Where one volume can run.
#[derive(Clone, Debug)]
pub struct Hosting {
    /// Name of the volume, or of the claim whose volume is not made yet.
    pub volume: String,
    /// All nodes of the storage manager.
    pub table: Arc<HostTable>,
    /// The nodes it may run on by its own rules; `None`: any.
    pub only_on: Option<BTreeSet<String>>,
    /// For a volume that is not made yet.
    pub new: Option<NewVolume>,
}

/// What a volume that is not made yet needs.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// Its size in bytes.
    pub bytes: u64,
    /// Nodes with room for one replica of it; `None`: not known.
    pub room_on: Option<BTreeSet<String>>,
    /// Its only replica has to be on the node of the pod.
    pub must_be_local: bool,
}

impl Hosting {
    /// Whether the volume's data path could run on the node; the reason if not.
    pub fn check(&self, node: &str) -> Result<(), String> {
        match self.table.get(node) {
            None => return Err(format!("Longhorn does not manage node {node}")),
            Some(Some(reason)) => return Err(reason.clone()),
            Some(None) => {}
        }
        if self.only_on.as_ref().is_some_and(|only| !only.contains(node)) {
            return Err(format!("volume {} is strict-local and has no replica on {node}", self.volume));
        }
        match &self.new {
            Some(NewVolume { bytes, room_on: Some(room_on), must_be_local: true }) if !room_on.contains(node) => {
                Err(format!("no disk of {node} has room for the {} MiB of claim {}", bytes >> 20, self.volume))
            }
            _ => Ok(()),
        }
    }

    /// Whether a replica of a volume that is not made yet has room on the node; `None`: not known, or it is made.
    pub fn has_room(&self, node: &str) -> Option<bool> {
        Some(self.new.as_ref()?.room_on.as_ref()?.contains(node))
    }
}
