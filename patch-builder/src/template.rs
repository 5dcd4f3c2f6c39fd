//! The patch module's own code (`kmod/patch/`), and what is written beside it for one build.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use invivo_terms::{BuildId, Digest, Level, ModuleName, SetName};

use crate::build::{PatchedObject, VMLINUX};
use crate::judge::Code;
use crate::recipe::Recipe;

/// The template's files. They travel within the program, so that a build needs no source tree.
const FILES: [(&str, &str); 5] = [
    ("Kbuild", include_str!("../../kmod/patch/Kbuild")),
    ("main.c", include_str!("../../kmod/patch/main.c")),
    ("compat.h", include_str!("../../kmod/patch/compat.h")),
    ("patch.h", include_str!("../../kmod/patch/patch.h")),
    ("targets.h", include_str!("../../kmod/patch/targets.h")),
];

/// What a patch of kernel modules has besides.
const TARGET_FILES: [(&str, &str); 1] = [("targets.c", include_str!("../../kmod/patch/targets.c"))];

/// The version of the module's own fields, `INVIVO_PATCH_ABI` of the template.
pub const ABI: &str = "1";

/// What is written beside the template for one module.
#[derive(Debug, Clone, Copy)]
pub struct Fill<'a> {
    /// The module's name.
    pub name: &'a ModuleName,
    /// The level it brings.
    pub level: Level,
    /// The set it is built for.
    pub set: &'a SetName,
    /// The only kernel that it serves.
    pub build_id: &'a BuildId,
    /// The digest of everything that it is made from.
    pub inputs: &'a Digest,
    /// What it closes, as its field lists it.
    pub fixes: &'a str,
    /// What becomes of its code when it was taken off.
    pub code: Code,
    /// The namespaces of the kernel's exports that it uses.
    pub namespaces: &'a BTreeSet<String>,
    /// What it replaces.
    pub objects: &'a [PatchedObject],
    /// The texts with the new functions.
    pub parts: &'a [&'a str],
}

/// A function of a patch's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the kernel.
    pub name: String,
    /// Its position among the symbols of that name; 0 if it is the only one.
    pub position: u32,
    /// The symbol of the new function.
    pub symbol: String,
}

/// Each object of the kernel that a patch changes, and its functions.
pub type Table = BTreeMap<String, Vec<Entry>>;

/// All sources of one module whose parts are texts, by file name.
pub fn sources(fill: &Fill) -> BTreeMap<String, String> {
    let entry =
        |name: &String| Entry { name: name.clone(), position: 0, symbol: format!("invivo_new_{name}") };
    let table: Vec<_> =
        fill.objects.iter().map(|o| (o.name.as_str(), o.functions.iter().map(entry).collect())).collect();
    let mut files = around(fill, &table, fill.parts.len());
    for (n, text) in fill.parts.iter().enumerate() {
        files.insert(format!("part{n}.c"), (*text).to_owned());
    }
    files
}

/// The sources of one module around `parts` objects that have the functions of `table`.
pub fn around_objects(fill: &Fill, table: &Table, parts: usize) -> BTreeMap<String, String> {
    let table: Vec<_> = table.iter().map(|(name, entries)| (name.as_str(), entries.clone())).collect();
    around(fill, &table, parts)
}

fn around(fill: &Fill, objects: &[(&str, Vec<Entry>)], parts: usize) -> BTreeMap<String, String> {
    let targets = objects.iter().any(|(name, _)| *name != VMLINUX);
    let template = FILES.iter().chain(TARGET_FILES.iter().filter(|_| targets));
    let mut files: BTreeMap<String, String> =
        template.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let parts: Vec<_> = (0..parts).map(|n| format!("part{n}.o")).collect();
    let mut name = format!("INVIVO_MODULE := {}\nINVIVO_PARTS := {}\n", fill.name, parts.join(" "));
    if targets {
        name.push_str("INVIVO_TARGETS := y\n");
    }
    files.insert("name.mk".to_owned(), name);
    files.insert("build.h".to_owned(), build_header(fill));
    files.insert("table.c".to_owned(), table(objects) + &imports(fill.namespaces));
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
        ("FIXES", fill.fixes.to_owned()),
        ("UNLOAD", unload(fill.code).to_owned()),
    ];
    for (name, value) in fields {
        let _ = writeln!(out, "#define INVIVO_{name} \"{value}\"");
    }
    let _ = writeln!(out, "#define INVIVO_STAYS {}", u8::from(fill.code == Code::Stays));
    let _ = writeln!(out, "#define INVIVO_BUILD_ID_BYTES {{ {} }}", bytes.join(", "));
    out
}

/// Whether the module can be unloaded, as its field says it.
pub(crate) fn unload(code: Code) -> &'static str {
    match code {
        Code::Goes => "yes",
        Code::Stays => "never",
    }
}

/// The CVEs of recipes as the module's field lists them.
pub(crate) fn fixes(recipes: &[Recipe]) -> String {
    let fixes = recipes.iter().flat_map(|recipe| &recipe.fixes);
    fixes.map(|fix| fix.cve.as_str()).collect::<Vec<_>>().join(",")
}

/// That the module uses exports of these namespaces.
fn imports(namespaces: &BTreeSet<String>) -> String {
    let mut out = String::new();
    if !namespaces.is_empty() {
        out.push_str("\n#include <linux/module.h>\n");
    }
    for namespace in namespaces {
        let _ = writeln!(out, "MODULE_INFO(import_ns, \"{namespace}\");");
    }
    out
}

fn table(objects: &[(&str, Vec<Entry>)]) -> String {
    let mut out = String::from("// SPDX-License-Identifier: GPL-2.0\n#include \"patch.h\"\n\n");
    for entry in objects.iter().flat_map(|(_, entries)| entries) {
        let _ = writeln!(out, "extern char {}[];", entry.symbol);
    }
    for (name, entries) in objects {
        let _ = writeln!(out, "\nstatic struct klp_func invivo_{name}_funcs[] = {{");
        for Entry { name, position, symbol } in entries {
            let _ = writeln!(out, "\tINVIVO_FUNC(\"{name}\", {symbol}, {position}),");
        }
        out.push_str("\t{ }\n};\n");
    }
    out.push_str("\nstruct klp_object invivo_objects[] = {\n");
    for (name, _) in objects {
        let of = if *name == VMLINUX { String::new() } else { format!(".name = \"{name}\", ") };
        let _ = writeln!(out, "\t{{ {of}.funcs = invivo_{name}_funcs }},");
    }
    out.push_str("\t{ }\n};\n");
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

    fn of(objects: &[(&str, &[&str])]) -> BTreeMap<String, String> {
        let objects: Vec<_> = objects
            .iter()
            .map(|(name, functions)| PatchedObject {
                name: (*name).to_owned(),
                functions: functions.iter().map(|f| (*f).to_owned()).collect(),
            })
            .collect();
        sources(&Fill {
            name: &"invivo_l1_0123456789abcdef".parse().unwrap(),
            level: Level(1),
            set: &"2026-11-21.1".parse().unwrap(),
            build_id: &"ab".repeat(20).parse().unwrap(),
            inputs: &Digest::from_bytes(&[0; 32]),
            fixes: "",
            code: Code::Goes,
            namespaces: &["CXL".to_owned()].into(),
            objects: &objects,
            parts: &["int x;\n"],
        })
    }

    #[test]
    fn only_a_patch_of_modules_is_built_with_the_code_for_them() {
        let files = of(&[("vmlinux", &["f"])]);
        assert!(!files.contains_key("targets.c") && !files["name.mk"].contains("TARGETS"));
        let files = of(&[("vmlinux", &["f"]), ("exfat", &["g"])]);
        assert!(files.contains_key("targets.c") && files["name.mk"].contains("INVIVO_TARGETS := y\n"));
    }

    #[test]
    fn the_table_has_one_entry_for_each_object_and_a_name_for_each_module() {
        let table = &of(&[("vmlinux", &["f"]), ("nf_tables", &["g", "h"])])["table.c"];
        let end = table.split_once("invivo_objects[] = {\n").unwrap().1;
        let vmlinux = "\t{ .funcs = invivo_vmlinux_funcs },\n";
        let module = "\t{ .name = \"nf_tables\", .funcs = invivo_nf_tables_funcs },\n";
        let imports = "\n#include <linux/module.h>\nMODULE_INFO(import_ns, \"CXL\");\n";
        assert_eq!(end, format!("{vmlinux}{module}\t{{ }}\n}};\n{imports}"));
        assert_eq!(super::imports(&BTreeSet::new()), "");
        assert!(table.contains("invivo_nf_tables_funcs[] = {\n\tINVIVO_FUNC(\"g\", invivo_new_g, 0),\n\tINVIVO_FUNC(\"h\", invivo_new_h, 0),\n"));
    }
}
