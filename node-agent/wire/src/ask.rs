//! One question to the loader: connect, ask, hear the answer, close.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::frame::{self, FrameError};
use crate::{Answer, Request};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("connecting to the loader")]
    Connect(#[source] io::Error),
    /// The question could not be sent.
    #[error("asking the loader")]
    Ask(#[source] FrameError),
    /// No answer came in time, or not one that can be read.
    #[error("hearing the loader's answer")]
    Hear(#[source] FrameError),
}

/// Longest that sending the question may take.
const SENDING: Duration = Duration::from_secs(30);

/// Asks the loader behind `socket` one thing and waits up to `patience` for the answer.
///
/// # Errors
///
/// `Connect`, `Ask`, `Hear`; after any of them the loader's state is unknown and must be asked for.
pub fn ask(
    socket: &Path,
    request: &Request,
    blobs: &[&[u8]],
    patience: Duration,
) -> Result<Answer, AskError> {
    let stream = UnixStream::connect(socket).map_err(AskError::Connect)?;
    frame::write(&mut Patient::new(&stream, SENDING), request, blobs).map_err(AskError::Ask)?;
    let (answer, _) = frame::read(&mut Patient::new(&stream, patience)).map_err(AskError::Hear)?;
    Ok(answer)
}

/// A socket with one deadline over all reads and writes, so that a peer that sends one byte at a
/// time cannot hold it for ever.
#[derive(Debug)]
pub struct Patient<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> Patient<'a> {
    /// Gives `stream` this long from now.
    pub fn new(stream: &'a UnixStream, patience: Duration) -> Self {
        Self { stream, until: Instant::now() + patience }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        stream.write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
