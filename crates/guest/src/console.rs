//! Commands on a running guest, over its second serial port.
//!
//! The guest runs a small loop on that port (the lab's is `e2e/guest/console.sh`) that understands
//! two lines and answers in lines:
//!
//! ```text
//! hello TAG                      -> hello TAG
//! run TAG SECONDS BASE64-SCRIPT  -> begin TAG / BASE64-OUTPUT / end TAG STATUS
//! ```
//!
//! Nothing goes over the network, so this works on a guest that has lost it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest script that fits through the port at once; larger things go by other ways.
pub const SCRIPT_LIMIT: usize = 24 * 1024;

/// Why a command did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be opened: the guest does not run, or another holds it.
    #[error("open the console {path}: {source}")]
    Open {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guest did not answer at all in time.
    #[error("no answer on the console {path} within {waited:?}")]
    Silent {
        /// The socket.
        path: PathBuf,
        /// For how long.
        waited: Duration,
    },
    /// The command had not ended at its deadline.
    #[error("the command on {path} did not end within {waited:?}")]
    Deadline {
        /// The socket.
        path: PathBuf,
        /// For how long.
        waited: Duration,
    },
    /// The guest went away while the command ran.
    #[error("the guest behind {path} went away")]
    Gone {
        /// The socket.
        path: PathBuf,
    },
    /// The script is too long.
    #[error("a script of {size} bytes is longer than the {SCRIPT_LIMIT} that the console takes")]
    TooLong {
        /// Its size.
        size: usize,
    },
    /// The answer makes no sense.
    #[error("the console {path} answered {line:?}")]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// What it said.
        line: String,
    },
}

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 124 when the guest itself ended it at the deadline.
    pub status: i32,
    /// Standard output and standard error, in the order they were written.
    pub bytes: Vec<u8>,
}

impl Output {
    /// The output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Whether the status is 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

/// The console of one guest.
#[derive(Debug, Clone)]
pub struct Console {
    socket: PathBuf,
}

impl Console {
    /// The console behind QEMU's socket at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.socket
    }

    /// Runs `script` in a root shell of the guest, for at most `patience`. Waits within that time
    /// for a guest that is still booting and for other commands on the same port.
    ///
    /// # Errors
    /// When the guest cannot be reached, goes away or does not end the command in time.
    pub fn run(&self, script: &str, patience: Duration) -> Result<Output, Error> {
        if script.len() > SCRIPT_LIMIT {
            return Err(Error::TooLong { size: script.len() });
        }
        let deadline = Instant::now() + patience;
        let _turn = self.turn(deadline, patience)?;
        let mut port = Port::open(&self.socket, deadline)?;
        self.greet(&mut port, patience)?;

        let tag = tag();
        let left = deadline.saturating_duration_since(Instant::now());
        let seconds = left.as_secs().max(1);
        port.send(&format!("run {tag} {seconds} {}\n", STANDARD.encode(script)))?;
        let (begin, end) = (format!("begin {tag}"), format!("end {tag} "));
        let mut encoded = String::new();
        let mut answering = false;
        // The guest ends the command itself at the deadline; leave it a moment to say so.
        port.deadline += Duration::from_secs(3);
        loop {
            let Some(line) = port.line()? else {
                return Err(Error::Deadline { path: self.socket.clone(), waited: patience });
            };
            if line == begin {
                answering = true;
            } else if let Some(status) = line.strip_prefix(&end) {
                let garbled = || Error::Garbled { path: self.socket.clone(), line: line.clone() };
                return Ok(Output {
                    status: status.parse().map_err(|_| garbled())?,
                    bytes: STANDARD.decode(&encoded).map_err(|_| garbled())?,
                });
            } else if answering {
                encoded.push_str(&line);
            }
        }
    }

    /// Says hello until the guest does.
    fn greet(&self, port: &mut Port, patience: Duration) -> Result<(), Error> {
        let end = port.deadline;
        loop {
            let tag = tag();
            port.send(&format!("\nhello {tag}\n"))?;
            port.deadline = end.min(Instant::now() + Duration::from_secs(1));
            let answer = format!("hello {tag}");
            while let Some(line) = port.line()? {
                if line == answer {
                    port.deadline = end;
                    return Ok(());
                }
            }
            if Instant::now() >= end {
                return Err(Error::Silent { path: self.socket.clone(), waited: patience });
            }
        }
    }

    /// QEMU serves one client at a time: take turns.
    fn turn(&self, deadline: Instant, patience: Duration) -> Result<File, Error> {
        let path = self.socket.with_extension("lock");
        let open = |source| Error::Open { path: self.socket.clone(), source };
        let file = File::create(path).map_err(open)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::Error(source)) => return Err(open(source)),
                Err(std::fs::TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(Error::Silent { path: self.socket.clone(), waited: patience });
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
}

/// A connection that reads lines until a deadline.
struct Port {
    path: PathBuf,
    stream: UnixStream,
    deadline: Instant,
    buffer: Vec<u8>,
}

impl Port {
    fn open(path: &Path, deadline: Instant) -> Result<Self, Error> {
        let open = |source| Error::Open { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(open)?;
        stream.set_read_timeout(Some(Duration::from_millis(100))).map_err(open)?;
        Ok(Self { path: path.to_owned(), stream, deadline, buffer: Vec::new() })
    }

    fn send(&mut self, text: &str) -> Result<(), Error> {
        self.stream.write_all(text.as_bytes()).map_err(|_| self.gone())
    }

    /// The next line without its end, or `None` at the deadline.
    fn line(&mut self) -> Result<Option<String>, Error> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_matches(['\r', '\n']).to_owned()));
            }
            if Instant::now() >= self.deadline {
                return Ok(None);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.gone()),
                Ok(count) => self.buffer.extend(chunk.iter().take(count)),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(_) => return Err(self.gone()),
            }
        }
    }

    fn gone(&self) -> Error {
        Error::Gone { path: self.path.clone() }
    }
}

/// A word that no other request of this port has used.
fn tag() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    format!("{:x}-{nanos:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    /// A guest that answers one request with `output` and `status`, after some noise.
    fn guest(socket: &Path, output: &'static [u8], status: i32) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let words: Vec<_> = line.split_whitespace().collect();
                match words.as_slice() {
                    ["hello", tag] => write!(stream, "end old 7\r\nhello {tag}\r\n").unwrap(),
                    ["run", tag, _, script] => {
                        let body = STANDARD.encode(output);
                        write!(stream, "noise\nbegin {tag}\r\n{body}\r\nend {tag} {status}\r\n").unwrap();
                        return String::from_utf8(STANDARD.decode(script).unwrap()).unwrap();
                    }
                    _ => {}
                }
            }
        })
    }

    #[test]
    fn status_and_output_come_back_whatever_else_is_on_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("console");
        let guest = guest(&socket, b"\x00two\nlines\n", 3);
        let output = Console::new(&socket).run("echo \"$HOME\"", Duration::from_secs(5)).unwrap();
        assert_eq!(output.status, 3);
        assert_eq!(output.bytes, b"\x00two\nlines\n");
        assert_eq!(guest.join().unwrap(), "echo \"$HOME\"");
    }

    #[test]
    fn a_guest_that_says_nothing_is_given_up_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("console");
        let _listener = UnixListener::bind(&socket).unwrap();
        let error = Console::new(&socket).run("true", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error}");
    }
}
