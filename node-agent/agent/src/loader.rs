//! The loader, asked over its socket. One connection for one question.

use std::path::PathBuf;
use std::time::Duration;

use invivo_wire::{Answer, AskError, Request, State, ask};

/// For questions that the loader answers at once; it may be busy with its own start.
const AT_ONCE: Duration = Duration::from_secs(30);

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
    /// The thread that asked is gone.
    #[error("asking the loader was cut short")]
    CutShort(#[source] tokio::task::JoinError),
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
        let socket = self.socket.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let blobs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
            ask(&socket, &request, &blobs, patience)
        });
        match asked.await.map_err(LoaderError::CutShort)?? {
            Answer::State(state) => Ok(*state),
            Answer::Refused { detail } => Err(LoaderError::Refused(detail)),
            Answer::Cleared { .. } => Err(LoaderError::OtherAnswer),
        }
    }
}
