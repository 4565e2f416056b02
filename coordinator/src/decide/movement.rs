//! The move itself: where the volume is wanted, our pre-stage there, and the steps as they are seen.

use super::{Action, Draft};
use crate::{
    api::{PreStage, PreStageOutcome},
    policy::after,
    reason::Reason,
};
use handoff_cluster::Pod;
use handoff_storage::{VolumeState, VolumeView};
use jiff::SignedDuration;

/// How often a move is looked at while nothing changes.
const MOVE_POLL: SignedDuration = SignedDuration::from_secs(5);

impl Draft<'_> {
    /// The pod has left or is leaving, and the workload is not ready again. A workload that was scaled away (no pod for
    /// a while) is not moving.
    pub(super) fn is_moving(&self) -> bool {
        let original_stays = self.obs.pod(&self.spec.pod.uid).is_some_and(|p| p.stays());
        let replaced_soon = self.at("PodGone").is_some_and(|at| self.now < after(at, self.policy.settle_wait));
        !self.seen("WorkloadReady") && !original_stays && (!self.obs.pods.is_empty() || replaced_soon)
    }

    pub(super) fn follow_move(&mut self) {
        let workload = self.obs.workload().filter(|p| p.uid != self.spec.pod.uid).cloned();
        let target = workload.as_ref().and_then(|p| p.node.clone());
        if target.is_some() && self.status.to != target {
            self.status.to.clone_from(&target);
        }
        self.note_departure();
        if workload.is_some() {
            self.mark("PodBound");
        }
        self.withdraw_strays();
        self.follow_prestage(workload.as_deref());
        if let (Some(pod), Some(node)) = (&workload, &target) {
            self.prestage(&pod.uid, node);
            self.note_arrival(node, pod.ready);
        } else if let Some(node) = self.expected() {
            self.prestage("", &node);
        }
        if self.is_moving() {
            self.wake_in(MOVE_POLL);
        }
    }

    fn note_departure(&mut self) {
        let original = self.obs.pod(&self.spec.pod.uid);
        if original.is_some_and(|p| p.terminating) {
            self.mark("PodTerminating");
        }
        if original.is_none() {
            self.mark("PodGone");
        }
        let Some(volume) = &self.obs.volume else { return };
        let wanted_on_from = volume.requests.iter().any(|r| r.workload && r.node == self.spec.from);
        if !wanted_on_from && self.status.to.as_deref() != Some(self.spec.from.as_str()) {
            self.mark("Released");
        }
        match volume.state {
            VolumeState::Detaching => self.mark("Detaching"),
            VolumeState::Detached => self.mark("Detached"),
            VolumeState::Attaching => self.mark("Attaching"),
            VolumeState::Attached | VolumeState::Other => {}
        }
    }

    fn note_arrival(&mut self, node: &str, ready: bool) {
        let Some(volume) = &self.obs.volume else { return };
        // the same node again (a rollout, a deletion): nothing to attach anew
        if volume.is_settled_on(node) && (node != self.spec.from || ready) {
            self.mark("Attached");
            if volume.serving {
                self.mark("DeviceReady");
            }
        }
        let here = self.obs.attachments.iter().find(|a| a.node == node && !a.deleting);
        if here.is_some_and(|a| a.attached) {
            self.mark("KubernetesAttached");
        }
        if let Some(stuck) = here.filter(|a| !a.attached && a.attach_error.is_some()) {
            // Longhorn turns an attach call away while the volume detaches, and the attacher then waits 1 s to 5 min.
            // From the moment the volume is on its way here the call is taken: let it be made now, once.
            if volume.wanted_node.as_deref() == Some(node) && !self.seen("AttacherWoken") {
                let attachment = stuck.name.clone();
                self.mark("AttacherWoken");
                self.actions.push(Action::WakeAttacher { attachment });
            }
        }
        if ready && self.seen("Attached") && !self.seen("WorkloadReady") {
            self.mark("WorkloadReady");
            let took = self.now.duration_since(self.spec.triggered_at);
            self.status.duration = format!("{:.1}s", took.as_secs_f64());
            let volume = &self.spec.volume.volume;
            let told = format!("volume {volume} runs on {node} after {:.1} s", took.as_secs_f64());
            self.tell(Reason::VolumeMoved, told);
        }
    }

    /// Where the workload will come up, before the scheduler has said so: the best node there is, once the node that
    /// is left is cordoned and nothing asks for the volume there any more. New pods are steered to it, by affinity
    /// and by the extender; if one is bound elsewhere all the same, the pre-stage follows it.
    fn expected(&self) -> Option<String> {
        let volume = self.obs.volume.as_ref()?;
        let asked = volume.requests.iter().any(|r| r.workload);
        let leaves = self.is_moving() && self.obs.cordoned.contains(&self.spec.from);
        (leaves && !asked).then(|| self.obs.candidates.first().cloned()).flatten()
    }

    /// Decides on a pre-stage for the pod; at most one per pod, and none where the volume is or is asked for already.
    fn prestage(&mut self, pod_uid: &str, node: &str) {
        let Some(volume) = &self.obs.volume else { return };
        if self.status.prestage.as_ref().is_some_and(|p| p.outcome.is_none() || p.pod_uid == pod_uid) {
            return;
        }
        if Self::strays(volume, Some(node)).next().is_some() {
            // first the other one must be gone: never two
            return;
        }
        let here = volume.wanted_node.as_deref() == Some(node) || volume.request_for(node).is_some();
        // a pod that stays elsewhere would lose the volume
        let others_leave = self.obs.pods.iter().all(|p| !p.stays() || p.node.as_deref().is_none_or(|n| n == node));
        if here || node == self.spec.from || !others_leave {
            return;
        }
        if let Some(why) = self.obs.refusals.get(node) {
            if !self.seen("PreStageRefused") {
                let told = format!("volume {} is not pre-staged on {node}: {why}", self.spec.volume.volume);
                self.mark("PreStageRefused");
                self.tell(Reason::PreStageRefused, told);
            }
            return;
        }
        let version = volume.requests_version.clone();
        self.status.prestage = Some(PreStage {
            node: node.to_owned(),
            pod_uid: pod_uid.to_owned(),
            placed_at: self.now,
            expires_at: self.now + self.policy.prestage_expiry,
            outcome: None,
        });
        self.mark("PreStaged");
        self.tell(Reason::PreStaged, format!("volume {} is asked for on {node}", self.spec.volume.volume));
        self.actions.push(Action::PlacePreStage { node: node.to_owned(), version });
    }

    /// Nodes of our requests other than `known`.
    fn strays<'v>(volume: &'v VolumeView, known: Option<&'v str>) -> impl Iterator<Item = &'v str> {
        let ours = volume.requests.iter().filter(|r| r.ours).map(|r| r.node.as_str());
        ours.filter(move |node| known != Some(node))
    }

    /// A request of ours that the journal does not know as open: whoever was to withdraw it died before, or decided on
    /// an older journal.
    fn withdraw_strays(&mut self) {
        let Some(volume) = &self.obs.volume else { return };
        let known = self.status.prestage.as_ref().filter(|p| p.outcome.is_none()).map(|p| p.node.as_str());
        for node in Self::strays(volume, known) {
            let withdraw = Action::WithdrawPreStage { node: node.to_owned() };
            if !self.actions.contains(&withdraw) {
                self.actions.push(withdraw);
            }
        }
    }

    /// An open pre-stage is adopted, withdrawn, or placed again when its effect is missing.
    fn follow_prestage(&mut self, workload: Option<&Pod>) {
        let Some(mut prestage) = self.status.prestage.clone().filter(|p| p.outcome.is_none()) else { return };
        let Some(volume) = &self.obs.volume else { return };
        let request = volume.request_for(&prestage.node);
        if request.is_some_and(|r| !r.ours) {
            self.end_prestage(PreStageOutcome::Adopted);
            self.mark("Adopted");
            return;
        }
        let bound_here = workload.filter(|p| p.node.as_deref() == Some(&prestage.node));
        if let Some(pod) = bound_here.filter(|_| prestage.pod_uid.is_empty()) {
            // as expected
            prestage.pod_uid.clone_from(&pod.uid);
            self.status.prestage = Some(prestage.clone());
        }
        let wanted = match workload {
            Some(pod) => pod.uid == prestage.pod_uid && bound_here.is_some(),
            None => prestage.pod_uid.is_empty(),
        };
        if !wanted || self.now >= prestage.expires_at {
            self.end_prestage(PreStageOutcome::Withdrawn);
            let why = if wanted { "nobody adopted it in time" } else { "the pod is not bound there" };
            self.tell(Reason::PreStageWithdrawn, format!("pre-stage on {} withdrawn: {why}", prestage.node));
            self.actions.push(Action::WithdrawPreStage { node: prestage.node });
            return;
        }
        self.wake(prestage.expires_at);
        if request.is_none() && Self::strays(volume, Some(&prestage.node)).next().is_none() {
            let version = volume.requests_version.clone();
            self.actions.push(Action::PlacePreStage { node: prestage.node, version });
        }
    }

    fn end_prestage(&mut self, outcome: PreStageOutcome) {
        if let Some(prestage) = &mut self.status.prestage {
            prestage.outcome = Some(outcome);
        }
    }
}
