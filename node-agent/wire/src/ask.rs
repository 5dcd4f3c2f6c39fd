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
    converse(&stream, request, blobs, patience)
}

/// A loader that will not hear the whole question (a peer that may not speak, a length over its cap)
/// answers and hangs up. Sending breaks then, but the answer that says why waits in our own buffer:
/// a Unix socket gives what arrived before it tells that the other end is gone.
fn converse(
    stream: &UnixStream,
    request: &Request,
    blobs: &[&[u8]],
    patience: Duration,
) -> Result<Answer, AskError> {
    let sent = frame::write(&mut Patient::new(stream, SENDING), request, blobs);
    let hear = || frame::read(&mut Patient::new(stream, patience)).map(|(answer, _)| answer);
    match sent {
        Ok(()) => hear().map_err(AskError::Hear),
        Err(broken) if broken.hung_up() => hear().map_err(|_| AskError::Ask(broken)),
        Err(error) => Err(AskError::Ask(error)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn refusal() -> Answer {
        Answer::Refused { detail: "uid 1000 may not speak to the loader".to_owned() }
    }

    #[test]
    fn the_answer_of_a_loader_that_hung_up_before_the_question_is_heard() {
        let module = vec![0; 1 << 20];
        for blobs in [&[][..], &[module.as_slice()][..]] {
            let (ours, loaders) = UnixStream::pair().unwrap();
            frame::write(&mut &loaders, &refusal(), &[]).unwrap();
            drop(loaders);
            assert_eq!(converse(&ours, &Request::State, blobs, PATIENCE).unwrap(), refusal());
        }
    }

    #[test]
    fn the_answer_of_a_loader_that_hung_up_in_the_middle_of_the_question_is_heard() {
        let (ours, loaders) = UnixStream::pair().unwrap();
        // Longer than the socket's buffer: sending cannot have ended when the other end goes.
        let module = vec![0; 8 << 20];
        let loader = std::thread::spawn(move || {
            let mut loaders = loaders;
            loaders.read_exact(&mut [0; 64]).unwrap();
            frame::write(&mut loaders, &refusal(), &[]).unwrap();
        });
        assert_eq!(converse(&ours, &Request::State, &[&module], PATIENCE).unwrap(), refusal());
        loader.join().unwrap();
    }

    #[test]
    fn a_loader_that_hung_up_without_a_word_could_not_be_asked() {
        let (ours, loaders) = UnixStream::pair().unwrap();
        drop(loaders);
        let asked = converse(&ours, &Request::State, &[], PATIENCE);
        assert!(matches!(asked, Err(AskError::Ask(_))), "{asked:?}");
    }
}
