//! The scheduler's wire format.
//!
//! Its own types have no JSON names, so their keys are the Go names (`NodeNames`), while the Kubernetes objects inside
//! keep theirs (`metadata`). Absent values are sent as null. Other senders may write the keys in other cases, as Go's
//! decoder takes any.
//!
//! A list of 5,000 names is what makes this path slow or fast: strings borrow from the body, and a name without
//! escapes is written back as it came, between two quotes.

use std::{borrow::Cow, io::Write, ops::Deref};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

/// The longest text of an HTTP 400: a parser error quotes what it found, which can be anything.
const MALFORMED_CHARS: usize = 256;

/// A string that borrows from the body unless it holds escapes. A plain `Cow` inside an `Option` or `Vec` never
/// borrows, whatever its attributes say; behind a type of its own it does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Text<'_> {
    /// Appends this string to JSON text.
    pub(crate) fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match &self.0 {
            // It stood between quotes without a backslash, so it can stand there again.
            Cow::Borrowed(text) => {
                out.push(b'"');
                out.extend_from_slice(text.as_bytes());
                out.push(b'"');
                Ok(())
            }
            Cow::Owned(text) => serde_json::to_writer(out, text),
        }
    }
}

fn text<'t>(field: Option<&'t Text<'_>>) -> &'t str {
    field.map_or("", |text| text)
}

/// Why a body is not what a scheduler sends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// Not JSON, or a field that we read has another type than the scheduler gives it.
    #[error("not ExtenderArgs: {0}")]
    Json(#[from] serde_json::Error),
    /// There is no right answer to a question about no nodes: an empty list would mean that none fits.
    #[error("not ExtenderArgs: both NodeNames and Nodes are missing")]
    NoNodes,
}

impl Malformed {
    pub(crate) fn line(&self) -> String {
        let mut line: String = self.to_string().chars().take(MALFORMED_CHARS).collect();
        line.push('\n');
        line
    }
}

/// `ExtenderArgs`. The scheduler sends one of the lists and null for the other; with both, both are answered.
#[derive(Deserialize)]
pub(crate) struct Args<'a> {
    #[serde(borrow, rename = "Pod", alias = "pod", alias = "POD")]
    pod: Option<Pod<'a>>,
    #[serde(borrow, rename = "NodeNames", alias = "nodeNames", alias = "nodenames", alias = "Nodenames")]
    #[serde(alias = "node_names", alias = "NODENAMES")]
    pub(crate) node_names: Option<Vec<Text<'a>>>,
    #[serde(borrow, rename = "Nodes", alias = "nodes", alias = "NODES")]
    pub(crate) nodes: Option<NodeList<'a>>,
}

/// `v1.NodeList`; each node stays the text that it is.
#[derive(Deserialize)]
pub(crate) struct NodeList<'a> {
    #[serde(borrow, alias = "Items")]
    items: Option<Vec<&'a RawValue>>,
}

impl<'a> NodeList<'a> {
    pub(crate) fn items(&self) -> &[&'a RawValue] {
        self.items.as_deref().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    spec: Option<Spec<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow)]
    volumes: Option<Vec<Volume<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    persistent_volume_claim: Option<ClaimSource<'a>>,
    ephemeral: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSource<'a> {
    #[serde(borrow)]
    claim_name: Option<Text<'a>>,
}

impl<'a> Args<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let args: Self = serde_json::from_slice(body)?;
        if args.node_names.is_none() && args.nodes.is_none() {
            return Err(Malformed::NoNodes);
        }
        Ok(args)
    }

    pub(crate) fn namespace(&self) -> &str {
        text(self.pod.as_ref().and_then(|pod| pod.metadata.as_ref()).and_then(|meta| meta.namespace.as_ref()))
    }

    /// Names of the pod's claims, each once. An ephemeral volume's claim is named after pod and volume.
    pub(crate) fn claims(&self) -> Vec<String> {
        let pod = self.pod.as_ref();
        let pod_name = text(pod.and_then(|pod| pod.metadata.as_ref()).and_then(|meta| meta.name.as_ref()));
        let volumes = pod.and_then(|pod| pod.spec.as_ref()).and_then(|spec| spec.volumes.as_deref());
        let mut claims: Vec<String> = Vec::new();
        for volume in volumes.unwrap_or_default() {
            let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(source), _) => text(source.claim_name.as_ref()).to_owned(),
                (None, Some(_)) if !pod_name.is_empty() => format!("{pod_name}-{}", text(volume.name.as_ref())),
                _ => continue,
            };
            if !claim.is_empty() && !claims.contains(&claim) {
                claims.push(claim);
            }
        }
        claims
    }
}

/// Writes the members of a JSON array or object one by one.
pub(crate) struct Members {
    out: Vec<u8>,
    open: usize,
}

impl Members {
    /// `open` is everything up to and with the opening bracket.
    pub(crate) fn open(open: &str, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity);
        out.extend_from_slice(open.as_bytes());
        Self { open: out.len(), out }
    }

    /// The place for the next member, after its comma.
    pub(crate) fn next(&mut self) -> &mut Vec<u8> {
        if self.out.len() > self.open {
            self.out.push(b',');
        }
        &mut self.out
    }

    pub(crate) fn string(&mut self, text: &Text<'_>) -> serde_json::Result<()> {
        text.write(self.next())
    }

    pub(crate) fn raw(&mut self, json: &RawValue) {
        self.next().extend_from_slice(json.get().as_bytes());
    }

    /// A member of an object.
    pub(crate) fn entry(&mut self, key: &Text<'_>, value: &str) -> serde_json::Result<()> {
        key.write(self.next())?;
        self.out.push(b':');
        serde_json::to_writer(&mut self.out, value)
    }

    /// An element of `HostPriorityList`.
    pub(crate) fn score(&mut self, host: &Text<'_>, score: i64) -> serde_json::Result<()> {
        let out = self.next();
        out.extend_from_slice(br#"{"Host":"#);
        host.write(out)?;
        write!(out, r#","Score":{score}}}"#).map_err(serde_json::Error::io)
    }

    /// `close` is the closing bracket and everything after it.
    pub(crate) fn close(mut self, close: &str) -> Vec<u8> {
        self.out.extend_from_slice(close.as_bytes());
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_borrow_and_are_written_as_they_came() {
        let names: Vec<Text<'_>> = serde_json::from_str(r#"["node-1","kn\u00f6t\"en","ünï/code"]"#).unwrap();
        assert!(matches!(names[0].0, Cow::Borrowed(_)) && matches!(names[2].0, Cow::Borrowed(_)));
        let mut members = Members::open("[", 0);
        for name in &names {
            members.string(name).unwrap();
        }
        assert_eq!(members.close("]"), r#"["node-1","knöt\"en","ünï/code"]"#.as_bytes());
    }

    #[test]
    fn claims_of_the_pod() {
        let args = Args::parse(
            br#"{"NodeNames":[],"Nodes":null,"Pod":{"metadata":{"name":"web-0","namespace":"shop"},"spec":{"volumes":[
                {"name":"data","persistentVolumeClaim":{"claimName":"data-web-0"}},
                {"name":"same","persistentVolumeClaim":{"claimName":"data-web-0"}},
                {"name":"scratch","ephemeral":{}},{"name":"cfg","configMap":{}},{}]}}}"#,
        )
        .unwrap();
        assert_eq!(
            (args.namespace(), args.claims()),
            ("shop", vec!["data-web-0".to_owned(), "web-0-scratch".to_owned()])
        );
    }

    #[test]
    fn a_question_about_no_nodes_is_malformed() {
        for body in ["{}", r#"{"Pod":{},"Nodes":null,"NodeNames":null}"#] {
            assert!(matches!(Args::parse(body.as_bytes()), Err(Malformed::NoNodes)), "{body}");
        }
        for body in ["", "null", "[]", r#"{"NodeNames":"node-1"}"#, r#"{"NodeNames":[1]}"#] {
            assert!(matches!(Args::parse(body.as_bytes()), Err(Malformed::Json(_))), "{body}");
        }
    }
}
