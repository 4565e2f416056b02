//! Bodies in memory: each is read once into one buffer of its size, and all together stay within a bound.
//!
//! A list of 5,000 full nodes is 50 MB. The answer to it is made of slices of the body, so the body is all that a call
//! takes; its share of the bound is given back when the last slice is gone, i.e. when the answer is on its way.

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use futures::TryStreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ExtenderConfig;

/// Bytes of one permit: a semaphore counts to 2³², bodies may be larger.
const UNIT: usize = 1024;
/// What a body of unknown length starts with. The scheduler always states the length.
const FIRST: usize = 64 << 10;

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum Refused {
    TooLarge,
    Broken(axum::Error),
}

/// A body and its share of the bound.
struct Held {
    bytes: Vec<u8>,
    /// Given back when this is dropped.
    room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bound on all bodies.
#[derive(Clone)]
pub(crate) struct Bodies {
    limit: usize,
    large_above: usize,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

/// A closed semaphore or a share beyond 2³² kB do not occur; they would mean no bound for this one body.
async fn room(pool: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    pool.clone().acquire_many_owned(u32::try_from(units(bytes)).ok()?).await.ok()
}

impl Bodies {
    pub(crate) fn new(config: &ExtenderConfig) -> Self {
        let pool = |bytes: usize| Arc::new(Semaphore::new(units(bytes).min(Semaphore::MAX_PERMITS)));
        Self {
            limit: config.body,
            large_above: config.blocking_above,
            // never less than one body takes, or it would wait for ever
            small: pool(config.small_bodies.max(config.blocking_above)),
            large: pool(config.large_bodies.max(config.body)),
        }
    }

    /// The whole body. Waits while other bodies take all the room there is.
    pub(crate) async fn read(&self, body: Body) -> Result<Bytes, Refused> {
        let stated = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if stated.is_some_and(|bytes| bytes > self.limit) {
            return Err(Refused::TooLarge);
        }
        let pool = if stated.is_some_and(|bytes| bytes <= self.large_above) { &self.small } else { &self.large };
        let first = stated.unwrap_or(FIRST.min(self.limit));
        let mut held = Held { room: room(pool, first).await, bytes: Vec::with_capacity(first) };
        let mut frames = body.into_data_stream();
        while let Some(frame) = frames.try_next().await.map_err(Refused::Broken)? {
            let length = held.bytes.len() + frame.len();
            if length > self.limit {
                return Err(Refused::TooLarge);
            }
            let capacity = held.bytes.capacity();
            if length > capacity {
                let wanted = length.max(2 * capacity).min(self.limit);
                let more = room(pool, wanted - capacity).await;
                if let (Some(room), Some(more)) = (&mut held.room, more) {
                    room.merge(more);
                }
                held.bytes.reserve_exact(wanted - held.bytes.len());
            }
            held.bytes.extend_from_slice(&frame);
        }
        Ok(Bytes::from_owner(held))
    }

    /// Bytes that could still be taken: (small, large).
    #[cfg(test)]
    fn left(&self) -> (usize, usize) {
        (self.small.available_permits() * UNIT, self.large.available_permits() * UNIT)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{FutureExt, stream};

    use super::*;

    fn bodies() -> Bodies {
        Bodies::new(&ExtenderConfig {
            body: 256 << 10,
            blocking_above: 4 << 10,
            large_bodies: 256 << 10,
            small_bodies: 8 << 10,
            ..ExtenderConfig::default()
        })
    }

    fn chunked(frames: usize, bytes: usize) -> Body {
        Body::from_stream(stream::iter(
            (0..frames).map(move |n| Ok::<_, Infallible>(Bytes::from(vec![u8::try_from(n % 251).unwrap(); bytes]))),
        ))
    }

    #[tokio::test]
    async fn a_share_is_given_back_with_the_last_slice() {
        let bodies = bodies();
        assert_eq!(bodies.left(), (8 << 10, 256 << 10));
        let small = bodies.read(Body::from(vec![b'x'; 3 << 10])).await.unwrap();
        let large = bodies.read(Body::from(vec![b'y'; 200 << 10])).await.unwrap();
        assert_eq!(bodies.left(), (5 << 10, 56 << 10));
        let slice = large.slice(7..9);
        drop((small, large));
        assert_eq!(bodies.left(), (8 << 10, 56 << 10), "one slice is left of the large one");
        assert_eq!(slice, "yy");
        drop(slice);
        assert_eq!(bodies.left(), (8 << 10, 256 << 10));
    }

    #[tokio::test]
    async fn a_body_waits_for_room_and_small_ones_do_not_wait_for_large_ones() {
        let bodies = bodies();
        let first = bodies.read(Body::from(vec![0; 200 << 10])).await.unwrap();
        let mut second = Box::pin(bodies.read(Body::from(vec![1; 100 << 10])));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(bodies.read(Body::from("names")).await.unwrap(), "names");
        drop(first);
        assert_eq!(second.await.unwrap().len(), 100 << 10);
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_grows_within_the_limit() {
        let bodies = bodies();
        let read = bodies.read(chunked(250, 1000)).await.unwrap();
        assert!(read.chunks(1000).enumerate().all(|(n, frame)| frame.iter().all(|b| usize::from(*b) == n % 251)));
        assert_eq!(read.len(), 250_000);
        drop(read);
        assert!(matches!(bodies.read(chunked(263, 1000)).await, Err(Refused::TooLarge)));
        assert!(matches!(bodies.read(Body::from(vec![0; (256 << 10) + 1])).await, Err(Refused::TooLarge)));
        assert_eq!(bodies.left(), (8 << 10, 256 << 10), "what was refused keeps nothing");
    }
}
