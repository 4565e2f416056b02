//! `ExtenderArgs` as a scheduler writes them: UTF-8, and a list of names without escapes and without spaces between.
//!
//! Thousands of names are most of a question, and a parser that looks at each string costs more than all verdicts on
//! them. Here the body is seen to be UTF-8 once, the names are cut at their quotes, and one pass over the whole
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
        (quotes_if_plain(&bytes[..after - 1])? == 2 * names.len() - 1).then_some(())?;
        self.0 = list.get(after..)?;
        Some(names)
    }
}

/// The quotes in this text; `None`: backslashes or control characters are in it as well.
fn quotes_if_plain(text: &[u8]) -> Option<usize> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(body: &str) -> Option<Vec<String>> {
        Some(args(body.as_bytes())?.node_names?.iter().map(|name| name.to_string()).collect())
    }

    fn question(names: &[&str]) -> String {
        let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
        format!("{{\"Pod\":{{\"metadata\":{{\"name\":\"p\"}}}},\"Nodes\":null,\"NodeNames\":[{list}]}}\n")
    }

    #[test]
    fn a_question_of_the_scheduler_is_read() {
        for list in [
            &["node-1"] as &[&str],
            &["node-1", "node-2", "node-3"],
            &["node-9", "node-10", "a", "b", "", "ünï", "node-1000000"],
            // where a length is guessed, two short names look like one long one
            &["control-plane-1", "node-1", "node-2"],
            &["control-plane-1", "node-1", "node-2", "control-plane-2", "x]y", "x,y"],
        ] {
            assert_eq!(names(&question(list)).unwrap(), list, "{list:?}");
        }
    }

    #[test]
    fn what_is_written_otherwise_is_left_to_the_parser() {
        for body in [
            "",
            "{",
            "{}x",
            "[]",
            r#"{"NodeNames":["a"]} x"#,
            r#"{"NodeNames":["a"]"#,
            r#"{"NodeNames":["a",]}"#,
            r#"{"NodeNames":["a" "b"]}"#,
            r#"{"NodeNames":["a],"Pod":null}"#,
            "{\"NodeNames\":[\"a\",\"b\u{1}\"]}",
            r#"{"NodeNames":["a","b\"]}"#,
        ] {
            assert!(args(body.as_bytes()).is_none(), "{body}");
        }
        assert!(args(b"{\"NodeNames\":[\"a\xff\"]}").is_none());
    }

    fn string() -> impl Strategy<Value = String> {
        let pieces = ["a", "b", "node-", "é", "]", ",", "\\\"", "\\\\", "\\u00e9", " ", "\u{1}", "\"", "\\"];
        // the last four are rarely valid
        let piece = prop_oneof![20 => 0..9_usize, 1 => 9..13_usize].prop_map(move |at| pieces[at]);
        prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
    }

    fn member() -> impl Strategy<Value = String> {
        let list = || {
            let space = prop_oneof![9 => Just(""), 1 => Just(" "), 1 => Just("\n")];
            (prop::collection::vec(string(), 0..12), space)
                .prop_map(|(names, space)| format!("[{}]", names.join(&format!("{space},{space}"))))
        };
        prop_oneof![
            list().prop_map(|list| format!(r#""NodeNames":{list}"#)),
            list().prop_map(|list| format!(r#""nodenames" : {list}"#)),
            Just(r#""NodeNames":null"#.to_owned()),
            Just(r#""Nod\u0065Names":["x","y"]"#.to_owned()),
            string().prop_map(|name| format!(r#""Pod":{{"metadata":{{"name":{name},"uid":null}}}}"#)),
            Just(r#""POD":null"#.to_owned()),
            string().prop_map(|name| format!(r#""Nodes":{{"items":[{{"metadata":{{"name":{name}}}}}]}}"#)),
            Just(r#""Nodes":null"#.to_owned()),
            list().prop_map(|list| format!(r#""Later":{{"NodeNames":{list}}}"#)),
            Just(r#""Later":1"#.to_owned()),
        ]
    }

    /// What of arguments is used.
    fn used<'a>(args: &'a Args<'_>) -> (Option<Vec<&'a str>>, Option<Vec<&'a str>>, String) {
        let names = args.node_names.as_ref().map(|names| names.iter().map(|name| &**name).collect());
        let nodes = args.nodes.as_ref().map(|nodes| nodes.items().iter().map(|node| node.get()).collect());
        (names, nodes, format!("{:?} {:?}", args.pod_ref(), args.claims()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn what_is_read_is_what_the_parser_reads(
            members in prop::collection::vec(member(), 0..5),
            end in prop_oneof![9 => Just("}"), 1 => Just("} \n"), 1 => Just(",}"), 1 => Just("")],
        ) {
            let body = format!("{{{}{end}", members.join(","));
            if let Some(quick) = args(body.as_bytes()) {
                let parsed = serde_json::from_str::<Args<'_>>(&body);
                prop_assert!(parsed.is_ok(), "{body}: {:?}", parsed.err());
                let parsed = parsed.unwrap_or_default();
                prop_assert_eq!(used(&quick), used(&parsed), "{}", body);
            }
        }
    }
}
