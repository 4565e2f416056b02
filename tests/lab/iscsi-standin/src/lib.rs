//! Stands in for tgt and open-iscsi, so that unpatched Longhorn gets a real block device on a
//! machine whose kernel has no iSCSI.
//!
//! Longhorn's engine reaches its volume through go-iscsi-helper, which calls four programs:
//! `tgtd`, `tgtadm`, `iscsiadm` and `sg_raw`. This is all four in one binary, told apart by the
//! name it is called by. What go-iscsi-helper says and reads is kept to the letter; below that
//! there is no iSCSI:
//!
//! ```text
//! engine ──socket── disk process ──FUSE file── loop device ── /dev/longhorn/VOLUME
//!   (Longhorn data connection)   (direct I/O)
//! ```
//!
//! - A *target* is a name and the socket of a Longhorn engine ([`targets`], kept by [`tgtd`]).
//! - A *session* is a loop device over a FUSE file system with a single file ([`session`],
//!   [`disk`], [`loopdev`]) whose reads and writes travel over that socket ([`dataconn`]).
//! - [`tgtadm`] asks `tgtd` over a local socket, [`iscsiadm`] over TCP port 3260 ([`portal`]),
//!   because Longhorn runs it in the host's mount and network namespaces, not in the engine's.
//!
//! Run it inside private mount and network namespaces only: the port is open to everybody, and
//! `iscsiadm` lays a tmpfs over `/sys/block` ([`sysfs`]).

pub mod args;
pub mod dataconn;
pub mod disk;
pub mod iscsiadm;
pub mod loopdev;
pub mod portal;
pub mod records;
pub mod session;
pub mod sg_raw;
pub mod sysfs;
pub mod targets;
pub mod tgtadm;
pub mod tgtd;
pub mod wire;

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::args::Args;

/// How a command ends: its exit code, and what it prints (on failure to standard error).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Exit code; 0 is success.
    pub code: u8,
    /// Text, with its line ends.
    pub text: String,
}

impl Answer {
    /// Success.
    pub fn ok(text: impl Into<String>) -> Self {
        Self { code: 0, text: text.into() }
    }

    /// Failure; the text gets a line end.
    pub fn fail(code: u8, why: impl std::fmt::Display) -> Self {
        Self { code, text: format!("{why}\n") }
    }
}

/// Where sockets, records and logs live; one directory per node.
pub fn state_dir() -> PathBuf {
    env::var_os("ISCSI_STANDIN_DIR").map_or_else(|| "/run/iscsi-standin".into(), PathBuf::from)
}

/// Runs the command named by the first argument (or the second, as in `iscsi-standin tgtd -f`).
pub fn run(args: &[String]) -> ExitCode {
    let skip = usize::from(name(args) == "iscsi-standin");
    let args = args.get(skip..).unwrap_or_default();
    let name = name(args);
    let rest = args.get(1..).unwrap_or_default();
    let answer = match name {
        "tgtd" => tgtd::main(),
        "tgtadm" => tgtadm::main(&Args::new(rest)),
        "iscsiadm" => iscsiadm::main(&Args::new(rest)),
        "sg_raw" => sg_raw::main(rest),
        "disk" => disk::main(rest),
        _ => Answer::fail(2, "usage: tgtd|tgtadm|iscsiadm|sg_raw ARGUMENTS"),
    };
    // Whoever started us may have gone, and the other end of our output with them.
    let _ = if answer.code == 0 {
        io::stdout().write_all(answer.text.as_bytes())
    } else {
        io::stderr().write_all(format!("{name}: {}", answer.text).as_bytes())
    };
    ExitCode::from(answer.code)
}

/// The first argument without its directory.
fn name(args: &[String]) -> &str {
    let first = args.first().map_or("", String::as_str);
    first.rsplit('/').next().unwrap_or(first)
}
