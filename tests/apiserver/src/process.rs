//! Child processes that end with this program, however it ends.

use anyhow::{Context, Result, bail};
use std::{
    ffi::OsStr,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where it serves its own figures, if it does.
    pub port: Option<u16>,
}

impl Process {
    /// Starts `command` with its output in `<logs>/<name>.log`, appended. The kernel kills it when this program dies
    /// (`setpriv` of util-linux asks for that and then becomes the program itself).
    pub fn start(
        name: &str,
        logs: &Path,
        program: &Path,
        arguments: &[String],
        env: &[(&str, &OsStr)],
    ) -> Result<Self> {
        if !program.is_file() {
            bail!("there is no {}", program.display());
        }
        let log = logs.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).context("cannot open a log file")?;
        let errors = output.try_clone().context("cannot open a log file")?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        // a test must not depend on where it was started
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log, port: None })
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Fails with the end of its log if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot ask for a child")? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.tail()),
        }
    }

    /// CPU seconds it has used, user and system.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // fields are counted from behind the command in parentheses; 11 and 12 there are utime and stime, in 1/100 s
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / 100.0
    }

    /// Keeps it, all its threads and those to come on one core; `None`: it may use all of them.
    pub fn keep_on(&self, core: Option<usize>) -> Result<()> {
        let cores = std::thread::available_parallelism().context("how many cores are there?")?.get();
        let list = core.map_or_else(|| format!("0-{}", cores - 1), |core| (core % cores).to_string());
        let pid = self.child.id().to_string();
        let status = Command::new("taskset").args(["-acp", &list, &pid]).stdout(Stdio::null()).status();
        if !status.context("cannot run taskset (util-linux)")?.success() {
            bail!("{} cannot be kept on core {list}", self.name);
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines().collect::<Vec<_>>();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of 127.0.0.1 that is free now, another one each time. It is below those that the kernel gives to outgoing
/// connections, or one of them could take it before its program listens.
pub fn free_port() -> Result<u16> {
    const PORTS: std::ops::Range<u32> = 20_000..30_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // two of these programs beside each other begin at different places
    let begin = std::process::id().wrapping_mul(101) % count;
    for _ in PORTS {
        let at = (begin + NEXT.fetch_add(1, Ordering::Relaxed) % count) % count;
        let port = u16::try_from(PORTS.start + at).context("no free port")?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port")
}
