//! An answer in pieces: text of ours, and slices of the question.

use axum::body::{Body, Bytes};
use futures::stream;
use std::convert::Infallible;

/// Pieces of an answer, in order.
#[derive(Default)]
pub(crate) struct Answer {
    pieces: Vec<Bytes>,
    text: Vec<u8>,
}

impl Answer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { text: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Text of ours, to append to.
    pub(crate) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// A piece that is not copied.
    pub(crate) fn slice(&mut self, slice: Bytes) {
        if !self.text.is_empty() {
            self.pieces.push(std::mem::take(&mut self.text).into());
        }
        self.pieces.push(slice);
    }

    /// Length in bytes, and the answer.
    pub(crate) fn into_body(mut self) -> (usize, Body) {
        if self.pieces.is_empty() {
            return (self.text.len(), Body::from(self.text));
        }
        self.pieces.push(self.text.into());
        let length = self.pieces.iter().map(Bytes::len).sum();
        (length, Body::from_stream(stream::iter(self.pieces.into_iter().map(Ok::<_, Infallible>))))
    }
}

impl From<Vec<u8>> for Answer {
    fn from(text: Vec<u8>) -> Self {
        Self { pieces: Vec::new(), text }
    }
}
