//! `iscsiadm`, as far as go-iscsi-helper uses it. Exit codes are open-iscsi's.
//!
//! A session counts only while its loop device carries its tag, whatever the records say.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::args::Args;
use crate::portal::{self, PORT};
use crate::records::Records;
use crate::{Answer, loopdev, state_dir, sysfs};

const VERSION: &str = "iscsiadm version 2.1.8 (stand-in: loop and FUSE)\n";

/// open-iscsi's exit codes.
const NETWORK_FAILED: u8 = 4;
const BAD_ARGUMENTS: u8 = 7;
const NOT_FOUND: u8 = 21;

/// How long a logout waits for the device's last users if tgtd could not do it.
const LAST_USERS: Duration = Duration::from_secs(2);

/// A session that lives, and the loop device it lives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The target's name.
    pub target: String,
    /// Its portal, if still on record.
    pub portal: Option<IpAddr>,
    /// Number of the loop device.
    pub minor: u32,
}

/// The program.
pub fn main(args: &Args) -> Answer {
    if args.has(&["--version", "-V"]) {
        return Answer::ok(VERSION);
    }
    run(args, &Records::new(&state_dir())).unwrap_or_else(|e| Answer::fail(NETWORK_FAILED, format!("{e:#}")))
}

fn run(args: &Args, records: &Records) -> Result<Answer> {
    let mode = args.value(&["-m", "--mode"]);
    let target = args.value(&["-T", "--targetname"]);
    let portal = args.value(&["-p", "--portal"]);
    match (mode, target, portal) {
        (Some("discovery"), _, Some(ip)) => discover(records, ip),
        (Some("session"), _, _) => Ok(sessions(&live(records), args.has(&["-P", "--print"]))),
        (Some("node"), Some(target), _) => node(args, records, target),
        _ => Ok(Answer::fail(BAD_ARGUMENTS, "unsupported arguments")),
    }
}

fn ask(ip: IpAddr, fields: &[&str]) -> Result<Answer> {
    portal::ask(portal::connect_portal(ip)?, fields)
}

/// `-m discovery -t sendtargets -p IP`: puts the portal's targets on record and lists them.
fn discover(records: &Records, ip: &str) -> Result<Answer> {
    let ip: IpAddr = ip.parse().with_context(|| format!("bad portal {ip:?}"))?;
    let answer = ask(ip, &["sendtargets"])?;
    if answer.code != 0 {
        return Ok(answer);
    }
    for target in answer.text.lines() {
        records.add_node(target, ip)?;
    }
    Ok(discovered(ip, &answer.text))
}

/// Lists discovered targets, given one a line.
pub fn discovered(ip: IpAddr, targets: &str) -> Answer {
    let portal = SocketAddr::new(ip, PORT);
    let lines = targets.lines().map(|target| format!("{portal},1 {target}\n"));
    Answer::ok(lines.collect::<String>())
}

/// The sessions that live; records of others are removed.
fn live(records: &Records) -> Vec<Live> {
    let mut live = Vec::new();
    for (target, minor) in records.sessions() {
        if loopdev::is_ours(minor, &target) {
            let portal = records.node(&target);
            live.push(Live { target, portal, minor });
        } else {
            let _ = records.remove_session(&target); // the next look tries again
        }
    }
    live
}

/// `-m session`, or with `long` `-m session -P 3`: go-iscsi-helper finds the disk of LUN 1 in it.
pub fn sessions(live: &[Live], long: bool) -> Answer {
    if live.is_empty() {
        return Answer::fail(NOT_FOUND, "No active sessions.");
    }
    let show = if long { session_long } else { session_short };
    Answer::ok(live.iter().map(show).collect::<String>())
}

fn session_short(session: &Live) -> String {
    let Live { target, minor, .. } = session;
    format!("tcp: [{}] {},1 {target} (non-flash)\n", minor + 1, portal_of(session))
}

fn session_long(session: &Live) -> String {
    let Live { target, minor, .. } = session;
    let portal = portal_of(session);
    let sid = minor + 1;
    format!(
        "Target: {target} (non-flash)\n\
         \tCurrent Portal: {portal},1\n\
         \tPersistent Portal: {portal},1\n\
         \t\tSID: {sid}\n\
         \t\tAttached SCSI devices:\n\
         \t\tHost Number: {sid}\tState: running\n\
         \t\tscsi{sid} Channel 00 Id 0 Lun: 0\n\
         \t\tscsi{sid} Channel 00 Id 0 Lun: 1\n\
         \t\t\tAttached scsi disk loop{minor}\t\tState: running\n"
    )
}

fn portal_of(session: &Live) -> String {
    let address = session.portal.map(|ip| SocketAddr::new(ip, PORT).to_string());
    address.unwrap_or_else(|| format!(":{PORT}"))
}

/// `-m node -T TARGET …`.
fn node(args: &Args, records: &Records, target: &str) -> Result<Answer> {
    let Some(ip) = records.node(target) else {
        return Ok(Answer::fail(NOT_FOUND, "No records found"));
    };
    if args.has(&["--login", "-l"]) {
        return login(records, ip, target);
    }
    if args.has(&["--logout", "-u"]) {
        return logout(records, ip, target);
    }
    if args.has(&["--rescan", "-R"]) {
        return ask(ip, &["rescan", target]);
    }
    match args.value(&["-o", "--op"]) {
        Some("delete") => {
            records.remove_node(target)?;
            Ok(Answer::ok(""))
        }
        Some("update") => Ok(Answer::ok("")), // time limits of the SCSI layer
        _ => Ok(Answer::ok(format!("node.name = {target}\nnode.session.scan = auto\n"))),
    }
}

fn login(records: &Records, ip: IpAddr, target: &str) -> Result<Answer> {
    let answer = ask(ip, &["login", target])?;
    if answer.code != 0 {
        return Ok(answer);
    }
    let minor: u32 = answer.text.trim().parse().context("tgtd's answer")?;
    records.add_session(target, minor)?;
    sysfs::show_timeout(&format!("loop{minor}"))?;
    Ok(Answer::ok(format!("Login to [iface: default, target: {target}] successful.\n")))
}

fn logout(records: &Records, ip: IpAddr, target: &str) -> Result<Answer> {
    let Some(session) = live(records).into_iter().find(|session| session.target == target) else {
        return Ok(Answer::fail(NOT_FOUND, "No matching sessions found"));
    };
    // A dead tgtd cannot be asked, and no longer keeps the loop device either. A living one has
    // waited for the users of the device already.
    let wait = match ask(ip, &["logout", target]) {
        Ok(Answer { code: 0, .. }) => Duration::ZERO,
        _ => LAST_USERS,
    };
    let gone = loopdev::detach(session.minor, target, wait)?;
    records.remove_session(target)?;
    sysfs::hide_timeout(&format!("loop{}", session.minor));
    let note = if gone { "" } else { " (still in use, goes with its last user)" };
    Ok(Answer::ok(format!("Logout of [target: {target}] successful{note}.\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(records: &Records, line: &str) -> Answer {
        let args: Vec<String> = line.split(' ').map(Into::into).collect();
        run(&Args::new(&args), records).unwrap()
    }

    #[test]
    fn node_records_answer_as_open_iscsi() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path());
        assert_eq!(call(&records, "-m node -T iqn:v").code, NOT_FOUND);
        assert_eq!(call(&records, "-m node -T iqn:v --logout").code, NOT_FOUND);

        records.add_node("iqn:v", "10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(call(&records, "-m node -T iqn:v -p 10.0.0.1").code, 0);
        let update = "-m node -T iqn:v -o update -n node.session.err_timeo.abort_timeout -v 15";
        assert_eq!(call(&records, update).code, 0);
        let show = call(&records, "-m node -T iqn:v -p 10.0.0.1 -o show");
        assert_eq!(show.code, 0);
        assert!(!show.text.contains("node.session.scan = manual"));
        assert_eq!(call(&records, "-m node -T iqn:v --logout").code, NOT_FOUND, "no session");
        assert_eq!(call(&records, "-m node -o delete -T iqn:v").code, 0);
        assert_eq!(call(&records, "-m node -T iqn:v").code, NOT_FOUND);
    }

    #[test]
    fn a_session_without_its_device_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path());
        // No loop device on any machine carries this volume's tag.
        records.add_session("iqn:no-such-volume-anywhere", 0).unwrap();
        assert_eq!(call(&records, "-m session").code, NOT_FOUND);
        assert_eq!(records.sessions(), []);
    }

    #[test]
    fn what_is_not_used_is_refused() {
        let records = Records::new("/nonexistent".as_ref());
        for line in ["-m iface", "-m node", "-m discovery -t sendtargets", "--bogus"] {
            assert_eq!(call(&records, line).code, BAD_ARGUMENTS, "{line}");
        }
        let version = main(&Args::new(&["--version".to_owned()]));
        assert!(version.code == 0 && version.text.starts_with("iscsiadm version 2."));
    }
}
