//! Functions that cannot be replaced, since nothing calls the tracer at their beginning: the kernel keeps
//! what is `inline` from it, and the compiler may leave such a function whole. Where none but functions of
//! its file call one, these are replaced, and carry it along as code of the patch.

use std::collections::BTreeSet;

use super::compare::{Difference, is_cold, is_given_away, is_init};
use super::target::Target;
use super::{Kind, Object, Symbol, instruction};

/// Whether the compiler has left a call for the tracer at the beginning of the function `name`.
pub fn is_traceable(object: &Object, name: &str) -> bool {
    object.functions().find(|s| s.name == name).is_some_and(|symbol| {
        let at_start = object
            .relocations_of(symbol)
            .into_iter()
            .take_while(|r| r.offset <= 5)
            .any(|r| object.symbols.get(r.symbol).is_some_and(|s| s.name == "__fentry__"));
        // Where objtool has made it a nop, the place is noted.
        at_start || is_noted(object, symbol)
    })
}

fn is_noted(object: &Object, symbol: &Symbol) -> bool {
    let Some(places) = object.section("__mcount_loc") else { return false };
    places.relocations.iter().any(|relocation| {
        matches!(object.reference(*relocation, None).target,
            Target::Unit(number, offset)
                if offset <= 4 && object.symbols.get(number).is_some_and(|s| s.name == symbol.name))
    })
}

/// Takes the callers of such functions for changed, until all that is changed can be replaced or cannot be
/// carried.
pub(super) fn carry(before: &Object, after: &Object, found: &mut Difference) {
    while let Some((name, callers)) =
        found.changed.iter().find_map(|name| Some((name.clone(), callers(before, after, name)?)))
    {
        found.changed.retain(|other| *other != name);
        let old: BTreeSet<&str> = before.functions().map(|symbol| symbol.name).collect();
        for caller in callers.iter().filter(|caller| old.contains(caller.as_str())) {
            let symbol = after.functions().find(|symbol| symbol.name == caller.as_str());
            let section = symbol.and_then(|symbol| after.section_of(symbol)).map_or("", |s| s.name);
            let list = if is_init(section) { &mut found.init } else { &mut found.changed };
            let is_carried = found.carried.contains(caller);
            if let Err(place) = list.binary_search(caller)
                && !is_carried
            {
                list.insert(place, caller.clone());
            }
        }
        found.carried.push(name);
    }
}

/// Who calls `name`, if it cannot be replaced and nobody else does.
fn callers(before: &Object, after: &Object, name: &str) -> Option<BTreeSet<String>> {
    let is_own = |object: &Object| {
        let symbol = object.functions().find(|symbol| symbol.name == name)?;
        // What must not be traced for other reasons stands elsewhere.
        let plain = object.section_of(symbol)?.name == format!(".text.{name}");
        let cold = format!("{name}.cold");
        let is_split = object.functions().any(|symbol| symbol.name == cold);
        (symbol.is_local && plain && !is_split && !is_given_away(object, name)).then_some(())
    };
    if is_cold(name) || (is_traceable(before, name) && is_traceable(after, name)) {
        return None;
    }
    is_own(before)?;
    is_own(after)?;
    let calls = |function: &&Symbol| {
        let fields = instruction::fields(after.bytes_of(function));
        let is_it = |number: usize| {
            after.symbols.get(number).is_some_and(|s| s.kind == Kind::Function && s.name == name)
        };
        let mut relocations = after.relocations_of(function).into_iter();
        function.name != name
            && relocations.any(|relocation| {
                let target = after.reference(relocation, Some(&fields)).target;
                matches!(target, Target::Unit(number, _) if is_it(number))
            })
    };
    let whole = |symbol: &Symbol| symbol.name.split(".cold").next().unwrap_or(symbol.name).to_owned();
    let callers: BTreeSet<String> = after.functions().filter(calls).map(whole).collect();
    Some(callers).filter(|callers| !callers.is_empty())
}
