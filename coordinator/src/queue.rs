//! The work queue: each key is queued at most once and worked on by at most one worker at a time; a key that changes
//! while it is worked on is queued again after. Bounded by the number of keys.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<String>,
    queued: HashSet<String>,
    running: HashSet<String>,
    again: HashSet<String>,
    /// Due time and key, both ways: a key has at most one due time.
    due: BTreeSet<(Instant, String)>,
    due_of: HashMap<String, Instant>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a key now.
    pub fn add(&self, key: &str) {
        let mut state = self.state();
        state.cancel(key);
        if state.running.contains(key) {
            state.again.insert(key.to_owned());
        } else if state.queued.insert(key.to_owned()) {
            state.ready.push_back(key.to_owned());
            self.news.notify_one();
        }
    }

    /// The next key to work on; waits until there is one.
    pub async fn next(&self) -> String {
        loop {
            let news = self.news.notified();
            let wait = {
                let mut state = self.state();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    state.running.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.news.notify_one();
                    }
                    return key;
                }
                state.due.first().map(|(at, _)| *at)
            };
            match wait {
                Some(at) => tokio::select! { () = news => {}, () = tokio::time::sleep_until(at) => {} },
                None => news.await,
            }
        }
    }

    /// The work on a key is done; it is queued again after `again_in`, if given.
    pub fn done(&self, key: &str, again_in: Option<Duration>) {
        let mut state = self.state();
        state.running.remove(key);
        if state.again.remove(key) {
            state.queued.insert(key.to_owned());
            state.ready.push_back(key.to_owned());
        } else if let Some(wait) = again_in {
            let at = Instant::now() + wait;
            state.due.insert((at, key.to_owned()));
            state.due_of.insert(key.to_owned(), at);
        }
        self.news.notify_one();
    }
}

impl State {
    fn cancel(&mut self, key: &str) {
        if let Some(at) = self.due_of.remove(key) {
            self.due.remove(&(at, key.to_owned()));
        }
    }

    fn promote(&mut self, now: Instant) {
        while let Some((at, key)) = self.due.first().cloned() {
            if at > now {
                return;
            }
            self.cancel(&key);
            if self.queued.insert(key.clone()) {
                self.ready.push_back(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_runs_once_at_a_time_and_again_when_it_changed() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.done("a", Some(Duration::from_secs(9)));
        assert_eq!(queue.next().await, "a", "changed meanwhile: at once");
        queue.done("a", Some(Duration::from_secs(9)));
        let before = Instant::now();
        assert_eq!(queue.next().await, "a", "then when due");
        assert_eq!(before.elapsed().as_secs(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_comes_before_the_due_time_and_replaces_it() {
        let queue = Queue::default();
        queue.add("a");
        queue.next().await;
        queue.done("a", Some(Duration::from_secs(9)));
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done("a", None);
        assert!(tokio::time::timeout(Duration::from_mins(1), queue.next()).await.is_err());
    }
}
