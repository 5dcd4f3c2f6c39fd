//! The diagrams of `docs/node.md` are what `step::next` does, in every situation there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use invivo_terms::ModuleName;

use crate::seen::{Patch, Resident, Seen};
use crate::step::{Goal, Phase, Situation, Step, next};

const OURS: &str = "invivo_l2_0123456789abcdef";
const DEADLINE: Duration = Duration::from_secs(100);
const UNTIL: Duration = Duration::from_secs(160);

fn patch(name: &str, enabled: bool, transition: bool) -> Patch {
    Patch { name: name.to_owned(), enabled, transition }
}

fn module(name: &str, references: u32, loading: bool) -> Resident {
    Resident { name: name.parse().unwrap(), references, loading }
}

/// What a kernel can show: the wanted patch, one that was there before, a foreign one, modules.
fn kernels() -> Vec<Seen> {
    let flags = [(false, false), (false, true), (true, false), (true, true)];
    let of = |name: &'static str| {
        let states = flags.map(|(enabled, transition)| vec![patch(name, enabled, transition)]);
        std::iter::once(Vec::new()).chain(states)
    };
    let others = || of("invivo_l1_0123456789abcdef").chain(of("invivo_l3_0123456789abcdef"));
    let foreign = || [Vec::new(), vec![patch("kpatch_x", true, false)]];
    let modules =
        || [Vec::new(), vec![module("invivo_l1_ffffffffffffffff", 0, false)], vec![module(OURS, 1, true)]];
    let mut all = Vec::new();
    for ours in of(OURS) {
        for other in others() {
            for foreign in foreign() {
                for modules in modules() {
                    let patches = [ours.clone(), other.clone(), foreign.clone()].concat();
                    all.push(Seen { patches, modules });
                }
            }
        }
    }
    all
}

fn name_of(phase: &Phase) -> &'static str {
    match phase {
        Phase::Checking => "Checking",
        Phase::Journalled => "Journalled",
        Phase::Switching => "Switching",
        Phase::Undoing { .. } => "Undoing",
    }
}

fn word(step: &Step) -> String {
    match step {
        Step::Unload(_) => "unload".to_owned(),
        Step::Journal => "journal".to_owned(),
        Step::Load => "load".to_owned(),
        Step::Switch(..) => "switch".to_owned(),
        Step::Watch => "watch".to_owned(),
        Step::Undo(..) => "undo".to_owned(),
        Step::Wait => "wait".to_owned(),
        Step::End(end) => format!("{end:?}").split('(').next().unwrap_or_default().to_owned(),
    }
}

/// Every edge from every state, with what is done on it.
fn diagram(goal: &Goal) -> String {
    let under: ModuleName = "invivo_l1_0123456789abcdef".parse().unwrap();
    let mut edges: BTreeMap<(usize, &str), BTreeSet<String>> = BTreeMap::new();
    let phases = [Phase::Checking, Phase::Journalled, Phase::Switching, Phase::Undoing { until: UNTIL }];
    let (none, all) = (BTreeSet::new(), BTreeSet::from([under.clone(), OURS.parse().unwrap()]));
    for (place, phase) in phases.iter().enumerate() {
        for seen in &kernels() {
            for now in [Duration::ZERO, DEADLINE, UNTIL] {
                for (under, barred) in [(None, &none), (None, &all), (Some(&under), &none)] {
                    let (kept, deadline) = (&none, DEADLINE);
                    let step = next(&Situation { goal, phase, seen, kept, under, now, deadline, barred });
                    let to = match step {
                        Step::End(_) => "[*]",
                        _ => name_of(&phase.clone().after(&step, now)),
                    };
                    edges.entry((place, to)).or_default().insert(word(&step));
                }
            }
        }
    }
    let mut text = String::from("stateDiagram-v2\n  [*] --> Checking\n");
    for ((place, to), words) in edges {
        let words = words.into_iter().collect::<Vec<_>>().join(", ");
        writeln!(text, "  {} --> {to}: {words}", name_of(&phases[place])).unwrap();
    }
    text
}

#[test]
fn the_diagrams_in_the_documents_are_what_the_code_does() {
    let page = include_str!("../../../../docs/node.md");
    for goal in [Goal::Apply(OURS.parse().unwrap()), Goal::RollBack] {
        let drawn = diagram(&goal);
        assert!(page.contains(&drawn), "docs/node.md lacks this diagram of {goal:?}:\n{drawn}");
    }
}
