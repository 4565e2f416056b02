//! How `tgtadm`, `iscsiadm` and `sg_raw` ask `tgtd`: one question and one answer per connection.
//!
//! The question is a line of fields separated by tabs; the answer is a line `ok` or `err CODE`,
//! then text until the end of the stream.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{Answer, state_dir};

/// iSCSI's port.
pub const PORT: u16 = 3260;
/// The portal is always on this node: whoever does not answer a connection is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Below the minute that go-iscsi-helper allows each command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(50);
/// Longest question read.
const MAX_QUESTION: u64 = 64 << 10;

/// The socket for `tgtadm` and `sg_raw`.
pub fn local_socket() -> PathBuf {
    state_dir().join("tgtd.sock")
}

/// Connects to `tgtd` in the same mount namespace.
pub fn connect_local() -> io::Result<UnixStream> {
    let stream = UnixStream::connect(local_socket())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

/// Connects to the `tgtd` behind an address.
pub fn connect_portal(ip: IpAddr) -> Result<TcpStream> {
    let address = SocketAddr::new(ip, PORT);
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).with_context(|| format!("portal {address}"))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

/// Asks one question.
pub fn ask(mut stream: impl Read + Write, fields: &[&str]) -> Result<Answer> {
    ensure!(!fields.iter().any(|field| field.contains(['\t', '\n'])), "tabs and line ends cannot be sent");
    stream.write_all(format!("{}\n", fields.join("\t")).as_bytes()).context("asking tgtd")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("reading tgtd's answer")?;
    let Some((first, rest)) = text.split_once('\n') else {
        bail!("tgtd did not answer");
    };
    Ok(Answer { code: first.strip_prefix("err ").map_or(0, |code| code.parse().unwrap_or(1)), text: rest.to_owned() })
}

/// Reads one question and answers it.
pub fn serve<S: Read + Write>(mut stream: S, answer: impl FnOnce(&[&str]) -> Answer) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new((&mut stream).take(MAX_QUESTION)).read_line(&mut line)?;
    let Some(line) = line.strip_suffix('\n') else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let fields: Vec<&str> = line.split('\t').collect();
    let Answer { code, text } = answer(&fields);
    let head = if code == 0 { "ok".into() } else { format!("err {code}") };
    stream.write_all(format!("{head}\n{text}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    /// Sends the fields through a socket and gives what the other side saw and what came back.
    fn exchange(fields: &[&str], answer: Answer) -> (Vec<String>, Answer) {
        let (client, server) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut seen = Vec::new();
            serve(server, |fields| {
                seen = fields.iter().map(ToString::to_string).collect();
                answer
            })
            .unwrap();
            seen
        });
        let answer = ask(client, fields).unwrap();
        (server.join().unwrap(), answer)
    }

    #[test]
    fn empty_fields_and_codes_survive() {
        let (seen, answer) = exchange(&["login", "", "x", ""], Answer::fail(21, "no such thing"));
        assert_eq!(seen, ["login", "", "x", ""]);
        assert_eq!((answer.code, answer.text.as_str()), (21, "no such thing\n"));
    }

    #[test]
    fn a_silent_end_is_an_error() {
        let (client, server) = UnixStream::pair().unwrap();
        drop(server);
        assert!(ask(client, &["x"]).is_err());
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        assert!(serve(server, |_| Answer::ok("")).is_err());
    }

    #[test]
    fn separators_are_refused() {
        let (client, _server) = UnixStream::pair().unwrap();
        assert!(ask(&client, &["a\tb"]).is_err());
        assert!(ask(&client, &["a\nb"]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn round_trip(fields in prop::collection::vec("[^\t\n]*", 1..12), code: u8, text: String) {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let answer = Answer { code, text };
            let (seen, got) = exchange(&fields, answer.clone());
            prop_assert_eq!(seen, fields);
            prop_assert_eq!(got, answer);
        }
    }
}
