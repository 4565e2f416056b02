//! The scheduler's wire format.
//!
//! Its own types have no JSON names, so their keys are the Go names (`NodeNames`), while the Kubernetes objects inside
//! keep theirs (`metadata`). Absent values are sent as null. Other senders may write the keys in other cases, as Go's
//! decoder takes any.
//!
//! A list of 5,000 names is what makes this path slow or fast: strings borrow from the body, and a name without
//! escapes is written back as it came, between two quotes.

use std::{borrow::Cow, ops::Deref};

use serde::Deserialize;

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

impl<'a> Text<'a> {
    /// A string that stood between quotes as it is, without an escape.
    pub(crate) fn plain(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// The string as it stands in the body between its quotes; `None`: it has escapes.
    pub(crate) fn as_it_came(&self) -> Option<&'a str> {
        match self.0 {
            Cow::Borrowed(text) => Some(text),
            Cow::Owned(_) => None,
        }
    }

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

pub(crate) fn text<'t>(field: Option<&'t Text<'_>>) -> &'t str {
    field.map_or("", |text| text)
}

/// Why a body is not what a scheduler sends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// Not JSON, or a field that we read has another type than the scheduler gives it.
    #[error("not {0}: {1}")]
    Json(&'static str, #[source] serde_json::Error),
    /// There is no right answer to a question about no nodes: an empty list would mean that none fits.
    #[error("not {0}: {1} missing")]
    Missing(&'static str, &'static str),
    /// The answer could not be written.
    #[error("cannot write the answer: {0}")]
    Write(#[from] serde_json::Error),
}

impl Malformed {
    pub(crate) fn line(&self) -> String {
        let mut line: String = self.to_string().chars().take(MALFORMED_CHARS).collect();
        line.push('\n');
        line
    }
}

/// Declares one of the scheduler's own types. Keys are taken in any case, as Go's decoder takes them; null is absent;
/// keys that are not named are skipped.
macro_rules! go_struct {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $ty:ty = $key:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name<'a> { $($(#[$about])* pub(crate) $field: Option<$ty>),* }

        impl<'a> serde::Deserialize<'a> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields<'a>(std::marker::PhantomData<&'a ()>);

                impl<'a> serde::de::Visitor<'a> for Fields<'a> {
                    type Value = $name<'a>;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("an object like ", stringify!($name)))
                    }

                    fn visit_map<A: serde::de::MapAccess<'a>>(self, mut map: A) -> Result<$name<'a>, A::Error> {
                        let mut found = $name::default();
                        while let Some(key) = map.next_key::<$crate::wire::Text<'a>>()? {
                            $(if key.eq_ignore_ascii_case($key) {
                                if let Some(value) = map.next_value::<Option<$ty>>()? {
                                    found.$field = Some(value);
                                }
                                continue;
                            })*
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        Ok(found)
                    }
                }

                deserializer.deserialize_map(Fields(std::marker::PhantomData))
            }
        }
    };
}

pub(crate) use go_struct;

/// Writes the members of a JSON array or object one by one.
pub(crate) struct Members {
    out: Vec<u8>,
    open: usize,
}

impl Members {
    /// `open` is everything up to and with the opening bracket.
    pub(crate) fn open(open: &str, capacity: usize) -> Self {
        Self::after(Vec::with_capacity(capacity), open)
    }

    /// The same after what is in `out` already.
    pub(crate) fn after(mut out: Vec<u8>, open: &str) -> Self {
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

    /// Strings as they stand in `body`, from within the quotes of the first to within those of the last.
    pub(crate) fn piece(&mut self, body: &[u8], strings: Option<std::ops::Range<usize>>) {
        if let Some(strings) = strings {
            let out = self.next();
            out.push(b'"');
            out.extend_from_slice(&body[strings]);
            out.push(b'"');
        }
    }

    /// The key of a member of an object; its value comes next.
    pub(crate) fn key(&mut self, key: &Text<'_>) -> serde_json::Result<()> {
        key.write(self.next())?;
        self.out.push(b':');
        Ok(())
    }

    /// JSON text as it is.
    pub(crate) fn append(&mut self, json: &mut Vec<u8>) {
        self.out.append(json);
    }

    /// A member of an object.
    pub(crate) fn entry(&mut self, key: &Text<'_>, value: &str) -> serde_json::Result<()> {
        self.key(key)?;
        serde_json::to_writer(&mut self.out, value)
    }

    /// An element of `HostPriorityList`.
    pub(crate) fn score(&mut self, host: &Text<'_>, score: i64) -> serde_json::Result<()> {
        let out = self.next();
        out.extend_from_slice(br#"{"Host":"#);
        host.write(out)?;
        out.extend_from_slice(br#","Score":"#);
        out.extend_from_slice(itoa::Buffer::new().format(score).as_bytes());
        out.push(b'}');
        Ok(())
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
}
