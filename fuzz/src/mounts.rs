//! The mount table of a node.

use handoff::source_at;

/// A path, and after the first line end a table: what is found there is said by a line that has both.
///
/// # Panics
/// If that is not so.
pub fn mounts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (path, table) = text.split_once('\n').unwrap_or((&text, &text));
    if let Some(source) = source_at(table, path) {
        let says = |line: &str| line.split(' ').nth(4) == Some(path) && line.contains(source);
        assert!(table.lines().any(says), "{source:?} is on no line with {path:?}");
    }
}
