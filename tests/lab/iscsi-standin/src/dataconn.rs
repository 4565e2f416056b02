//! Client of a Longhorn engine's data connection: pipelined, answered in any order.
//!
//! A request that is not answered in time, or whose connection breaks, fails, and so does all that
//! waits with it: the users of the disk must get an error, never a hang. [`Client::reconnect`]
//! moves on to a new connection while the old one still answers what was sent over it, as
//! Longhorn's live upgrade wants.

use std::collections::HashMap;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thiserror::Error;

use crate::wire::{HEADER_LEN, Header, Kind, WireError};

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The engine has no room for the write.
    #[error("no space left on the volume")]
    NoSpace,
    /// The engine answered with an error.
    #[error("the engine refused the request: {0}")]
    Refused(String),
    /// No answer will come.
    #[error("connection lost: {0}")]
    Lost(String),
}

/// Why a connection ended.
#[derive(Debug, Error)]
enum ConnectionError {
    #[error("the engine is gone ({0})")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("replaced by a newer connection")]
    Replaced,
}

/// Called once, with the data of the answer or with why there is none.
pub type Done = Box<dyn FnOnce(Result<&[u8], RequestError>) + Send>;

/// A request under way.
struct Waiting {
    generation: u64,
    since: Instant,
    done: Done,
}

/// A second handle of every open connection, to shut it down while a writer is blocked in it.
/// Connections before the current one only wait for their last answers.
struct Links {
    current: u64,
    streams: HashMap<u64, UnixStream>,
}

/// The client; locks are taken in the order of the fields.
pub struct Client {
    path: PathBuf,
    timeout: Duration,
    next_seq: AtomicU32,
    writer: Mutex<Option<(u64, UnixStream)>>,
    links: Mutex<Links>,
    waiting: Mutex<HashMap<u32, Waiting>>,
}

impl Client {
    /// Connects to the engine's socket; a request older than `timeout` ends its connection.
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<Arc<Self>> {
        let client = Arc::new(Self {
            path: path.to_owned(),
            timeout,
            next_seq: AtomicU32::new(0),
            writer: Mutex::new(None),
            links: Mutex::new(Links { current: 0, streams: HashMap::new() }),
            waiting: Mutex::new(HashMap::new()),
        });
        client.reconnect()?;
        let watched = Arc::downgrade(&client);
        let pause = (timeout / 4).min(Duration::from_millis(500));
        thread::spawn(move || {
            while let Some(client) = watched.upgrade() {
                client.expire();
                drop(client);
                thread::sleep(pause);
            }
        });
        Ok(client)
    }

    /// Sends new requests over a new connection. The old one ends with its last answer.
    pub fn reconnect(self: &Arc<Self>) -> io::Result<()> {
        let stream = UnixStream::connect(&self.path)?;
        let mut reader = stream.try_clone()?;
        let handle = stream.try_clone()?;

        // Both change under the writer's lock: once somebody sees the new generation, nothing
        // more is sent over the old connection, so that an idle old connection stays idle.
        let mut writer = self.writer.lock();
        let (old, generation) = {
            let mut links = self.links.lock();
            let old = links.current;
            links.current += 1;
            let generation = links.current;
            links.streams.insert(generation, handle);
            (old, generation)
        };
        *writer = Some((generation, stream));
        drop(writer);

        if self.is_idle(old) {
            self.end(old, &ConnectionError::Replaced.to_string());
        }
        let client = Arc::clone(self);
        thread::spawn(move || {
            let why = client.receive(generation, &mut reader);
            client.end(generation, &why.to_string());
        });
        Ok(())
    }

    /// Reads `size` bytes at `offset`.
    pub fn read(&self, offset: u64, size: u32, done: Done) {
        self.send(Kind::READ, offset, size, &[], done);
    }

    /// Writes `data` (which must be shorter than 4 GiB) at `offset`.
    pub fn write(&self, offset: u64, data: &[u8], done: Done) {
        match u32::try_from(data.len()) {
            Ok(size) => self.send(Kind::WRITE, offset, size, data, done),
            Err(e) => done(Err(RequestError::Refused(e.to_string()))),
        }
    }

    fn send(&self, kind: Kind, offset: u64, size: u32, data: &[u8], done: Done) {
        let seq = self.next_seq.fetch_add(1, Ordering::Relaxed);
        let data_len = if data.is_empty() { 0 } else { size };
        let header = Header { seq, kind, offset, size, data_len };

        let mut writer = self.writer.lock();
        let Some((generation, stream)) = writer.as_mut() else {
            drop(writer);
            return done(Err(RequestError::Lost("the engine is gone".into())));
        };
        let generation = *generation;
        let since = Instant::now();
        let request = Waiting { generation, since, done };
        self.waiting.lock().insert(seq, request);
        if let Err(e) = write_frame(stream, &header.encode(), data) {
            *writer = None;
            drop(writer);
            self.end(generation, &e.to_string());
        }
    }

    /// Hands out the answers of one connection until it ends.
    fn receive(&self, generation: u64, reader: &mut UnixStream) -> ConnectionError {
        let mut data = Vec::new();
        loop {
            if let Err(e) = self.receive_one(reader, &mut data) {
                return e;
            }
            let replaced = self.links.lock().current != generation;
            if replaced && self.is_idle(generation) {
                return ConnectionError::Replaced;
            }
        }
    }

    fn receive_one(&self, reader: &mut UnixStream, data: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let mut bytes = [0; HEADER_LEN];
        reader.read_exact(&mut bytes)?;
        let header = Header::decode(&bytes)?;
        data.resize(header.data_len as usize, 0);
        reader.read_exact(data)?;
        let Some(request) = self.waiting.lock().remove(&header.seq) else {
            return Ok(());
        };
        (request.done)(match header.kind {
            Kind::RESPONSE => Ok(data),
            Kind::NO_SPACE => Err(RequestError::NoSpace),
            _ => Err(RequestError::Refused(String::from_utf8_lossy(data).into_owned())),
        });
        Ok(())
    }

    fn is_idle(&self, generation: u64) -> bool {
        !self.waiting.lock().values().any(|w| w.generation == generation)
    }

    /// Ends every connection with an overdue request.
    fn expire(&self) {
        let mut late: Vec<u64> = {
            let waiting = self.waiting.lock();
            let late = waiting.values().filter(|w| w.since.elapsed() > self.timeout);
            late.map(|w| w.generation).collect()
        };
        late.dedup();
        for generation in late {
            self.end(generation, "a request was not answered in time");
        }
    }

    /// Ends one connection; what still waits for it fails. The shutdown comes first: it frees a
    /// blocked writer, and makes a request that comes in between fail by itself.
    fn end(&self, generation: u64, why: &str) {
        let stream = self.links.lock().streams.remove(&generation);
        if let Some(stream) = stream {
            let path = self.path.display();
            let _ = writeln!(io::stderr(), "{path}: connection {generation} ended: {why}");
            let _ = stream.shutdown(Shutdown::Both);
        }
        let failed: Vec<Waiting> = {
            let mut waiting = self.waiting.lock();
            waiting.extract_if(|_, w| w.generation == generation).map(|(_, w)| w).collect()
        };
        for request in failed {
            (request.done)(Err(RequestError::Lost(why.to_owned())));
        }
    }
}

/// Writes header and data, in one system call if the socket takes them.
fn write_frame(stream: &mut UnixStream, header: &[u8], data: &[u8]) -> io::Result<()> {
    let sent = stream.write_vectored(&[IoSlice::new(header), IoSlice::new(data)])?;
    stream.write_all(header.get(sent..).unwrap_or_default())?;
    stream.write_all(data.get(sent.saturating_sub(header.len())..).unwrap_or_default())
}
