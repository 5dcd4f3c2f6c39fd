//! What the API server wrote down: who asked for what, when, and with which words.

use std::fs;
use std::io::{self, BufRead as _, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("read the audit log {path}: {source}")]
    Read {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it.
    #[error("line {line} of the audit log: {source}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// One request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Where in the request's life this was written.
    pub stage: Stage,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, ...
    pub verb: String,
    /// The address that was asked for.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who asked.
    pub user: User,
    /// About what; nothing for addresses that are no resource.
    pub object_ref: Option<Object>,
    /// How it ended.
    pub response_status: Option<Status>,
    /// What was sent, where the policy keeps it.
    #[serde(default)]
    pub request_object: Value,
    /// What was answered, where the policy keeps it.
    #[serde(default)]
    pub response_object: Value,
    /// When the API server received it.
    pub request_received_timestamp: Timestamp,
    /// When this was written.
    pub stage_timestamp: Timestamp,
}

/// A stage of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// It came in.
    RequestReceived,
    /// Watches: the answer has begun.
    ResponseStarted,
    /// It is over.
    ResponseComplete,
    /// The API server itself failed.
    Panic,
}

/// Who asked.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// Such as `system:serviceaccount:invivo-system:operator`.
    #[serde(default)]
    pub username: String,
    /// What else was known of it, such as the node of a pod's token.
    #[serde(default)]
    pub extra: Value,
}

/// About what.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// Such as `nodepatches`.
    pub resource: String,
    /// Such as `status`.
    pub subresource: String,
    /// Its name.
    pub name: String,
    /// Its namespace, if it has one.
    pub namespace: String,
    /// Such as `invivo.dev`.
    pub api_group: String,
}

/// How it ended.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The HTTP status.
    pub code: u16,
    /// Why not.
    pub reason: String,
    /// The same for people.
    pub message: String,
}

impl Event {
    /// Whether it was asked to change something.
    pub fn writes(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether it was granted.
    pub fn granted(&self) -> bool {
        self.response_status.as_ref().is_some_and(|status| status.code < 300)
    }

    /// Whether it is about such a resource: `nodepatches`, `nodepatches/status`.
    pub fn concerns(&self, resource: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.object_ref
            .as_ref()
            .is_some_and(|object| object.resource == resource && object.subresource == subresource)
    }

    /// The name of what it is about.
    pub fn name(&self) -> &str {
        self.object_ref.as_ref().map_or("", |object| &object.name)
    }
}

/// All that the log holds, in the order in which it was written. A line that is still being written
/// is left out.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Vec<Event>, Error> {
    read_from(path, 0)
}

/// How long the log is now, in bytes, for [`read_from`].
///
/// # Errors
/// When there is none.
pub fn length(path: &Path) -> Result<u64, Error> {
    let metadata = fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(metadata.len())
}

/// The same as [`read`] for what was written behind so many bytes; a line that had begun before is
/// left out.
///
/// # Errors
/// When it cannot be read.
pub fn read_from(path: &Path, length: u64) -> Result<Vec<Event>, Error> {
    let text = behind(path, length).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&text)
}

fn behind(path: &Path, length: u64) -> io::Result<String> {
    let mut file = io::BufReader::new(fs::File::open(path)?);
    if let Some(before) = length.checked_sub(1) {
        file.seek(io::SeekFrom::Start(before))?;
        file.skip_until(b'\n')?;
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str) -> Result<Vec<Event>, Error> {
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n') && line.trim() != "")
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|source| Error::Line { line: index + 1, source })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","level":"RequestResponse","auditID":"1","stage":"ResponseComplete","requestURI":"/apis/invivo.dev/v1alpha1/nodepatches/node1/status","verb":"patch","user":{"username":"system:serviceaccount:invivo-system:agent","groups":["x"]},"sourceIPs":["10.77.0.11"],"objectRef":{"resource":"nodepatches","name":"node1","apiGroup":"invivo.dev","apiVersion":"v1alpha1","subresource":"status"},"responseStatus":{"metadata":{},"code":200},"requestObject":{"status":{"level":1}},"requestReceivedTimestamp":"2026-11-22T10:00:00.000001Z","stageTimestamp":"2026-11-22T10:00:00.100001Z"}"#;

    #[test]
    fn a_line_that_is_not_finished_waits_for_the_next_time() {
        let events = parse(&format!("{LINE}\n{{\"stage\":")).unwrap();
        assert_eq!(events.len(), 1);
    }

    #[test]
    fn a_line_that_had_begun_before_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        std::fs::write(&path, format!("{LINE}\n{LINE}\n")).unwrap();
        let line = LINE.len() as u64 + 1;
        for (length, left) in [(0, 2), (1, 1), (line - 1, 1), (line, 1), (line + 1, 0), (2 * line, 0)] {
            assert_eq!(read_from(&path, length).unwrap().len(), left, "{length}");
        }
    }

    #[test]
    fn a_write_of_a_status_is_told_from_one_of_a_spec() {
        let events = parse(&format!("{LINE}\n")).unwrap();
        let event = &events[0];
        assert!(event.writes() && event.granted());
        assert!(event.concerns("nodepatches/status"));
        assert!(!event.concerns("nodepatches"));
        assert_eq!(event.name(), "node1");
        assert_eq!(event.request_object["status"]["level"], 1);
    }
}
