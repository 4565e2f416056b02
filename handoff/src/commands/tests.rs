//! What the tests of the commands share: objects as a cluster would have them.

use handoff_coordinator::api::VolumeHandoff;
use jiff::Timestamp;
use serde_json::json;

/// So many seconds after the moves of [`handoff`] began.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A volume `shop/data-NAME` that moves from a to b and owes backup b1, which failed once and is tried again at 30 s.
pub fn handoff(volume: &str) -> VolumeHandoff {
    serde_json::from_value(json!({
        "apiVersion": "volumehandoff.io/v1alpha1",
        "kind": "VolumeHandoff",
        "metadata": {"name": volume, "namespace": "shop", "uid": format!("uid-{volume}"), "resourceVersion": "1"},
        "spec": {
            "volume": {"driver": "driver.longhorn.io", "handle": format!("h-{volume}"), "volume": volume,
                "claim": format!("data-{volume}")},
            "pod": {"name": "db-0", "uid": "pod-1"},
            "from": "a",
            "trigger": "Eviction",
            "triggeredAt": at(0),
            "checkpoints": [{"backup": "b1", "uid": "u1", "snapshot": "s1", "target": "default",
                "mode": "incremental", "progress": 23, "recordedAt": at(0)}],
        },
        "status": {
            "moveStartedAt": at(0), "from": "a", "to": "b", "phase": "Moving", "message": "moving from a to b",
            "backupsSafe": "0/1 safe", "conditions": [], "history": [],
            "resumes": [{"backup": "b1", "state": "Waiting", "attempts": 1, "nextTryAt": at(30),
                "reason": "connection refused"}],
            "timeline": [{"what": "Eviction", "at": at(0)}, {"what": "PodGone", "at": at(2)}],
        },
    }))
    .unwrap()
}
