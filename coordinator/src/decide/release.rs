//! Letting the old attachment go as soon as the volume is unstaged. Kubernetes waits for the next status report of the
//! left node's kubelet (every 10 s by default) before it deletes the `VolumeAttachment`; with an agent's proof that
//! nothing of the volume is mounted there, that wait runs beside the storage's own work instead of before it.

use super::{Action, Draft};
use handoff_cluster::Pod;
use handoff_storage::VolumeState;

impl Draft<'_> {
    pub(super) fn release(&mut self) {
        if !self.obs.unstaged {
            return;
        }
        self.mark("Unstaged");
        // the proof is of one departure: what is staged there again, in this move or after it, it says nothing of
        let back = |p: &Pod| p.node.as_ref() == Some(&self.spec.from) && p.uid != self.spec.pod.uid;
        if self.obs.pods.iter().any(|p| back(p)) {
            self.mark("UsedOnLeftNodeAgain");
        }
        if self.seen("UsedOnLeftNodeAgain") || self.seen("WorkloadReady") {
            return;
        }
        let from = &self.spec.from;
        let Some(volume) = self.obs.volume.as_ref().filter(|v| v.state == VolumeState::Attached) else { return };
        // without a request elsewhere nothing is gained, and the node that is left is where a pod may come back to
        let elsewhere = volume.requests.iter().any(|r| r.workload && r.node != *from);
        // the pod's object is gone only when the kubelet has unpublished its volumes
        if !elsewhere || self.obs.pod(&self.spec.pod.uid).is_some() {
            return;
        }
        let old = self.obs.attachments.iter().find(|a| a.node == *from && a.attached && !a.deleting);
        if let Some(attachment) = old.map(|a| a.name.clone()) {
            let node = from.clone();
            self.mark("ReleasedEarly");
            self.actions.push(Action::ReleaseAttachment { attachment, node });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{Story, at, pod, request, volume};
    use handoff_cluster::{Attachment, ObjectKey};
    use std::sync::Arc;

    #[test]
    fn the_old_attachment_goes_once_the_volume_is_unstaged_and_asked_for_elsewhere() {
        let attachment = |deleting: bool| {
            Arc::new(Attachment {
                name: "csi-a".into(),
                node: "a".into(),
                volume: "pv".into(),
                attached: true,
                deleting,
                attach_error: None,
                created: Some(at(-800.0)),
            })
        };
        let releases = |story: &mut Story, seconds: f64| {
            let actions = story.decide(seconds);
            actions.into_iter().filter(|a| matches!(a, Action::ReleaseAttachment { .. })).collect::<Vec<_>>()
        };
        let release = Action::ReleaseAttachment { attachment: "csi-a".into(), node: "a".into() };
        let mut story = Story::begin(&["b1"]);
        story.obs.attachments = vec![attachment(false)];
        story.obs.unstaged = true;
        assert_eq!(releases(&mut story, 0.5), [], "the pod is still there");
        story.obs.pods = vec![Arc::new(pod("new", Some("b")))];
        assert_eq!(releases(&mut story, 2.0), [], "nobody asks for it elsewhere yet");
        story.obs.volume =
            Some(volume(VolumeState::Attached, Some("a"), vec![request("a", false, true), request("b", true, false)]));
        story.obs.unstaged = false;
        assert_eq!(releases(&mut story, 2.1), [], "no proof");
        story.obs.unstaged = true;
        assert_eq!(releases(&mut story, 2.2), vec![release.clone()]);
        assert_eq!(releases(&mut story, 2.3), vec![release], "again, as long as it is there");
        story.obs.pods.push(Arc::new(Pod { key: ObjectKey::new("ns", "other"), ..pod("other", Some("a")) }));
        assert_eq!(releases(&mut story, 2.4), [], "another pod uses it there");
        story.obs.pods.pop();
        story.obs.attachments = vec![attachment(true)];
        assert_eq!(releases(&mut story, 2.5), [], "it is going");
    }

    #[test]
    fn a_proof_is_of_no_use_once_the_volume_may_have_been_staged_there_again() {
        let attachment = || {
            Arc::new(Attachment {
                name: "csi-a".into(),
                node: "a".into(),
                volume: "pv".into(),
                attached: true,
                deleting: false,
                attach_error: None,
                created: Some(at(-800.0)),
            })
        };
        let leaves_a = |story: &mut Story| {
            story.obs.pods = vec![Arc::new(pod("newer", Some("b")))];
            story.obs.attachments = vec![attachment()];
            story.obs.volume = Some(volume(
                VolumeState::Attached,
                Some("a"),
                vec![request("a", false, true), request("b", true, false)],
            ));
        };
        let releases = |actions: Vec<Action>| actions.iter().any(|a| matches!(a, Action::ReleaseAttachment { .. }));

        // the move is over; the volume came back without a backup, so that the handoff was not written anew
        let mut story = Story::begin(&["b1"]);
        story.obs.unstaged = true;
        story.decide(0.5);
        story.obs.pods = vec![Arc::new(Pod { ready: true, ..pod("new", Some("b")) })];
        story.obs.volume = Some(volume(VolumeState::Attached, Some("b"), vec![request("b", false, true)]));
        story.decide(14.0);
        leaves_a(&mut story);
        assert!(!releases(story.decide(900.0)), "after the move");

        // a pod came back to the left node before the workload was ready
        let mut story = Story::begin(&["b1"]);
        story.obs.unstaged = true;
        story.decide(0.5);
        story.obs.pods = vec![Arc::new(pod("new", Some("a")))];
        story.decide(3.0);
        leaves_a(&mut story);
        assert!(!releases(story.decide(6.0)), "within the move");
    }
}
