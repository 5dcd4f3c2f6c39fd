//! The commands that change something: each one field of one object, in the caller's name.

use clap::Subcommand;
use invivo_terms::TargetSet;
use jiff::Timestamp;

use super::approve::{self, Decision};
use super::change::{Act, Change, Changed};
use super::connect::Connection;
use super::object::{Kind, Object};
use super::stop::{self, EMERGENCY_STOP};
use super::{Call, Writing, expedite, hold, pause, rollback};
use crate::exit::Failure;

/// The commands that change something.
#[derive(Debug, Subcommand)]
pub enum ChangeCommand {
    /// Approve a set, in your own name.
    Approve(approve::ApproveArguments),
    /// Reject a set, in your own name. This outweighs every approval.
    Reject(approve::ApproveArguments),
    /// Take your own approval or rejection of a set back.
    Withdraw(approve::WithdrawArguments),
    /// Give no new instruction for a policy; what is under way ends.
    Pause(pause::PauseArguments),
    /// Go on with a paused policy.
    Resume(pause::PauseArguments),
    /// In an emergency: skip the soaks of one set's rollout for a while.
    Expedite(expedite::ExpediteArguments),
    /// Aim a policy at what its rollout came from, or at another set.
    Rollback(rollback::RollbackArguments),
    /// Hold one node: it gets no new instruction.
    Hold(hold::HoldArguments),
    /// Let a held node go with its stage again.
    Unhold(hold::UnholdArguments),
    /// Stop everything: no new instruction anywhere, and what is not applied yet is called back.
    Stop(stop::StopArguments),
    /// Lift the emergency stop.
    Start(stop::StartArguments),
}

impl ChangeCommand {
    pub(super) fn call(&self) -> &Call {
        match self {
            Self::Approve(a) | Self::Reject(a) => &a.call,
            Self::Withdraw(a) => &a.call,
            Self::Pause(a) | Self::Resume(a) => &a.call,
            Self::Expedite(a) => &a.call,
            Self::Rollback(a) => &a.call,
            Self::Hold(a) => &a.call,
            Self::Unhold(a) => &a.call,
            Self::Stop(a) => &a.call,
            Self::Start(a) => &a.call,
        }
    }

    /// Makes the one change that a command stands for, in the caller's name.
    ///
    /// # Errors
    ///
    /// The cluster does not answer, does not allow it, or what was named is not there.
    pub async fn run(&self, connection: &Connection, now: Timestamp) -> Result<Changed, Failure> {
        let person = connection.caller().await?;
        let act = |command| Act { command, person: &person };
        let (change, writing): (Change, &Writing) = match self {
            Self::Approve(a) => (decide(connection, act("approve"), Decision::Approve, a).await?, &a.writing),
            Self::Reject(a) => (decide(connection, act("reject"), Decision::Reject, a).await?, &a.writing),
            Self::Withdraw(a) => {
                let (set, feed) = of_feed(connection, &a.set).await?;
                (approve::withdraw(act("withdraw"), &set, feed.as_ref())?, &a.writing)
            }
            Self::Pause(a) => {
                let policy = connection.object(Kind::Policy, &a.policy).await?;
                (pause::set_paused(act("pause"), &policy, true)?, &a.writing)
            }
            Self::Resume(a) => {
                let policy = connection.object(Kind::Policy, &a.policy).await?;
                (pause::set_paused(act("resume"), &policy, false)?, &a.writing)
            }
            Self::Expedite(a) => {
                let policy = connection.object(Kind::Policy, &a.policy).await?;
                let sets = connection.sets().await?;
                (expedite::expedite(act("expedite"), &policy, &sets, a, now)?, &a.writing)
            }
            Self::Rollback(a) => {
                let policy = connection.object(Kind::Policy, &a.policy).await?;
                // Taking everything off is a brake: it needs no more than the policy.
                let sets = if a.to == Some(TargetSet::None) { Vec::new() } else { connection.sets().await? };
                (rollback::roll_back(act("rollback"), &policy, &sets, a.to.as_ref())?, &a.writing)
            }
            Self::Hold(a) => {
                let node = connection.object(Kind::Node, &a.node).await?;
                (hold::hold(act("hold"), &node, a, now)?, &a.writing)
            }
            Self::Unhold(a) => {
                let node = connection.object(Kind::Node, &a.node).await?;
                (hold::unhold(act("unhold"), &node)?, &a.writing)
            }
            Self::Stop(a) => {
                let present = connection.find(Kind::ConfigMap, EMERGENCY_STOP).await?;
                let reason = a.reason.as_ref();
                (stop::stop(act("stop"), present.as_ref(), connection.namespace(), reason, now), &a.writing)
            }
            Self::Start(a) => {
                let present = connection.find(Kind::ConfigMap, EMERGENCY_STOP).await?;
                (stop::start(act("start"), present.as_ref())?, &a.writing)
            }
        };
        connection.carry_out(change, &person.manager(), writing.dry_run).await
    }
}

async fn decide(
    connection: &Connection,
    act: Act<'_>,
    decision: Decision,
    asked: &approve::ApproveArguments,
) -> Result<Change, Failure> {
    let (set, feed) = of_feed(connection, &asked.set).await?;
    approve::decide(act, &set, feed.as_ref(), decision, asked)
}

/// A set, and its feed where there is one.
async fn of_feed(connection: &Connection, name: &str) -> Result<(Object, Option<Object>), Failure> {
    let sets = connection.sets().await?;
    let set = approve::find(&sets, name)?.clone();
    let feed = match set.text("/spec/feed") {
        Some(feed) => connection.find(Kind::Feed, feed).await?,
        None => None,
    };
    Ok((set, feed))
}
