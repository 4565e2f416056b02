//! A Longhorn engine's side of the data connection, in this process.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use iscsi_standin::wire::{HEADER_LEN, Header, Kind};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub header: Header,
    pub data: Vec<u8>,
}

pub fn receive(stream: &mut UnixStream) -> io::Result<Request> {
    let mut bytes = [0; HEADER_LEN];
    stream.read_exact(&mut bytes)?;
    let header = Header::decode(&bytes).map_err(io::Error::other)?;
    let mut data = vec![0; header.data_len as usize];
    stream.read_exact(&mut data)?;
    Ok(Request { header, data })
}

pub fn answer(stream: &mut UnixStream, request: &Request, kind: Kind, data: &[u8]) -> io::Result<()> {
    let header = Header { kind, data_len: u32::try_from(data.len()).unwrap(), ..request.header };
    stream.write_all(&header.encode())?;
    stream.write_all(data)
}

/// A volume in memory, served on a socket until [`Engine::stop`].
#[derive(Clone)]
#[allow(dead_code)] // not every test file uses all of it
pub struct Engine {
    pub store: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<Vec<UnixStream>>>,
}

#[allow(dead_code)]
impl Engine {
    pub fn start(socket: &Path, size: usize) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let engine = Self { store: Arc::new(Mutex::new(vec![0; size])), connections: Arc::default() };
        let serving = engine.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                serving.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let engine = serving.clone();
                thread::spawn(move || while engine.serve(&mut stream).is_ok() {});
            }
        });
        engine
    }

    fn serve(&self, stream: &mut UnixStream) -> io::Result<()> {
        let request = receive(stream)?;
        let mut store = self.store.lock().unwrap();
        let start = usize::try_from(request.header.offset).unwrap();
        let range = start..start + request.header.size as usize;
        match (store.get_mut(range), request.header.kind) {
            (Some(part), Kind::READ) => answer(stream, &request, Kind::RESPONSE, part),
            (Some(part), Kind::WRITE) => {
                part.copy_from_slice(&request.data);
                answer(stream, &request, Kind::RESPONSE, &[])
            }
            _ => answer(stream, &request, Kind::ERROR, b"out of range"),
        }
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// Ends all connections, as a killed engine does.
    pub fn stop(&self) {
        for stream in self.connections.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
