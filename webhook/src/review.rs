//! `AdmissionReview`: reading one without copying it, and answering it.
//!
//! Only the fields that a verdict needs are parsed, and strings borrow from the body. That is four times as fast as a
//! typed Pod, and an object with fields newer than this program is no different from any other.

use std::{borrow::Cow, fmt, ops::Deref};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::verdict::{Verdict, one_line};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// The longest text of an HTTP 400: a parser error quotes what it found, which can be anything.
const MALFORMED_CHARS: usize = 256;

/// A string that borrows from the body unless it holds escapes. A plain `Cow` inside an `Option` or `Vec` never
/// borrows, whatever its attributes say; behind a type of its own it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The text of an optional field; absent, null and empty mean the same everywhere in the Kubernetes API.
pub(crate) fn text<'t>(field: Option<&'t Text<'_>>) -> &'t str {
    field.map_or("", |text| text)
}

/// Like [`text`], for fields where an absent value is passed on as such.
pub(crate) fn owned(field: Option<&Text<'_>>) -> Option<String> {
    Some(text(field)).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Why a body is not an admission review.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// Not JSON, or a field that we read has another type than the API gives it.
    #[error("not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// Without it there is no answer that the API server would take.
    #[error("not an AdmissionReview request: request.uid is missing")]
    NoUid,
}

impl Malformed {
    /// HTTP 400 with one line. The API server counts it as a failed call, to which `failurePolicy` applies.
    pub(crate) fn answer(&self) -> Response {
        (StatusCode::BAD_REQUEST, one_line(&self.to_string(), MALFORMED_CHARS) + "\n").into_response()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
struct Review<'a, O> {
    #[serde(borrow)]
    api_version: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    request: Option<Request<'a, O>>,
}

/// The request of a review about an object of the form `O`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
pub(crate) struct Request<'a, O> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    resource: Option<Resource<'a>>,
    #[serde(borrow)]
    sub_resource: Option<Text<'a>>,
    #[serde(borrow)]
    operation: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    user_info: Option<UserInfo<'a>>,
    dry_run: Option<bool>,
    pub(crate) object: Option<O>,
    pub(crate) old_object: Option<O>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    group: Option<Text<'a>>,
    #[serde(borrow)]
    resource: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct UserInfo<'a> {
    #[serde(borrow)]
    groups: Option<Vec<Text<'a>>>,
}

/// What a review is about, to tell whether it came in by the right route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject<'r> {
    pub(crate) group: &'r str,
    pub(crate) resource: &'r str,
    pub(crate) subresource: &'r str,
    pub(crate) operation: &'r str,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, resource, subresource, operation } = self;
        write!(f, "{operation} {resource}")?;
        if !subresource.is_empty() {
            write!(f, "/{subresource}")?;
        }
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        Ok(())
    }
}

impl<O> Request<'_, O> {
    /// Name in the request's path; empty for collections and for objects that get their name later.
    pub(crate) fn name(&self) -> &str {
        text(self.name.as_ref())
    }

    pub(crate) fn namespace(&self) -> &str {
        text(self.namespace.as_ref())
    }

    pub(crate) fn dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }

    pub(crate) fn by_group(&self, group: &str) -> bool {
        let groups = self.user_info.as_ref().and_then(|user| user.groups.as_deref()).unwrap_or_default();
        groups.iter().any(|g| &**g == group)
    }

    pub(crate) fn subject(&self) -> Subject<'_> {
        let resource = self.resource.as_ref();
        Subject {
            group: text(resource.and_then(|r| r.group.as_ref())),
            resource: text(resource.and_then(|r| r.resource.as_ref())),
            subresource: text(self.sub_resource.as_ref()),
            operation: text(self.operation.as_ref()),
        }
    }
}

/// What the answer repeats of the review.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    api_version: Text<'a>,
    kind: Text<'a>,
    uid: Text<'a>,
}

/// What a route makes of a request: a verdict, or a question and, when there is none to ask, a verdict.
pub(crate) trait FromVerdict {
    fn from_verdict(verdict: Verdict) -> Self;
}

impl FromVerdict for Verdict {
    fn from_verdict(verdict: Verdict) -> Self {
        verdict
    }
}

impl<Q> FromVerdict for Result<Q, Verdict> {
    fn from_verdict(verdict: Verdict) -> Self {
        Err(verdict)
    }
}

/// Reads a review about an object of the form `O` and hands its request to `judge`, unless the route is not for it.
pub(crate) fn read<'a, O: Deserialize<'a>, R: FromVerdict>(
    body: &'a [u8],
    is_ours: impl FnOnce(&Subject<'_>) -> bool,
    judge: impl FnOnce(&Request<'a, O>) -> R,
) -> Result<(Head<'a>, R), Malformed> {
    match parse::<O>(body) {
        Ok((head, request)) => {
            let subject = request.subject();
            let result = if is_ours(&subject) {
                judge(&request)
            } else {
                R::from_verdict(Verdict::misrouted(&subject.to_string()))
            };
            Ok((head, result))
        }
        // An object of another kind may use a field of ours for something else. Then the object is not to blame.
        Err(error) => match parse::<IgnoredAny>(body) {
            Ok((head, request)) if !is_ours(&request.subject()) => {
                Ok((head, R::from_verdict(Verdict::misrouted(&request.subject().to_string()))))
            }
            _ => Err(error),
        },
    }
}

fn parse<'a, O: Deserialize<'a>>(body: &'a [u8]) -> Result<(Head<'a>, Request<'a, O>), Malformed> {
    let review: Review<'a, O> = serde_json::from_slice(body)?;
    let mut request = review.request.ok_or(Malformed::NoUid)?;
    let uid = request.uid.take().filter(|uid| !uid.is_empty()).ok_or(Malformed::NoUid)?;
    let head = Head {
        api_version: review.api_version.unwrap_or(Text(Cow::Borrowed(API_VERSION))),
        kind: review.kind.unwrap_or(Text(Cow::Borrowed(KIND))),
        uid,
    };
    Ok((head, request))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'a str,
    kind: &'a str,
    response: AnswerResponse<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnswerResponse<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<AnswerStatus<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
}

#[derive(Serialize)]
struct AnswerStatus<'a> {
    status: &'static str,
    code: u16,
    reason: &'static str,
    message: &'a str,
}

impl Head<'_> {
    /// HTTP 200 with the review's answer; the API server takes any other status as a failed call, not as a denial.
    pub(crate) fn answer(&self, verdict: Verdict) -> Response {
        let Verdict { outcome: _, denial, warnings, patch } = verdict;
        let answer = Answer {
            api_version: &self.api_version,
            kind: &self.kind,
            response: AnswerResponse {
                uid: &self.uid,
                allowed: denial.is_none(),
                status: denial.as_ref().map(|denial| AnswerStatus {
                    status: "Failure",
                    code: denial.code,
                    reason: denial.reason,
                    message: &denial.message,
                }),
                warnings: &warnings,
                patch_type: patch.is_some().then_some("JSONPatch"),
                patch: patch.map(|patch| STANDARD.encode(patch)),
            },
        };
        match serde_json::to_vec(&answer) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            // Strings and numbers into memory cannot fail; if they did, `failurePolicy` would decide.
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_without_escapes_are_not_copied() {
        let list: Vec<Option<Text<'_>>> = serde_json::from_str(r#"["plain","esc\u0061ped"]"#).unwrap();
        assert!(matches!(list[0], Some(Text(Cow::Borrowed("plain")))));
        assert!(matches!(&list[1], Some(Text(Cow::Owned(s))) if s == "escaped"));
    }

    #[test]
    fn a_body_without_uid_is_malformed() {
        for body in ["{}", r#"{"request":null}"#, r#"{"request":{}}"#, r#"{"request":{"uid":""}}"#] {
            assert!(matches!(parse::<IgnoredAny>(body.as_bytes()), Err(Malformed::NoUid)), "{body}");
        }
        for body in ["", "null", "[]", "{", r#"{"request":{"uid":1}}"#] {
            assert!(parse::<IgnoredAny>(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_subject_reads_like_the_rule_that_sends_it() {
        let subject = |group, resource, subresource| Subject { group, resource, subresource, operation: "CREATE" };
        assert_eq!(subject("", "pods", "eviction").to_string(), "CREATE pods/eviction");
        assert_eq!(subject("longhorn.io", "snapshots", "").to_string(), "CREATE snapshots.longhorn.io");
    }
}
