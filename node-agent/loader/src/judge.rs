//! Boots that ended badly: what they say about a bundle, and what follows from it.

use invivo_terms::{Digest, NodeState};
use invivo_wire::{Answer, Fault};

use crate::journal::{Loaded, Outcome};
use crate::kernel::Kernel;
use crate::loader::Loader;
use crate::missed::Missed;
use crate::verdict::{Ground, Record};

/// Most records that are known to have been seen: more than there can be at once.
const RECORDS: usize = 256;

/// How far a level was when the boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// On its way, or on and not settled.
    Unsettled,
    /// Settled, and being brought back after the boot before.
    ComingBack,
    /// Settled and on.
    Settled,
}

impl<K: Kernel> Loader<K> {
    /// Looks for records of panics that no loader has seen, and convicts what they name. Without them a
    /// boot alone is judged.
    pub(crate) fn find_records(&mut self) {
        let records = self.kernel.records();
        self.found =
            records.into_iter().filter(|record| !self.journal.records.contains(record.digest())).collect();
        // Those of before stay known: one is in neither place while it is being put away.
        let new = self.found.iter().map(|record| record.digest().clone());
        self.journal.records.extend(new);
        let surplus = self.journal.records.len().saturating_sub(RECORDS);
        self.journal.records.drain(..surplus);
        let now = self.now();
        for verdict in self.journal.verdicts.convict_named(&self.found, now) {
            let message = format!(
                "the record of a panic names level {}, which was suspected; it is never loaded here again",
                verdict.level
            );
            self.keep_evidence(verdict.evidence.as_ref().map(|evidence| &evidence.digest), &self.found);
            let missed = self.missed(Missed::fault(Fault::PanicNamesPatch, message));
            self.tell(Outcome { evidence: verdict.evidence, ..missed });
        }
    }

    /// Tells an outcome beside the one that there is, the graver one first.
    pub(crate) fn tell(&mut self, outcome: Outcome) {
        self.journal.outcome = Some(match self.journal.outcome.take() {
            Some(known) => known.and(outcome),
            None => outcome,
        });
    }

    /// Whether a loader was told to end before that boot ended, and no record tells of a panic since: then
    /// the boot says nothing about a level.
    pub(crate) fn ended_in_order(&self, boot_id: &str) -> bool {
        let marked = self.store.boot_that_ended().unwrap_or_else(|error| {
            tracing::warn!(error = %error, "not known whether the last boot ended in order");
            None
        });
        marked.as_deref() == Some(boot_id) && self.found.is_empty()
    }

    /// That boot ended before this level had settled. `told` says whether anybody is told of it where it
    /// ended in order: of what did harm something graver has been told already.
    pub(crate) fn boot_ended_before(&mut self, loaded: &Loaded, boot_id: &str, told: bool) {
        let outcome = if self.ended_in_order(boot_id) {
            if !told {
                self.unsettle(loaded);
            }
            let level = loaded.level;
            tracing::info!(module = %loaded.module, "shut down in order before it had settled");
            let message = format!(
                "the node was shut down in order before level {level} had settled; it is not put on again by itself, and nothing is held against it"
            );
            Outcome { message: Some(message), ..Outcome::reached(NodeState::Idle, self.now()) }
        } else {
            self.unclean(loaded, When::Unsettled)
        };
        if told || outcome.state.is_failure() {
            self.tell(outcome);
        }
    }

    /// A boot ended with this level. Perhaps because of something else; but a patch that brings the
    /// machine down must not do so at every boot.
    pub(crate) fn unclean(&mut self, loaded: &Loaded, when: When) -> Outcome {
        self.unsettle(loaded);
        let now = self.now();
        let (ground, verdict) = self.journal.verdicts.blame(loaded, &self.found, now);
        let evidence = verdict.evidence.clone();
        let fault = match ground {
            Ground::Named => Fault::PanicNamesPatch,
            Ground::Again => Fault::RebootedAgain,
            Ground::Boot => match when {
                When::ComingBack => Fault::RebootedBringingBack,
                When::Unsettled | When::Settled => Fault::RebootedUnsettled,
            },
        };
        let level = loaded.level;
        let when = match when {
            When::Unsettled => format!("before level {level} had settled"),
            When::ComingBack => format!("while level {level} was being brought back"),
            When::Settled => format!("with level {level} on, which had settled"),
        };
        let so = match ground {
            Ground::Named => "the record of a panic names it; it is never loaded here again",
            Ground::Again => "not for the first time; it is never loaded here again",
            Ground::Boot => "it is not put on again by itself",
        };
        self.keep_evidence(evidence.as_ref().map(|evidence| &evidence.digest), &self.found);
        Outcome { evidence, ..self.missed(Missed::fault(fault, format!("the node went down {when}: {so}"))) }
    }

    /// A settled level is judged by what is known of it alone: machines go down for many reasons.
    pub(crate) fn judge_settled(&mut self, was_on: Option<Loaded>) {
        let settled = self.journal.settled.clone();
        let same = |on: &Loaded| settled.as_ref().is_some_and(|s| s.module_digest == on.module_digest);
        // One that had settled can have been on its way out.
        let was_on = was_on.filter(|on| !same(on));
        for loaded in settled.iter().cloned().chain(was_on) {
            if self.found.iter().any(|record| record.naming(&loaded.module).is_some()) {
                let outcome = self.unclean(&loaded, When::Settled);
                self.tell(outcome);
            }
        }
    }

    /// The record of this digest, if it is among these.
    pub(crate) fn keep_evidence(&self, digest: Option<&Digest>, records: &[Record]) {
        let record = digest.and_then(|digest| records.iter().find(|record| record.digest() == digest));
        if let Some(Err(error)) = record.map(|record| self.store.keep_evidence(record)) {
            tracing::warn!(error = %error, "evidence not kept; its excerpt is in the journal");
        }
    }

    /// What was convicted on this node is never loaded here again.
    pub(crate) fn not_convicted(&self, loaded: &Loaded) -> Result<(), Missed> {
        match self.journal.verdicts.convicted(&loaded.module_digest) {
            None => Ok(()),
            Some(verdict) => {
                let message = format!(
                    "level {} was convicted on this node at {}; a person on the node may clear that with `invivo clear-verdict`",
                    loaded.level, verdict.since
                );
                Err(Missed::fault(Fault::ConvictedHere, message))
            }
        }
    }

    /// What could not be convicted any more without forgetting another is not loaded. What had settled
    /// was on already.
    pub(crate) fn could_be_convicted(&self, loaded: &Loaded) -> Result<(), Missed> {
        let module = &loaded.module_digest;
        let had_settled =
            self.journal.settled.as_ref().is_some_and(|settled| settled.module_digest == *module);
        if had_settled || self.journal.verdicts.has_room_for(module) {
            return Ok(());
        }
        Err(Missed::no_room(
            "as many bundles are convicted on this node as are remembered; a person on the node may clear that with `invivo clear-verdict`",
        ))
    }

    /// A person on the node says that it was something else.
    pub(crate) fn clear_verdicts(&mut self) -> Answer {
        let mut cleared = self.journal.clone();
        let verdicts = cleared.verdicts.clear();
        cleared.outcome.take_if(|outcome| match outcome.state {
            NodeState::Suspected | NodeState::Convicted => true,
            NodeState::Idle
            | NodeState::Working
            | NodeState::Applied
            | NodeState::Settled
            | NodeState::RolledBack
            | NodeState::Blocked
            | NodeState::Refused
            | NodeState::Failed => false,
        });
        for verdict in &verdicts {
            let word = verdict.judgement.as_str();
            tracing::info!(level = verdict.level.0, set = %verdict.set, word, "verdict cleared");
        }
        // Not cleared before it is written down: what a boot brings back must not be forgotten.
        match self.store.save(&cleared) {
            Ok(()) => {
                self.journal = cleared;
                self.unsaved = false;
                self.sweep();
                Answer::Cleared { verdicts }
            }
            Err(error) => Answer::Refused { detail: format!("not written down: {error}") },
        }
    }
}
