//! `disk SOCKET SIZE TIMEOUT MOUNTPOINT`: serves one volume as the only file of a FUSE file system.
//!
//! Started by tgtd for each session. It is a process of its own that never touches its own mount:
//! whatever it waits for, it can be killed, and its death turns every open request into an error
//! instead of a hang.
//!
//! It says `ready` on standard output, then obeys lines on standard input: `size N` and
//! `reconnect`, each answered by `ok` or `error WHY`. It ends with its file system, or when
//! standard input closes because tgtd is gone.

use std::ffi::OsStr;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, Session, WriteFlags,
};
use rustix::process::configure_io_flusher_behavior;

use crate::Answer;
use crate::dataconn::{Client, RequestError};

/// Name of the file.
pub const FILE: &str = "disk";
const INODE: INodeNo = INodeNo(2);
/// Largest request, as large as the kernel sends them.
const MAX_IO: u32 = 1 << 20;
/// How long the kernel may believe the attributes: for good. Each look at a loop device
/// (`LOOP_GET_STATUS64`) asks for its file's inode number; were that sent here, a disk waiting for
/// its engine would hold up every iscsiadm on the node. A new size is asked for explicitly.
const ATTRIBUTES_HOLD: Duration = Duration::from_hours(24 * 365);
/// Requests the kernel may have under way, and from where on it slows its writers.
const MAX_BACKGROUND: u16 = 128;
const CONGESTION: u16 = 96;

/// The program.
pub fn main(args: &[String]) -> Answer {
    let [socket, size, timeout, mountpoint] = args else {
        return Answer::fail(2, "usage: disk SOCKET SIZE TIMEOUT MOUNTPOINT");
    };
    match serve(socket, size, timeout, mountpoint) {
        Ok(()) => Answer::ok(""),
        Err(e) => Answer::fail(1, format!("{socket}: {e:#}")),
    }
}

fn serve(socket: &str, size: &str, timeout: &str, mountpoint: &str) -> Result<()> {
    let size = Arc::new(AtomicU64::new(size.parse().context("size")?));
    let timeout = Duration::from_secs(timeout.parse().context("timeout")?);
    let client = Client::connect(Path::new(socket), timeout).context("connecting to the engine")?;
    // The kernel must not call back into this very disk to find memory for it. Needs
    // CAP_SYS_RESOURCE; without it all works but under extreme shortage of memory.
    let _ = configure_io_flusher_behavior(true);

    let disk = Disk { client: Arc::clone(&client), size: Arc::clone(&size) };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("longhorn".into()), MountOption::NoDev, MountOption::NoExec];
    let session = Session::new(disk, mountpoint, &config).with_context(|| format!("mounting {mountpoint}"))?;
    thread::spawn(move || obey(&client, &size));
    say("ready");
    session.run().context("serving")
}

/// Obeys tgtd until it is gone.
fn obey(client: &Arc<Client>, size: &AtomicU64) {
    for order in io::stdin().lock().lines().map_while(Result::ok) {
        match execute(&order, client, size) {
            Ok(()) => say("ok"),
            Err(e) => say(&format!("error {e:#}")),
        }
    }
    process::exit(0);
}

fn execute(order: &str, client: &Arc<Client>, size: &AtomicU64) -> Result<()> {
    match order.split_once(' ') {
        Some(("size", bytes)) => size.store(bytes.parse()?, Ordering::SeqCst),
        None if order == "reconnect" => client.reconnect()?,
        _ => bail!("unknown order {order:?}"),
    }
    Ok(())
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Asks the disk process behind two pipes to obey one order.
pub fn order(orders: &mut impl Write, replies: &mut impl BufRead, order: &str) -> Result<()> {
    writeln!(orders, "{order}").context("the disk process is gone")?;
    let mut reply = String::new();
    replies.read_line(&mut reply)?;
    match reply.trim_end() {
        "ok" => Ok(()),
        "" => Err(anyhow!("the disk process is gone")),
        why => Err(anyhow!("{order}: {why}")),
    }
}

/// The file system. Discards are not offered (`fallocate` stays unimplemented): a loop device
/// cannot tell them from "write zeroes", and Longhorn's unmap need not zero. The kernel then writes
/// the zeroes itself, and says so once per device in its log.
struct Disk {
    client: Arc<Client>,
    size: Arc<AtomicU64>,
}

impl Disk {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let (kind, perm, size) = if inode == INODE {
            (FileType::RegularFile, 0o600, self.size.load(Ordering::SeqCst))
        } else {
            (FileType::Directory, 0o700, 0)
        };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Disk {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // An older kernel does with less.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _ = config.set_max_write(MAX_IO);
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(CONGESTION);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == FILE {
            reply.entry(&ATTRIBUTES_HOLD, &self.attributes(INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&ATTRIBUTES_HOLD, &self.attributes(inode));
    }

    fn open(&self, _req: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if inode == INODE {
            let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
            reply.opened(FileHandle(0), flags);
        } else {
            reply.error(Errno::EISDIR);
        }
    }

    fn read(
        &self,
        _req: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let done = move |result: Result<&[u8], RequestError>| match result {
            Ok(data) if data.len() == size as usize => reply.data(data),
            _ => reply.error(Errno::EIO),
        };
        self.client.read(offset, size, Box::new(done));
    }

    fn write(
        &self,
        _req: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Ok(size) = u32::try_from(data.len()) else {
            return reply.error(Errno::EINVAL);
        };
        let done = move |result: Result<&[u8], RequestError>| match result {
            Ok(_) => reply.written(size),
            Err(RequestError::NoSpace) => reply.error(Errno::ENOSPC),
            Err(_) => reply.error(Errno::EIO),
        };
        self.client.write(offset, data, Box::new(done));
    }

    /// An answered write is on every replica (they write with `O_DIRECT`): nothing to wait for.
    fn fsync(&self, _req: &Request, _inode: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn flush(&self, _req: &Request, _inode: INodeNo, _handle: FileHandle, _lock: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
