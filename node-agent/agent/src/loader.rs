//! The loader, asked over its socket. One connection for one question, and no thread beside the one
//! that there is: each that wakes costs a node at rest.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use invivo_wire::frame::{self, FrameError, Lengths};
use invivo_wire::{Answer, AskError, Request, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// For questions that the loader answers at once; it may be busy with its own start.
const AT_ONCE: Duration = Duration::from_secs(30);
/// Longest that sending the question may take.
const SENDING: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The socket.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It will not speak to us.
    #[error("the loader refuses: {0}")]
    Refused(String),
    /// It answered another question.
    #[error("the loader answered another question")]
    OtherAnswer,
}

/// Where the loader listens.
#[derive(Debug, Clone)]
pub struct Loader {
    socket: PathBuf,
}

impl Loader {
    /// Behind this socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// How things stand.
    ///
    /// # Errors
    ///
    /// See [`LoaderError`].
    pub async fn state(&self) -> Result<State, LoaderError> {
        self.ask(Request::State, Vec::new(), AT_ONCE).await
    }

    /// How things stand, once the loader has looked at modules that came or went.
    ///
    /// # Errors
    ///
    /// See [`LoaderError`].
    pub async fn look(&self) -> Result<State, LoaderError> {
        self.ask(Request::Look, Vec::new(), AT_ONCE).await
    }

    /// Has the loader take room for so many bytes, before they are fetched. A loader that does not know
    /// the question says so: it looks for room when it is passed them.
    ///
    /// # Errors
    ///
    /// See [`LoaderError`].
    pub async fn reserve(&self, bytes: u64) -> Result<State, LoaderError> {
        self.ask(Request::Reserve { bytes }, Vec::new(), AT_ONCE).await
    }

    /// Asks for something and waits up to `patience` for how things stand afterwards.
    ///
    /// # Errors
    ///
    /// See [`LoaderError`].
    pub async fn ask(
        &self,
        request: Request,
        blobs: Vec<Vec<u8>>,
        patience: Duration,
    ) -> Result<State, LoaderError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(AskError::Connect)?;
        match converse(stream, &request, &blobs, patience).await? {
            Answer::State(state) => Ok(*state),
            Answer::Refused { detail } => Err(LoaderError::Refused(detail)),
            Answer::Cleared { .. } => Err(LoaderError::OtherAnswer),
        }
    }
}

/// A loader that will not hear the whole question answers and hangs up: sending breaks then, but the
/// answer that says why waits in our own buffer.
async fn converse(
    mut stream: UnixStream,
    request: &Request,
    blobs: &[Vec<u8>],
    patience: Duration,
) -> Result<Answer, AskError> {
    let sent = within(SENDING, send(&mut stream, request, blobs)).await;
    let heard = |stream| within(patience, hear(stream));
    match sent {
        Ok(()) => heard(stream).await.map_err(AskError::Hear),
        Err(broken) if broken.hung_up() => heard(stream).await.map_err(|_| AskError::Ask(broken)),
        Err(error) => Err(AskError::Ask(error)),
    }
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, FrameError>>,
) -> Result<T, FrameError> {
    let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
    tokio::time::timeout(patience, work).await.unwrap_or_else(late)
}

async fn send(stream: &mut UnixStream, request: &Request, blobs: &[Vec<u8>]) -> Result<(), FrameError> {
    stream.write_all(&frame::beginning(request, blobs.len())?).await?;
    for blob in blobs {
        stream.write_all(&frame::blob_length(blob)?).await?;
        stream.write_all(blob).await?;
    }
    Ok(())
}

/// Answers have no blobs.
async fn hear(mut stream: UnixStream) -> Result<Answer, FrameError> {
    let mut bytes = [[0; 4]; 2];
    stream.read_exact(bytes.as_flattened_mut()).await?;
    let mut head = vec![0; Lengths::of(bytes)?.head as usize];
    stream.read_exact(&mut head).await?;
    Ok(serde_json::from_slice(&head)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Answer {
        Answer::Refused { detail: "uid 1000 may not speak to the loader".to_owned() }
    }

    #[tokio::test]
    async fn the_answer_of_a_loader_that_hung_up_before_or_in_the_middle_of_the_question_is_heard() {
        for read in [0, 64] {
            // Longer than the socket's buffer: sending cannot have ended when the other end goes.
            let blobs = [vec![0; 8 << 20]];
            let (ours, mut loaders) = UnixStream::pair().unwrap();
            let loader = async move {
                loaders.read_exact(&mut vec![0; read]).await.unwrap();
                loaders.write_all(&frame::beginning(&refusal(), 0).unwrap()).await.unwrap();
            };
            let (answer, ()) = tokio::join!(converse(ours, &Request::State, &blobs, AT_ONCE), loader);
            assert_eq!(answer.unwrap(), refusal());
        }
    }

    #[tokio::test]
    async fn a_loader_that_hung_up_without_a_word_could_not_be_asked_and_one_that_says_none_is_not_waited_for()
     {
        let (ours, loaders) = UnixStream::pair().unwrap();
        drop(loaders);
        let asked = converse(ours, &Request::State, &[], AT_ONCE).await;
        assert!(matches!(asked, Err(AskError::Ask(_))), "{asked:?}");
        let (ours, _loaders) = UnixStream::pair().unwrap();
        let asked = converse(ours, &Request::State, &[], Duration::from_millis(50)).await;
        let Err(AskError::Hear(FrameError::Io(error))) = asked else { panic!("{asked:?}") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
