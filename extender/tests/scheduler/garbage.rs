//! Bodies that no scheduler sends: never a panic, always 200 or 400, and no node is lost without a reason.

use std::sync::{Arc, LazyLock};

use axum::http::StatusCode;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::support::{Table, data, post, unfit};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());
static FILES: LazyLock<Vec<String>> =
    LazyLock::new(|| ["args-node-names", "args-full-nodes", "args-without-claims"].map(data).into());

fn rejecting() -> Arc<Table> {
    Arc::new(Table { nodes: vec![("node-2", unfit("x"))], ..Table::default() })
}

fn check(body: &[u8]) -> Result<(), TestCaseError> {
    for path in ["/filter", "/prioritize"] {
        let answer = RUNTIME.block_on(post(&rejecting(), path, body.to_vec()));
        prop_assert!([StatusCode::OK, StatusCode::BAD_REQUEST].contains(&answer.status));
        if answer.status == StatusCode::OK {
            let answer = answer.json();
            prop_assert!(answer.is_array() == (path == "/prioritize"));
            if path == "/filter" {
                prop_assert!(answer["NodeNames"].is_array() || answer["Nodes"]["items"].is_array());
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each name is in the answer once: in its place among those that pass, or with a reason.
    #[test]
    fn no_name_is_lost(names in vec(prop_oneof![".{0,10}", Just("node-2".to_owned()), "[a-z0-9.-]{1,20}"], 0..20)) {
        let body = json!({"Pod": {"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}},
            "NodeNames": names});
        let answer = RUNTIME.block_on(post(&rejecting(), "/filter", body.to_string())).json();
        let passing: Vec<&String> = names.iter().filter(|name| *name != "node-2").collect();
        prop_assert_eq!(&answer["NodeNames"], &json!(passing));
        let rejected = answer["FailedAndUnresolvableNodes"].as_object().map(serde_json::Map::len);
        prop_assert_eq!(rejected, Some(usize::from(passing.len() < names.len())));
        let scores = RUNTIME.block_on(post(&rejecting(), "/prioritize", body.to_string())).json();
        prop_assert_eq!(scores, json!([]), "none of them is better than the others");
    }

    #[test]
    fn other_bytes(file: Index, changes in vec((any::<Index>(), any::<u8>()), 1..6)) {
        let mut body = file.get(&FILES).clone().into_bytes();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        check(&body)?;
    }

    #[test]
    fn cut_off(file: Index, at: Index) {
        let body = file.get(&FILES).trim_end().as_bytes();
        let cut = &body[..at.index(body.len())];
        prop_assert_eq!(RUNTIME.block_on(post(&rejecting(), "/filter", cut.to_vec())).status, StatusCode::BAD_REQUEST);
        check(cut)?;
    }

    #[test]
    fn noise(body in vec(any::<u8>(), 0..200)) {
        check(&body)?;
    }
}
