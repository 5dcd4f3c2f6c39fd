//! `watch`: live progress by stage.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures::{Stream, StreamExt};
use invivo_terms::HumanDuration;
use jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use serde::Serialize;

use super::Call;
use super::connect::{Connection, failure};
use super::object::{Kind, Object};
use super::progress::Progress;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

/// How often the times on a terminal are told anew.
const REDRAW: Duration = Duration::from_secs(10);

/// `watch`
#[derive(Debug, Args)]
pub struct WatchArguments {
    /// The PatchPolicy; all of them where it is left out.
    pub(super) policy: Option<String>,
    /// End when the policy is Ready (0) or stalled (7).
    #[arg(long, requires = "policy")]
    pub(super) wait: bool,
    /// With --wait: end after this long (7).
    #[arg(long, requires = "wait", value_name = "DURATION")]
    pub(super) timeout: Option<HumanDuration>,
    #[command(flatten)]
    pub(super) call: Call,
}

/// One line for machines.
#[derive(Debug, Serialize)]
struct Line<'a> {
    now: Timestamp,
    #[serde(flatten)]
    progress: &'a Progress,
}

/// How the answers go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The screen is drawn anew.
    Screen,
    /// A line for each change.
    Lines,
    /// One JSON object a line for each change.
    Json,
    /// One YAML document for each change.
    Yaml,
}

/// What is known of the policies while they are watched.
#[derive(Debug, Default)]
pub(super) struct Watched {
    policies: BTreeMap<String, Progress>,
    /// Seen by the list that is being read, which replaces what was known.
    listing: Option<BTreeMap<String, Progress>>,
}

/// What an event changed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct News {
    /// Policies that are further, or new.
    pub moved: Vec<Progress>,
    /// Policies that are gone.
    pub gone: Vec<String>,
    /// Everything has been read once.
    pub complete: bool,
}

impl Watched {
    /// Takes an event in.
    pub(super) fn take(&mut self, event: Event<Object>) -> News {
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                News::default()
            }
            Event::InitApply(policy) => {
                let progress = Progress::of(&policy);
                if let Some(listing) = &mut self.listing {
                    listing.insert(progress.policy.clone(), progress);
                }
                News::default()
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let gone = self.policies.keys().filter(|name| !listed.contains_key(*name)).cloned().collect();
                let moved = listed
                    .values()
                    .filter(|progress| self.policies.get(&progress.policy) != Some(progress))
                    .cloned()
                    .collect();
                self.policies = listed;
                News { moved, gone, complete: true }
            }
            Event::Apply(policy) => {
                let progress = Progress::of(&policy);
                let before = self.policies.insert(progress.policy.clone(), progress.clone());
                let moved = if before.as_ref() == Some(&progress) { Vec::new() } else { vec![progress] };
                News { moved, ..News::default() }
            }
            Event::Delete(policy) => {
                let gone: Vec<_> =
                    self.policies.remove(policy.name()).into_iter().map(|progress| progress.policy).collect();
                News { gone, ..News::default() }
            }
        }
    }
}

/// Watches until it is interrupted, or with `wait` until there is an end.
///
/// # Errors
///
/// There is no such policy, it went away, or the API server does not let it be watched.
pub(super) async fn watch(connection: &Connection, asked: &WatchArguments) -> Result<Exit, Failure> {
    if let Some(policy) = &asked.policy {
        connection.object(Kind::Policy, policy).await?;
    }
    let look = match asked.call.output {
        Format::Table if std::io::stdout().is_terminal() => Look::Screen,
        Format::Table => Look::Lines,
        Format::Json => Look::Json,
        Format::Yaml => Look::Yaml,
    };
    let following = follow(connection.policies(asked.policy.as_deref()), asked, look);
    match asked.timeout {
        None => following.await,
        Some(limit) => tokio::time::timeout(limit.get(), following).await.unwrap_or_else(|_| {
            Err(Failure::trouble(format!("the policy is not through after {limit}; it goes on by itself")))
        }),
    }
}

async fn follow(
    events: impl Stream<Item = watcher::Result<Event<DynamicObject>>>,
    asked: &WatchArguments,
    look: Look,
) -> Result<Exit, Failure> {
    let mut events = pin!(events);
    let mut watched = Watched::default();
    let mut redraw = tokio::time::interval(REDRAW);
    loop {
        let news = tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => watched.take(map(event)?),
                Some(Err(error)) => {
                    bearable(&error)?;
                    continue;
                }
                None => return Err(Failure::unreachable("the watch ended")),
            },
            _ = redraw.tick(), if look == Look::Screen => News::default(),
        };
        say(look, &watched, &news)?;
        let Some(policy) = &asked.policy else { continue };
        if news.gone.contains(policy) || (news.complete && !watched.policies.contains_key(policy)) {
            return Err(Failure::missing(format!("PatchPolicy {policy} is not there any more")));
        }
        match watched.policies.get(policy).filter(|_| asked.wait) {
            Some(progress) if progress.through => return Ok(Exit::Done),
            Some(progress) if progress.stalled => {
                return Err(Failure::trouble(format!("{}: {}", progress.reason, progress.message)));
            }
            Some(_) | None => {}
        }
    }
}

fn map(event: Event<DynamicObject>) -> Result<Event<Object>, Failure> {
    let object = |object: DynamicObject| {
        serde_json::to_value(object).map(|v| Object::new(Kind::Policy, v)).map_err(|e| Failure::of(&e))
    };
    Ok(match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(policy) => Event::InitApply(object(policy)?),
        Event::Apply(policy) => Event::Apply(object(policy)?),
        Event::Delete(policy) => Event::Delete(object(policy)?),
    })
}

/// A server that is away comes back, and the watch is taken up again; a refusal does not go away.
fn bearable(error: &watcher::Error) -> Result<(), Failure> {
    let refused = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404))
                .then_some(error)
        }
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    };
    if let Some(error) = refused {
        return Err(failure(error, "watching PatchPolicies"));
    }
    eprintln!("invivo: {}; tried again", crate::exit::chain(error));
    Ok(())
}

fn say(look: Look, watched: &Watched, news: &News) -> Result<(), Failure> {
    let now = Timestamp::now();
    if look == Look::Screen {
        if watched.listing.is_some() {
            return Ok(());
        }
        let mut text = "\u{1b}[2J\u{1b}[H".to_owned();
        for progress in watched.policies.values() {
            text = format!("{text}{}\n", progress.shown(now));
        }
        output::write(&text);
        return Ok(());
    }
    for progress in &news.moved {
        let line = Line { now, progress };
        match look {
            Look::Json => {
                output::write(&format!("{}\n", serde_json::to_string(&line).map_err(|e| Failure::of(&e))?));
            }
            Look::Yaml => {
                let value = serde_json::to_value(&line).map_err(|e| Failure::of(&e))?;
                let text = serde_saphyr::to_string(&value).map_err(|e| Failure::of(&e))?;
                output::write(&format!("---\n{text}"));
            }
            Look::Lines | Look::Screen => output::write(&format!("{now:.0} {}\n", progress.line())),
        }
    }
    for policy in news.gone.iter().filter(|_| look == Look::Lines) {
        output::write(&format!("{now:.0} {policy} is gone\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use serde_json::{Value, json};

    fn policy(done: u64, ready: bool, stalled: bool) -> Value {
        let condition = |kind: &str, on: bool, reason: &str| json!({"type": kind, "status": if on { "True" } else { "False" }, "reason": reason, "message": "m"});
        json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy",
            "metadata": {"name": "workers", "uid": "u", "generation": 2},
            "spec": {"feed": "production", "rollout": {"stages": [
                {"name": "canary", "nodeSelector": {"matchLabels": {"canary": "true"}}},
                {"name": "early", "nodeSelector": {"matchLabels": {"early": "true"}}}]}},
            "status": {
                "observedGeneration": 2,
                "conditions": [condition("Ready", ready, "StageSoaking"), condition("Stalled", stalled, "FailureBudgetSpent")],
                "rollout": {"key": {"number": 3, "target": "2026-11-21.1"}, "complete": ready},
                "stage": {"name": "early", "index": 1, "soakUntil": "2026-11-21T12:20:00Z",
                    "nodes": {"total": 10, "done": done, "inFlight": 2, "failed": 0, "excused": 1}},
                "nodes": {"total": 40, "current": done + 1, "inFlight": 2, "failed": 0},
                "holds": [{"reason": "StageSoaking", "nodes": 29, "examples": [], "until": "2026-11-21T12:20:00Z"}],
                "nextAction": "2026-11-21T12:20:00Z: stage rest begins"
            }
        })
    }

    fn object(value: Value) -> Object {
        Object::new(Kind::Policy, value)
    }

    fn listed(watched: &mut Watched, policies: impl IntoIterator<Item = Value>) -> News {
        watched.take(Event::Init);
        for policy in policies {
            watched.take(Event::InitApply(object(policy)));
        }
        watched.take(Event::InitDone)
    }

    #[test]
    fn progress_is_told_stage_by_stage() {
        let progress = Progress::of(&object(policy(4, false, false)));
        let expected = "\
workers -> 2026-11-21.1 (rollout 3): 5 of 40 nodes, 2 moving, 0 failed; StageSoaking
  STAGE    DONE      MOVING   FAILED   EXCUSED   STANDING
  canary   -         -        -        -         through
  early    4 of 10   2        0        1         soaks, ends in 20m
  rest     -         -        -        -         waits
  29 nodes StageSoaking, in 20m
  next: 2026-11-21T12:20:00Z: stage rest begins
";
        assert_eq!(progress.shown("2026-11-21T12:00:00Z".parse().unwrap()).to_string(), expected);
        let line = "workers 2026-11-21.1 stage early 4 of 10; 5 of 40 nodes, 2 moving, 0 failed; StageSoaking; \
                    held: 29 StageSoaking";
        assert_eq!(progress.line(), line);
    }

    #[test]
    fn a_policy_that_is_through_shows_no_stage_as_waiting() {
        let progress = Progress::of(&object(policy(10, true, false)));
        assert!(progress.through);
        let shown = progress.shown(Timestamp::UNIX_EPOCH).to_string();
        assert_eq!(shown.matches("through").count(), progress.stages.len(), "{shown}");
    }

    #[test]
    fn what_an_older_spec_came_to_is_no_end() {
        let mut changed = policy(10, true, true);
        changed["metadata"]["generation"] = json!(3);
        let progress = Progress::of(&object(changed));
        assert!(!progress.through && !progress.stalled);
    }

    #[test]
    fn only_what_moved_is_news() {
        let mut watched = Watched::default();
        assert_eq!(listed(&mut watched, [policy(4, false, false)]).moved.len(), 1);
        assert_eq!(watched.take(Event::Apply(object(policy(4, false, false)))), News::default());
        assert_eq!(watched.take(Event::Apply(object(policy(5, false, false)))).moved.len(), 1);
        assert_eq!(
            listed(&mut watched, [policy(5, false, false)]),
            News { complete: true, ..News::default() }
        );
        assert_eq!(listed(&mut watched, []).gone, ["workers"]);
    }

    fn waiting() -> WatchArguments {
        WatchArguments {
            policy: Some("workers".to_owned()),
            wait: true,
            timeout: None,
            call: Call::default(),
        }
    }

    async fn end_of(policies: Vec<Value>) -> Result<Exit, Failure> {
        let applied =
            policies.into_iter().map(|value| Ok(Event::Apply(serde_json::from_value(value).unwrap())));
        follow(stream::iter(applied).chain(stream::pending()), &waiting(), Look::Json).await
    }

    #[tokio::test]
    async fn waiting_ends_with_the_policy() {
        let end = end_of(vec![policy(4, false, false), policy(10, true, false)]).await;
        assert_eq!(end.unwrap(), Exit::Done);
        let failure = end_of(vec![policy(4, false, false), policy(4, false, true)]).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Trouble);
        let gone = stream::iter([
            Ok(Event::Apply(serde_json::from_value(policy(4, false, false)).unwrap())),
            Ok(Event::Delete(serde_json::from_value(policy(4, false, false)).unwrap())),
        ]);
        let failure = follow(gone.chain(stream::pending()), &waiting(), Look::Json).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Missing);
    }
}
