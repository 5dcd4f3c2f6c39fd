//! Looks at the patch server: one task for each feed asks for the state of its mirror and, when
//! that has moved, verifies the mirror itself. Plain HTTP inside the cluster, no request to the
//! API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use invivo_api::PatchFeed;
use invivo_feed::Floors;
use invivo_terms::{BuildId, Digest};
use invivo_transport::{Error, Options, Repository};
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::observe::{Sights, Stores};
use crate::queue::jittered;
use crate::sight::{Own, Server, ServerReason, ServerState, Verified};
use crate::signal::{Signal, Signals};

/// How often the patch server is asked for a feed's state.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// How many answers may be missing before the patch server counts as down.
const MISSED: u32 = 3;
/// The longest state, in bytes.
const LONGEST_STATE: usize = 64 << 10;
/// How soon a look that failed is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// One look at a repository, from first to last byte.
const LOOK_WITHIN: Duration = Duration::from_mins(2);

/// Looks after every feed.
pub struct Lookout {
    /// The patch server's base URL, without a slash at its end.
    pub base: String,
    /// For the states.
    pub http: reqwest::Client,
    /// Which feeds and which kernel builds there are.
    pub stores: Arc<Stores>,
    /// Where what is seen goes.
    pub sights: Arc<Sights>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is told.
    pub signals: Arc<Signals>,
}

/// What one task remembers of its feed.
#[derive(Default)]
struct Watched {
    server: Server,
    own: Own,
    verified: Option<Arc<Verified>>,
    missed: u32,
    behind: Duration,
    looked: Option<Looked>,
}

/// What the last look was for.
struct Looked {
    at: Instant,
    root: Digest,
    mirror: Option<Timestamp>,
    builds: BTreeSet<BuildId>,
}

impl Lookout {
    /// Follows the feeds for ever: one task for each.
    pub async fn run(self: Arc<Self>) {
        let mut tasks: BTreeMap<String, AbortHandle> = BTreeMap::new();
        loop {
            if self.stores.feeds.is_complete() {
                // A feed over another one has no mirror of its own.
                let feeds = self.stores.feeds.all().into_iter();
                let feeds: BTreeSet<String> =
                    feeds.filter(|feed| feed.value.root().is_some()).map(|feed| feed.name).collect();
                tasks.retain(|feed, task| {
                    let kept = feeds.contains(feed);
                    if !kept {
                        task.abort();
                    }
                    kept
                });
                self.sights.keep(&feeds);
                for feed in feeds {
                    tasks.entry(feed.clone()).or_insert_with(|| {
                        let this = Arc::clone(&self);
                        tokio::spawn(async move { this.follow(&feed).await }).abort_handle()
                    });
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn follow(&self, name: &str) {
        let mut watched = Watched::default();
        loop {
            if let Some(feed) = self.stores.feeds.get(name)
                && let Some(root) = feed.value.root()
            {
                self.visit(&mut watched, name, &feed.value, root).await;
            }
            tokio::time::sleep(jittered(ASK_EVERY)).await;
        }
    }

    async fn visit(&self, watched: &mut Watched, name: &str, feed: &PatchFeed, root: &Digest) {
        let mut changed = false;
        if watched.looked.as_ref().is_some_and(|looked| looked.root != *root) {
            // Another root is another repository, as far as belief goes.
            *watched = Watched::default();
            changed = true;
        }
        changed |= self.ask(watched, name).await;
        let builds = self.stores.builds().into_keys().collect();
        if is_due(watched, &builds, Timestamp::now(), Instant::now()) {
            changed |= self.look(watched, name, feed, root, &builds).await;
        }
        changed |= self.sights.set_behind(name, watched.behind);
        if changed {
            let verified = watched.verified.clone();
            self.sights.put(name, watched.server.clone(), watched.own.clone(), verified);
            self.signals.tell(Signal::Sight(name.to_owned()));
        }
    }

    /// Asks for the state; whether that is news.
    async fn ask(&self, watched: &mut Watched, name: &str) -> bool {
        let server = match self.state(name).await {
            Ok((server, date)) => {
                watched.missed = 0;
                watched.behind = behind(Timestamp::now(), date);
                server
            }
            Err(detail) => {
                watched.missed = watched.missed.saturating_add(1);
                if watched.missed < MISSED {
                    return false;
                }
                Server::Down { detail }
            }
        };
        if let Server::Says(ServerState { reason: ServerReason::Refused(refusal), attempt, .. }) = &server {
            let counted = matches!(&watched.server, Server::Says(before) if before.attempt == *attempt);
            if !counted {
                self.metrics.feed_refused(name, *refusal);
            }
        }
        let (server, news) = server.after(&watched.server);
        watched.server = server;
        news
    }

    /// The state, and the patch server's clock.
    async fn state(&self, name: &str) -> Result<(Server, Option<Timestamp>), String> {
        let url = format!("{}/feeds/{name}/state", self.base);
        let request = async {
            let mut answer = self.http.get(&url).send().await.map_err(|error| chain(&error))?;
            let date = answer.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
            let date = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
            if answer.status() == reqwest::StatusCode::NOT_FOUND {
                return Ok((Server::NotMirrored, date));
            }
            if !answer.status().is_success() {
                return Err(format!("it answers {}", answer.status()));
            }
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|error| chain(&error))? {
                body.extend_from_slice(&chunk);
                if body.len() > LONGEST_STATE {
                    return Err("its state is too long".to_owned());
                }
            }
            let mut state: ServerState = serde_json::from_slice(&body)
                .map_err(|error| format!("its state does not parse: {error}"))?;
            state.message = state.message.chars().take(900).collect();
            Ok((Server::Says(state), date))
        };
        match tokio::time::timeout(ANSWER_WITHIN, request).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Verifies the mirror; whether what came of it is news.
    async fn look(
        &self,
        watched: &mut Watched,
        name: &str,
        feed: &PatchFeed,
        root: &Digest,
        builds: &BTreeSet<BuildId>,
    ) -> bool {
        let mirror = match &watched.server {
            Server::Says(state) => state.verified,
            Server::NotAsked | Server::NotMirrored | Server::Down { .. } => None,
        };
        watched.looked =
            Some(Looked { at: Instant::now(), root: root.clone(), mirror, builds: builds.clone() });
        let floors =
            watched.verified.as_ref().map_or_else(|| stored_floors(feed), |verified| verified.floors.clone());
        let look = tokio::time::timeout(LOOK_WITHIN, self.verify(name, root, &floors, builds)).await;
        let mut news = false;
        let own = match look {
            Ok(Ok(verified)) => {
                tracing::info!(feed = name, index = verified.floors.index, "mirror verified");
                news = watched.verified.as_ref().is_none_or(|before| **before != verified);
                watched.verified = Some(Arc::new(verified));
                Own::Held
            }
            Ok(Err(Error::Rejected(rejection))) => {
                tracing::warn!(feed = name, refusal = %rejection.refusal, %rejection, "mirror refused");
                self.metrics.feed_refused(name, rejection.refusal);
                let message = format!("{rejection}; {}", rejection.refusal.remedy());
                Own::Refused { refusal: rejection.refusal, message }
            }
            Ok(Err(error @ Error::Unreachable { .. })) => Own::Unreachable { detail: error.to_string() },
            Err(_) => Own::Unreachable { detail: "the mirror took too long".to_owned() },
        };
        let (own, other) = own.after(&watched.own);
        watched.own = own;
        news || other
    }

    async fn verify(
        &self,
        name: &str,
        root: &Digest,
        floors: &Floors,
        builds: &BTreeSet<BuildId>,
    ) -> Result<Verified, Error> {
        let options = Options { minimum_rate: 1024, deadline: Duration::from_secs(30), extra_ca: None };
        let repository = Repository::new(&format!("{}/feeds/{name}/", self.base), options)?;
        let look = repository.look(root, floors, Timestamp::now()).await?;
        let index = look.catalogue.index().clone();
        let mut kernels = BTreeMap::new();
        for build in builds.iter().filter(|build| index.kernels.contains_key(*build)) {
            let bytes = repository.kernel(&look, build).await?;
            let document = look.catalogue.kernel(build, &bytes).map_err(Error::Rejected)?;
            kernels.insert(build.clone(), document);
        }
        let digests = index
            .sets
            .iter()
            .filter_map(|set| Some((set.name.clone(), look.catalogue.set_digest(&set.name)?)))
            .collect();
        Ok(Verified {
            root: root.clone(),
            floors: look.catalogue.floors().clone(),
            expires: look.catalogue.expires(),
            warns: warns(look.catalogue.expires(), look.catalogue.trust().timestamp_days),
            index,
            digests,
            kernels,
        })
    }
}

/// The floors that stand in the feed's status, of the root that is pinned now.
fn stored_floors(feed: &PatchFeed) -> Floors {
    feed.floors().map_or_else(Floors::default, |stored| Floors {
        repository: Some(stored.name.clone()),
        trust: stored.trust_version,
        index: stored.index_version,
        timestamp: stored.timestamp_version,
    })
}

/// Whether the mirror is to be verified now: it has moved, a kernel build is new here, what we
/// have is past its date, or the last look did not end well.
fn is_due(watched: &Watched, builds: &BTreeSet<BuildId>, now: Timestamp, instant: Instant) -> bool {
    let Server::Says(state) = &watched.server else { return false };
    let Some(mirror) = state.verified else { return false };
    let Some(looked) = &watched.looked else { return true };
    if looked.mirror != Some(mirror) {
        return true;
    }
    let unread = |build: &&BuildId| {
        watched.verified.as_ref().is_some_and(|verified| {
            verified.index.kernels.contains_key(*build) && !verified.kernels.contains_key(*build)
        })
    };
    if builds.difference(&looked.builds).any(|build| unread(&build)) {
        return true;
    }
    let expired = watched.verified.as_ref().is_none_or(|verified| verified.expires <= now);
    let lacks = expired || builds.iter().any(|build| unread(&build));
    let ended_well = matches!(watched.own, Own::Held);
    (lacks || !ended_well) && instant.saturating_duration_since(looked.at) >= LOOK_AGAIN
}

/// From when on people are warned that a catalogue expires: a quarter of the life that its trust
/// document gives to timestamps before. A repository that is refreshed in time never comes near it.
fn warns(expires: Timestamp, timestamp_days: u16) -> Timestamp {
    let quarter = SignedDuration::from_hours(6).saturating_mul(timestamp_days.into());
    expires.checked_sub(quarter).unwrap_or(Timestamp::MIN)
}

/// How far the patch server's clock is behind ours: whole minutes, so that the way of an answer
/// and the second that it is rounded to do not count.
fn behind(own: Timestamp, server: Option<Timestamp>) -> Duration {
    let lag = server.and_then(|server| Duration::try_from(own.duration_since(server)).ok());
    Duration::from_secs(lag.unwrap_or_default().as_secs() / 60 * 60)
}

/// An error with its causes, without the URL: that is ours and known.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.is_empty() { "no answer".to_owned() } else { text.chars().take(200).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sight::tests::verified;

    fn watched(mirror: Option<&str>) -> Watched {
        let state =
            serde_json::json!({"attempt": "2026-11-22T12:00:00Z", "verified": mirror, "reason": "Verified"});
        Watched { server: Server::Says(serde_json::from_value(state).unwrap()), ..Watched::default() }
    }

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_mirror_is_verified_once_for_each_time_that_it_moves() {
        let builds = BTreeSet::new();
        let mut watched = watched(Some("2026-11-22T12:00:00Z"));
        let start = Instant::now();
        assert!(is_due(&watched, &builds, now(), start));
        watched.looked = Some(Looked {
            at: start,
            root: "a".repeat(64).parse().unwrap(),
            mirror: Some("2026-11-22T12:00:00Z".parse().unwrap()),
            builds: BTreeSet::new(),
        });
        watched.own = Own::Held;
        let build = "b".repeat(40);
        watched.verified = Some(Arc::new(verified(&[("2026-11-21.1", "stable", "active")], &build)));
        assert!(!is_due(&watched, &builds, now(), start));
        let later = start + Duration::from_hours(1);
        assert!(!is_due(&watched, &builds, now(), later));
        // A kernel build that the repository knows and we have not read about yet: at once, and where
        // that did not end well after a while.
        let builds_here: BTreeSet<BuildId> = [build.parse().unwrap()].into();
        assert!(is_due(&watched, &builds_here, now(), start));
        watched.looked.as_mut().unwrap().builds = builds_here.clone();
        assert!(!is_due(&watched, &builds_here, now(), start));
        assert!(is_due(&watched, &builds_here, now(), later));
        // Past its date.
        assert!(is_due(&watched, &builds, "2027-02-01T00:00:00Z".parse().unwrap(), later));
    }

    #[test]
    fn the_floors_of_a_former_root_are_not_held_against_another() {
        let feed = |root: &str| {
            let feed = serde_json::json!({
                "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {"name": "production"},
                "spec": {"source": {"repository": {"url": "http://x/"}},
                    "trust": {"rootSha256": root.repeat(64)}},
                "status": {"repository": {"rootSha256": "a".repeat(64), "name": "patches", "trustVersion": 1,
                    "indexVersion": 5, "timestampVersion": 9, "expires": "2027-01-01T00:00:00Z"}}
            });
            serde_json::from_value::<PatchFeed>(feed).unwrap()
        };
        assert_eq!(stored_floors(&feed("a")).timestamp, 9);
        assert_eq!(stored_floors(&feed("b")), Floors::default());
    }

    #[test]
    fn people_are_warned_a_quarter_of_a_timestamps_life_ahead() {
        let expires = "2026-11-29T00:00:00Z".parse().unwrap();
        assert_eq!(warns(expires, 7).to_string(), "2026-11-27T06:00:00Z");
        assert_eq!(warns(expires, 1).to_string(), "2026-11-28T18:00:00Z");
    }

    #[test]
    fn only_whole_minutes_of_the_patch_servers_lag_count() {
        let own = now();
        let lag = |seconds| behind(own, Some(own - SignedDuration::from_secs(seconds))).as_secs();
        assert_eq!([lag(59), lag(-3600), lag(3_659)], [0, 0, 3_600]);
        assert_eq!(behind(own, None), Duration::ZERO);
    }

    #[test]
    fn a_feed_that_was_never_mirrored_is_not_looked_at() {
        assert!(!is_due(&watched(None), &BTreeSet::new(), now(), Instant::now()));
        assert!(!is_due(&Watched::default(), &BTreeSet::new(), now(), Instant::now()));
    }
}
