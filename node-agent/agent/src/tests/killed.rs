//! An agent that is killed at any moment, and the one that comes after it.

use std::sync::{Arc, Mutex};

use super::*;

/// On which side of a request the agent dies: nobody hears it any more, or nobody hears the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// Kills the agent at one of its requests to API server or loader, counted from 0: that one is never
/// answered, and the test starts the next agent.
#[derive(Debug, Clone, Default)]
pub(super) struct Reaper(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    at: Option<(usize, Side)>,
    requests: usize,
    has_killed: bool,
}

impl Reaper {
    fn kill_at(&self, request: usize, side: Side) {
        *self.0.lock().unwrap() = Plan { at: Some((request, side)), ..Plan::default() };
    }

    /// One more request; whether the agent dies at it.
    pub(super) fn request(&self) -> Option<Side> {
        let mut plan = self.0.lock().unwrap();
        let dies = plan.at.filter(|(at, _)| *at == plan.requests).map(|(_, side)| side);
        plan.requests += 1;
        plan.has_killed |= dies.is_some();
        dies
    }

    /// Once.
    fn has_killed(&self) -> bool {
        std::mem::take(&mut self.0.lock().unwrap().has_killed)
    }
}

/// One node, the agent killed at this request; whether it came so far.
async fn survives(author: Author, patch_server: &str, bundle: &Bundle, at: (usize, Side)) -> (Author, bool) {
    let reaper = Reaper::default();
    let (api, loader) = (FakeApi::new(&author.root(), reaper.clone()), FakeLoader::new(reaper.clone()));
    reaper.kill_at(at.0, at.1);
    let (agent, events) = start(&api, &loader, patch_server);
    let mut trial = Trial { author, api, loader, events, agent, patch_server: patch_server.to_owned() };
    let mut was_killed = false;
    let roll_back = json!({"rollBack": {"deadline": Timestamp::now() + SignedDuration::from_mins(10)}});
    for (revision, what, wanted) in [
        (1, apply(bundle), (NodeState::Applied, Level(1))),
        (2, roll_back, (NodeState::RolledBack, Level(0))),
    ] {
        trial.instruct(revision, &what);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if reaper.has_killed() {
                was_killed = true;
                trial.restart();
            }
            let status = trial.api.object().status;
            if status.is_some_and(|status| {
                status.observed_revision == Revision(revision) && (status.state, status.level) == wanted
            }) {
                break;
            }
            assert!(Instant::now() < deadline, "{at:?}: still {:?}", trial.api.object().status);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!(trial.loader.applied(), [(bundle.proof.clone(), bundle.module.clone())], "{at:?}");
    assert_eq!(trial.loader.roll_backs(), 1, "{at:?}");
    trial.agent.abort();
    (trial.author, was_killed || reaper.has_killed())
}

#[test]
fn an_agent_killed_at_any_request_leaves_one_load_one_roll_back_and_the_right_status() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let requests = runtime.block_on(async {
        let mut author = Author::new("example", Timestamp::now() - SignedDuration::from_hours(1));
        let patch_server = api::serve(author.tree()).await;
        let bundle = author.publish(&node::build_id(), 1, "2026-11-21.1");
        for request in 0.. {
            for side in [Side::Before, Side::After] {
                let killed;
                (author, killed) = survives(author, &patch_server, &bundle, (request, side)).await;
                if !killed {
                    return request;
                }
            }
        }
        unreachable!("there is an end to every instruction")
    });
    // Threads of the killed wait for answers that never come.
    runtime.shutdown_background();
    // Fence, state, policy, feed, set, room, load, status; then state, roll-back, status.
    assert!(requests >= 11, "{requests}");
}
