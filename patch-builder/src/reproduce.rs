//! Whether what is compiled here from the original source is what the kernel runs: byte for byte,
//! but for the places that a linker fills in. Another compiler, configuration or source is found at
//! once.

use std::collections::HashMap;

use crate::object::compare::is_init;
use crate::object::special::{self, JUMP_LABELS};
use crate::object::{Object, Symbol, instruction, width};

/// How the functions of an object compare with those of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The same.
    pub same: Vec<String>,
    /// Not the same: the function, and what is different.
    pub different: Vec<(String, String)>,
    /// How many of those the kernel does not have at all.
    pub absent: usize,
}

impl Report {
    /// Functions compared.
    pub fn total(&self) -> usize {
        self.same.len() + self.different.len()
    }
}

/// Compares every function of `object`, compiled from the source file `file`, with the `kernel` or
/// module that it is part of.
pub fn reproduce(object: &Object, kernel: &Object, file: &str) -> Report {
    let mut report = Report::default();
    let jumps = jumps(object);
    for function in object.functions() {
        if object.section_of(function).is_none_or(|s| is_init(s.name)) {
            continue;
        }
        let mut why = None;
        let mut same = false;
        for shipped in kernel.functions().filter(|s| s.name == function.name) {
            if shipped.is_local != function.is_local || (shipped.is_local && shipped.file != Some(file)) {
                continue;
            }
            let jumps = object.number(function).and_then(|number| jumps.get(&number));
            match difference((object, function), jumps.map_or(&[], Vec::as_slice), (kernel, shipped)) {
                None => same = true,
                words => why = words,
            }
        }
        if same {
            report.same.push(function.name.to_owned());
        } else {
            report.absent += usize::from(why.is_none());
            let why = why.unwrap_or_else(|| "not there".to_owned());
            report.different.push((function.name.to_owned(), why));
        }
    }
    report
}

/// The jumps in each function, by its number, that objtool makes nothing of: those for static keys that are
/// mostly off. Where it works on what is linked they are still there.
fn jumps(object: &Object) -> HashMap<usize, Vec<usize>> {
    let mut jumps: HashMap<usize, Vec<usize>> = HashMap::new();
    let Some(section) = object.section(JUMP_LABELS) else { return jumps };
    // One that is not laid out as it should be is refused when tables are compared.
    for entry in special::entries(object, section, &special::JUMPS).unwrap_or_default() {
        let place = entry.code().filter(|_| special::is_no_jump(JUMP_LABELS, &entry));
        if let Some((number, at)) = place.and_then(|(n, at)| Some((n, usize::try_from(at).ok()?))) {
            jumps.entry(number).or_default().push(at);
        }
    }
    jumps
}

fn difference(
    (object, function): (&Object, &Symbol),
    jumps: &[usize],
    (kernel, shipped): (&Object, &Symbol),
) -> Option<String> {
    let (mut ours, mut theirs) = (object.bytes_of(function).to_vec(), kernel.bytes_of(shipped).to_vec());
    if ours.len() != theirs.len() {
        return Some(format!("{} bytes, {} in the kernel", ours.len(), theirs.len()));
    }
    for at in jumps {
        instruction::make_nothing(&mut ours, *at);
    }
    for relocation in object.relocations_of(function) {
        let Some(start) = usize::try_from(relocation.offset).ok() else { continue };
        let end = start + usize::try_from(width(relocation.kind).unwrap_or_default()).unwrap_or_default();
        for bytes in [&mut ours, &mut theirs] {
            if let Some(field) = bytes.get_mut(start..end) {
                field.fill(0);
            }
        }
    }
    let differing = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
    (differing > 0).then(|| format!("{differing} of {} bytes differ", ours.len()))
}
