//! The agent's diagram in `docs/node.md` is what `step::next` does, in every situation there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use invivo_terms::{NodeState, Refusal};
use invivo_wire::{Fault, Reason, State};
use jiff::Timestamp;

use crate::fixtures::{apply, instruction, loader};
use crate::instruction::What;
use crate::step::{Step, next};
use crate::verdict::{Cause, Verdict};

/// What is known of instruction 5, by what the agent found and what the loader says.
fn name_of(found: bool, loader: &State) -> &'static str {
    let heard = loader.order.as_ref().filter(|order| order.object == "uid").map(|order| order.revision.0);
    match (found, loader.reason, heard) {
        (true, _, _) => "Found",
        (false, Some(Reason::Fault(Fault::JournalUnreadable)), _) => "Unreadable",
        (false, _, Some(6..)) => "Newer",
        (false, _, Some(5)) if loader.state == NodeState::Working => "UnderWay",
        (false, _, Some(5)) => "Ended",
        (false, _, _) => "Unheard",
    }
}

/// What a loader can say.
fn loaders() -> Vec<State> {
    let mut all = Vec::new();
    for state in NodeState::ALL {
        for (object, revision) in [("uid", 4), ("uid", 5), ("uid", 6), ("another", 5), ("another", 6)] {
            let plain = loader(object, revision, state);
            let (mut unreadable, mut other, mut bare) = (plain.clone(), plain.clone(), plain.clone());
            unreadable.reason = Some(Reason::Fault(Fault::JournalUnreadable));
            other.kernel.build_id = "cd".repeat(20).parse().unwrap();
            bare.kernel.supports.clear();
            all.extend([State { order: None, ..plain.clone() }, plain, unreadable, other, bare]);
        }
    }
    all
}

/// Where a step leads, and what is done.
fn edge(step: &Step) -> (&'static str, String) {
    match step {
        Step::Report => ("[*]", "report".to_owned()),
        Step::End(verdict) => ("Found", verdict.cause.as_str().to_owned()),
        Step::Hold => ("Passed", "hold".to_owned()),
        Step::RollBack => ("Passed", "roll back".to_owned()),
        Step::Apply => ("Passed", "apply".to_owned()),
    }
}

fn diagram() -> String {
    let times: [Timestamp; 2] =
        ["2026-11-21T12:00:00Z", "2027-01-01T00:00:00Z"].map(|time| time.parse().unwrap());
    let mut edges: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for what in [What::Hold, What::RollBack { deadline: times[0] }, apply()] {
        let instruction = instruction("uid", 5, what);
        let of = |revision| {
            let order = invivo_wire::Order { revision, ..instruction.order.clone() };
            Verdict::refused(&order, Cause::Refusal(Refusal::BelowThreshold), "")
        };
        let (this, before) = (of(invivo_terms::Revision(5)), of(invivo_terms::Revision(4)));
        for loader in &loaders() {
            for now in times {
                for found in [None, Some(&before), Some(&this)] {
                    let (to, word) = edge(&next(&instruction, loader, found, now));
                    let from = name_of(found == Some(&this), loader);
                    edges.entry((from, to)).or_default().insert(word);
                }
            }
        }
    }
    let mut text = String::from("stateDiagram-v2\n");
    for ((from, to), words) in edges {
        let words = words.into_iter().collect::<Vec<_>>().join(", ");
        writeln!(text, "  {from} --> {to}: {words}").unwrap();
    }
    text
}

#[test]
fn the_diagram_in_the_documents_is_what_the_code_does() {
    let page = include_str!("../../../../docs/node.md");
    let drawn = diagram();
    assert!(page.contains(&drawn), "docs/node.md lacks this diagram:\n{drawn}");
}
