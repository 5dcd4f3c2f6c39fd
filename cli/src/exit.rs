//! How a command ends, for scripts.

use std::error::Error;
use std::process::ExitCode;

use invivo_terms::Refusal;

/// How a command ends. The numbers are promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, and what was checked is good.
    Done,
    /// 1: it could not be done.
    Error,
    /// 2: the command line is wrong.
    Usage,
    /// 3: something was not believed: a named refusal.
    Refused,
    /// 4: a server or the cluster did not answer.
    Unreachable,
    /// 5: what was named is not there.
    Missing,
    /// 6: the cluster does not allow it: a right is missing, or an admission policy refuses.
    Denied,
    /// 7: what was asked about is not in order.
    Trouble,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unreachable => 4,
            Self::Missing => 5,
            Self::Denied => 6,
            Self::Trouble => 7,
        }
    }

    /// When a command ends so, for the help and the documentation.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done, or it was so already",
            Self::Error => "it could not be done",
            Self::Usage => "the command line is wrong",
            Self::Refused => "something was not believed (a named refusal)",
            Self::Unreachable => "a server or the cluster did not answer",
            Self::Missing => "what was named is not there",
            Self::Denied => {
                "the cluster does not allow it: a right is missing, or an admission policy refuses"
            }
            Self::Trouble => {
                "what was asked about is not in order (`preflight`: a node cannot be patched; \
                 `watch --wait`: the policy is stalled, or not through in time)"
            }
        }
    }

    /// Every end there is, by number.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Error,
        Self::Usage,
        Self::Refused,
        Self::Unreachable,
        Self::Missing,
        Self::Denied,
        Self::Trouble,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The end of a command that did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// What happened and what to do, for people.
    pub message: String,
    /// The named refusal, where there is one.
    pub refusal: Option<Refusal>,
}

impl Failure {
    /// An error in words.
    pub fn error(message: impl Into<String>) -> Self {
        Self { exit: Exit::Error, message: message.into(), refusal: None }
    }

    /// Something did not answer.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, ..Self::error(message) }
    }

    /// What was named is not there.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { exit: Exit::Missing, ..Self::error(message) }
    }

    /// The cluster does not allow it.
    pub fn denied(message: impl Into<String>) -> Self {
        Self { exit: Exit::Denied, ..Self::error(message) }
    }

    /// What was asked about is not in order.
    pub fn trouble(message: impl Into<String>) -> Self {
        Self { exit: Exit::Trouble, ..Self::error(message) }
    }

    /// Something is not believed, without a named refusal.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, ..Self::error(message) }
    }

    /// An error with everything that led to it.
    pub fn of(error: &dyn Error) -> Self {
        Self::error(chain(error))
    }

    /// The same, said of `what`.
    #[must_use]
    pub fn while_doing(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<invivo_feed::Rejection> for Failure {
    fn from(rejection: invivo_feed::Rejection) -> Self {
        let message = format!("{rejection}\n  {}", rejection.refusal.remedy());
        Self { exit: Exit::Refused, message, refusal: Some(rejection.refusal) }
    }
}

impl From<invivo_transport::Error> for Failure {
    fn from(error: invivo_transport::Error) -> Self {
        match error {
            invivo_transport::Error::Rejected(rejection) => rejection.into(),
            unreachable @ invivo_transport::Error::Unreachable { .. } => {
                Self::unreachable(format!("{}\n  check the address and the way to it", chain(&unreachable)))
            }
        }
    }
}

/// An error and its sources, in one line, each said once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        next = source.source();
    }
    text
}
