//! A session: a disk process, its file, and a loop device over it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};
use rustix::mount::{UnmountFlags, unmount};

use crate::targets::{Disk, Host, Lun};
use crate::{disk, loopdev, state_dir};

/// How long the end of a session waits for the users of the device; then they see errors.
const LAST_USERS: Duration = Duration::from_millis(500);

/// Makes real sessions.
#[derive(Debug, Clone, Copy)]
pub struct Machine;

/// A disk process. However it goes out of use, the process is gone then; being killed is all it
/// needs, as each answered write is on the replicas.
struct Process {
    child: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
}

/// A session under way. The fields are dropped in their order: without the process, closing the
/// file cannot wait for it.
pub struct LoopDisk {
    minor: u32,
    device: File,
    process: Process,
    file: File,
}

impl Host for Machine {
    type Disk = LoopDisk;

    fn attach(&self, lun: &Lun, target: &str) -> Result<LoopDisk> {
        let mountpoint = state_dir().join("mnt");
        fs::create_dir_all(&mountpoint).with_context(|| mountpoint.display().to_string())?;
        let started = Process::start(lun);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(mountpoint.join(disk::FILE));
        // Nobody needs the mount any more, the open file keeps the file system. And if the process
        // failed, it may have got as far as the mount.
        let _ = unmount(&mountpoint, UnmountFlags::DETACH);
        let process = started?;
        let file = opened.context("opening the disk process's file")?;
        let (minor, device) = loopdev::attach(&file, target)?;
        Ok(LoopDisk { minor, device, process, file })
    }
}

impl Process {
    /// Starts the disk process and waits until its file system is mounted.
    fn start(lun: &Lun) -> Result<Self> {
        let dir = state_dir();
        let log = OpenOptions::new().create(true).append(true).open(dir.join("disk.log"));
        let mut child = Command::new("/proc/self/exe")
            .arg0("disk")
            .args([&lun.socket, &lun.size.to_string(), &lun.timeout.to_string()])
            .arg(dir.join("mnt"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.context("opening disk.log")?)
            .spawn()
            .context("starting the disk process")?;
        let (Some(orders), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the disk process has no pipes");
        };
        let mut process = Self { child, orders, replies: BufReader::new(replies) };
        let mut line = String::new();
        process.replies.read_line(&mut line)?;
        if line.trim_end() != "ready" {
            bail!("the disk process did not start, see disk.log");
        }
        Ok(process)
    }

    fn order(&mut self, order: &str) -> Result<()> {
        disk::order(&mut self.orders, &mut self.replies, order)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Disk for LoopDisk {
    fn minor(&self) -> u32 {
        self.minor
    }

    fn is_live(&self, target: &str) -> bool {
        loopdev::is_ours(self.minor, target)
    }

    fn resize(&mut self, size: u64) -> Result<()> {
        self.process.order(&format!("size {size}"))
    }

    fn rescan(&self) -> Result<()> {
        // Makes the kernel ask the disk process for the size.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
        statx(&self.file, "", flags, StatxFlags::SIZE).context("asking for the size")?;
        loopdev::grow(self.minor)
    }

    fn reconnect(&mut self) -> Result<()> {
        self.process.order("reconnect")
    }

    fn detach(self, target: &str) {
        let Self { minor, device, process, file } = self;
        drop(device);
        // If it is still in use (mounted): as with iSCSI, the disk is gone and its users see errors.
        let _ = loopdev::detach(minor, target, LAST_USERS);
        drop(process);
        drop(file);
    }
}
