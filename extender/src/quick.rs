//! `ExtenderArgs` as a scheduler writes them: UTF-8, and a list of names without escapes and without spaces between.
//!
//! Thousands of names are most of a question, and a parser that looks at each character costs more than all verdicts
//! on them. Here the body is seen to be UTF-8 once, the names are cut at their quotes, and one pass over the whole
//! list shows that no backslash and no control character is in it, without which a quote is an end of a string. What
//! is not like that is not read here, and says nothing: [`Args::parse`] then reads it the long way, with errors.

use memchr::memchr;
use serde::{Deserialize, de::IgnoredAny};

use crate::{args::Args, wire::Text};

/// Bytes of which a processor looks at many at a time; between two such blocks it can stop.
const BLOCK: usize = 1024;
/// Names that room is made for at first, whatever the body makes expect.
const NAMES: usize = 10_000;

/// The arguments, if they are written like that.
pub(crate) fn args(body: &[u8]) -> Option<Args<'_>> {
    let mut json = Rest(std::str::from_utf8(body).ok()?);
    let mut args = Args::default();
    json.skip(b'{')?;
    loop {
        let key = json.value::<Text<'_>>()?;
        json.skip(b':')?;
        if key.eq_ignore_ascii_case("NodeNames") {
            let names = match json.names() {
                Some(names) => Some(names),
                None => json.value()?,
            };
            args.node_names = names.or(args.node_names);
        } else if key.eq_ignore_ascii_case("Nodes") {
            args.nodes = json.value::<Option<_>>()?.or(args.nodes);
        } else if key.eq_ignore_ascii_case("Pod") {
            args.pod = json.value::<Option<_>>()?.or(args.pod);
        } else {
            json.value::<IgnoredAny>()?;
        }
        if json.skip(b',').is_none() {
            break;
        }
    }
    json.skip(b'}')?;
    json.0.bytes().all(is_space).then_some(args)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// What is not read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Passes over this character and what spaces are before it.
    fn skip(&mut self, wanted: u8) -> Option<()> {
        let at = self.0.bytes().position(|byte| !is_space(byte))?;
        if self.0.as_bytes()[at] != wanted {
            return None;
        }
        self.0 = self.0.get(at + 1..)?;
        Some(())
    }

    /// Any value, by the parser.
    fn value<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter();
        let value = values.next()?.ok()?;
        self.0 = self.0.get(values.byte_offset()..)?;
        Some(value)
    }

    /// A list of names, at least one; nothing is passed over if it is written otherwise.
    fn names(&mut self) -> Option<Vec<Text<'a>>> {
        let list = self.0.strip_prefix("[\"")?;
        let bytes = list.as_bytes();
        let mut names = Vec::new();
        let (mut start, mut end) = (0, memchr(b'"', bytes)?);
        // as many as there would be if all were as long as the first
        names.reserve((bytes.len() / (end + 3) + 1).min(NAMES));
        let after = loop {
            names.push(Text::plain(list.get(start..end)?));
            match bytes.get(end + 1..end + 3)? {
                b",\"" => start = end + 3,
                [b']', _] => break end + 2,
                _ => return None,
            }
            end = start + memchr(b'"', bytes.get(start..)?)?;
        };
        let plain = |block: &[u8]| !block.iter().fold(false, |bad, byte| bad | (*byte < b' ') | (*byte == b'\\'));
        if !bytes[..end].chunks(BLOCK).all(plain) {
            return None;
        }
        self.0 = list.get(after..)?;
        Some(names)
    }
}
