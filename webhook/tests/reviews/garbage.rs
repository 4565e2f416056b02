//! Bodies that nobody should send: never a panic, always 200 or 400, and a 200 is a valid answer that blocks nothing.

use std::sync::{Arc, LazyLock};

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use handoff_coordinator::verdicts::PreferredNode;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::support::{ROUTES, Script, data, post};

static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(data);
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_multi_thread().enable_all().build().unwrap());

/// Puts `new` in the place of the `at`-th value, counted depth first.
fn replace(value: &mut Value, at: &mut usize, new: &Value) {
    if *at == 0 {
        *value = new.clone();
    }
    // Wraps far below any count of values, so nothing after the one is replaced.
    *at = at.wrapping_sub(1);
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, at, new)),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, at, new)),
        _ => {}
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,8}".prop_map(Value::from),
        "[\"\\\\\u{0}-\u{1f}é\u{1f600}]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec(("[a-zA-Z]{1,12}", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

fn check(route: Index, body: &[u8]) -> Result<(), TestCaseError> {
    let preferred = vec![PreferredNode { name: "node-2".to_owned(), weight: 50 }];
    let script = Arc::new(Script { preferred, ..Script::default() });
    let answer = RUNTIME.block_on(post(&script, route.get::<&str>(&ROUTES), body.to_vec()));
    if answer.status == StatusCode::BAD_REQUEST {
        prop_assert_eq!(answer.text.lines().count(), 1);
        prop_assert!(script.asked().is_empty(), "asked about a malformed review");
        return Ok(());
    }
    prop_assert_eq!(answer.status, StatusCode::OK);
    let response = &answer.json()["response"];
    prop_assert_eq!(&response["allowed"], &json!(true));
    prop_assert!(response["uid"].as_str().is_some_and(|uid| !uid.is_empty()));
    if let Some(patch) = response["patch"].as_str() {
        let patch: json_patch::Patch = serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap();
        // bytes of a value that is passed over are not looked at; an API server sends no others than UTF-8
        let Ok(review) = serde_json::from_slice::<Value>(body) else { return Ok(()) };
        prop_assert!(json_patch::patch(&mut review["request"]["object"].clone(), &patch).is_ok());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn other_values(file: Index, route: Index, changes in vec((any::<Index>(), any_value()), 1..4)) {
        let mut review: Value = serde_json::from_slice(&file.get(&FILES).1).unwrap();
        for (at, new) in changes {
            let mut at = at.index(count(&review));
            replace(&mut review, &mut at, &new);
        }
        check(route, review.to_string().as_bytes())?;
    }

    #[test]
    fn other_bytes(file: Index, route: Index, changes in vec((any::<Index>(), any::<u8>()), 1..6)) {
        let mut body = file.get(&FILES).1.clone();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        check(route, &body)?;
    }

    #[test]
    fn cut_off(file: Index, route: Index, at: Index) {
        let body = &file.get(&FILES).1;
        check(route, &body[..at.index(body.trim_ascii_end().len())])?;
    }

    #[test]
    fn noise(route: Index, body in vec(any::<u8>(), 0..200)) {
        check(route, &body)?;
    }
}
