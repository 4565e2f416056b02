//! `tgtadm --lld iscsi --op OP --mode MODE …`, as far as go-iscsi-helper uses it.

use std::thread;
use std::time::{Duration, Instant};

use crate::Answer;
use crate::args::Args;
use crate::portal;

/// What tgtadm ends with when tgtd cannot be reached (`ENOTCONN`).
const UNREACHABLE: u8 = 107;
/// How long a first question waits for a tgtd that may be about to start.
const START: Duration = Duration::from_millis(200);

/// One tgtadm call; a field not given is empty. There is only one LUN and one connection per
/// target, so their numbers are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Command<'a> {
    /// new, delete, update, show, bind, unbind.
    pub op: &'a str,
    /// system, target, logicalunit, conn.
    pub mode: &'a str,
    /// Number of the target.
    pub tid: &'a str,
    /// Name of a new target.
    pub name: &'a str,
    /// Socket of the engine.
    pub socket: &'a str,
    /// Backing store; only `longhorn` is known.
    pub bstype: &'a str,
    /// As `size=S;request_timeout=15`.
    pub bsopts: &'a str,
    /// What to update.
    pub params: &'a str,
    /// Whom to bind or unbind.
    pub initiator: &'a str,
}

impl<'a> Command<'a> {
    /// Reads the command line.
    pub fn parse(args: &Args<'a>) -> Self {
        let value = |names: &[&str]| args.value(names).unwrap_or_default();
        Self {
            op: value(&["--op", "-o"]),
            mode: value(&["--mode", "-m"]),
            tid: value(&["--tid", "-t"]),
            name: value(&["--targetname", "-T"]),
            socket: value(&["--backing-store", "-b"]),
            bstype: value(&["--bstype", "-E"]),
            bsopts: value(&["--bsopts", "-S"]),
            params: value(&["--params", "-P"]),
            initiator: value(&["--initiator-address", "-I"]),
        }
    }

    /// As it is sent to tgtd.
    pub fn to_fields(self) -> [&'a str; 10] {
        let Self { op, mode, tid, name, socket, bstype, bsopts, params, initiator } = self;
        ["tgtadm", op, mode, tid, name, socket, bstype, bsopts, params, initiator]
    }

    /// As tgtd has received it; nothing if it is something else.
    pub fn from_fields(fields: &[&'a str]) -> Option<Self> {
        let &["tgtadm", op, mode, tid, name, socket, bstype, bsopts, params, initiator] = fields else {
            return None;
        };
        Some(Self { op, mode, tid, name, socket, bstype, bsopts, params, initiator })
    }
}

/// The program.
pub fn main(args: &Args) -> Answer {
    let command = Command::parse(args);
    // `show system` is how go-iscsi-helper asks whether the tgtd it has just started is up; told
    // no, it sleeps a whole second.
    let patience = if (command.op, command.mode) == ("show", "system") { START } else { Duration::ZERO };
    let start = Instant::now();
    let stream = loop {
        match portal::connect_local() {
            Err(_) if start.elapsed() < patience => thread::sleep(Duration::from_millis(5)),
            result => break result,
        }
    };
    stream
        .map_err(Into::into)
        .and_then(|stream| portal::ask(stream, &command.to_fields()))
        .unwrap_or_else(|e| Answer::fail(UNREACHABLE, format!("failed to send request hdr to tgt daemon, {e:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_iscsi_helpers_calls() {
        let line = "--lld iscsi --op new --mode logicalunit --tid 3 --lun 1 -b /var/run/longhorn-v.sock \
                    --bstype longhorn --bsopts size=1073741824;request_timeout=15";
        let args: Vec<String> = line.split_whitespace().map(Into::into).collect();
        let command = Command::parse(&Args::new(&args));
        let expected = Command {
            op: "new",
            mode: "logicalunit",
            tid: "3",
            socket: "/var/run/longhorn-v.sock",
            bstype: "longhorn",
            bsopts: "size=1073741824;request_timeout=15",
            ..Command::default()
        };
        assert_eq!(command, expected);
        assert_eq!(Command::from_fields(&command.to_fields()), Some(expected));
        assert_eq!(Command::from_fields(&["login", "iqn:v"]), None);
    }

    #[test]
    fn reads_new_target_and_bind() {
        let line = "--lld iscsi --op bind --mode target --tid 1 -I ALL -T iqn:v";
        let args: Vec<String> = line.split(' ').map(Into::into).collect();
        let command = Command::parse(&Args::new(&args));
        assert_eq!((command.op, command.initiator, command.name), ("bind", "ALL", "iqn:v"));
    }
}
