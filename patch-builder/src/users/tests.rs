use std::fs;

use super::*;

/// A small tree, and the last names of the files that are built of it, with their functions.
struct Small {
    root: tempfile::TempDir,
    index: Index,
}

impl Small {
    fn new(files: &[(&str, &str)], built: &[(&str, &[&str])]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { root, index: Index::sample(built) }
    }

    fn users(&self, path: &str, change: &Change) -> Result<BTreeSet<String>, Refusal> {
        let known = Known::new(self.root.path(), &self.index);
        known.users(path, change).map_err(|error| match error {
            Error::Refused(refusal) => refusal,
            other @ Error::Read { .. } => panic!("{other}"),
        })
    }
}

const HEADER: &str = "\
#ifndef _NET_A_H
#define _NET_A_H
#define LIMIT 3
enum { OPEN, CLOSED };
struct a {
	int b;
};
int far(struct a *a);
static inline int low(int n)
{
	return n;
}
static inline int high(int n)
{
	return low(n) + 1;
}
#endif
";

fn change(from: &str, to: &str) -> Change {
    assert!(HEADER.contains(from), "{from:?}");
    Change::of("include/net/a.h", HEADER, &HEADER.replacen(from, to, 1)).unwrap()
}

fn code(name: &str, body: &str) -> String {
    format!("#include <net/a.h>\nint {name}(int n)\n{{\n\treturn {body};\n}}\n")
}

/// A tree in which files use different things of [`HEADER`].
fn tree(more: &[(&str, &str)]) -> Small {
    let files = [
        ("net/low.c", code("use_low", "low(n)")),
        ("net/high.c", code("use_high", "high(n)")),
        ("net/limit.c", code("use_limit", "n > LIMIT")),
        ("net/closed.c", code("use_closed", "n == CLOSED")),
        ("net/through.c", code("use_through", "through(n)")),
        ("drivers/off.c", code("use_off", "low(n)")),
    ];
    let mut all: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let through = "#define through(n) high(n)\n";
    all.extend([("include/net/a.h", HEADER), ("include/net/through.h", through)]);
    all.extend(more);
    let built: &[(&str, &[&str])] = &[
        ("low.c", &["use_low"]),
        ("high.c", &["use_high"]),
        ("limit.c", &["use_limit"]),
        ("closed.c", &["use_closed"]),
        ("through.c", &["use_through"]),
        ("whole.c", &["use_whole"]),
    ];
    Small::new(&all, built)
}

fn listed(found: Result<BTreeSet<String>, Refusal>) -> String {
    found.unwrap().into_iter().collect::<Vec<_>>().join(" ")
}

fn users(from: &str, to: &str) -> String {
    listed(tree(&[]).users("include/net/a.h", &change(from, to)))
}

#[test]
fn whoever_names_what_changed_uses_it_and_so_does_who_names_what_is_made_of_it() {
    assert_eq!(users("return n;", "return -n;"), "net/high.c net/low.c net/through.c");
    assert_eq!(users("low(n) + 1", "low(n) + 2"), "net/high.c net/through.c");
    assert_eq!(users("LIMIT 3", "LIMIT 4"), "net/limit.c");
}

#[test]
fn a_header_without_one_of_its_users_is_refused_by_name() {
    let small = tree(&[]);
    let users = small.users("include/net/a.h", &change("low(n) + 1", "low(n) + 2")).unwrap();
    let with = |units: &[&str]| are_units("include/net/a.h", &users, &units.iter().copied().collect());
    with(&["net/high.c", "net/low.c", "net/through.c"]).unwrap();
    let refusal = with(&["net/high.c"]).unwrap_err();
    assert_eq!(refusal.gate, Gate::Users);
    assert!(refusal.what.starts_with("net/through.c uses"), "{refusal}");
}

#[test]
fn comments_blanks_and_what_is_only_declared_have_no_users() {
    let comment = change("return n;", "/* as it is */\n\treturn\t n; // so");
    assert!(comment.is_none(), "{comment:?}");
    let declared = change("int far", "int news(struct a *a);\nstruct sock;\nint far");
    assert!(declared.is_declared_only() && !declared.is_none(), "{declared:?}");
    assert!(change("#define LIMIT", "#include <net/b.h>\n#line 3\n#define LIMIT").is_none());
}

#[test]
fn a_prototype_that_changed_and_a_function_under_another_condition_are_others() {
    assert!(change("far(struct a *a)", "far(struct a *a, int n)").functions.contains("far"));
    let moved = change("static inline int low", "#ifdef CONFIG_X\nstatic inline int low");
    let moved = (moved.functions.contains("low"), moved.functions.contains("far"));
    assert_eq!(moved, (true, false));
}

#[test]
fn a_constant_at_the_end_changes_no_other_and_one_before_changes_all_that_follow() {
    let values = |to: &str| change("OPEN, CLOSED", to).values.into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(values("OPEN, CLOSED /* the end */, GONE"), "GONE");
    assert_eq!(values("OPEN, OPENING, CLOSED"), "CLOSED OPENING");
}

#[test]
fn a_type_that_changed_is_left_to_the_comparison_of_layouts() {
    let change = change("int b;", "int b, c;");
    assert!(change.types.contains("a") && change.functions.is_empty() && change.values.is_empty());
}

#[test]
fn a_macro_within_a_type_is_a_macro() {
    let header = "struct b {\n\tint flags;\n#define B_OPEN \\\n\t1\n};\n";
    let change = Change::of("include/net/b.h", header, &header.replace("\t1\n", "\t2\n")).unwrap();
    assert!(change.values.contains("B_OPEN"), "{change:?}");
    let file = code("use_low", "n & B_OPEN");
    let small = tree(&[("include/net/b.h", header), ("net/low.c", &file)]);
    assert_eq!(listed(small.users("include/net/b.h", &change)), "net/low.c");
}

#[test]
fn a_macro_that_a_type_is_laid_out_by_is_refused() {
    let small = tree(&[("include/net/b.h", "struct b {\n\tint list[LIMIT];\n};\n")]);
    let refusal = small.users("include/net/a.h", &change("LIMIT 3", "LIMIT 4")).unwrap_err();
    assert_eq!(refusal, Refusal::new(Gate::Layout, "LIMIT is in the layout of b (include/net/b.h)"));
    // One that nothing includes is of no one.
    let small = tree(&[("drivers/b.h", "struct b {\n\tint list[LIMIT];\n};\n")]);
    assert_eq!(listed(small.users("include/net/a.h", &change("LIMIT 3", "LIMIT 4"))), "net/limit.c");
    // A member may share its name with a function.
    let small = tree(&[("include/net/b.h", "struct b {\n\tint (*low)(int n);\n};\n")]);
    let found = small.users("include/net/a.h", &change("return n;", "return -n;"));
    assert_eq!(listed(found), "net/high.c net/low.c net/through.c");
}

#[test]
fn what_is_used_in_assembly_or_in_an_image_of_its_own_is_refused() {
    for path in ["arch/x86/lib/copy.S", "arch/x86/kernel/vmlinux.lds.S", "lib/vdso/gettimeofday.c"] {
        let small = tree(&[(path, "cmp $LIMIT, %rax\n")]);
        let refusal = small.users("include/net/a.h", &change("LIMIT 3", "LIMIT 4")).unwrap_err();
        assert_eq!(refusal.gate, Gate::Users, "{refusal}");
        assert!(refusal.what.contains(path), "{refusal}");
        let found = small.users("include/net/a.h", &change("return n;", "return -n;"));
        assert_eq!(listed(found), "net/high.c net/low.c net/through.c");
    }
}

#[test]
fn a_condition_that_names_what_changed_is_about_all_of_its_header() {
    let other = "#if LIMIT > 3\nstatic inline int more(int n)\n{\n\treturn n;\n}\n#endif\n";
    let whole = "int use_whole(int n)\n{\n\treturn more(n);\n}\n";
    let small = tree(&[("include/net/b.h", other), ("net/whole.c", whole)]);
    let found = small.users("include/net/a.h", &change("LIMIT 3", "LIMIT 4"));
    assert_eq!(listed(found), "net/limit.c net/whole.c");
    // Whether it is there at all did not change.
    let small =
        tree(&[("include/net/b.h", &other.replace("#if LIMIT > 3", "#ifdef LIMIT")), ("net/whole.c", whole)]);
    assert_eq!(listed(small.users("include/net/a.h", &change("LIMIT 3", "LIMIT 4"))), "net/limit.c");
}

#[test]
fn code_of_a_header_is_wherever_that_is_included() {
    let template = "static int FNAME(walk)(int n)\n{\n\treturn n;\n}\n";
    let whole = "#include \"walk_tmpl.h\"\nint use_whole(int n)\n{\n\treturn n;\n}\n";
    let small = tree(&[("net/walk_tmpl.h", template), ("net/whole.c", whole)]);
    let change = Change::of("net/walk_tmpl.h", template, &template.replace("return n", "return -n")).unwrap();
    assert!(change.is_code);
    assert_eq!(listed(small.users("net/walk_tmpl.h", &change)), "net/whole.c");
    // It uses what it names.
    let small =
        tree(&[("net/walk_tmpl.h", &template.replace("return n", "return low(n)")), ("net/whole.c", whole)]);
    let found = small.users("include/net/a.h", &self::change("return n;", "return -n;"));
    assert_eq!(listed(found), "net/high.c net/low.c net/through.c net/whole.c");
}

#[test]
fn a_header_in_quotes_is_the_one_beside_the_file() {
    let table = "FEATURE(one, true)\n";
    let file = "#include \"features.h\"\nint use_low(int n)\n{\n\treturn n;\n}\n";
    let small = tree(&[
        ("net/features.h", table),
        ("net/low.c", file),
        ("mm/features.h", table),
        ("mm/whole.c", &file.replace("use_low", "use_whole")),
    ]);
    let change = Change::of("mm/features.h", table, &table.replace("true", "false")).unwrap();
    assert_eq!(listed(small.users("mm/features.h", &change)), "mm/whole.c");
}

#[test]
fn a_header_that_cannot_be_taken_apart_is_of_those_that_include_it() {
    let odd = "ODD(low,\n";
    let whole = "#include \"odd.h\"\nint use_whole(int n)\n{\n\treturn n;\n}\n";
    let small = tree(&[("net/odd.h", odd), ("net/whole.c", whole)]);
    let found = small.users("include/net/a.h", &change("return n;", "return -n;"));
    assert_eq!(listed(found), "net/high.c net/low.c net/through.c net/whole.c");
}

#[test]
fn a_tracepoint_is_code_of_those_that_include_it() {
    let header = "DECLARE_EVENT_CLASS(walk,\n\tTP_fast_assign(\n\t\tint low = 1;\n\t)\n);\n";
    let whole = "#include \"walk_trace.h\"\nint use_whole(int n)\n{\n\treturn n;\n}\n";
    let small = tree(&[("net/walk_trace.h", header), ("net/whole.c", whole)]);
    let change = Change::of("net/walk_trace.h", header, &header.replace("= 1", "= 2")).unwrap();
    assert!(change.is_code && change.functions.is_empty(), "{change:?}");
    assert_eq!(listed(small.users("net/walk_trace.h", &change)), "net/whole.c");
}

#[test]
fn a_file_that_others_include_is_compiled_in_those_that_are_built() {
    let part = "int part(int n)\n{\n\treturn low(n);\n}\n";
    let whole = "#include \"sub/part.c\"\nint use_whole(int n)\n{\n\treturn n;\n}\n";
    let small = tree(&[
        ("net/sub/part.c", part),
        ("net/whole.c", whole),
        ("drivers/off.c", &whole.replace("sub/part.c", "../net/sub/part.c")),
    ]);
    let change = Change::of("net/sub/part.c", part, &part.replace("low(n)", "low(n) + 1")).unwrap();
    assert_eq!(listed(small.users("net/sub/part.c", &change)), "net/whole.c");
    // And what it uses of a header, they use.
    let found = small.users("include/net/a.h", &self::change("return n;", "return -n;"));
    assert_eq!(listed(found), "net/high.c net/low.c net/through.c net/whole.c");
}

#[test]
fn too_many_users_are_refused() {
    let files: Vec<(String, String)> =
        (0..=MOST).map(|n| (format!("fs/u{n}.c"), code(&format!("u{n}"), "low(n)"))).collect();
    let mut all: Vec<(&str, &str)> =
        files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    all.push(("include/net/a.h", HEADER));
    let names: Vec<[String; 2]> = (0..=MOST).map(|n| [format!("u{n}.c"), format!("u{n}")]).collect();
    let functions: Vec<[&str; 1]> = names.iter().map(|[_, function]| [function.as_str()]).collect();
    let built: Vec<(&str, &[&str])> =
        names.iter().zip(&functions).map(|([file, _], list)| (file.as_str(), list.as_slice())).collect();
    let change = change("return n;", "return -n;");
    let refusal = Small::new(&all, &built).users("include/net/a.h", &change).unwrap_err();
    assert_eq!(refusal.gate, Gate::Users, "{refusal}");
    assert!(refusal.what.contains("33 files"), "{refusal}");
    assert_eq!(Small::new(&all, &built[1..]).users("include/net/a.h", &change).unwrap().len(), MOST);
}

#[test]
fn a_copy_of_its_own_in_a_file_that_does_not_name_the_function_is_refused() {
    let built: &[(&str, &[&str])] = &[("low.c", &["use_low", "low"]), ("odd.c", &["low"])];
    let files = [("net/low.c", code("use_low", "low(n)")), ("net/odd.c", code("use_odd", "PASTE(lo, w)(n)"))];
    let mut all: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    all.push(("include/net/a.h", HEADER));
    let change = change("return n;", "return -n;");
    let refusal = Small::new(&all, built).users("include/net/a.h", &change).unwrap_err();
    assert_eq!(refusal.gate, Gate::Users);
    assert!(refusal.what.starts_with("odd.c has low"), "{refusal}");
    assert_eq!(listed(Small::new(&all, &built[..1]).users("include/net/a.h", &change)), "net/low.c");
}
