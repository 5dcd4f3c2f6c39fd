//! Frames: `u32` little-endian length of the head, `u32` count of blobs, then the head as JSON,
//! then each blob behind its own `u32` length. Every length is checked before anything is read.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest head, in bytes.
pub const MAX_HEAD: u32 = 64 << 10;
/// The longest blob: a module.
pub const MAX_BLOB: u32 = 16 << 20;
/// The most blobs: a proof and a module.
pub const MAX_BLOBS: u32 = 2;

/// Why a frame was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer went away or was too slow.
    #[error("reading or writing the socket")]
    Io(#[from] io::Error),
    /// A length is over its cap.
    #[error("{what} of {length} over the limit of {limit}")]
    TooLong {
        /// Which length.
        what: &'static str,
        /// As announced.
        length: u32,
        /// As allowed.
        limit: u32,
    },
    /// The head is not what it should be.
    #[error("head does not parse")]
    Head(#[from] serde_json::Error),
}

impl FrameError {
    /// The other end went away while something was being sent: what it said before may wait to be read.
    pub fn hung_up(&self) -> bool {
        match self {
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            }
            Self::TooLong { .. } | Self::Head(_) => false,
        }
    }
}

/// Writes one message.
///
/// # Errors
///
/// `TooLong` for a message that no peer would take; `Io`.
pub fn write<T: Serialize>(to: &mut impl Write, head: &T, blobs: &[&[u8]]) -> Result<(), FrameError> {
    to.write_all(&beginning(head, blobs.len())?)?;
    for blob in blobs {
        to.write_all(&blob_length(blob)?)?;
        to.write_all(blob)?;
    }
    to.flush()?;
    Ok(())
}

/// A message up to its first blob, which goes over the socket at once: whoever waits for it wakes once.
///
/// # Errors
///
/// `TooLong`, `Head`.
pub fn beginning<T: Serialize>(head: &T, blobs: usize) -> Result<Vec<u8>, FrameError> {
    let head = serde_json::to_vec(head)?;
    let lengths = [checked("head", head.len(), MAX_HEAD)?, checked("number of blobs", blobs, MAX_BLOBS)?];
    Ok([lengths.map(u32::to_le_bytes).as_flattened(), &head].concat())
}

/// What stands before a blob.
///
/// # Errors
///
/// `TooLong`.
pub fn blob_length(blob: &[u8]) -> Result<[u8; 4], FrameError> {
    Ok(checked("blob", blob.len(), MAX_BLOB)?.to_le_bytes())
}

/// What a message begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Bytes of the head.
    pub head: u32,
    /// How many blobs follow it.
    pub blobs: u32,
}

impl Lengths {
    /// Of the first bytes.
    ///
    /// # Errors
    ///
    /// `TooLong`.
    pub fn of([head, blobs]: [[u8; 4]; 2]) -> Result<Self, FrameError> {
        Ok(Self {
            head: allowed("head", u32::from_le_bytes(head), MAX_HEAD)?,
            blobs: allowed("number of blobs", u32::from_le_bytes(blobs), MAX_BLOBS)?,
        })
    }
}

/// Reads one message.
///
/// # Errors
///
/// `TooLong` before anything of that length is read; `Head`; `Io`.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<(T, Vec<Vec<u8>>), FrameError> {
    let mut bytes = [[0; 4]; 2];
    from.read_exact(bytes.as_flattened_mut())?;
    let lengths = Lengths::of(bytes)?;
    let head = serde_json::from_slice(&exactly(from, lengths.head)?)?;
    let blobs = (0..lengths.blobs)
        .map(|_| {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes)?;
            let length = allowed("blob", u32::from_le_bytes(bytes), MAX_BLOB)?;
            exactly(from, length)
        })
        .collect::<Result<_, _>>()?;
    Ok((head, blobs))
}

fn checked(what: &'static str, length: usize, limit: u32) -> Result<u32, FrameError> {
    allowed(what, u32::try_from(length).unwrap_or(u32::MAX), limit)
}

fn allowed(what: &'static str, length: u32, limit: u32) -> Result<u32, FrameError> {
    if length > limit { Err(FrameError::TooLong { what, length, limit }) } else { Ok(length) }
}

/// Grows with what arrives, so that an announced length alone takes no memory.
fn exactly(from: &mut impl Read, length: u32) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    let got = from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if got as u64 == u64::from(length) {
        Ok(bytes)
    } else {
        Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let mut wire = Vec::new();
        write(&mut wire, &"head", &[b"proof", b""]).unwrap();
        let (head, blobs): (String, _) = read(&mut wire.as_slice()).unwrap();
        assert_eq!((head.as_str(), blobs), ("head", vec![b"proof".to_vec(), Vec::new()]));
    }

    #[test]
    fn head_and_lengths_arrive_in_one_piece() {
        struct Pieces(Vec<usize>);
        impl Write for Pieces {
            fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
                self.0.push(piece.len());
                Ok(piece.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut pieces = Pieces(Vec::new());
        write(&mut pieces, &"head", &[]).unwrap();
        assert_eq!(pieces.0, [2 * 4 + "\"head\"".len()]);
    }

    #[test]
    fn an_announced_length_over_the_cap_is_refused_before_it_is_read() {
        for wire in [
            [(MAX_HEAD + 1).to_le_bytes(), 0u32.to_le_bytes()].concat(),
            [2u32.to_le_bytes(), (MAX_BLOBS + 1).to_le_bytes()].concat(),
            [2u32.to_le_bytes(), 1u32.to_le_bytes(), *b"\"\"  ", (MAX_BLOB + 1).to_le_bytes()].concat(),
        ] {
            assert!(read::<String>(&mut wire.as_slice()).is_err());
        }
    }

    #[test]
    fn a_message_cut_short_is_an_error_and_not_a_shorter_message() {
        let mut wire = Vec::new();
        write(&mut wire, &"head", &[b"module"]).unwrap();
        for cut in 0..wire.len() {
            assert!(read::<String>(&mut wire.get(..cut).unwrap()).is_err(), "cut at {cut}");
        }
    }
}
