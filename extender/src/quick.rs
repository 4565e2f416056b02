//! `ExtenderArgs` as a scheduler writes them: UTF-8, and a list of names without escapes and without spaces between.
//!
//! Thousands of names are most of a question, and a parser that looks at each character costs more than all verdicts
//! on them. Here the body is seen to be UTF-8 once, the names are cut at their quotes, and one pass over the whole
//! list shows that no backslash, no control character and no other quote is in it. What is not like that is not read
//! here, and says nothing: [`Args::parse`] then reads it the long way, with errors.

use memchr::memchr;
use serde::{Deserialize, de::IgnoredAny};

use crate::{args::Args, wire::Text};

/// Bytes that are looked at together; so few that the quotes among them fit into a byte.
const BLOCK: usize = 128;
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
            let names = match json.names(true).or_else(|| json.names(false)) {
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
    ///
    /// Most names of a cluster are as long as the one before. Where that is assumed, a wrong guess that goes unnoticed,
    /// two short names taken for a long one, leaves more quotes in the list than names have.
    fn names(&mut self, guess: bool) -> Option<Vec<Text<'a>>> {
        let list = self.0.strip_prefix("[\"")?;
        let bytes = list.as_bytes();
        let mut length = memchr(b'"', bytes)?;
        // as many as there would be if all were as long as the first
        let mut names = Vec::with_capacity((bytes.len() / (length + 3) + 1).min(NAMES));
        let mut start = 0;
        let after = loop {
            let after = match bytes.get(start + length..start + length + 3) {
                Some([b'"', b',', b'"']) if guess => Some(start + length + 3),
                _ => None,
            };
            if let Some(after) = after {
                names.push(Text::plain(list.get(start..start + length)?));
                start = after;
                continue;
            }
            length = memchr(b'"', bytes.get(start..)?)?;
            let end = start + length;
            names.push(Text::plain(list.get(start..end)?));
            match bytes.get(end + 1..end + 3)? {
                b",\"" => start = end + 3,
                [b']', _] => break end + 2,
                _ => return None,
            }
        };
        // two for each name, but for the one before the first, which is cut off
        (strange_or_quotes(&bytes[..after - 1])? == 2 * names.len() - 1).then_some(())?;
        self.0 = list.get(after..)?;
        Some(names)
    }
}

/// The quotes in this text; `None`: backslashes or control characters are in it as well.
fn strange_or_quotes(text: &[u8]) -> Option<usize> {
    let mut quotes = 0;
    for block in text.chunks(BLOCK) {
        let (strange, found) = block.iter().fold((0_u8, 0_u8), |(strange, found), byte| {
            (strange | u8::from(*byte < b' ') | u8::from(*byte == b'\\'), found + u8::from(*byte == b'"'))
        });
        if strange != 0 {
            return None;
        }
        quotes += usize::from(found);
    }
    Some(quotes)
}
