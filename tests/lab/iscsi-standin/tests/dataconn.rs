//! The data connection against engines that answer well, late, in another order, or not at all.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml allows them in #[test] functions only

mod engine;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use engine::{Engine, Request, answer, receive};
use iscsi_standin::dataconn::{Client, RequestError};
use iscsi_standin::wire::Kind;
use proptest::prelude::*;
use tempfile::TempDir;

const LONG: Duration = Duration::from_mins(10);

type Outcome = Result<Vec<u8>, RequestError>;

fn read(client: &Client, offset: u64, size: u32) -> Receiver<Outcome> {
    let (send, outcome) = channel();
    let done = move |result: Result<&[u8], _>| send.send(result.map(<[u8]>::to_vec)).unwrap();
    client.read(offset, size, Box::new(done));
    outcome
}

fn write(client: &Client, offset: u64, data: &[u8]) -> Receiver<Outcome> {
    let (send, outcome) = channel();
    let done = move |result: Result<&[u8], _>| send.send(result.map(<[u8]>::to_vec)).unwrap();
    client.write(offset, data, Box::new(done));
    outcome
}

/// A client, and an engine whose every answer the test writes itself.
struct Scripted {
    listener: UnixListener,
    client: Arc<Client>,
    stream: UnixStream,
    _dir: TempDir,
}

impl Scripted {
    fn new(timeout: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket: PathBuf = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let client = Client::connect(&socket, timeout).unwrap();
        let (stream, _) = listener.accept().unwrap();
        Self { listener, client, stream, _dir: dir }
    }

    fn next(&mut self) -> Request {
        receive(&mut self.stream).unwrap()
    }

    fn answer(&mut self, request: &Request, kind: Kind, data: &[u8]) {
        answer(&mut self.stream, request, kind, data).unwrap();
    }
}

fn lost(outcome: &Receiver<Outcome>) -> bool {
    matches!(outcome.recv().unwrap(), Err(RequestError::Lost(_)))
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let mut engine = Scripted::new(LONG);
    let outcomes: Vec<_> = (0..8).map(|i| read(&engine.client, i * 512, 512)).collect();
    let mut requests: Vec<Request> = (0..8).map(|_| engine.next()).collect();
    requests.reverse();
    requests.swap(1, 5);
    for request in &requests {
        assert_eq!((request.header.kind, request.header.size), (Kind::READ, 512));
        let sector = u8::try_from(request.header.offset / 512).unwrap();
        engine.answer(request, Kind::RESPONSE, &[sector; 512]);
    }
    for (sector, outcome) in (0..).zip(outcomes) {
        assert_eq!(outcome.recv().unwrap(), Ok(vec![sector; 512]));
    }
}

#[test]
fn errors_concern_only_their_request() {
    let mut engine = Scripted::new(LONG);
    let full = write(&engine.client, 0, &[1; 512]);
    let refused = write(&engine.client, 512, &[2; 512]);
    let fine = write(&engine.client, 1024, &[3; 512]);
    let requests = [engine.next(), engine.next(), engine.next()];
    assert_eq!(requests[2].data, [3; 512]);
    engine.answer(&requests[0], Kind::NO_SPACE, &[]);
    engine.answer(&requests[1], Kind::ERROR, b"replica lost");
    engine.answer(&requests[2], Kind::RESPONSE, &[]);
    assert_eq!(full.recv().unwrap(), Err(RequestError::NoSpace));
    assert_eq!(refused.recv().unwrap(), Err(RequestError::Refused("replica lost".into())));
    assert_eq!(fine.recv().unwrap(), Ok(vec![]));
}

#[test]
fn an_overdue_request_fails_and_all_others_with_it() {
    let mut engine = Scripted::new(Duration::from_millis(40));
    let open = [read(&engine.client, 0, 512), write(&engine.client, 0, &[0; 512])];
    engine.next();
    assert!(open.iter().all(lost));
    assert!(lost(&read(&engine.client, 0, 512)), "later requests too");
}

#[test]
fn a_writer_blocked_by_a_frozen_engine_is_freed() {
    let engine = Scripted::new(Duration::from_millis(40));
    // More than the socket takes: the engine reads none of it.
    let data = vec![0; 1 << 20];
    let outcomes: Vec<_> = (0..4).map(|_| write(&engine.client, 0, &data)).collect();
    assert!(outcomes.iter().all(lost));
}

#[test]
fn the_engines_end_fails_what_is_open() {
    for farewell in [false, true] {
        let mut engine = Scripted::new(LONG);
        let open = read(&engine.client, 0, 512);
        let request = engine.next();
        if farewell {
            // Longhorn's close frame has no magic.
            std::io::Write::write_all(&mut engine.stream, &[0; 26]).unwrap();
        } else {
            drop(std::mem::replace(&mut engine.stream, UnixStream::pair().unwrap().0));
        }
        assert!(lost(&open), "{request:?}");
        assert!(lost(&write(&engine.client, 0, &[0; 512])));
    }
}

#[test]
fn reconnecting_drains_the_old_connection() {
    let mut engine = Scripted::new(LONG);
    let first = read(&engine.client, 0, 4);
    let request = engine.next();
    engine.client.reconnect().unwrap();
    let mut new = engine.listener.accept().unwrap().0;

    let second = read(&engine.client, 4, 4);
    let request_2 = receive(&mut new).unwrap();
    answer(&mut new, &request_2, Kind::RESPONSE, b"new!").unwrap();
    assert_eq!(second.recv().unwrap(), Ok(b"new!".to_vec()));
    engine.answer(&request, Kind::RESPONSE, b"old!");
    assert_eq!(first.recv().unwrap(), Ok(b"old!".to_vec()));

    assert!(receive(&mut engine.stream).is_err(), "the old connection has ended");
    assert!(read(&engine.client, 0, 1).try_recv().is_err(), "the new one has not");
}

#[test]
fn reconnecting_revives_a_lost_disk() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("engine.sock");
    let engine = Engine::start(&socket, 1024);
    let client = Client::connect(&socket, LONG).unwrap();
    assert_eq!(write(&client, 0, b"data").recv().unwrap(), Ok(vec![]));
    engine.stop();
    assert!(lost(&read(&client, 0, 4)));
    client.reconnect().unwrap();
    assert_eq!(read(&client, 0, 4).recv().unwrap(), Ok(b"data".to_vec()));
}

#[test]
fn reconnecting_loses_no_request_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("engine.sock");
    let engine = Engine::start(&socket, 64 << 10);
    let client = Client::connect(&socket, LONG).unwrap();
    let load = thread::spawn({
        let client = Arc::clone(&client);
        move || (0..2000u64).all(|i| write(&client, i % 64 * 512, &[1; 512]).recv().unwrap().is_ok())
    });
    while !load.is_finished() && engine.connections() < 50 {
        client.reconnect().unwrap();
    }
    assert!(load.join().unwrap());
}

#[derive(Debug, Clone)]
enum Step {
    Read { offset: u16, size: u16 },
    Write { offset: u16, data: Vec<u8> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let read = (0..4096u16, 1..512u16).prop_map(|(offset, size)| Step::Read { offset, size });
    let data = prop::collection::vec(any::<u8>(), 1..512);
    let write = (0..4096u16, data).prop_map(|(offset, data)| Step::Write { offset, data });
    prop::collection::vec(prop_oneof![read, write], 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Over the connection a volume behaves as the bytes it is made of.
    #[test]
    fn a_volume_is_its_bytes(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("engine.sock");
        let mut model = vec![0; 8192];
        let engine = Engine::start(&socket, model.len());
        let client = Client::connect(&socket, LONG).unwrap();
        for step in steps {
            match step {
                Step::Read { offset, size } => {
                    let start = usize::from(offset);
                    let expected = model[start..start + usize::from(size)].to_vec();
                    let got = read(&client, offset.into(), size.into()).recv().unwrap();
                    prop_assert_eq!(got, Ok(expected));
                }
                Step::Write { offset, data } => {
                    let start = usize::from(offset);
                    model[start..start + data.len()].copy_from_slice(&data);
                    prop_assert!(write(&client, offset.into(), &data).recv().unwrap().is_ok());
                }
            }
        }
        prop_assert_eq!(&*engine.store.lock().unwrap(), &model);
    }
}
