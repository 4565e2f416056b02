//! The four programs together on a real kernel: login, ext4, resize, loss of the engine, logout.
//!
//! Needs root, FUSE and loop devices, and is skipped without. Runs in mount, network and process
//! namespaces of its own, with its own /dev, so that nothing of it stays on the machine.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in #[test] functions only

mod engine;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;
use std::{env, process};

use engine::Engine;
use iscsi_standin::loopdev;

const INSIDE: &str = "ISCSI_STANDIN_INSIDE";
const STATE: &str = "ISCSI_STANDIN_DIR";
const IP: &str = "127.0.0.1";
const MIB: usize = 1 << 20;
const SIZE: usize = 64 * MIB;

/// Its own /dev, with no loop device yet, and an address.
const PREPARE: &str = "set -e
    mount -t tmpfs -o mode=755 dev \"$1\"
    for node in null zero full random urandom tty fuse loop-control; do cp -a /dev/$node \"$1\"; done
    mount --move \"$1\" /dev
    ip link set lo up";

/// Why this machine cannot run it.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    let devices = ["/dev/fuse", "/dev/loop-control"].into_iter();
    let absent = devices.into_iter().find(|device| !Path::new(device).exists());
    if let Some(device) = absent {
        return Some(format!("no {device}"));
    }
    for program in ["unshare", "ip", "mkfs.ext4", "fsck.ext4", "blockdev", "pkill"] {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Some(format!("no {program}"));
        }
    }
    let namespaces = Command::new("unshare").args(["-m", "-n", "-p", "-f", "true"]).output();
    if !namespaces.is_ok_and(|output| output.status.success()) {
        return Some("no right to make namespaces".into());
    }
    None
}

#[test]
fn end_to_end() {
    if let Some(why) = missing() {
        println!("SKIPPED: {why}");
        return;
    }
    let target = target();
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--net"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "inside", "--ignored", "--nocapture"])
        .env(INSIDE, &target)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(loops(&target), [] as [u32; 0]);
}

/// A target that no other test or lab on this machine has.
fn target() -> String {
    format!("iqn.2019-10.io.longhorn:standin-test-{}", process::id())
}

/// Loop devices of this target, found without making nodes for them.
fn loops(target: &str) -> Vec<u32> {
    let entries = fs::read_dir("/sys/class/block").unwrap().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let bound = names.filter(|name| Path::new("/sys/class/block").join(name).join("loop").exists());
    let minors = bound.filter_map(|name| name.strip_prefix("loop")?.parse().ok());
    minors.filter(|minor| loopdev::is_ours(*minor, target)).collect()
}

#[test]
#[ignore = "end_to_end runs it in namespaces of its own"]
fn inside() {
    let Ok(target) = env::var(INSIDE) else {
        println!("SKIPPED: only end_to_end may run this");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dev = dir.path().join("dev");
    fs::create_dir(&dev).unwrap();
    succeed(Command::new("sh").args(["-c", PREPARE, "prepare"]).arg(dev));

    let mut node = Node::start(dir.path(), target);
    volume_keeps_its_data(&mut node);
    volume_grows(&mut node);
    lost_engine_gives_errors_until_reconnected(&node);
    mounted_volume_can_be_logged_out(&node);
    frozen_disk_process_can_be_logged_out(&node);
    killed_tgtd_leaves_nothing(node);
}

fn volume_keeps_its_data(node: &mut Node) {
    let data: Vec<u8> = (0..=250).cycle().take(8 * MIB).collect();
    node.create();
    let minor = node.login();
    succeed(Command::new("mkfs.ext4").arg("-q").arg(device(minor)));
    node.mount(minor);
    fs::write(node.mountpoint.join("data"), &data).unwrap();
    node.unmount();
    node.logout();
    assert_eq!(node.engine.store.lock().unwrap()[1080..1082], [0x53, 0xef], "ext4's magic");

    let minor = node.login();
    node.mount(minor);
    assert!(fs::read(node.mountpoint.join("data")).unwrap() == data);
    node.unmount();
    succeed(Command::new("fsck.ext4").arg("-fn").arg(device(minor)));
    node.logout();
}

fn volume_grows(node: &mut Node) {
    let minor = node.login();
    let bytes = || String::from_utf8(succeed(Command::new("blockdev").arg("--getsize64").arg(device(minor))).stdout);
    assert_eq!(bytes().unwrap().trim(), SIZE.to_string());
    node.engine.store.lock().unwrap().resize(SIZE * 2, 0);
    let size = SIZE * 2;
    node.tgtadm(&format!("--op update --mode logicalunit --tid 1 --lun 1 --params bsopts=size={size}"));
    node.iscsiadm(&format!("-m node -T {} -R -p {IP}", node.target));
    assert_eq!(bytes().unwrap().trim(), size.to_string());
    node.logout();
}

fn lost_engine_gives_errors_until_reconnected(node: &Node) {
    let minor = node.login();
    assert!(readable(minor));
    node.engine.stop();
    assert!(!readable(minor));
    let before = node.engine.connections();
    succeed(node.command("sg_raw").arg(device(minor)).args(["a6", "00", "00", "00", "00", "00"]));
    assert!(readable(minor));
    assert_eq!(node.engine.connections(), before + 1);
    node.logout();
}

fn mounted_volume_can_be_logged_out(node: &Node) {
    let minor = node.login();
    node.mount(minor);
    node.iscsiadm(&format!("-m node -T {} --logout", node.target));
    assert!(!readable(minor), "its users see errors");
    node.unmount();
    node.await_no_loops();
}

/// The worst that a disk process can do.
fn frozen_disk_process_can_be_logged_out(node: &Node) {
    let minor = node.login();
    let tgtd = node.tgtd.id().to_string();
    succeed(Command::new("pkill").args(["-STOP", "-P", &tgtd]));
    node.logout();
    assert!(!readable(minor));
}

fn killed_tgtd_leaves_nothing(mut node: Node) {
    node.login();
    node.tgtd.kill().unwrap();
    node.tgtd.wait().unwrap();
    node.await_no_loops();
    assert_eq!(node.command("iscsiadm").args(["-m", "session"]).status().unwrap().code(), Some(21));
}

/// A node of the cluster with one engine.
struct Node {
    programs: PathBuf,
    state: PathBuf,
    mountpoint: PathBuf,
    socket: PathBuf,
    target: String,
    tgtd: Child,
    engine: Engine,
}

impl Node {
    fn start(dir: &Path, target: String) -> Self {
        let [programs, state, mountpoint] = ["sbin", "state", "mountpoint"].map(|name| {
            let path = dir.join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        for name in ["tgtd", "tgtadm", "iscsiadm", "sg_raw"] {
            symlink(env!("CARGO_BIN_EXE_iscsi-standin"), programs.join(name)).unwrap();
        }
        let socket = dir.join("engine.sock");
        let engine = Engine::start(&socket, SIZE);
        let tgtd =
            Command::new(programs.join("tgtd")).arg("-f").env(STATE, &state).stdin(Stdio::null()).spawn().unwrap();
        let node = Self { programs, state, mountpoint, socket, target, tgtd, engine };
        eventually("tgtd answers", || {
            let system = node.command("tgtadm").args(["--op", "show", "--mode", "system"]).output();
            system.unwrap().status.success()
        });
        let second = node.command("tgtd").arg("-f").output().unwrap();
        assert!(!second.status.success(), "only one tgtd");
        node
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env(STATE, &self.state);
        command
    }

    fn tgtadm(&self, line: &str) -> String {
        let output = succeed(self.command("tgtadm").args(["--lld", "iscsi"]).args(line.split(' ')));
        String::from_utf8(output.stdout).unwrap()
    }

    fn iscsiadm(&self, line: &str) -> String {
        let output = succeed(self.command("iscsiadm").args(line.split(' ')));
        String::from_utf8(output.stdout).unwrap()
    }

    fn create(&self) {
        let Self { target, socket, .. } = self;
        let socket = socket.display();
        self.tgtadm(&format!("--op new --mode target --tid 1 -T {target}"));
        self.tgtadm(&format!(
            "--op new --mode logicalunit --tid 1 --lun 1 -b {socket} --bstype longhorn \
             --bsopts size={SIZE};request_timeout=15"
        ));
        self.tgtadm("--op bind --mode target --tid 1 -I ALL");
    }

    /// Logs in as go-iscsi-helper does, and gives the loop device's number.
    fn login(&self) -> u32 {
        let target = &self.target;
        assert!(self.iscsiadm(&format!("-m discovery -t sendtargets -p {IP}")).contains(target));
        self.iscsiadm(&format!("-m node -T {target} -p {IP} --login"));
        assert!(self.iscsiadm("-m session").contains(&format!(" {IP}:3260,1 {target} ")));
        let [minor] = loops(target)[..] else {
            panic!("not one loop device");
        };
        let shown = self.iscsiadm("-m session -P 3");
        assert!(shown.contains(&format!("Attached scsi disk loop{minor}\t")), "{shown}");
        fs::write(format!("/sys/block/loop{minor}/device/timeout"), "60").unwrap();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains("fuse"), "no mount stays: {mounts}");
        minor
    }

    fn logout(&self) {
        let target = &self.target;
        self.iscsiadm(&format!("-m node -T {target} --logout"));
        self.iscsiadm(&format!("-m node -o delete -T {target}"));
        let session = self.command("iscsiadm").args(["-m", "session"]).output().unwrap();
        assert_eq!(session.status.code(), Some(21));
        assert_eq!(loops(target), [] as [u32; 0]);
    }

    fn mount(&self, minor: u32) {
        succeed(Command::new("mount").arg(device(minor)).arg(&self.mountpoint));
    }

    fn unmount(&self) {
        succeed(Command::new("umount").arg(&self.mountpoint));
    }

    fn await_no_loops(&self) {
        eventually("no loop device is left", || loops(&self.target).is_empty());
    }
}

fn device(minor: u32) -> PathBuf {
    format!("/dev/loop{minor}").into()
}

/// Whether a read gets past the page cache.
fn readable(minor: u32) -> bool {
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", device(minor).display()));
    dd.args(["of=/dev/null", "bs=4096", "count=1", "iflag=direct"]);
    // An unbound device reads as empty.
    let output = dd.env("LC_ALL", "C").output().unwrap();
    output.status.success() && String::from_utf8_lossy(&output.stderr).contains("1+0 records in")
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn eventually(what: &str, check: impl Fn() -> bool) {
    for _ in 0..600 {
        if check() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {what}");
}
