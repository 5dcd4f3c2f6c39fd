//! The gates on what differs: everything that the comparison of functions cannot make safe by itself.

use std::collections::BTreeSet;

use crate::btf;
use crate::compile::Compiled;
use crate::object::carried::is_traceable;
use crate::object::compare::{Difference, is_cold, is_init};
use crate::object::cut::Cut;
use crate::object::kernel::Names;
use crate::object::target::base;
use crate::object::{Kind, Object, Section};
use crate::refusal::{Gate, Refusal};
use crate::reproduce::Report;

/// What is asked about one file.
pub struct Case<'c> {
    /// The C file that is compiled, within the source.
    pub path: &'c str,
    /// The files that are edited: this one, or what it includes.
    pub edited: &'c [&'c str],
    /// The functions that the recipes name.
    pub named: &'c [&'c str],
    /// Compiled from the original source.
    pub before: (&'c Compiled, &'c Object<'c>),
    /// Compiled from the fixed source.
    pub after: (&'c Compiled, &'c Object<'c>),
    /// What differs between the two.
    pub difference: &'c Difference,
    /// How the original compares with the kernel.
    pub report: &'c Report,
    /// The symbols of the object that is patched.
    pub names: &'c Names<'c>,
    /// The types whose definition is another.
    pub types: &'c BTreeSet<String>,
    /// New functions that other parts of the patch call.
    pub gives: &'c BTreeSet<String>,
}

/// Code that may run while livepatch looks at stacks, or in a context whose stack it does not look
/// at: by the beginning of the file's path.
const UNSAFE_FILES: [&str; 14] = [
    "kernel/livepatch/",
    "kernel/stop_machine.c",
    "kernel/sched/idle.c",
    "kernel/trace/ftrace.c",
    "kernel/trace/trace_functions.c",
    "kernel/static_call",
    "kernel/jump_label.c",
    "kernel/entry/",
    "arch/x86/entry/",
    "arch/x86/kernel/nmi.c",
    "arch/x86/kernel/ftrace.c",
    "arch/x86/kernel/unwind",
    "arch/x86/kernel/stacktrace.c",
    "arch/x86/kernel/alternative.c",
];

/// Functions of that kind elsewhere.
const UNSAFE_FUNCTIONS: [&str; 13] = [
    "schedule",
    "__schedule",
    "schedule_idle",
    "context_switch",
    "do_idle",
    // kernel/sched/idle.c is compiled as a part of another file.
    "cpuidle_idle_call",
    "call_cpuidle",
    "call_cpuidle_s2idle",
    "play_idle_precise",
    "cpu_startup_entry",
    "finish_task_switch",
    "__switch_to",
    "nmi_enter",
];

/// Sections whose functions no tracer may touch.
pub(crate) const UNTOUCHABLE: [&str; 5] = [".noinstr", ".entry", ".cpuidle", ".spinlock", ".kprobes"];

/// Judges what differs in one file, before anything is taken out.
///
/// # Errors
///
/// The first gate that refuses.
pub fn difference(case: &Case) -> Result<(), Refusal> {
    built(case)?;
    data(case)?;
    layout(case)?;
    exports(case)?;
    changed(case)?;
    gone(case)?;
    for name in case.difference.changed.iter().filter(|name| !is_cold(name)) {
        context(case, name)?;
        weak(case, name)?;
        traceable(case, name)?;
    }
    reproduced(case)
}

/// What becomes of a patch's code when the patch was taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Code {
    /// It is unloaded.
    #[default]
    Goes,
    /// It stays in memory until the machine is booted again.
    Stays,
}

/// Judges what was taken out. Returns what must become of the code: it stays only if it `may` and has
/// to.
///
/// # Errors
///
/// The address of code that goes with the patch is given away.
pub fn cut(cut: &Cut, may: Code) -> Result<Code, Refusal> {
    match (cut.escapes.first(), may) {
        (None, _) => Ok(Code::Goes),
        (Some(_), Code::Stays) => Ok(Code::Stays),
        (Some((function, holder)), Code::Goes) => {
            Err(Refusal::new(Gate::Escape, format!("{holder} gives away the address of {function}")))
        }
    }
}

fn built(case: &Case) -> Result<(), Refusal> {
    // A file without functions is judged by its data.
    let has_other = case.report.total() == 0 && !case.difference.data.is_empty();
    if case.report.absent == case.report.total() && !has_other {
        return Err(Refusal::new(Gate::FileBuilt, case.path));
    }
    Ok(())
}

fn changed(case: &Case) -> Result<(), Refusal> {
    let found = case.difference;
    if !found.shared.is_empty() {
        return Err(Refusal::new(Gate::OneSymbol, format!("{}: not the only name", found.shared.join(", "))));
    }
    if found.changed.is_empty() && !found.init.is_empty() {
        return Err(Refusal::new(Gate::InitCode, found.init.join(", ")));
    }
    let is_given = found.new.iter().any(|name| case.gives.contains(name));
    let added: Vec<&str> = found.new.iter().chain(&found.new_data).map(String::as_str).collect();
    if found.changed.is_empty() && !is_given && !added.is_empty() {
        return Err(Refusal::new(Gate::Reached, added.join(", ")));
    }
    if found.changed.is_empty() && !is_given {
        return Err(Refusal::new(Gate::Changed, format!("{}: no function", case.path)));
    }
    if let Some(name) = case.named.iter().find(|name| is_unchanged(found, case.before.1, case.after.1, name))
    {
        return Err(Refusal::new(Gate::Changed, format!("{}: {name}", case.path)));
    }
    if !found.init.is_empty() {
        return Err(Refusal::new(Gate::InitCode, found.init.join(", ")));
    }
    Ok(())
}

/// Whether a function came out the same. One that is nowhere was inlined: its callers differ.
pub fn is_unchanged(found: &Difference, before: &Object, after: &Object, name: &str) -> bool {
    let all = [&found.changed, &found.carried, &found.aliases, &found.new, &found.init, &found.gone];
    let differs = all.into_iter().flatten().any(|function| function.split('.').next() == Some(name));
    let is_there = |object: &Object| object.functions().any(|s| s.name == name);
    !differs && is_there(before) && is_there(after)
}

/// Whoever has the address of a function that the fix removes goes on calling it.
fn gone(case: &Case) -> Result<(), Refusal> {
    let known = &case.difference.known;
    if known.is_empty() { Ok(()) } else { Err(Refusal::new(Gate::Gone, known.join(", "))) }
}

fn data(case: &Case) -> Result<(), Refusal> {
    let names = |tables: bool| {
        let of_kind = case.difference.data.iter().filter(|(_, is_table)| *is_table == tables);
        of_kind.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    for (tables, gate) in [(true, Gate::Operations), (false, Gate::Data)] {
        let names = names(tables);
        if !names.is_empty() {
            return Err(Refusal::new(gate, names));
        }
    }
    let after = case.after.1;
    let writable = |name: &&String| {
        let symbol = after.defined(Kind::Data).find(|s| s.name == name.as_str());
        symbol.and_then(|s| after.section_of(s)).is_some_and(Section::is_writable)
    };
    match case.difference.new_data.iter().find(writable) {
        None => Ok(()),
        Some(name) => Err(Refusal::new(Gate::NewData, name.as_str())),
    }
}

fn layout(case: &Case) -> Result<(), Refusal> {
    let refuse = |what: String| Refusal::new(Gate::Layout, what);
    let (before, after) = (&case.before.0.types, &case.after.0.types);
    if before.is_empty() || after.is_empty() {
        return Err(refuse("the compiler does not describe types".to_owned()));
    }
    let parse = |bytes| btf::Types::parse(bytes).map_err(|e| refuse(e.to_string()));
    let (before, after) = (parse(before)?, parse(after)?);
    let mut found = btf::contradictions(&before, &after);
    found.extend(btf::unseen(&before, &after, case.types));
    if found.is_empty() { Ok(()) } else { Err(refuse(found.join(", "))) }
}

fn exports(case: &Case) -> Result<(), Refusal> {
    let (before, after) = (&case.before.0.checksums, &case.after.0.checksums);
    // Of a new function nothing that runs has the export: only the patch itself calls it.
    let is_old = |name: &&String| !case.difference.new.contains(name);
    let differing = case.difference.exports.iter().find(is_old).map(String::as_str).or_else(|| {
        let other = |(name, sum): &(&String, &String)| is_old(name) && before.get(*name) != Some(*sum);
        after.iter().find(other).map(|(name, _)| name.as_str())
    });
    match differing {
        None => Ok(()),
        Some(name) => Err(Refusal::new(Gate::Exports, name)),
    }
}

fn context(case: &Case, name: &str) -> Result<(), Refusal> {
    let section = section_of(case.before.1, name);
    let files = || case.edited.iter().chain([&case.path]);
    let why = if let Some(file) = files().find(|f| UNSAFE_FILES.iter().any(|start| f.starts_with(start))) {
        *file
    } else if UNSAFE_FUNCTIONS.contains(&name) || base(name).contains("_nmi") || name.contains("nmi_") {
        "runs where no stack is looked at"
    } else if UNTOUCHABLE.iter().any(|start| section.starts_with(start)) {
        section
    } else if is_init(section) {
        return Err(Refusal::new(Gate::InitCode, name));
    } else {
        return Ok(());
    };
    Err(Refusal::new(Gate::Context, format!("{name}: {why}")))
}

fn section_of<'a>(object: &Object<'a>, name: &str) -> &'a str {
    let symbol = object.functions().find(|s| s.name == name);
    symbol.and_then(|s| object.section_of(s)).map_or("", |s| s.name)
}

fn weak(case: &Case, name: &str) -> Result<(), Refusal> {
    let is_weak = case.before.1.functions().any(|s| s.name == name && s.is_weak)
        || case.names.global(name).is_ok_and(|found| found.named.is_weak);
    if is_weak { Err(Refusal::new(Gate::Weak, name)) } else { Ok(()) }
}

/// The compiler has left a call for the tracer at the function's beginning, before and after.
fn traceable(case: &Case, name: &str) -> Result<(), Refusal> {
    if is_traceable(case.before.1, name) && is_traceable(case.after.1, name) {
        return Ok(());
    }
    Err(Refusal::new(Gate::Traceable, name))
}

/// The originals of everything that is replaced are what the kernel runs.
fn reproduced(case: &Case) -> Result<(), Refusal> {
    for name in &case.difference.changed {
        if let Some((_, why)) = case.report.different.iter().find(|(function, _)| function == name) {
            return Err(Refusal::new(Gate::Reproduced, format!("{name}: {why}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod keys;
#[cfg(test)]
mod negative;
#[cfg(test)]
mod tests;
