//! The few loop device requests that are needed.
//!
//! Every device of ours carries a tag in `lo_file_name` (`lh:VOLUME`, as far as it fits), by which
//! a later process, even in another namespace, knows it again, and is bound with AUTOCLEAR: it
//! unbinds itself with its last user, so nothing stays behind when its owner is killed.
//!
//! No crate does this: loopdev-3 has neither `LOOP_CONFIGURE` nor the tag (and wants libclang),
//! and `losetup` offers no AUTOCLEAR. So one ioctl, behind a type that lets nothing else be asked.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

const LOOP_MAJOR: u32 = 7;
const BLOCK_SIZE: u32 = 512; // as tgt's disks have
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
const TAG_LEN: usize = 64;

type Tag = [u8; TAG_LEN];

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    ids: [u64; 3],
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt: [u32; 2],
    flags: u32,
    file_name: Tag,
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Info {
    const EMPTY: Self = Self {
        ids: [0; 3],
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt: [0; 2],
        flags: 0,
        file_name: [0; TAG_LEN],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: i32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// What can be asked of a loop device or of `/dev/loop-control`.
enum Request<'a> {
    GetFree,
    Clear,
    SetCapacity,
    GetStatus(&'a mut Info),
    Configure(&'a Config),
}

/// Asks; the answer is a number that only `GetFree` gives a meaning.
#[allow(unsafe_code)] // neither std nor rustix has these requests in a safe form
fn ioctl(file: &File, request: Request) -> io::Result<i32> {
    let (code, argument): (libc::c_ulong, *mut c_void) = match request {
        Request::GetFree => (0x4C82, ptr::null_mut()),
        Request::Clear => (0x4C01, ptr::null_mut()),
        Request::SetCapacity => (0x4C07, ptr::null_mut()),
        Request::GetStatus(info) => (0x4C05, ptr::from_mut(info).cast()),
        Request::Configure(config) => (0x4C0A, ptr::from_ref(config).cast_mut().cast()),
    };
    // SAFETY: each code comes with null or a valid pointer to the structure the kernel knows for
    // it; it writes only to that of GetStatus, which is borrowed mutably.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), code as _, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Tag of a target: the volume's name (the target's after its last colon), as much as fits.
fn tag(target: &str) -> Tag {
    let volume = target.rsplit_once(':').map_or(target, |(_, volume)| volume);
    let mut tag = [0; TAG_LEN];
    let text = format!("lh:{volume}");
    let len = text.len().min(TAG_LEN - 1);
    tag[..len].copy_from_slice(&text.as_bytes()[..len]);
    tag
}

/// Opens a loop device; a node's private /dev may not have it yet.
fn open(minor: u32) -> io::Result<File> {
    let path = format!("/dev/loop{minor}");
    if !Path::new(&path).exists() {
        // Somebody else may make it at the same time; opening tells.
        let mode = Mode::from_raw_mode(0o660);
        let _ = mknodat(CWD, &path, FileType::BlockDevice, mode, makedev(LOOP_MAJOR, minor));
    }
    OpenOptions::new().read(true).write(true).open(path)
}

/// Binds a free loop device to `backing`, with direct I/O. The handle keeps it bound.
pub fn attach(backing: &File, target: &str) -> Result<(u32, File)> {
    let control =
        OpenOptions::new().read(true).write(true).open("/dev/loop-control").context("opening /dev/loop-control")?;
    let config = Config {
        fd: backing.as_raw_fd(),
        block_size: BLOCK_SIZE,
        info: Info { flags: DIRECT_IO | AUTOCLEAR, file_name: tag(target), ..Info::EMPTY },
        reserved: [0; 8],
    };
    for _ in 0..50 {
        let minor = ioctl(&control, Request::GetFree).context("finding a free loop device")?;
        let minor = u32::try_from(minor)?;
        let device = open(minor).with_context(|| format!("opening /dev/loop{minor}"))?;
        match ioctl(&device, Request::Configure(&config)) {
            Ok(_) => return Ok((minor, device)),
            // Somebody else took that one meanwhile.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
            Err(e) => return Err(e).with_context(|| format!("binding /dev/loop{minor}")),
        }
    }
    bail!("no free loop device")
}

/// Whether this loop device is (still) the session of this target.
pub fn is_ours(minor: u32, target: &str) -> bool {
    let mut info = Info::EMPTY;
    open(minor).is_ok_and(|device| ioctl(&device, Request::GetStatus(&mut info)).is_ok())
        && info.file_name == tag(target)
}

/// Unbinds it. `true`: gone. `false`: in use for longer than `wait`; goes with its last user.
pub fn detach(minor: u32, target: &str, wait: Duration) -> Result<bool> {
    let start = Instant::now();
    if !is_ours(minor, target) {
        return Ok(true);
    }
    match open(minor).and_then(|device| ioctl(&device, Request::Clear)) {
        // Unbound by somebody else since the look above.
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {}
        result => drop(result.with_context(|| format!("unbinding /dev/loop{minor}"))?),
    }
    let mut pause = Duration::from_millis(1);
    while is_ours(minor, target) {
        if start.elapsed() >= wait {
            return Ok(false);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(true)
}

/// Makes the device as large as its backing file has become.
pub fn grow(minor: u32) -> Result<()> {
    open(minor)
        .and_then(|device| ioctl(&device, Request::SetCapacity))
        .with_context(|| format!("growing /dev/loop{minor}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }

    #[test]
    fn the_tag_is_the_volumes_name_cut_to_fit() {
        assert!(tag("iqn.2019-10.io.longhorn:vol").starts_with(b"lh:vol\0"));
        assert!(tag("plain").starts_with(b"lh:plain\0"));
        let long = tag(&format!("iqn:{}", "x".repeat(100)));
        assert!(long.starts_with(b"lh:xxx") && long.ends_with(b"xxx\0"));
    }
}
