//! What go-iscsi-helper asks and how it reads the answers, with disks that are only counted.
//!
//! The readers below repeat its parsing (`iscsi/target.go` and `iscsi/initiator.go`, version of
//! 2025-08-10) line by line.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in #[test] functions only

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use anyhow::{Result, bail};
use iscsi_standin::Answer;
use iscsi_standin::args::Args;
use iscsi_standin::iscsiadm::{Live, discovered, sessions};
use iscsi_standin::targets::{Disk, Host, Lun, Targets};
use iscsi_standin::tgtadm::Command;

const V: &str = "iqn.2019-10.io.longhorn:vol";

/// Everything that was done to the machine.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn add(&self, what: String) {
        self.0.borrow_mut().push(what);
    }

    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// Its sockets `/dead` cannot be attached, its sockets `/gone` give devices that vanish.
struct Fake(Log);

struct FakeDisk {
    log: Log,
    live: bool,
}

impl Host for Fake {
    type Disk = FakeDisk;

    fn attach(&self, lun: &Lun, target: &str) -> Result<FakeDisk> {
        let Lun { socket, size, timeout } = lun;
        if socket == "/dead" {
            bail!("connecting to the engine: connection refused");
        }
        self.0.add(format!("attach {target} {socket} {size} {timeout}"));
        Ok(FakeDisk { log: self.0.clone(), live: socket != "/gone" })
    }
}

impl Disk for FakeDisk {
    fn minor(&self) -> u32 {
        7
    }

    fn is_live(&self, _target: &str) -> bool {
        self.live
    }

    fn resize(&mut self, size: u64) -> Result<()> {
        self.log.add(format!("resize {size}"));
        Ok(())
    }

    fn rescan(&self) -> Result<()> {
        self.log.add("rescan".into());
        Ok(())
    }

    fn reconnect(&mut self) -> Result<()> {
        self.log.add("reconnect".into());
        Ok(())
    }

    fn detach(self, target: &str) {
        self.log.add(format!("detach {target}"));
    }
}

struct Daemon {
    targets: Targets<Fake>,
    log: Log,
}

impl Daemon {
    fn new() -> Self {
        let log = Log::default();
        Self { targets: Targets::new(Fake(log.clone())), log }
    }

    /// `tgtadm --lld iscsi …`
    fn tgtadm(&mut self, line: &str) -> Answer {
        let args: Vec<String> = format!("--lld iscsi {line}").split(' ').map(Into::into).collect();
        let fields = Command::parse(&Args::new(&args)).to_fields();
        self.targets.answer_local(&fields)
    }

    fn ok(&mut self, line: &str) -> String {
        let answer = self.tgtadm(line);
        assert_eq!(answer.code, 0, "{line}: {}", answer.text);
        answer.text
    }

    fn portal(&mut self, fields: &[&str]) -> Answer {
        self.targets.answer_portal(fields)
    }

    /// As far as the helper goes before it turns to iscsiadm.
    fn create(&mut self, socket: &str) {
        self.ok(&format!("--op new --mode target --tid 1 -T {V}"));
        let options = "--bstype longhorn --bsopts size=1073741824;request_timeout=15";
        self.ok(&format!("--op new --mode logicalunit --tid 1 --lun 1 -b {socket} {options}"));
        self.ok("--op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1");
        let cache = "mode_page=8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0";
        self.ok(&format!("--op update --mode logicalunit --tid 1 --lun 1 --params {cache}"));
        self.ok("--op bind --mode target --tid 1 -I ALL");
    }
}

/// `CheckTargetForBackingStore`
fn has_backing_store(output: &str, name: &str) -> bool {
    output.contains(&format!(" {name}"))
}

/// `GetTargetTid`
fn target_tid(output: &str, name: &str) -> Option<u32> {
    let line = output.lines().find(|line| line.ends_with(&format!(" {name}")))?;
    line.split(':').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// `GetTargetConnections`
fn connections(output: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in output.lines().map(str::trim) {
        if let Some(sid) = line.strip_prefix("Session: ") {
            assert!(sid.parse::<i64>().is_ok(), "{sid}");
            found.push((sid.into(), Vec::new()));
        }
        if let Some(cid) = line.strip_prefix("Connection: ") {
            assert!(cid.parse::<i64>().is_ok(), "{cid}");
            found.last_mut().unwrap().1.push(cid.into());
        }
    }
    found
}

/// `IsTargetLoggedIn`; `ip` is empty for any portal.
fn is_logged_in(output: &str, ip: &str, target: &str) -> bool {
    output.lines().any(|line| {
        line.contains(&format!("{ip}:"))
            && (line.ends_with(&format!(" {target}")) || line.contains(&format!(" {target} ")))
    })
}

/// `findScsiDevice`, for LUN 1
fn find_scsi_device(output: &str, ip: &str, target: &str) -> Option<String> {
    let target_line = format!("Target: {target}");
    let (mut in_target, mut in_ip, mut in_lun) = (false, false, false);
    for line in output.lines() {
        if !in_target && (line.contains(&format!("{target_line} ")) || line.ends_with(&target_line)) {
            in_target = true;
        } else if in_target && line.contains(&format!(" {ip}:")) {
            in_ip = true;
        } else if in_ip && line.contains("Lun: 1") {
            in_lun = true;
        } else if in_lun {
            let disk = line.split("State:").next()?.trim().strip_prefix("Attached scsi disk")?;
            return Some(disk.trim().into());
        }
    }
    None
}

#[test]
fn show_system_says_that_tgtd_is_up_and_knows_longhorn() {
    let text = Daemon::new().ok("--op show --mode system");
    assert!(has_backing_store(&text, "rdwr") && has_backing_store(&text, "longhorn"));
    assert!(!has_backing_store(&text, "aio"));
}

#[test]
fn show_target_gives_the_numbers() {
    let mut daemon = Daemon::new();
    assert_eq!(daemon.ok("--op show --mode target"), "");
    for (tid, name) in [(1, "iqn:a"), (2, "iqn:ab"), (17, "iqn:b")] {
        daemon.ok(&format!("--op new --mode target --tid {tid} -T {name}"));
    }
    let text = daemon.ok("--op show --mode target");
    assert_eq!(target_tid(&text, "iqn:a"), Some(1));
    assert_eq!(target_tid(&text, "iqn:ab"), Some(2));
    assert_eq!(target_tid(&text, "iqn:b"), Some(17));
    assert_eq!(target_tid(&text, "iqn:c"), None);
    assert!(text.lines().filter(|line| line.starts_with("Target")).count() == 3);

    assert_ne!(daemon.tgtadm("--op new --mode target --tid 2 -T iqn:new").code, 0);
    assert_ne!(daemon.tgtadm("--op new --mode target --tid 3 -T iqn:a").code, 0);
}

#[test]
fn a_volume_comes_and_goes_as_the_helper_does_it() {
    let mut daemon = Daemon::new();
    daemon.create("/run/longhorn-vol.sock");
    assert_eq!(connections(&daemon.ok("--op show --mode conn --tid 1")), []);
    assert_eq!(daemon.portal(&["sendtargets"]).text, format!("{V}\n"));
    assert_eq!(daemon.log.take(), [] as [String; 0]);

    assert_eq!(daemon.portal(&["login", V]), Answer::ok("7\n"));
    assert_eq!(daemon.log.take(), [format!("attach {V} /run/longhorn-vol.sock 1073741824 15")]);
    assert_eq!(daemon.portal(&["login", V]).code, 15, "open-iscsi: session exists");

    daemon.ok("--op update --mode logicalunit --tid 1 --lun 1 --params bsopts=size=2147483648");
    assert_eq!(daemon.portal(&["rescan", V]).code, 0);
    assert_eq!(daemon.targets.answer_local(&["reconnect", "7"]).code, 0);
    assert_ne!(daemon.targets.answer_local(&["reconnect", "8"]).code, 0);
    assert_eq!(daemon.log.take(), ["resize 2147483648", "rescan", "reconnect"]);

    let text = daemon.ok("--op show --mode conn --tid 1");
    assert_eq!(connections(&text), [("1".into(), vec!["0".into()])]);
    assert_eq!(daemon.portal(&["logout", V]).code, 0);
    assert_eq!(daemon.log.take(), [format!("detach {V}")]);

    daemon.ok("--op unbind --mode target --tid 1 -I ALL");
    let again = daemon.tgtadm("--op unbind --mode target --tid 1 -I ALL");
    assert!(again.code != 0 && again.text.contains("this access control rule does not exist"));
    daemon.ok("--op delete --mode logicalunit --tid 1 --lun 1");
    daemon.ok("--op delete --mode target --tid 1");
    assert_eq!(daemon.ok("--op show --mode target"), "");
    assert_eq!(daemon.log.take(), [] as [String; 0]);
}

#[test]
fn a_disk_goes_with_its_connection_its_lun_and_its_target() {
    for ending in [
        "--op delete --mode conn --tid 1 --sid 1 --cid 0",
        "--op delete --mode logicalunit --tid 1 --lun 1",
        "--op delete --mode target --tid 1",
    ] {
        let mut daemon = Daemon::new();
        daemon.create("/sock");
        assert_eq!(daemon.portal(&["login", V]).code, 0);
        daemon.log.take();
        daemon.ok(ending);
        assert_eq!(daemon.log.take(), [format!("detach {V}")], "{ending}");
    }
}

#[test]
fn a_vanished_device_is_replaced_at_the_next_login() {
    let mut daemon = Daemon::new();
    daemon.create("/gone");
    assert_eq!(daemon.portal(&["login", V]).code, 0);
    daemon.log.take();
    assert_eq!(daemon.portal(&["login", V]).code, 0);
    assert_eq!(daemon.log.take(), [format!("detach {V}"), format!("attach {V} /gone 1073741824 15")]);
}

#[test]
fn what_cannot_be_done_fails_with_a_reason() {
    let mut daemon = Daemon::new();
    assert_ne!(daemon.tgtadm("--op delete --mode target --tid 1").code, 0);
    assert_ne!(daemon.tgtadm("--op show --mode conn --tid 1").code, 0);
    assert_ne!(daemon.tgtadm("--op new --mode target --tid x -T iqn:x").code, 0);
    assert_ne!(daemon.portal(&["login", V]).code, 0);

    daemon.ok(&format!("--op new --mode target --tid 1 -T {V}"));
    assert_ne!(daemon.portal(&["login", V]).code, 0, "no logical unit yet");
    for options in ["--bstype rdwr --bsopts size=1", "--bstype longhorn --bsopts size="] {
        let line = format!("--op new --mode logicalunit --tid 1 --lun 1 -b /dead {options}");
        assert_ne!(daemon.tgtadm(&line).code, 0, "{options}");
    }
    daemon.ok("--op new --mode logicalunit --tid 1 --lun 1 -b /dead --bstype longhorn --bsopts size=1");
    let refused = daemon.portal(&["login", V]);
    assert!(refused.code == 8 && refused.text.contains("connection refused"), "{refused:?}");
    assert_ne!(daemon.portal(&["rescan", V]).code, 0);
    assert_eq!(daemon.portal(&["logout", V]).code, 0, "nothing to do");
}

#[test]
fn each_side_answers_only_its_own_questions() {
    let mut daemon = Daemon::new();
    daemon.create("/sock");
    let delete: Vec<String> = "--op delete --mode target --tid 1".split(' ').map(Into::into).collect();
    let fields = Command::parse(&Args::new(&delete)).to_fields();
    assert_ne!(daemon.portal(&fields).code, 0);
    assert_ne!(daemon.portal(&["reconnect", "7"]).code, 0);
    assert_ne!(daemon.targets.answer_local(&["login", V]).code, 0);
    assert_ne!(daemon.targets.answer_local(&[""]).code, 0);
}

fn live(target: &str, ip: &str, minor: u32) -> Live {
    Live { target: target.into(), portal: ip.parse::<IpAddr>().ok(), minor }
}

#[test]
fn sessions_are_found_by_target_and_address() {
    let live = [live("iqn:a", "10.0.0.1", 3), live("iqn:ab", "10.0.0.2", 4)];
    let text = sessions(&live, false).text;
    assert!(text.starts_with("tcp: [4] 10.0.0.1:3260,1 iqn:a (non-flash)\n"), "{text}");
    for (ip, target, expected) in [
        ("10.0.0.1", "iqn:a", true),
        ("", "iqn:a", true),
        ("10.0.0.2", "iqn:a", false),
        ("10.0.0.2", "iqn:ab", true),
        ("", "iqn:b", false),
    ] {
        assert_eq!(is_logged_in(&text, ip, target), expected, "{ip} {target}");
    }

    let text = sessions(&live, true).text;
    assert_eq!(find_scsi_device(&text, "10.0.0.1", "iqn:a").as_deref(), Some("loop3"));
    assert_eq!(find_scsi_device(&text, "10.0.0.2", "iqn:ab").as_deref(), Some("loop4"));
    assert_eq!(find_scsi_device(&text, "10.0.0.1", "iqn:b"), None);
    assert_eq!(sessions(&[], true).code, 21);
    assert_eq!(sessions(&[], false).code, 21);
}

#[test]
fn an_ipv6_portal_is_written_in_brackets() {
    let live = [live("iqn:a", "fd00::1", 3)];
    assert!(is_logged_in(&sessions(&live, false).text, "[fd00::1]", "iqn:a"));
    let text = sessions(&live, true).text;
    assert_eq!(find_scsi_device(&text, "[fd00::1]", "iqn:a").as_deref(), Some("loop3"));
}

#[test]
fn discovery_lists_the_targets() {
    let answer = discovered("10.0.0.1".parse().unwrap(), "iqn:a\niqn:b\n");
    assert_eq!(answer, Answer::ok("10.0.0.1:3260,1 iqn:a\n10.0.0.1:3260,1 iqn:b\n"));
}
