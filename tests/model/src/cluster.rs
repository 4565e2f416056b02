//! Kubernetes and Longhorn in the small: which of their steps are possible, and what each does.
//!
//! Longhorn's rules are those of longhorn-manager's volume attachment, volume and backup controllers, 1.7 to 1.12:
//! a workload's request elsewhere interrupts a backup's, nothing else does; a backup that has not begun to upload
//! survives a move; one that has ends in `Error`, and it may have become complete in the target meanwhile.

use crate::{
    model::{Config, Model, Violation},
    step::Step,
    world::{Cr, MAX_NODES, Node, Pod, Ticket, Va, Volume, World},
};

/// Nodes that hold a replica of each volume.
pub const REPLICA_NODES: [Node; 2] = [0, 1];

fn nodes(config: &Config) -> impl Iterator<Item = Node> + use<> {
    0..config.nodes
}

/// All steps of people, faults, Kubernetes and Longhorn that are possible now.
pub fn possible(config: &Config, w: &World, out: &mut Vec<Step>) {
    people(config, w, out);
    pods(config, w, out);
    for (v, volume) in w.volumes.iter().enumerate().take(config.volumes) {
        attachments(config, w, v, volume, out);
        longhorn(config, w, v, volume, out);
        backups(config, w, v, volume, out);
    }
}

fn people(config: &Config, w: &World, out: &mut Vec<Step>) {
    let left = &w.left;
    let runs = w.kube.pods().find(|p| p.runs());
    if let Some(pod) = runs {
        // another node must be there for the pod of a drain
        let open = nodes(config).filter(|n| !w.kube.is_cordoned(*n)).count();
        let drains =
            if open > 1 || pod.node.is_some_and(|n| w.kube.is_cordoned(n)) { &[false, true][..] } else { &[false] };
        for &drain in drains {
            if left.moves > 0 && w.reviewed.is_none() {
                out.push(Step::Review { drain, stale: false });
                if w.frozen.is_some() {
                    out.push(Step::Review { drain, stale: true });
                }
            }
            if left.moves > 0 && left.unseen > 0 {
                out.push(Step::Unseen { drain });
            }
        }
    }
    if w.reviewed.is_some() {
        out.extend([Step::Denied, Step::Terminate]);
    }
    if w.desired == 1 && left.scales > 0 && w.reviewed.is_none() {
        out.push(Step::ScaleDown);
    }
    if w.desired == 0 {
        out.push(Step::ScaleUp);
    }
    // a node is uncordoned once the workload runs again, or when there is no other to go to
    let rested = w.kube.pods().all(|p| p.ready);
    let open = nodes(config).any(|n| !w.kube.is_cordoned(n));
    if rested || !open {
        out.extend(nodes(config).filter(|n| w.kube.is_cordoned(*n)).map(Step::Uncordon));
    }
}

fn pods(config: &Config, w: &World, out: &mut Vec<Step>) {
    let stays = w.kube.pods().any(|p| !p.terminating);
    let room = w.kube.pods.iter().any(Option::is_none);
    if w.desired == 1 && room && !stays && (config.deployment || w.kube.pods().next().is_none()) {
        out.push(Step::NewPod);
    }
    for pod in w.kube.pods() {
        match pod.node {
            _ if pod.terminating => out.push(Step::PodGone(pod.uid)),
            None => out.extend(nodes(config).filter(|n| !w.kube.is_cordoned(*n)).map(|n| Step::Bind(pod.uid, n))),
            Some(node) if !pod.ready => {
                let there = w.volumes.iter().enumerate().take(config.volumes).all(|(v, volume)| {
                    let n = usize::from(node);
                    matches!(w.kube.vas[v][n].0, Va::Wants | Va::Attached)
                        && volume.storage.tickets[n] == Ticket::Csi
                        && volume.storage.settled_on(node)
                });
                if there {
                    out.push(Step::PodReady(pod.uid));
                }
            }
            Some(_) => {}
        }
    }
}

fn attachments(config: &Config, w: &World, v: usize, volume: &Volume, out: &mut Vec<Step>) {
    let vas = &w.kube.vas[v];
    for node in nodes(config) {
        let n = usize::from(node);
        let used = w.kube.pods().any(|p| p.node == Some(node));
        let wanted = w.kube.pods().any(|p| p.node == Some(node) && p.runs());
        match vas[n].0 {
            Va::None if wanted && vas.iter().all(|(va, _)| *va == Va::None) => out.push(Step::VaCreate(v, node)),
            Va::Wants | Va::Failed | Va::Attached if !used => out.push(Step::VaDelete(v, node)),
            Va::Wants if volume.storage.tickets[n] != Ticket::Csi => out.push(Step::Publish(v, node)),
            Va::Failed => out.push(Step::Retry(v, node)),
            // ControllerUnpublish of the waiting versions returns only when the volume is off the node
            Va::Deleting if !config.waits || volume.storage.at != Some(node) => out.push(Step::Unpublished(v, node)),
            _ => {}
        }
    }
}

fn longhorn(config: &Config, w: &World, v: usize, volume: &Volume, out: &mut Vec<Step>) {
    let storage = &volume.storage;
    let asked = |n: Node| storage.tickets[usize::from(n)] != Ticket::None;
    let elsewhere = |n: Node| nodes(config).any(|m| m != n && asked(m));
    let backed_up = storage.backups.iter().any(|b| b.cr.in_flight());
    match (storage.at, storage.wanted) {
        (_, Some(n)) if !asked(n) && (!backed_up || storage.owner != n || elsewhere(n)) => {
            out.push(Step::DetachBegin(v));
        }
        (Some(_), None) => out.push(Step::DetachDone(v)),
        // the poll of a running upload is quicker than detach and attach together
        (None, None) if !storage.backups.iter().any(|b| b.cr == Cr::Running) => {
            let before = out.len();
            out.extend(nodes(config).filter(|n| asked(*n)).map(|n| Step::AttachBegin(v, n)));
            if out.len() == before && backed_up {
                out.push(Step::AttachBegin(v, storage.owner));
            }
        }
        (None, Some(_)) => out.push(Step::AttachDone(v)),
        _ => {}
    }
    for n in REPLICA_NODES {
        let free = storage.at != Some(n) && storage.wanted != Some(n);
        if w.kube.is_cordoned(n) && free && storage.down == 0 {
            out.push(Step::ReplicaLeaves(v, n));
        }
    }
    if storage.refused {
        out.push(Step::Allow(v));
    } else if w.left.refusals > 0 {
        out.push(Step::Refuse(v));
    }
}

fn backups(config: &Config, w: &World, v: usize, volume: &Volume, out: &mut Vec<Step>) {
    let storage = &volume.storage;
    let settled = storage.at.is_some() && storage.at == storage.wanted;
    for (b, backup) in storage.backups.iter().enumerate().take(config.backups) {
        let older_began = b == 0 || storage.backups[b - 1].cr != Cr::NotYet;
        match backup.cr {
            Cr::NotYet if older_began && settled => out.push(Step::StartBackup(v, b)),
            Cr::Queued if backup.no_snapshot => out.push(Step::Poll(v, b)),
            Cr::Queued if settled && !backup.fresh => {
                let up = REPLICA_NODES.into_iter().filter(|n| storage.down & (1 << n) == 0);
                out.extend(up.map(|n| Step::UploadBegin(v, b, n)));
            }
            // the poll fails as soon as the engine stops, the upload may go on until the replica does
            Cr::Running if backup.upload.is_none() || storage.wanted.is_none() => out.push(Step::Poll(v, b)),
            Cr::Lost if backup.probed && backup.remote => out.push(Step::Answer(v, b)),
            Cr::Deleting => out.push(Step::BackupGone(v, b)),
            _ => {}
        }
        if backup.upload.is_some() {
            out.push(Step::UploadDone(v, b));
            if w.left.failures > 0 && backup.cr == Cr::Running {
                out.push(Step::UploadFails(v, b));
            }
        }
        let owed = w.volumes[v].handoff.is_some_and(|h| {
            let over = h.journal.resumes[b].is_some_and(|(r, _)| r.is_final());
            h.checkpoints[b].is_some() && h.abandoned & (1 << b) == 0 && !over
        });
        if w.left.abandons > 0 && owed {
            out.push(Step::Abandon(v, b));
        }
        if w.left.deletions > 0 && backup.cr.exists() && backup.cr != Cr::Deleting {
            out.push(Step::DeleteBackup(v, b));
            if !backup.no_snapshot && backup.cr != Cr::Completed {
                out.push(Step::DeleteSnapshot(v, b));
            }
        }
    }
}

fn pod(w: &mut World, uid: u8) -> Option<&mut Pod> {
    w.kube.pods.iter_mut().flatten().find(|p| p.uid == uid)
}

/// A pod that was never bound goes at once, another one terminates first.
fn ask_to_leave(w: &mut World) {
    for slot in &mut w.kube.pods {
        match slot {
            Some(pod) if pod.node.is_none() => *slot = None,
            Some(pod) => (pod.terminating, pod.ready) = (true, false),
            None => {}
        }
    }
    w.kube.pods.sort_by_key(|p| p.map_or(u8::MAX, |p| p.uid));
}

fn cordon_its_node(w: &mut World) {
    let node = w.kube.pods().find(|p| p.runs()).and_then(|p| p.node);
    if let Some(node) = node {
        w.kube.cordoned |= 1 << node;
    }
}

/// A run ended badly.
fn lose(w: &mut World, v: usize, b: usize) {
    let volume = &mut w.volumes[v];
    let backup = &mut volume.storage.backups[b];
    (backup.cr, backup.ended, backup.probed, backup.asked) = (Cr::Lost, 0, false, None);
    backup.runs += 1;
    volume.asked &= !(1 << b);
    volume.cut |= 1 << b;
    if volume.rerun & (1 << b) != 0 {
        volume.rerun &= !(1 << b);
        volume.failed[b] = (volume.failed[b] + 1).min(3);
    }
    w.touch_backup(v, b);
}

fn complete(w: &mut World, v: usize, b: usize) {
    let volume = &mut w.volumes[v];
    let backup = &mut volume.storage.backups[b];
    (backup.cr, backup.ended, backup.probed, backup.asked) = (Cr::Completed, 0, false, None);
    backup.runs += 1;
    volume.cut &= !(1 << b);
    volume.rerun &= !(1 << b);
    w.touch_backup(v, b);
}

impl Model {
    /// Carries out a step of people, faults, Kubernetes or Longhorn.
    pub fn step_of_cluster(&self, w: &mut World, step: Step) -> Result<(), Violation> {
        match step {
            Step::Review { drain, stale } => {
                w.left.moves -= 1;
                if drain {
                    cordon_its_node(w);
                }
                self.review(w, stale);
                w.reviewed = w.kube.pods().find(|p| p.runs()).map(|p| p.uid);
            }
            Step::Denied => w.reviewed = None,
            Step::Terminate => {
                if let Some(pod) = w.reviewed.take().and_then(|uid| pod(w, uid)) {
                    (pod.terminating, pod.ready) = (true, false);
                }
            }
            Step::Unseen { drain } => {
                w.left.moves -= 1;
                w.left.unseen -= 1;
                if drain {
                    cordon_its_node(w);
                }
                w.reviewed = None;
                ask_to_leave(w);
            }
            Step::ScaleDown => {
                w.left.scales -= 1;
                w.desired = 0;
                self.review(w, false);
                ask_to_leave(w);
            }
            Step::ScaleUp => w.desired = 1,
            Step::Uncordon(n) => {
                w.kube.cordoned &= !(1 << n);
                w.volumes.iter_mut().for_each(|v| v.storage.down &= !(1 << n));
            }
            Step::PodGone(uid) => {
                w.kube.pods.iter_mut().filter(|p| p.is_some_and(|p| p.uid == uid)).for_each(|p| *p = None);
                w.kube.pods.sort_by_key(|p| p.map_or(u8::MAX, |p| p.uid));
            }
            Step::NewPod => {
                let new = Pod { uid: w.next_uid, node: None, terminating: false, ready: false };
                w.next_uid += 1;
                if let Some(slot) = w.kube.pods.iter_mut().find(|p| p.is_none()) {
                    *slot = Some(new);
                }
            }
            Step::Bind(uid, n) => {
                if let Some(pod) = pod(w, uid) {
                    pod.node = Some(n);
                }
            }
            Step::PodReady(uid) => {
                let node = pod(w, uid).and_then(|p| {
                    p.ready = true;
                    p.node
                });
                if let Some(n) = node {
                    w.kube
                        .vas
                        .iter_mut()
                        .filter(|v| v[usize::from(n)].0 != Va::None)
                        .for_each(|v| v[usize::from(n)].0 = Va::Attached);
                }
            }
            step => Self::step_of_volume(w, step),
        }
        Ok(())
    }

    fn step_of_volume(w: &mut World, step: Step) {
        match step {
            Step::VaCreate(v, n) => {
                let began = w.volumes[v].storage.backups.iter().filter(|b| b.cr != Cr::NotYet).count();
                w.kube.vas[v][usize::from(n)] = (Va::Wants, u8::try_from(began).unwrap_or_default());
            }
            Step::VaDelete(v, n) => {
                w.kube.vas[v][usize::from(n)] = (Va::Deleting, 0);
                set_ticket(w, v, n, Ticket::None);
            }
            Step::Unpublished(v, n) => w.kube.vas[v][usize::from(n)] = (Va::None, 0),
            Step::Publish(v, n) => {
                let storage = &w.volumes[v].storage;
                // Aborted while the volume detaches
                if storage.wanted.is_none() && storage.at.is_some() {
                    w.kube.vas[v][usize::from(n)].0 = Va::Failed;
                } else {
                    set_ticket(w, v, n, Ticket::Csi);
                }
            }
            Step::Retry(v, n) => w.kube.vas[v][usize::from(n)].0 = Va::Wants,
            Step::DetachBegin(v) => w.volumes[v].storage.wanted = None,
            Step::DetachDone(v) => {
                w.volumes[v].storage.at = None;
                w.volumes[v].storage.backups.iter_mut().for_each(|b| b.upload = None);
            }
            Step::AttachBegin(v, n) => {
                w.volumes[v].storage.wanted = Some(n);
                w.volumes[v].storage.owner = n;
            }
            Step::AttachDone(v) => w.volumes[v].storage.at = w.volumes[v].storage.wanted,
            Step::Refuse(v) => {
                w.left.refusals -= 1;
                w.volumes[v].storage.refused = true;
            }
            Step::Allow(v) => w.volumes[v].storage.refused = false,
            Step::ReplicaLeaves(v, n) => {
                w.volumes[v].storage.down |= 1 << n;
                let uploads = w.volumes[v].storage.backups.iter_mut().filter(|b| b.upload == Some(n));
                uploads.for_each(|b| b.upload = None);
            }
            step => Self::step_of_backup(w, step),
        }
    }

    fn step_of_backup(w: &mut World, step: Step) {
        match step {
            Step::StartBackup(v, b) => {
                let backup = &mut w.volumes[v].storage.backups[b];
                (backup.cr, backup.fresh) = (Cr::Queued, true);
                w.touch_backup(v, b);
            }
            Step::UploadBegin(v, b, n) => {
                let backup = &mut w.volumes[v].storage.backups[b];
                // the record in the target is overwritten by one that says: in progress
                (backup.cr, backup.upload, backup.remote) = (Cr::Running, Some(n), false);
                w.touch_backup(v, b);
            }
            Step::UploadDone(v, b) => {
                let backup = &mut w.volumes[v].storage.backups[b];
                (backup.upload, backup.remote) = (None, true);
            }
            Step::UploadFails(v, b) => {
                w.left.failures -= 1;
                w.volumes[v].storage.backups[b].upload = None;
            }
            Step::Poll(v, b) => {
                let storage = &w.volumes[v].storage;
                let backup = &storage.backups[b];
                let settled = storage.at.is_some() && storage.at == storage.wanted;
                if backup.cr == Cr::Running && backup.upload.is_none() && backup.remote && settled {
                    complete(w, v, b);
                } else {
                    lose(w, v, b);
                }
            }
            Step::Answer(v, b) => complete(w, v, b),
            Step::DeleteBackup(v, b) => {
                w.left.deletions -= 1;
                let volume = &mut w.volumes[v];
                let backup = &mut volume.storage.backups[b];
                (backup.cr, backup.upload) = (Cr::Deleting, None);
                volume.cut &= !(1 << b);
                w.touch_backup(v, b);
            }
            Step::DeleteSnapshot(v, b) => {
                w.left.deletions -= 1;
                w.volumes[v].storage.backups[b].no_snapshot = true;
            }
            Step::Abandon(v, b) => {
                w.left.abandons -= 1;
                if let Some(handoff) = &mut w.volumes[v].handoff {
                    handoff.abandoned |= 1 << b;
                }
                w.touch_handoff(v, None);
            }
            Step::BackupGone(v, b) => {
                let backup = &mut w.volumes[v].storage.backups[b];
                *backup = crate::world::Backup { cr: Cr::Gone, no_snapshot: backup.no_snapshot, ..Default::default() };
                w.touch_backup(v, b);
            }
            _ => {}
        }
    }
}

/// Sets or removes the workload's request for a node.
pub fn set_ticket(w: &mut World, v: usize, n: Node, ticket: Ticket) {
    let storage = &mut w.volumes[v].storage;
    if std::mem::replace(&mut storage.tickets[usize::from(n) % MAX_NODES], ticket) != ticket {
        storage.ours_age = 0;
        w.touch_tickets(v);
    }
}
