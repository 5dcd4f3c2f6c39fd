//! What a node has promised, and whether it keeps it whatever happens to its power. Pure.

use std::collections::BTreeSet;

use invivo_feed::Floors;
use invivo_terms::{Digest, Level, NodeState, Refusal, RepositoryName, Revision};
use invivo_wire::{Answer, Fault, Reason, State};

use crate::plan::{Bytes, Facts, Look, Offer, Said, Step};

/// What was heard of a node, and so must not be forgotten.
#[derive(Debug, Clone)]
pub(crate) struct Promised {
    facts: Facts,
    /// The highest instruction that was answered.
    revision: Revision,
    /// The highest that was asked for.
    asked: Revision,
    floors: Floors,
    convicted: BTreeSet<Digest>,
    /// What must be back after a boot.
    settled: Option<Level>,
    /// What may have settled since without a word.
    perhaps: BTreeSet<Level>,
    /// What is on.
    on: Level,
    /// What is being asked for.
    step: Option<Step>,
    /// The loader has come up in this boot.
    up: bool,
}

/// What should become of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The level is on.
    On(Level),
    /// It was refused, and what was on still is.
    Refused(Because),
    /// Nothing is on.
    Off,
    /// It was heard, and nothing is done.
    Heard,
}

/// Why it should be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Because {
    /// Nobody pinned its author.
    Stranger,
    /// Its bytes are not those that were signed.
    Changed,
    /// Later documents have been seen.
    OldDocuments,
    Convicted,
    Lower,
    OldInstruction,
}

impl Promised {
    pub(crate) fn new(facts: Facts) -> Self {
        Self {
            facts,
            revision: Revision(0),
            asked: Revision(0),
            floors: Floors::default(),
            convicted: BTreeSet::new(),
            settled: None,
            perhaps: BTreeSet::new(),
            on: Level::UNPATCHED,
            step: None,
            up: false,
        }
    }

    pub(crate) fn asked(&self) -> Revision {
        self.asked
    }

    pub(crate) fn is_convicted(&self, level: Level) -> bool {
        self.offer(level).is_some_and(|offer| self.convicted.contains(&offer.module))
    }

    /// The power went; whether in the middle of an instruction.
    pub(crate) fn power_cut(&mut self) -> bool {
        if !self.up {
            // It may have been bringing the level back: then it is suspected.
            self.settled = None;
        }
        (self.on, self.up) = (Level::UNPATCHED, false);
        self.step.take().is_some()
    }

    fn offer(&self, level: Level) -> Option<&Offer> {
        self.facts.offers.iter().find(|offer| offer.level == level)
    }

    /// Takes one line of the guest; gives what is wrong with it.
    pub(crate) fn hear(&mut self, said: &Said) -> Vec<String> {
        match said {
            Said::Up(look) => {
                let mut wrong = self.came_back(look);
                self.up = true;
                wrong.extend(self.looks(look));
                wrong
            }
            Said::Asks(step) => {
                self.asks(step);
                Vec::new()
            }
            Said::Answered(answer, look) => {
                let mut wrong = self.answered(answer);
                wrong.extend(self.looks(look));
                wrong
            }
            Said::Looks(look) => self.looks(look),
            Said::LoaderEnded(status) => vec![format!("the loader has ended: {status}")],
            Said::Sleeps(_) | Said::Began(_) | Said::Case(_) | Said::Cycled(_) | Said::Compared(_) => {
                Vec::new()
            }
            Said::Done(complaints) => complaints.clone(),
        }
    }

    /// What should become of `step` now.
    pub(crate) fn due(&self, step: &Step) -> Due {
        match step {
            Step::Apply { level, generation, bytes, .. } => {
                let offer = self.offer(*level);
                let documents = offer.and_then(|offer| offer.generations.get(*generation as usize));
                let floors = documents.map(|documents| &documents.floors);
                if floors.is_none_or(|floors| floors.repository != self.ours()) {
                    Due::Refused(Because::Stranger)
                } else if floors.is_some_and(|floors| below(floors, &self.floors)) {
                    Due::Refused(Because::OldDocuments)
                } else if *bytes == Bytes::Changed {
                    Due::Refused(Because::Changed)
                } else if self.is_convicted(*level) {
                    Due::Refused(Because::Convicted)
                } else if *level < self.on {
                    Due::Refused(Because::Lower)
                } else {
                    Due::On(*level)
                }
            }
            Step::RollBack { .. } => Due::Off,
            Step::Hold { revision } if *revision < self.revision => Due::Refused(Because::OldInstruction),
            Step::Hold { .. }
            | Step::Settle
            | Step::Trouble
            | Step::RunOut { .. }
            | Step::ClearVerdicts
            | Step::Meanwhile(_)
            | Step::Restart(_)
            | Step::Cycles { .. }
            | Step::Compare { .. } => Due::Heard,
        }
    }

    fn ours(&self) -> Option<RepositoryName> {
        self.facts.offers.first()?.generations.first()?.floors.repository.clone()
    }

    fn asks(&mut self, step: &Step) {
        self.asked = step.revision().map_or(self.asked, |revision| self.asked.max(revision));
        match (step, self.due(step)) {
            (Step::ClearVerdicts, _) => self.convicted.clear(),
            (_, Due::On(level)) => {
                // Cut in the middle of it, even a level that has settled is suspected.
                if !self.perhaps.insert(level) {
                    self.settled = None;
                }
            }
            (_, Due::Off) => self.settled = None,
            (_, Due::Refused(_) | Due::Heard) => {}
        }
        self.step = Some(step.clone());
    }

    fn answered(&mut self, answer: &Answer) -> Vec<String> {
        let Some(step) = self.step.take() else { return vec!["an answer to nothing".to_owned()] };
        let state = match answer {
            Answer::State(state) => state,
            Answer::Cleared { .. } if step == Step::ClearVerdicts => return Vec::new(),
            Answer::Cleared { .. } | Answer::Refused { .. } => return vec![format!("{step:?}: {answer:?}")],
        };
        let due = self.due(&step);
        let met = match due {
            Due::On(level) => {
                matches!(state.state, NodeState::Applied | NodeState::Settled) && state.level == level
            }
            Due::Refused(because) => is_refused(state, because) && state.level == self.on,
            Due::Off => state.state == NodeState::RolledBack && state.level == Level::UNPATCHED,
            Due::Heard => state.level == self.on,
        };
        if due == Due::Off && met {
            self.perhaps.clear();
        }
        let known = state.order.as_ref().map(|order| order.revision);
        let heard = known >= step.revision();
        if met && heard {
            Vec::new()
        } else {
            let State { state, level, reason, message, order, .. } = state.as_ref();
            vec![format!("{step:?}, due {due:?}: {state:?} {level} {reason:?} {message:?} {order:?}")]
        }
    }

    /// What is on after a boot, asked for by nobody since, had settled.
    fn came_back(&self, look: &Look) -> Vec<String> {
        let level = look.state.level;
        let may = self.perhaps.contains(&level) || self.settled == Some(level);
        match (level, self.settled) {
            (Level::UNPATCHED, Some(settled)) => {
                vec![format!("level {settled} had settled and is not back: {:?}", look.state)]
            }
            (Level::UNPATCHED, None) => Vec::new(),
            (_, _) if may => Vec::new(),
            (level, settled) => vec![format!("level {level} is back, settled was {settled:?}")],
        }
    }

    /// What holds at any time; and what is promised from now on.
    fn looks(&mut self, look: &Look) -> Vec<String> {
        let (state, kernel) = (&look.state, &look.kernel);
        let mut wrong = Vec::new();
        let revision = state.order.as_ref().map_or(Revision(0), |order| order.revision);
        if revision < self.revision || revision > self.asked {
            wrong.push(format!("revision {revision}, promised {} to {}", self.revision, self.asked));
        }
        if below(&state.floors, &self.floors) {
            wrong.push(format!("lost floors: {:?}, promised {:?}", state.floors, self.floors));
        }
        let known: BTreeSet<_> = self
            .facts
            .offers
            .iter()
            .filter(|offer| self.is_ours(offer))
            .map(|offer| offer.note.clone())
            .collect();
        if !kernel.modules.is_subset(&known) {
            wrong.push(format!("a module that nobody signed: {:?}", kernel.modules));
        }
        let level = (state.level != Level::UNPATCHED).then_some(state.level);
        let second = level.filter(|level| *level == SECOND);
        if kernel.on.len() != usize::from(level.is_some())
            || (kernel.cmdline, kernel.version) != (level, second)
        {
            wrong.push(format!("level {} by the loader, {kernel:?}", state.level));
        }
        let convicted: BTreeSet<_> = self
            .facts
            .offers
            .iter()
            .filter(|offer| look.journal.verdicts.convicted(&offer.module).is_some())
            .map(|offer| offer.module.clone())
            .collect();
        if !self.convicted.is_subset(&convicted) {
            wrong.push(format!("a conviction is forgotten: {convicted:?}, promised {:?}", self.convicted));
        }
        self.convicted = convicted;
        if level.is_some_and(|level| self.is_convicted(level)) {
            wrong.push(format!("level {} is on and convicted", state.level));
        }
        let troubles = [
            Reason::Refusal(Refusal::LoadRefused),
            Reason::Refusal(Refusal::StorageFull),
            Reason::Fault(Fault::NodeIo),
            Reason::Fault(Fault::JournalUnreadable),
            Reason::Fault(Fault::Vanished),
        ];
        if state.reason.is_some_and(|reason| troubles.contains(&reason)) {
            wrong.push(format!("{:?} {:?}", state.reason, state.message));
        }
        self.promise(state);
        wrong
    }

    fn promise(&mut self, state: &State) {
        self.on = state.level;
        self.floors = state.floors.clone();
        if let Some(order) = &state.order {
            self.revision = self.revision.max(order.revision);
        }
        if state.state == NodeState::Settled {
            self.settled = Some(state.level);
            self.perhaps = BTreeSet::from([state.level]);
        }
    }

    fn is_ours(&self, offer: &Offer) -> bool {
        offer.generations.first().is_some_and(|documents| documents.floors.repository == self.ours())
    }
}

/// The level that redirects a second function.
const SECOND: Level = Level(2);

fn is_refused(state: &State, because: Because) -> bool {
    match (because, state.reason) {
        (Because::Stranger, reason) => reason == Some(Reason::Refusal(Refusal::WrongRoot)),
        (Because::Changed | Because::OldDocuments, reason) => {
            state.state == NodeState::Refused && matches!(reason, Some(Reason::Refusal(_)))
        }
        (Because::Convicted, reason) => reason == Some(Reason::Fault(Fault::ConvictedHere)),
        (Because::Lower, reason) => reason == Some(Reason::Fault(Fault::LowerLevel)),
        (Because::OldInstruction, reason) => reason == Some(Reason::Fault(Fault::StaleInstruction)),
    }
}

/// Whether one is lower than what was seen in any way.
fn below(floors: &Floors, seen: &Floors) -> bool {
    (seen.repository.is_some() && floors.repository != seen.repository)
        || floors.trust < seen.trust
        || floors.index < seen.index
        || floors.timestamp < seen.timestamp
}

#[cfg(test)]
mod tests;
