//! `sg_raw DEVICE a6 00 00 00 00 00`: Longhorn sends this after a live upgrade of the engine; the
//! disk then connects to the socket anew.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use rustix::fs::minor;

use crate::Answer;
use crate::portal;

/// The program. Whatever command is sent, it is taken for that one.
pub fn main(args: &[String]) -> Answer {
    let Some(device) = args.iter().find(|arg| arg.starts_with("/dev/")) else {
        return Answer::fail(2, "no device given");
    };
    reconnect(device).unwrap_or_else(|e| Answer::fail(1, format!("{e:#}")))
}

fn reconnect(device: &str) -> Result<Answer> {
    let metadata = fs::metadata(device).with_context(|| device.to_owned())?;
    let minor = minor(metadata.rdev()).to_string();
    portal::ask(portal::connect_local().context("reaching tgtd")?, &["reconnect", &minor])
}
