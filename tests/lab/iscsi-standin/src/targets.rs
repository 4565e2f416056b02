//! The table of targets: what `tgtadm` and `iscsiadm` ask and do, without the machine under it.
//!
//! Texts and codes are tgt's where go-iscsi-helper looks at them.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::Answer;
use crate::tgtadm::Command;

const INVALID: &str = "invalid request";
const NO_TARGET: &str = "can't find the target";
const NO_LUN: &str = "can't find the logical unit";
const NO_SESSION: &str = "can't find the session";
/// go-iscsi-helper looks for " rdwr" (tgtd is up) and " longhorn" (it has Longhorn's store).
const SYSTEM: &str = "System:\n    State: ready\nBacking stores:\n    longhorn\n    rdwr\n";
const CONNECTION: &str = "Session: 1\n    Connection: 0\n        Initiator: stand-in\n";

/// Seconds after which a request to the engine fails, if not told otherwise.
const REQUEST_TIMEOUT: u64 = 15;

/// Exit codes: tgtadm's for any failure, open-iscsi's for the login.
const FAILED: u8 = 22;
const LOGIN_FAILED: u8 = 8;
const SESSION_EXISTS: u8 = 15;

/// What makes disks of logical units.
pub trait Host {
    /// Its disks.
    type Disk: Disk;

    /// Makes the disk of a target appear on the machine.
    fn attach(&self, lun: &Lun, target: &str) -> Result<Self::Disk>;
}

/// A disk that is attached.
pub trait Disk {
    /// Number of the loop device.
    fn minor(&self) -> u32;
    /// Whether the device is still this target's.
    fn is_live(&self, target: &str) -> bool;
    /// Makes the volume larger; the device follows with [`Disk::rescan`].
    fn resize(&mut self, size: u64) -> Result<()>;
    /// Takes over the volume's size.
    fn rescan(&self) -> Result<()>;
    /// Connects to the engine anew.
    fn reconnect(&mut self) -> Result<()>;
    /// Takes the disk away, whatever its state.
    fn detach(self, target: &str);
}

/// A logical unit: an engine behind a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lun {
    /// The engine's socket.
    pub socket: String,
    /// Size of the volume in bytes.
    pub size: u64,
    /// Seconds after which a request fails.
    pub timeout: u64,
}

struct Target<D> {
    name: String,
    lun: Option<Lun>,
    bound: Vec<String>,
    disk: Option<D>,
}

/// All targets, by number.
pub struct Targets<H: Host> {
    host: H,
    targets: BTreeMap<u32, Target<H::Disk>>,
}

impl<H: Host> Targets<H> {
    /// No targets yet.
    pub fn new(host: H) -> Self {
        Self { host, targets: BTreeMap::new() }
    }

    /// Answers what came over the local socket.
    pub fn answer_local(&mut self, fields: &[&str]) -> Answer {
        match (fields, Command::from_fields(fields)) {
            (_, Some(command)) => self.tgtadm(&command),
            (["reconnect", minor], None) => self.reconnect(minor),
            _ => failed(INVALID),
        }
    }

    /// Answers what came over the portal's port.
    pub fn answer_portal(&mut self, fields: &[&str]) -> Answer {
        let (what, name) = match *fields {
            ["sendtargets"] => {
                let names = self.targets.values().map(|target| format!("{}\n", target.name));
                return Answer::ok(names.collect::<String>());
            }
            [what, name] => (what, name),
            _ => return failed(INVALID),
        };
        let Some(target) = self.targets.values_mut().find(|target| target.name == name) else {
            return failed(NO_TARGET);
        };
        match what {
            "login" => target.login(&self.host),
            "logout" => {
                target.detach();
                Answer::ok("")
            }
            "rescan" => target.rescan(),
            _ => failed(INVALID),
        }
    }

    fn tgtadm(&mut self, command: &Command) -> Answer {
        match (command.op, command.mode, command.tid.parse()) {
            ("show", "system", _) => Answer::ok(SYSTEM),
            ("show", "target", _) => self.show_targets(),
            ("new", "target", Ok(tid)) => self.new_target(tid, command.name),
            ("delete", "target", Ok(tid)) => match self.targets.remove(&tid) {
                Some(mut target) => {
                    target.detach();
                    Answer::ok("")
                }
                None => failed(NO_TARGET),
            },
            (_, _, Ok(tid)) => match self.targets.get_mut(&tid) {
                Some(target) => target.tgtadm(command),
                None => failed(NO_TARGET),
            },
            _ => failed(INVALID),
        }
    }

    /// The line with the name must end with it.
    fn show_targets(&self) -> Answer {
        let show = |(tid, target): (&u32, &Target<_>)| {
            let name = &target.name;
            format!("Target {tid}: {name}\n    System information:\n        Driver: iscsi\n")
        };
        Answer::ok(self.targets.iter().map(show).collect::<String>())
    }

    fn new_target(&mut self, tid: u32, name: &str) -> Answer {
        let known = self.targets.values().any(|target| target.name == name);
        if known || self.targets.contains_key(&tid) {
            return failed("this target already exists");
        }
        let target = Target { name: name.into(), lun: None, bound: Vec::new(), disk: None };
        self.targets.insert(tid, target);
        Answer::ok("")
    }

    fn reconnect(&mut self, minor: &str) -> Answer {
        let mut disks = self.targets.values_mut().filter_map(|target| target.disk.as_mut());
        match disks.find(|disk| disk.minor().to_string() == minor) {
            Some(disk) => done(disk.reconnect()),
            None => failed(NO_SESSION),
        }
    }
}

impl<D: Disk> Target<D> {
    fn tgtadm(&mut self, command: &Command) -> Answer {
        match (command.op, command.mode) {
            ("new", "logicalunit") => self.new_lun(command),
            ("update", "logicalunit") => self.update_lun(command.params),
            ("delete", "logicalunit") => {
                self.detach();
                self.lun.take().map_or_else(|| failed(NO_LUN), |_| Answer::ok(""))
            }
            ("bind", "target") => {
                self.bound.push(command.initiator.into());
                Answer::ok("")
            }
            ("unbind", "target") => self.unbind(command.initiator),
            ("show", "conn") => Answer::ok(if self.disk.is_some() { CONNECTION } else { "" }),
            ("delete", "conn") => {
                self.detach();
                Answer::ok("")
            }
            _ => failed(INVALID),
        }
    }

    fn new_lun(&mut self, command: &Command) -> Answer {
        if self.lun.is_some() {
            return failed("this logical unit number already exists");
        }
        let (Some(size), "longhorn") = (option(command.bsopts, "size"), command.bstype) else {
            return failed(INVALID);
        };
        self.lun = Some(Lun {
            socket: command.socket.into(),
            size,
            timeout: option(command.bsopts, "request_timeout").unwrap_or(REQUEST_TIMEOUT),
        });
        Answer::ok("")
    }

    /// Only a new size matters (`bsopts=size=N`); the rest describes a SCSI disk.
    fn update_lun(&mut self, params: &str) -> Answer {
        let Some(lun) = self.lun.as_mut() else {
            return failed(NO_LUN);
        };
        let Some(size) = params.strip_prefix("bsopts=").and_then(|o| option(o, "size")) else {
            return Answer::ok("");
        };
        lun.size = size;
        self.disk.as_mut().map_or_else(|| Answer::ok(""), |disk| done(disk.resize(size)))
    }

    fn unbind(&mut self, initiator: &str) -> Answer {
        let before = self.bound.len();
        self.bound.retain(|bound| bound != initiator);
        if self.bound.len() == before {
            return failed("this access control rule does not exist");
        }
        Answer::ok("")
    }

    fn login(&mut self, host: &impl Host<Disk = D>) -> Answer {
        match &self.disk {
            Some(disk) if disk.is_live(&self.name) => {
                return Answer::fail(SESSION_EXISTS, format!("session exists on loop{}", disk.minor()));
            }
            _ => self.detach(),
        }
        let Some(lun) = &self.lun else {
            return failed(NO_LUN);
        };
        match host.attach(lun, &self.name) {
            Ok(disk) => Answer::ok(format!("{}\n", self.disk.insert(disk).minor())),
            Err(e) => Answer::fail(LOGIN_FAILED, format!("{e:#}")),
        }
    }

    fn rescan(&self) -> Answer {
        self.disk.as_ref().map_or_else(|| failed(NO_SESSION), |disk| done(disk.rescan()))
    }

    fn detach(&mut self) {
        if let Some(disk) = self.disk.take() {
            disk.detach(&self.name);
        }
    }
}

fn failed(why: &str) -> Answer {
    Answer::fail(FAILED, why)
}

fn done(result: Result<()>) -> Answer {
    result.map_or_else(|e| failed(&format!("{e:#}")), |()| Answer::ok(""))
}

/// The number behind `key=` in a list such as `size=1;request_timeout=15`.
fn option(options: &str, key: &str) -> Option<u64> {
    let mut options = options.split([';', ',']).filter_map(|option| option.split_once('='));
    options.find(|(k, _)| *k == key)?.1.parse().ok()
}
