//! Two clocks: the machine's own, and what a server says in its `Date` header.

use jiff::Timestamp;

/// What is known of the time. Expiry is judged by the later clock, withholding by the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// The machine's own.
    pub own: Timestamp,
    /// The server's, where one was heard.
    pub server: Option<Timestamp>,
}

impl Clocks {
    /// For "is this past its date".
    pub fn later(&self) -> Timestamp {
        self.server.map_or(self.own, |server| self.own.max(server))
    }

    /// For "is this old enough already".
    pub fn earlier(&self) -> Timestamp {
        self.server.map_or(self.own, |server| self.own.min(server))
    }
}
