//! The page's structure, without a browser.

use super::*;
use axum::{body::Body, http::StatusCode};
use handoff_coordinator::{api::VolumeHandoff, metrics::Held, now::OpenHold};
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tower::ServiceExt;

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs_f64(seconds)
}

fn steps(steps: &[(&str, f64)]) -> Value {
    steps.iter().map(|(what, seconds)| json!({"what": what, "at": at(*seconds)})).collect()
}

/// A volume that moved from a to b; its backup runs again.
fn moved(volume: &str) -> Value {
    json!({
        "apiVersion": "volumehandoff.io/v1alpha1", "kind": "VolumeHandoff",
        "metadata": {"name": volume, "namespace": "shop", "uid": "u"},
        "spec": {
            "volume": {"driver": "d", "handle": "v", "volume": volume, "claim": "data-db-0"},
            "pod": {"name": "db-0", "uid": "p"}, "from": "a", "trigger": "Eviction", "triggeredAt": at(0.0),
            "checkpoints": [{
                "backup": "backup-1", "uid": "b", "snapshot": "s", "target": "default", "mode": "incremental",
                "progress": 23, "recordedAt": at(0.0),
            }],
        },
        "status": {
            "moveStartedAt": at(0.0), "from": "a", "to": "b", "phase": "Resuming", "backupsSafe": "0/1 safe",
            "message": "s3://bucket?secret=hunter2",
            "prestage": {
                "node": "b", "podUid": "q", "placedAt": at(2.0), "expiresAt": at(122.0), "outcome": "Adopted",
            },
            "resumes": [{
                "backup": "backup-1", "state": "Running", "attempts": 1, "startedAt": at(20.0),
                "reason": "cannot open s3://key:hunter2@host",
            }],
            "timeline": steps(&[
                ("Eviction", 0.0), ("PodTerminating", 0.5), ("Detached", 4.0), ("BackupLost backup-1", 4.5),
                ("Attached", 9.0), ("WorkloadReady", 14.0), ("BackupResumed backup-1", 20.0),
            ]),
            "history": [{"startedAt": at(-900.0), "from": "b", "to": "a", "move": "12.0s", "timeline": steps(&[
                ("Deletion", -900.0), ("PodTerminating", -899.0), ("Detached", -896.0), ("Attached", -892.0),
                ("WorkloadReady", -888.0),
            ])}],
        },
    })
}

fn shown(handoffs: &[Value], holds: &[OpenHold], now: Timestamp) -> String {
    let handoffs = handoffs.iter().map(|h| serde_json::from_value(h.clone()).unwrap()).collect::<Vec<VolumeHandoff>>();
    let replica = Replica { name: "handoff-0".into(), leads: true, missing: vec![] };
    html::page(&View::of(replica, handoffs.iter(), holds, now)).into_string()
}

#[test]
fn a_move_and_what_it_owes_are_shown() {
    let page = shown(&[moved("pv")], &[], at(60.0));
    for part in [
        "<th scope=\"row\">backup-1</th>",
        "<td>shop/data-db-0</td>",
        "<td>1 min 0 s</td>",
        "<td>23 %</td>",
        "<td>runs again</td>",
        "<td>a → b</td>",
        "<td>14.0 s</td>",
        "Timeline: detach 3.5 s, attach 5.0 s, ready 5.0 s, resume 55.5 s so far, total 14.0 s",
        "Timeline: detach 3.0 s, attach 4.0 s, ready 4.0 s, total 12.0 s",
        "+4.5 s BackupLost backup-1",
        "Pre-stage: used",
        "handoff-0 sees it at <time datetime=\"2027-01-15T08:01:00.000Z\">2027-01-15 08:01:00</time>, which leads.",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(page.find("Owed backups") < page.find("<h2 id=\"moves\">"), "what is owed comes first");
    assert!(!page.contains("hunter2"), "no text of the storage manager");
}

#[test]
fn nothing_at_all_is_said_in_words() {
    let page = shown(&[], &[], at(0.0));
    assert!(page.contains("Nothing is owed.") && page.contains("has moved, as far as is on record"), "{page}");
    assert!(!page.contains("<table>"), "{page}");
}

#[test]
fn holds_and_what_is_incomplete_are_said() {
    let hold = |what, since| OpenHold { what, since: at(since), deadline: at(since + 100.0) };
    let holds = [hold(Held::InstanceManager, 0.0), hold(Held::InstanceManager, 5.0), hold(Held::Pod, 2.0)];
    let page = shown(&[], &holds, at(10.0));
    assert!(page.contains("<li>2 × instance manager, for 10.0 s, at most 1 min 30 s more</li>"), "{page}");
    let replica = Replica { missing: vec!["pods"], ..Replica::default() };
    let page = html::page(&View::of(replica, [].into_iter(), &[], at(0.0))).into_string();
    assert!(page.contains("waiting for pods"), "{page}");
}

#[test]
fn names_are_escaped() {
    let mut handoff = moved("pv");
    handoff["spec"]["pod"]["name"] = json!("<script>alert(1)</script>");
    handoff["spec"]["volume"]["claim"] = json!("\"><img src=x onerror=alert(1)>");
    handoff["spec"]["checkpoints"][0]["backup"] = json!("<b>");
    handoff["status"]["timeline"][0]["what"] = json!("</ol><script>");
    let page = shown(&[handoff], &[], at(60.0));
    assert_eq!(page.matches("<script").count(), 1, "ours: {page}");
    assert!(!page.contains("<img") && !page.contains("<b>"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
}

#[test]
fn the_rows_are_bounded_and_the_rest_is_counted() {
    let many = (0..200).map(|i| {
        let mut handoff = moved(&format!("pv-{i}"));
        handoff["spec"]["checkpoints"][0]["backup"] = json!(format!("backup-{i}"));
        handoff
    });
    let page = shown(&many.collect::<Vec<_>>(), &[], at(60.0));
    assert_eq!(page.matches("<tr>").count(), 2 + 50 + 50, "two heads, 50 backups, 50 moves");
    assert!(page.contains("And 150 more") && page.contains("And 350 more"), "200 owed; 400 moves with their history");
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn every_id_is_there_once_and_every_reference_leads_somewhere() {
    let page = shown(&[moved("pv"), moved("pv-2")], &[], at(60.0));
    let values = |attribute: &str| {
        let name = format!(" {attribute}=\"");
        let rest = page.split(&name).skip(1);
        rest.map(|rest| rest.split_once('"').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    let ids = values("id");
    let mut once = ids.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), ids.len(), "{ids:?}");
    assert!(values("aria-labelledby").iter().all(|id| ids.contains(id)));
    assert_eq!(page.matches("<svg class=\"bar\"").count(), page.matches("aria-label=\"Timeline: ").count());
    assert_eq!(page.matches("<th").count() - page.matches("<thead").count(), page.matches(" scope=\"").count());
}

#[test]
fn pieces_lie_one_after_the_other_within_the_drawing() {
    let handoff: VolumeHandoff = serde_json::from_value(moved("pv")).unwrap();
    let view = View::of(Replica::default(), [handoff].iter(), &[], at(60.0));
    for m in &view.moves {
        let pieces = &m.bar.passage;
        assert!(pieces.windows(2).all(|w| (w[0].x + w[0].width - w[1].x).abs() < 0.01), "{pieces:?}");
        let last = pieces.last().unwrap();
        assert!((last.x + last.width - timeline::WIDTH).abs() < 0.01, "{pieces:?}");
        assert!(m.bar.resume.iter().all(|r| r.x + r.width <= timeline::WIDTH + 0.01));
    }
    let open = view.moves[0].bar.resume.as_ref().unwrap();
    assert!(open.open && view.moves[1].bar.resume.is_none());
}

#[test]
fn a_handoff_that_was_just_recorded_and_one_that_is_held_are_shown_too() {
    let mut handoff = moved("pv");
    handoff.as_object_mut().unwrap().remove("status");
    handoff["spec"]["hold"] = json!({"since": at(0.0), "deadline": at(60.0)});
    let page = shown(&[handoff], &[], at(7.0));
    assert!(page.contains("Timeline: hold 7.0 s so far, total 7.0 s so far"), "{page}");
    assert!(page.contains("<td>recorded"), "{page}");
}

#[test]
fn durations_in_words() {
    let words = [-3.0, 0.04, 14.25, 61.0, 3723.0, 90_061.0].map(|s| view::seconds(SignedDuration::from_secs_f64(s)));
    assert_eq!(words, ["0 s", "0.0 s", "14.2 s", "1 min 1 s", "1 h 2 min", "1 d 1 h"]);
}

/// Relative luminance, WCAG 2.2.
fn luminance(color: &str) -> f64 {
    let channel = |from: usize| {
        let value = f64::from(u8::from_str_radix(&color[from..from + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
}

fn contrast(a: &str, b: &str) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn text_and_drawings_stand_out_in_light_and_dark() {
    let (light, dark) = CSS.split_once("prefers-color-scheme: dark").unwrap();
    for (mode, css) in [("light", light), ("dark", dark)] {
        let colors = css.lines().filter_map(|line| line.trim().strip_prefix("--")?.split_once(": "));
        let colors = colors.map(|(name, color)| (name, color.trim_end_matches(';'))).collect::<BTreeMap<_, _>>();
        let check = |front: &str, back: &str, least: f64| {
            let found = contrast(colors[front], colors[back]);
            assert!(found >= least, "{mode}: {front} on {back} is {found:.2}, must be {least}");
        };
        for text in ["ink", "quiet", "link", "warning"] {
            check(text, "paper", 4.5);
        }
        check("ink", "lane", 4.5);
        for phase in ["hold", "detach", "attach", "ready", "resume"] {
            check("name", phase, 4.5);
            check(phase, "paper", 3.0);
            check(phase, "lane", 3.0);
        }
        check("checkpoint", "lane", 3.0);
    }
}

async fn get(path: &str) -> (StatusCode, BTreeMap<String, String>, String) {
    let source = || View::of(Replica::default(), [].into_iter(), &[], at(0.0));
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = router(Arc::new(source)).oneshot(request).await.unwrap();
    let headers = answer.headers().iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()));
    let (status, headers) = (answer.status(), headers.collect());
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn every_answer_says_that_nothing_else_may_run_or_be_loaded() {
    for (path, kind) in [("/moves", "text/html"), ("/moves.css", "text/css"), ("/moves.js", "text/javascript")] {
        let (status, headers, body) = get(path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(headers["content-type"].starts_with(kind) && !body.is_empty(), "{path}");
        let policy = &headers["content-security-policy"];
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!((&*headers["x-content-type-options"], &*headers["cache-control"]), ("nosniff", "no-store"));
    }
    let (status, headers, _) = get("/").await;
    assert_eq!((status, &*headers["location"]), (StatusCode::TEMPORARY_REDIRECT, "moves"));
    let (_, _, page) = get("/moves").await;
    assert!(!page.contains("style=") && !page.contains("<style") && !page.contains("javascript:"), "{page}");
}

#[tokio::test]
async fn it_can_only_be_read() {
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let source = || View::of(Replica::default(), [].into_iter(), &[], at(0.0));
        let request = Request::builder().method(method).uri("/moves").body(Body::empty()).unwrap();
        let answer = router(Arc::new(source)).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}
