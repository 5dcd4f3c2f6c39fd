//! What is known of a feed: what the patch server said of its last attempt, and what our own
//! look at its mirror came to. The first can only stop loads, never allow one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use invivo_feed::Floors;
use invivo_feed::document::{Index, KernelDocument, SetEntry};
use invivo_terms::{BuildId, Digest, Level, Refusal, SetName, effective_version};
use jiff::Timestamp;
use serde::Deserialize;

use crate::offer::Blocks;
use crate::reason;

/// `GET /feeds/<feed>/state` of the patch server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerState {
    /// When it last tried.
    pub attempt: Timestamp,
    /// When it last succeeded.
    pub verified: Option<Timestamp>,
    /// How the last attempt ended.
    pub reason: ServerReason,
    /// Which document, where one was refused.
    #[serde(default)]
    pub document: Option<String>,
    /// The same for people.
    #[serde(default)]
    pub message: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum ServerReason {
    /// Nothing was refused, or the source did not answer.
    Plain(PlainReason),
    /// A named refusal.
    Refused(Refusal),
}

/// The two ends of an attempt that are not refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PlainReason {
    /// The mirror is what the repository's owner signed.
    Verified,
    /// The repository did not answer.
    Unreachable,
}

/// What the patch server tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Server {
    /// It was not asked yet.
    #[default]
    NotAsked,
    /// It does not know the feed yet.
    NotMirrored,
    /// It does not answer, or not sensibly.
    Down {
        /// What went wrong.
        detail: String,
    },
    /// It answers.
    Says(ServerState),
}

/// What our own look came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Own {
    /// None yet.
    #[default]
    NotLooked,
    /// A document was refused.
    Refused {
        /// Which refusal.
        refusal: Refusal,
        /// For people.
        message: String,
    },
    /// The mirror did not answer.
    Unreachable {
        /// What went wrong.
        detail: String,
    },
    /// It held.
    Held,
}

impl Server {
    /// What is new in `self` after `before`, if anything: instants are not, and neither are other
    /// numbers in the same words. Where nothing is, the words of `before` stay, so that whoever
    /// repeats them repeats them to the letter.
    pub fn after(mut self, before: &Self) -> (Self, bool) {
        let news = match (&mut self, before) {
            (Self::Says(now), Self::Says(was)) => {
                let same = (now.reason, &now.document) == (was.reason, &was.document)
                    && same_words(&now.message, &was.message);
                if same {
                    now.message.clone_from(&was.message);
                }
                !same || now.verified.is_some() != was.verified.is_some()
            }
            (Self::Down { detail }, Self::Down { detail: was }) => {
                let same = same_words(detail, was);
                if same {
                    detail.clone_from(was);
                }
                !same
            }
            (now, was) => *now != *was,
        };
        (self, news)
    }
}

impl Own {
    /// As [`Server::after`].
    pub fn after(mut self, before: &Self) -> (Self, bool) {
        let news = match (&mut self, before) {
            (Self::Refused { refusal, message }, Self::Refused { refusal: named, message: was }) => {
                let same = *refusal == *named && same_words(message, was);
                if same {
                    message.clone_from(was);
                }
                !same
            }
            (now, was) => *now != *was,
        };
        (self, news)
    }
}

/// Whether two messages differ in numbers and instants at most.
fn same_words(one: &str, other: &str) -> bool {
    let words = |text: &'_ str| -> Vec<u8> {
        text.bytes().filter(|byte| !byte.is_ascii_digit() && *byte != b'.').collect()
    };
    words(one) == words(other)
}

/// A verified catalogue as plain data.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The root that it was verified from.
    pub root: Digest,
    /// The versions that it has.
    pub floors: Floors,
    /// When the first of its documents expires.
    pub expires: Timestamp,
    /// From when on people are warned of that: a quarter of the life of the repository's timestamps
    /// before.
    pub warns: Timestamp,
    /// The index.
    pub index: Index,
    /// The digest of each set.
    pub digests: BTreeMap<SetName, Digest>,
    /// The kernel documents of the builds in this fleet.
    pub kernels: BTreeMap<BuildId, KernelDocument>,
}

/// All that is known of one feed.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// What the patch server tells.
    pub server: Server,
    /// What our own last look came to.
    pub own: Own,
    /// The last catalogue that held; kept through later trouble, used only while nothing is refused.
    pub verified: Option<Arc<Verified>>,
    /// The last one whose floors stand in the feed's status. Only this one is planned with.
    pub stored: Option<Arc<Verified>>,
    /// How far the patch server's clock is behind ours, in whole minutes. What is withheld is
    /// withheld by the earlier of the two.
    pub behind: Duration,
}

/// What may be done with a feed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet; it is being found out.
    Pending {
        /// For people.
        message: String,
    },
    /// Something was refused. Nothing new starts.
    Refused {
        /// The name.
        refusal: Refusal,
        /// For people.
        message: String,
    },
    /// Something does not answer.
    Unreachable {
        /// For people.
        message: String,
        /// The mirror still serves what was verified before.
        usable: bool,
    },
    /// All is well, but not for long.
    ExpiresSoon {
        /// For people.
        message: String,
    },
    /// All is well.
    Verified,
}

impl Verdict {
    /// Condition reason, Event reason and metric label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Pending { .. } => reason::Feed::Pending.as_str(),
            Self::Refused { refusal, .. } => refusal.as_str(),
            Self::Unreachable { .. } => reason::Feed::Unreachable.as_str(),
            Self::ExpiresSoon { .. } => reason::Feed::ExpiresSoon.as_str(),
            Self::Verified => reason::Feed::Verified.as_str(),
        }
    }

    /// Whether new loads may start.
    pub const fn allows(&self) -> bool {
        match self {
            Self::Verified | Self::ExpiresSoon { .. } | Self::Unreachable { usable: true, .. } => true,
            Self::Pending { .. } | Self::Refused { .. } | Self::Unreachable { usable: false, .. } => false,
        }
    }
}

impl Sight {
    /// Whether a catalogue of it was verified from another root than this one.
    pub fn is_of_another_root(&self, root: &Digest) -> bool {
        self.verified.iter().chain(&self.stored).any(|verified| verified.root != *root)
    }

    /// Judges at `now`. What we refuse ourselves comes first, then what the patch server refused.
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        if let Own::Refused { refusal, message } = &self.own {
            return Verdict::Refused { refusal: *refusal, message: message.clone() };
        }
        let state = match &self.server {
            Server::NotAsked => {
                return Verdict::Pending { message: "the patch server is being asked".to_owned() };
            }
            Server::NotMirrored => {
                let message = "the patch server has not tried this feed yet; see its log if this lasts";
                return Verdict::Pending { message: message.to_owned() };
            }
            Server::Down { detail } => {
                let message = format!("the patch server does not answer ({detail}): see its pod and Service");
                return Verdict::Unreachable { message, usable: false };
            }
            Server::Says(state) => state,
        };
        if let ServerReason::Refused(refusal) = state.reason {
            return Verdict::Refused { refusal, message: told(refusal, state) };
        }
        let Some(verified) = &self.verified else {
            return self.without_catalogue(state);
        };
        if verified.expires <= now {
            let refusal = Refusal::Expired;
            let message =
                format!("the catalogue is past {}: {refusal}; {}", verified.expires, refusal.remedy());
            return Verdict::Refused { refusal, message };
        }
        if let Own::Unreachable { detail } = &self.own {
            let message = format!("the mirror does not answer ({detail}); what was verified before holds");
            return Verdict::Unreachable { message, usable: true };
        }
        match state.reason {
            ServerReason::Plain(PlainReason::Verified) if verified.warns <= now => Verdict::ExpiresSoon {
                message: format!(
                    "no new load starts after {}: {}",
                    verified.expires,
                    Refusal::Expired.remedy()
                ),
            },
            ServerReason::Plain(PlainReason::Verified) => Verdict::Verified,
            ServerReason::Plain(PlainReason::Unreachable) => Verdict::Unreachable {
                message: format!(
                    "the repository does not answer ({}); what was verified before holds until {}",
                    state.message, verified.expires
                ),
                usable: true,
            },
            ServerReason::Refused(refusal) => Verdict::Refused { refusal, message: told(refusal, state) },
        }
    }

    fn without_catalogue(&self, state: &ServerState) -> Verdict {
        match (&self.own, state.reason) {
            (_, ServerReason::Plain(PlainReason::Unreachable)) => Verdict::Unreachable {
                message: format!("the repository does not answer ({})", state.message),
                usable: false,
            },
            (Own::Unreachable { detail }, _) => Verdict::Unreachable {
                message: format!("the mirror does not answer ({detail})"),
                usable: false,
            },
            (Own::NotLooked | Own::Held | Own::Refused { .. }, _) => {
                Verdict::Pending { message: "the mirror is being verified".to_owned() }
            }
        }
    }
}

/// What the patch server tells of a refusal: document, name, details, what to do. Its own words
/// where they are complete.
fn told(refusal: Refusal, state: &ServerState) -> String {
    if state.message.contains(refusal.as_str()) {
        return state.message.clone();
    }
    let document = state.document.as_deref().unwrap_or("document");
    format!("{document}: {refusal}: {}; {}", state.message, refusal.remedy())
}

impl Verified {
    /// What the planner may choose from, in order of publication.
    pub fn sets(&self, blocks: &Blocks) -> Vec<invivo_rollout::Set> {
        self.index
            .sets
            .iter()
            .filter_map(|set| {
                let kernels = set.kernels.iter().map(|(build, kernel)| {
                    let kernel =
                        invivo_rollout::SetKernel { level: kernel.level, manifest: kernel.manifest.clone() };
                    (build.clone(), kernel)
                });
                Some(invivo_rollout::Set {
                    name: set.name.clone(),
                    digest: self.digests.get(&set.name)?.clone(),
                    blocked: blocks
                        .get(&set.name)
                        .map(|why| invivo_rollout::Blocked { reason: why.block(), until: why.until() }),
                    kernels: kernels.collect(),
                })
            })
            .collect()
    }

    /// The newest set that `Latest` may choose.
    pub fn latest(&self, blocks: &Blocks) -> Option<&SetEntry> {
        self.index.latest(|set| !blocks.contains_key(&set.name))
    }

    /// The highest level that an eligible set brings to this build.
    pub fn level(&self, build: &BuildId, blocks: &Blocks) -> Option<Level> {
        let eligible = self.index.sets.iter().filter(|set| !blocks.contains_key(&set.name));
        eligible.filter_map(|set| set.kernels.get(build)).map(|kernel| kernel.level).max()
    }

    /// What a scanner may believe of a node of this build at this level.
    pub fn effective(&self, build: &BuildId, level: Level) -> Option<String> {
        let document = self.kernels.get(build)?;
        let complete = document.level(level)?.complete.as_deref();
        Some(effective_version(&document.kernel.version, level, complete))
    }
}

#[cfg(test)]
pub(crate) mod tests;
