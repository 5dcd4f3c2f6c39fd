//! The patch module's own code (`kmod/patch/`), and what is written beside it for one build.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use invivo_terms::{BuildId, Digest, Level, ModuleName, SetName};

use crate::recipe::Recipe;
use crate::select::Selection;

/// The template's files. They travel within the program, so that a build needs no source tree.
pub(crate) const FILES: [(&str, &str); 3] = [
    ("Kbuild", include_str!("../../kmod/patch/Kbuild")),
    ("main.c", include_str!("../../kmod/patch/main.c")),
    ("patch.h", include_str!("../../kmod/patch/patch.h")),
];

/// The version of the module's own fields, `INVIVO_PATCH_ABI` of the template.
pub const ABI: &str = "1";

/// What goes into the module's fields.
pub(crate) struct Fill<'a> {
    pub(crate) name: &'a ModuleName,
    pub(crate) level: Level,
    pub(crate) set: &'a SetName,
    pub(crate) build_id: &'a BuildId,
    pub(crate) inputs: &'a Digest,
    pub(crate) recipe: &'a Recipe,
    pub(crate) selections: &'a [Selection],
}

/// All sources of one module, by file name.
pub(crate) fn sources(fill: &Fill) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> =
        FILES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let parts: Vec<_> = (0..fill.selections.len()).map(|n| format!("part{n}")).collect();
    for (part, selection) in parts.iter().zip(fill.selections) {
        files.insert(format!("{part}.c"), selection.text.clone());
    }
    let objects: Vec<_> = parts.iter().map(|part| format!("{part}.o")).collect();
    files.insert(
        "name.mk".to_owned(),
        format!("INVIVO_MODULE := {}\nINVIVO_PARTS := {}\n", fill.name, objects.join(" ")),
    );
    files.insert("build.h".to_owned(), build_header(fill));
    files.insert("table.c".to_owned(), table(fill.recipe));
    files
}

fn build_header(fill: &Fill) -> String {
    let id = fill.build_id.as_str();
    let bytes: Vec<_> =
        (0..id.len()).step_by(2).filter_map(|at| id.get(at..at + 2)).map(|b| format!("0x{b}")).collect();
    let mut out = String::from("/* SPDX-License-Identifier: GPL-2.0 */\n");
    let fields = [
        ("LEVEL", fill.level.to_string()),
        ("SET", fill.set.to_string()),
        ("BUILD_ID", id.to_owned()),
        ("INPUTS", fill.inputs.to_string()),
        ("FIXES", fixes(fill.recipe)),
    ];
    for (name, value) in fields {
        let _ = writeln!(out, "#define INVIVO_{name} \"{value}\"");
    }
    let _ = writeln!(out, "#define INVIVO_BUILD_ID_BYTES {{ {} }}", bytes.join(", "));
    out
}

/// The CVEs of a recipe as the module's field lists them.
pub(crate) fn fixes(recipe: &Recipe) -> String {
    recipe.fixes.iter().map(|fix| fix.cve.as_str()).collect::<Vec<_>>().join(",")
}

fn table(recipe: &Recipe) -> String {
    let mut out = String::from("// SPDX-License-Identifier: GPL-2.0\n#include \"patch.h\"\n\n");
    for function in recipe.functions() {
        let _ = writeln!(out, "INVIVO_FUNC_DECLARE({function});");
    }
    out.push_str("\nstatic struct klp_func invivo_vmlinux_funcs[] = {\n");
    for function in recipe.functions() {
        let _ = writeln!(out, "\tINVIVO_FUNC({function}, 0),");
    }
    out.push_str("\t{ }\n};\n\nstruct klp_object invivo_objects[] = {\n\t{ .funcs = invivo_vmlinux_funcs },\n\t{ }\n};\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_abi_is_the_one_in_the_template() {
        let header = FILES.iter().find(|(name, _)| *name == "patch.h").unwrap().1;
        assert!(header.contains(&format!("#define INVIVO_PATCH_ABI\t\"{ABI}\"")), "{header}");
    }
}
