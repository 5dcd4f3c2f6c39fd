use super::*;

const ORIGINAL: &str = "\
#include <linux/kernel.h>

struct state {
	int level;
};

static int limit = 5;

static int check(int n)
{
	return n > 3;
}

static int twice(int n)
{
	return check(2 * n);
}

int get(int n)
{
	return twice(n);
}
EXPORT_SYMBOL(get);

int other(int n)
{
	return n;
}
";

fn file(functions: &[&str]) -> SourceFile {
    SourceFile { path: "net/x.c".to_owned(), functions: functions.iter().map(|f| (*f).to_owned()).collect() }
}

/// Cuts `get` after replacing `from` by `to` in the original.
fn fixed(from: &str, to: &str) -> Result<Selection, Error> {
    assert!(ORIGINAL.contains(from), "{from:?} is not in the source");
    cut(&file(&["get"]), ORIGINAL, &ORIGINAL.replacen(from, to, 1))
}

fn refusal(result: Result<Selection, Error>) -> (String, Refusal) {
    match result.unwrap_err() {
        Error::Refused { function, refusal, .. } => (function, refusal),
        other => panic!("{other}"),
    }
}

const BODY: &str = "\treturn twice(n);";

#[test]
fn the_function_is_taken_with_the_helpers_it_needs_and_nothing_more() {
    let selection = fixed(BODY, "\tif (n < 0)\n\t\treturn -1;\n\treturn twice(n);").unwrap();
    assert_eq!(selection.helpers, ["check", "twice"]);
    assert!(selection.left_out.is_empty());
    let text = &selection.text;
    assert!(text.contains("#include <linux/kernel.h>") && text.contains("return -1;"), "{text}");
    assert!(
        text.contains("struct state") && text.ends_with("extern typeof(get) invivo_new_get __alias(get);\n"),
        "{text}"
    );
    assert!(!text.contains("other") && !text.contains("limit") && !text.contains("EXPORT"), "{text}");
    assert!(text.contains("#line 19 \"net/x.c\"\nint get("), "{text}");
}

#[test]
fn a_function_that_the_fix_does_not_change_is_refused() {
    let found = cut(&file(&["get"]), ORIGINAL, ORIGINAL);
    assert_eq!(refusal(found), ("get".to_owned(), Refusal::Unchanged));
}

#[test]
fn a_function_that_is_not_there_is_refused() {
    let found = cut(&file(&["put"]), ORIGINAL, ORIGINAL);
    assert_eq!(refusal(found), ("put".to_owned(), Refusal::NotDefined("original")));
}

#[test]
fn a_function_with_other_parameters_is_refused() {
    let found = fixed("int get(int n)", "int get(int n, int m)");
    assert_eq!(refusal(found), ("get".to_owned(), Refusal::Declaration));
}

#[test]
fn a_helper_that_changed_too_must_be_named() {
    let changed = ORIGINAL.replacen(BODY, "\treturn twice(n) - 1;", 1).replacen("n > 3", "n > 2", 1);
    let found = cut(&file(&["get"]), ORIGINAL, &changed);
    assert_eq!(refusal(found), ("check".to_owned(), Refusal::HelperChanged));

    let selection = cut(&file(&["get", "check"]), ORIGINAL, &changed).unwrap();
    assert_eq!(selection.helpers, ["twice"]);
}

#[test]
fn a_helper_that_came_with_the_fix_is_taken_along() {
    let found = fixed(
        "int get(int n)\n{\n",
        "static int fresh(int n)\n{\n\treturn n;\n}\n\nint get(int n)\n{\n\tn = fresh(n);\n",
    );
    assert_eq!(found.unwrap().helpers, ["check", "fresh", "twice"]);
}

#[test]
fn a_change_elsewhere_in_the_file_is_told() {
    let changed = ORIGINAL.replacen(BODY, "\treturn 0;", 1).replacen("\treturn n;", "\treturn -n;", 1);
    let selection = cut(&file(&["get"]), ORIGINAL, &changed).unwrap();
    assert_eq!(selection.left_out, ["other"]);
}

#[test]
fn a_static_variable_is_refused_and_a_constant_is_not() {
    let found = fixed(BODY, "\tstatic int calls;\n\treturn twice(n) + calls++;");
    assert_eq!(refusal(found), ("get".to_owned(), Refusal::StaticVariable));
    fixed(BODY, "\tstatic const int more = 1;\n\treturn twice(n) + more;").unwrap();
}

#[test]
fn data_of_the_file_is_refused() {
    let found = fixed(BODY, "\treturn twice(n) + limit;");
    assert_eq!(refusal(found), ("limit".to_owned(), Refusal::Data));
}

#[test]
fn a_type_that_changed_is_refused() {
    let changed = ORIGINAL.replacen(BODY, "\treturn 0;", 1).replacen("int level;", "long level;", 1);
    let found = cut(&file(&["get"]), ORIGINAL, &changed);
    assert_eq!(refusal(found), ("struct state {".to_owned(), Refusal::Type));
}

#[test]
fn functions_without_a_place_of_their_own_are_refused() {
    for mark in ["__init", "inline", "notrace"] {
        let marked = ORIGINAL.replacen("int get(int n)", &format!("int {mark} get(int n)"), 1);
        let found = cut(&file(&["get"]), &marked, &marked.replacen(BODY, "\treturn 0;", 1));
        assert!(matches!(refusal(found), (_, Refusal::Marked(m)) if m == mark));
    }
}
