//! The API server's clock. Who judges our certificates is the API server, so what counts is its time, not that of the
//! node this replica is on, which may be wrong by years until someone corrects it. Each answer of an API server says its
//! time in the header `Date`; from there on the monotonic clock counts, which nobody sets.

use axum::http::{HeaderMap, Response, header::DATE};
use handoff_certs::Clock;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tower::util::MapResponse;

/// A node's clock that differs by more is reported.
const WRONG: SignedDuration = SignedDuration::from_secs(60);

/// The API server's clock as known from its answers; this node's own until the first one.
#[derive(Debug)]
pub struct ApiClock {
    start: Instant,
    seen: Mutex<Option<Seen>>,
}

/// One answer.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The API server's time.
    date: Timestamp,
    at: Instant,
    /// How far this node was ahead of it, by its wall clock.
    ahead: SignedDuration,
}

impl Default for ApiClock {
    fn default() -> Self {
        Self { start: Instant::now(), seen: Mutex::default() }
    }
}

impl ApiClock {
    /// Takes note of the time an answer has come with. One without a readable `Date` says nothing.
    pub fn note(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| DateTimeParser::new().parse_timestamp(date.as_bytes()).ok());
        if let Some(date) = date {
            self.note_at(date, Timestamp::now(), Instant::now());
        }
    }

    fn note_at(&self, date: Timestamp, here: Timestamp, at: Instant) {
        let seen = Seen { date, at, ahead: here.duration_since(date) };
        let before = self.lock().replace(seen);
        let wrong = |seen: &Seen| seen.ahead.abs() > WRONG;
        if wrong(&seen) && !before.as_ref().is_some_and(wrong) {
            let seconds = seen.ahead.as_secs();
            tracing::error!(seconds, "this node's clock is ahead of the API server's; certificates go by the latter");
        }
    }

    /// How far this node's clock was ahead of the API server's when that answered last; `None` before it did.
    pub fn ahead(&self) -> Option<SignedDuration> {
        self.lock().map(|seen| seen.ahead)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `service`, with `clock` told the time of each of its answers.
pub fn noting<S, B>(
    clock: &Arc<ApiClock>,
    service: S,
) -> MapResponse<S, impl Fn(Response<B>) -> Response<B> + Clone + use<S, B>> {
    let clock = clock.clone();
    MapResponse::new(service, move |response: Response<B>| {
        clock.note(response.headers());
        response
    })
}

impl Clock for ApiClock {
    fn now(&self) -> Timestamp {
        let seen = *self.lock();
        let now = seen.and_then(|seen| seen.date.checked_add(seen.at.elapsed()).ok());
        now.unwrap_or_else(Timestamp::now)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, http::HeaderValue};

    fn headers(date: &str) -> HeaderMap {
        HeaderMap::from_iter([(DATE, HeaderValue::from_str(date).unwrap())])
    }

    #[test]
    fn the_time_is_the_api_servers() {
        let clock = ApiClock::default();
        assert_eq!(clock.ahead(), None);
        let before = Timestamp::now();
        assert!(clock.now() >= before, "this node's, as long as there is no other");

        // ten years back, or a node that is ten years ahead
        clock.note(&headers("Fri, 04 Nov 2016 10:00:00 GMT"));
        let then: Timestamp = "2016-11-04T10:00:00Z".parse().unwrap();
        let now = clock.now();
        assert!(then <= now && now.duration_since(then) <= clock.monotonic().try_into().unwrap(), "{now}");
        assert!(clock.ahead().unwrap() > SignedDuration::from_hours(24 * 3650));
        for unreadable in ["", "soon", "Fri, 04 Nov 2016"] {
            clock.note(&headers(unreadable));
            assert!(clock.now() < then + SignedDuration::from_hours(24));
        }
        clock.note(&HeaderMap::new());
        assert!(clock.now() < then + SignedDuration::from_hours(24));
    }

    #[test]
    fn a_wall_clock_that_someone_sets_moves_nothing() {
        let clock = ApiClock::default();
        let date: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        clock.note_at(date, date, Instant::now());
        assert_eq!(clock.ahead(), Some(SignedDuration::ZERO));
        // the next answer comes after the node's clock was set back by a year
        let year = SignedDuration::from_hours(24 * 365);
        clock.note_at(date, date - year, Instant::now());
        assert_eq!(clock.ahead(), Some(-year));
        assert!(clock.now() >= date && clock.now() < date + year);
    }

    #[tokio::test]
    async fn each_answer_of_the_api_server_sets_it() {
        let clock = Arc::new(ApiClock::default());
        let api = Router::new().fallback(async || ([(DATE, "Fri, 04 Nov 2016 10:00:00 GMT")], "{}"));
        let service = noting(&clock, api);
        let client = kube::Client::new(service, "default");
        let request = axum::http::Request::get("/version").body(Vec::new()).unwrap();
        client.request_text(request).await.unwrap();
        assert!(clock.now() < "2017-01-01T00:00:00Z".parse().unwrap());
    }
}
