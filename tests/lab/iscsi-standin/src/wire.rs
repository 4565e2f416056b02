//! The frames of Longhorn's data connection.
//!
//! A frame is a 26-byte little-endian header (magic, sequence number, kind, offset, size, length
//! of the data) and then the data. Answers carry the sequence number of their request and come in
//! any order. Read in longhorn-engine, `pkg/dataconn/wire.go`.

use thiserror::Error;

/// Starts every frame but the engine's farewell, which has 0.
pub const MAGIC: u16 = 0x1b01;
/// Length of the header on the wire.
pub const HEADER_LEN: usize = 26;
/// Longest data believed: above the largest request (1 MiB), below what a broken length could ask for.
pub const MAX_DATA: u32 = 16 << 20;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub u32);

impl Kind {
    /// Request: `size` bytes at `offset`.
    pub const READ: Self = Self(0);
    /// Request: the data to `offset`.
    pub const WRITE: Self = Self(1);
    /// Answer: done; has the data if it was a read.
    pub const RESPONSE: Self = Self(2);
    /// Answer: failed; the data is a message.
    pub const ERROR: Self = Self(3);
    /// Answer: out of space (engine 1.12 and later).
    pub const NO_SPACE: Self = Self(8);
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Ties an answer to its request.
    pub seq: u32,
    /// What the frame is for.
    pub kind: Kind,
    /// Position in the volume.
    pub offset: u64,
    /// Bytes asked for, written or read.
    pub size: u32,
    /// Bytes of data after the header.
    pub data_len: u32,
}

/// Bytes that cannot be a frame; the connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The engine says farewell with a frame without magic.
    #[error("the engine closed the connection (magic {0:#06x})")]
    Magic(u16),
    /// No answer is that long.
    #[error("a frame claims {0} bytes of data")]
    TooLong(u32),
}

impl Header {
    /// The header as it travels.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[2..6].copy_from_slice(&self.seq.to_le_bytes());
        bytes[6..10].copy_from_slice(&self.kind.0.to_le_bytes());
        bytes[10..18].copy_from_slice(&self.offset.to_le_bytes());
        bytes[18..22].copy_from_slice(&self.size.to_le_bytes());
        bytes[22..26].copy_from_slice(&self.data_len.to_le_bytes());
        bytes
    }

    /// Reads a header that has arrived.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let magic = u16::from_le_bytes(part(bytes, 0));
        if magic != MAGIC {
            return Err(WireError::Magic(magic));
        }
        let header = Self {
            seq: u32::from_le_bytes(part(bytes, 2)),
            kind: Kind(u32::from_le_bytes(part(bytes, 6))),
            offset: u64::from_le_bytes(part(bytes, 10)),
            size: u32::from_le_bytes(part(bytes, 18)),
            data_len: u32::from_le_bytes(part(bytes, 22)),
        };
        if header.data_len > MAX_DATA {
            return Err(WireError::TooLong(header.data_len));
        }
        Ok(header)
    }
}

fn part<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_read_looks_as_longhorn_writes_it() {
        let header = Header { seq: 7, kind: Kind::READ, offset: 0x1_0000_0200, size: 4096, data_len: 0 };
        let bytes = [0x01, 0x1b, 7, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0];
        assert_eq!(header.encode(), bytes);
    }

    #[test]
    fn a_farewell_and_a_broken_length_are_refused() {
        assert_eq!(Header::decode(&[0; HEADER_LEN]), Err(WireError::Magic(0)));
        let mut bytes = [0xff; HEADER_LEN];
        bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(WireError::TooLong(u32::MAX)));
    }

    proptest! {
        #[test]
        fn round_trip(seq: u32, kind: u32, offset: u64, size: u32, data_len in 0..=MAX_DATA) {
            let header = Header { seq, kind: Kind(kind), offset, size, data_len };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(mut bytes: [u8; HEADER_LEN], magic: bool) {
            if magic {
                bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
            }
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
