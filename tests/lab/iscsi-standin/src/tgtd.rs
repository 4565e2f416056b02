//! `tgtd -f`: keeps the targets and their sessions.
//!
//! Listens on a local socket for tgtadm and `sg_raw`, and on port 3260 for iscsiadm, which may run
//! in other namespaces. It may wait for a disk process, but no disk process ever waits for it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use crate::portal::{self, PORT};
use crate::session::Machine;
use crate::targets::Targets;
use crate::{Answer, state_dir};

/// How long a second tgtd waits for the first to answer.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

type Shared = Arc<Mutex<Targets<Machine>>>;

/// The program; there is no other mode than the foreground.
pub fn main() -> Answer {
    match run() {
        Ok(()) => Answer::ok(""),
        Err(e) => Answer::fail(1, format!("{e:#}")),
    }
}

fn run() -> Result<()> {
    let dir = state_dir();
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let lock = File::create(dir.join("tgtd.lock")).context("tgtd.lock")?;
    if lock.try_lock().is_err() {
        await_first();
        bail!("already running");
    }
    let socket = portal::local_socket();
    let _ = fs::remove_file(&socket); // left by one that was killed
    let portal = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).with_context(|| format!("port {PORT}"))?;
    let local = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;

    let targets = Arc::new(Mutex::new(Targets::new(Machine)));
    let shared = Arc::clone(&targets);
    thread::spawn(move || accept(portal.incoming(), &shared, Targets::answer_portal));
    accept(local.incoming(), &targets, Targets::answer_local);
    Ok(())
}

/// Several engines may start tgtd at the same moment. A loser must not end before the winner
/// answers: go-iscsi-helper asks then, and panics without an answer.
fn await_first() {
    let start = Instant::now();
    while portal::connect_local().is_err() && start.elapsed() < FIRST_ANSWERS {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Serves each connection by a thread of its own.
fn accept<S: Read + Write + Send + 'static>(
    incoming: impl Iterator<Item = io::Result<S>>,
    targets: &Shared,
    answer: fn(&mut Targets<Machine>, &[&str]) -> Answer,
) {
    for stream in incoming {
        let Ok(stream) = stream else {
            // Out of descriptors: the others must end first.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let targets = Arc::clone(targets);
        thread::spawn(move || {
            // One that has gone needs no answer.
            let _ = portal::serve(stream, |fields| answer(&mut targets.lock(), fields));
        });
    }
}
