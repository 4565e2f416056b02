use super::super::{
    plan,
    tests::{at, handoff},
};
use super::*;
use handoff_coordinator::api::Hold;
use handoff_storage::VolumeState;
use serde_json::json;

fn subject() -> Subject {
    Subject {
        namespace: "shop".into(),
        claim: "data-one".into(),
        volume: Some("one".into()),
        csi: Some((DRIVER.into(), "h-one".into())),
    }
}

fn view() -> VolumeView {
    serde_view(VolumeState::Detaching)
}

fn serde_view(state: VolumeState) -> VolumeView {
    VolumeView {
        state,
        current_node: Some("a".into()),
        wanted_node: None,
        engine_running: false,
        serving: false,
        requests: vec![handoff_storage::AttachRequest {
            id: "x".into(),
            node: "b".into(),
            workload: true,
            ours: true,
            satisfied: false,
        }],
        requests_version: "1".into(),
        replicas: vec![handoff_storage::ReplicaView { node: "a".into(), running: true, failed: false }],
    }
}

fn backup(state: BackupState, progress: u8) -> BackupView {
    BackupView {
        name: "b1".into(),
        uid: "u1".into(),
        resource_version: "1".into(),
        state,
        progress,
        snapshot: "s1".into(),
        target: "default".into(),
        target_unavailable: None,
        mode: "incremental".into(),
        recurring_job: None,
        replica_address: None,
        error: (state == BackupState::Lost).then(|| "connection refused".to_owned()),
        ended_at: None,
        asked_at: None,
        created: Some(at(-30)),
        uploaded_bytes: None,
    }
}

fn explain(handoff: Option<&VolumeHandoff>, backup: BackupView, now: i64) -> Explained {
    explain_volume(&subject(), handoff, Some(&view()), &[backup], at(now))
}

#[test]
fn what_holds_it_since_when_and_until_when() {
    let mut held = handoff("one");
    held.spec.hold = Some(Hold { since: at(-5), deadline: at(55) });
    let page = explain(Some(&held), backup(BackupState::Running, 90), 15);
    assert!(page.held[0].contains("pod db-0 is held since") && page.held[0].contains("20s ago"), "{}", page.held[0]);
    assert!(page.held[0].contains(&format!("until {:.0} at most", at(55))), "{}", page.held[0]);
    let page = explain(Some(&held), backup(BackupState::Running, 90), 65);
    assert_eq!(page.held, ["Nothing holds it any more; its hold ended 10s ago."]);
    let page = explain(Some(&handoff("one")), backup(BackupState::Running, 90), 65);
    assert_eq!(page.held, ["Nothing holds it."]);
}

#[test]
fn what_is_owed_and_what_comes_next() {
    let page = explain(Some(&handoff("one")), backup(BackupState::Lost, 23), 20);
    assert_eq!(
        page.owed,
        ["Backup b1 is owed since 20s ago: it was at 23 % when the move began, was made to run again 1 time(s): \
          connection refused."]
    );
    assert_eq!(page.next[0], "The pod: moving from a to b.");
    assert_eq!(page.next[1], "Backup b1 is tried again in 10s. At once: handoff resume");
    // the wait is over
    let page = explain(Some(&handoff("one")), backup(BackupState::Lost, 23), 31);
    assert_eq!(page.next[1], "Backup b1 is made to run again once the volume is settled and the pod is ready.");
    // half of it took 60 s
    let page = explain(Some(&handoff("one")), backup(BackupState::Running, 50), 30);
    assert_eq!(page.next[1], "Backup b1 uploads and ends by itself, in about 1m if it goes on as it did.");
}

#[test]
fn what_is_over_says_how_it_ended() {
    for (state, reason, wanted) in [
        ("Completed", "", "Backup b1 is complete, after 1 resume(s)."),
        ("Abandoned", "abandoned on request", "Backup b1 is no longer owed, Abandoned: abandoned on request."),
        (
            "Unrecoverable",
            "its snapshot s1 is gone",
            "Backup b1 is no longer owed, Unrecoverable: its snapshot s1 is gone.",
        ),
    ] {
        let mut over = handoff("one");
        let status = over.status.as_mut().unwrap();
        status.resumes[0].state = serde_json::from_value(state.into()).unwrap();
        status.resumes[0].reason = reason.into();
        status.duration = "14.2s".into();
        let page = explain(Some(&over), backup(BackupState::Lost, 23), 100);
        assert_eq!(page.owed, [wanted]);
        assert_eq!(page.next, ["Nothing more for the pod: it was ready after 14.2s."]);
    }
}

#[test]
fn every_statement_has_its_evidence() {
    let page = explain(Some(&handoff("one")), backup(BackupState::Lost, 23), 20);
    let evidence = page.evidence.iter().map(|e| format!("{}: {}", e.object, e.says)).collect::<Vec<_>>();
    assert_eq!(
        evidence[..2],
        [
            "volumes.longhorn.io h-one: Detaching on a, asked for on b (our pre-stage), good replicas on: a",
            "backups.longhorn.io b1: Lost at 23 %: connection refused",
        ]
    );
    assert!(evidence[2].starts_with("VolumeHandoff shop/one: Eviction of pod db-0 at "), "{}", evidence[2]);
    assert_eq!(page.steps[1], Step { second: 2.0, what: "PodGone".into() });
    let text = page.text();
    assert!(
        text.contains("\n  evidence  volumes.longhorn.io") && text.contains("\n  steps     +   0.0 s  Eviction"),
        "{text}"
    );
}

#[test]
fn without_a_handoff_it_says_what_a_move_now_would_do() {
    let page = explain(None, backup(BackupState::Running, 10), 0);
    assert_eq!(page.held, ["Nothing holds it."]);
    assert!(page.next[0].contains("backup b1 is recorded"), "{:?}", page.next);
    let foreign = Subject { csi: Some(("other.example.net".into(), "h".into())), ..subject() };
    let page = explain_volume(&foreign, None, None, &[], at(0));
    assert_eq!(page.held, ["Not a Longhorn volume: Handoff leaves it alone."]);
    let unbound = Subject { volume: None, csi: None, ..subject() };
    assert!(explain_volume(&unbound, None, None, &[], at(0)).next[0].contains("no volume yet"));
}

#[tokio::test]
async fn the_nodes_of_a_pod_are_as_the_scheduler_is_told() {
    let pod = Object { kind: Kind::Pod, name: "db-0".into() };
    let api = plan::tests::cluster();
    api.put(
        "/apis/longhorn.io/v1beta2/namespaces/longhorn-system/instancemanagers/im-a",
        json!({
        "metadata": {"name": "im-a"}, "spec": {"nodeID": "a", "type": "aio"}, "status": {"currentState": "error"}}),
    );
    let page = super::explain(&api.cluster("shop"), &pod, at(0)).await.unwrap();
    let nodes = page.nodes.iter().map(|n| (n.node.as_str(), n.score, n.why.as_str())).collect::<Vec<_>>();
    assert_eq!(
        nodes,
        [("b", Some(9), "good replica of 1 of 1"), ("a", None, "no Longhorn instance manager runs on a")]
    );
    assert_eq!(page.about, ["Pod shop/db-0 is Running, on a."]);
    assert!(page.text().contains("\na     -      no Longhorn instance manager runs on a"), "{}", page.text());

    let pod_path = "/api/v1/namespaces/shop/pods/db-0";
    let claim_path = "/api/v1/namespaces/shop/persistentvolumeclaims/data-one";
    for (on_pod, on_claim, by_default, told) in [
        (None, None, None, true),
        (Some("disabled"), None, None, false),
        (Some("observe"), None, None, false),
        (None, Some("disabled"), None, false),
        (Some("enabled"), Some("disabled"), Some("disabled"), true),
        (None, None, Some("observe"), false),
        (None, Some("enabled"), Some("observe"), true),
    ] {
        for (path, mode) in [(pod_path, on_pod), (claim_path, on_claim)] {
            let mut object = api.get(path).unwrap();
            object["metadata"]["annotations"] = json!(mode.map(|mode| json!({"volumehandoff.io/mode": mode})));
            api.put(path, object);
        }
        let args = by_default.map(|mode| format!("--mode={mode}"));
        api.put(
            "/apis/apps/v1/namespaces/handoff-system/deployments/handoff",
            json!({"metadata": {"name": "handoff"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "handoff", "args": args.into_iter().collect::<Vec<_>>()}]}}}}),
        );
        let page = super::explain(&api.cluster("shop"), &pod, at(0)).await.unwrap();
        let case = format!("{on_pod:?} {on_claim:?} {by_default:?}");
        assert_eq!(page.nodes.len(), if told { 2 } else { 0 }, "{case}");
        assert_eq!(page.about.iter().any(|line| line.contains("is told nothing")), !told, "{case}");
    }
}

/// What `kubectl drain` names at 3 a.m. is a pod of Longhorn's that has no volume.
#[tokio::test]
async fn a_storage_pod_that_is_held_says_so() {
    let api = super::super::fake::Api::default();
    let pod = |name: &str| json!({"metadata": {"name": name, "uid": name, "namespace": "longhorn-system"}, "spec": {"nodeName": "a", "containers": []}});
    for name in ["im-a", "ui"] {
        api.put(&format!("/api/v1/namespaces/longhorn-system/pods/{name}"), pod(name));
        api.put(&format!("/api/v1/namespaces/shop/pods/{name}"), pod(name));
    }
    api.put(
        "/api/v1/namespaces/handoff-system/configmaps/handoff-holds",
        json!({"metadata": {"name": "handoff-holds"}, "data": {"im-a": at(10).to_string()}}),
    );
    let about = async |namespace: &str, name: &str| {
        let object = Object { kind: Kind::Pod, name: name.into() };
        super::explain(&api.cluster(namespace), &object, at(20)).await.unwrap().about.join("\n")
    };
    let elsewhere = about("shop", "im-a").await;
    assert!(elsewhere.contains("no part in it"), "{elsewhere}");
    assert!(
        !api.asked().iter().any(|path| path.contains("handoff-holds")),
        "a user of one namespace may not look there"
    );
    let held = about("longhorn-system", "im-a").await;
    assert!(held.contains("first denied 10s ago") && held.contains("handoff release node/a"), "{held}");
    assert!(about("longhorn-system", "ui").await.contains("no part in it"));
}
