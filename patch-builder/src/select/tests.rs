use super::*;

const ORIGINAL: &str = "\
#include <linux/kernel.h>

static int check(int n)
{
	return n > 3;
}

int get(int n)
{
	return check(n);
}

int other(int n)
{
	return n;
}
";

const FIXED: &str = "\
#include <linux/kernel.h>
#define MOST 7

static int check(int n)
{
	return n > 3;
}

static int limit(int n)
{
	return n > MOST ? MOST : n;
}

int get(int n)
{
	if (n < 0)
		return 0;
	return check(limit(n));
}

int other(int n)
{
	return n + 1;
}
";

fn wish<'a>(fix: &'a str, fixed: &'a str, functions: &[&'a str], also: &[&'a str]) -> Wish<'a> {
    Wish {
        fix,
        fixed,
        version: None,
        what: What::Functions { functions: functions.to_vec(), also: also.to_vec() },
    }
}

fn composed(wishes: &[Wish]) -> Result<String, Refusal> {
    compose("x.c", ORIGINAL, wishes, Keys::AsWritten)
}

#[test]
fn only_what_is_named_is_put_in_and_the_rest_keeps_its_lines() {
    let text = composed(&[wish("A", FIXED, &["get", "limit"], &["MOST 7"])]).unwrap();
    assert!(text.contains("#define MOST 7") && text.contains("static int limit") && text.contains("n < 0"));
    assert!(text.contains("\treturn n;\n") && !text.contains("n + 1"), "{text}");
    // A compiler counts from each #line.
    let (mut number, mut found) = (0, 0);
    for line in text.lines() {
        number += 1;
        match line.strip_prefix("#line ") {
            Some(next) => number = next.parse::<usize>().unwrap() - 1,
            None if line.starts_with("int other") => found = number,
            None => {}
        }
    }
    assert_eq!(found, 13, "{text}");
}

#[test]
fn what_is_new_and_named_by_a_function_comes_with_it() {
    let text = composed(&[wish("A", FIXED, &["get"], &[])]).unwrap();
    assert!(text.contains("static int limit") && text.contains("#define MOST 7"), "{text}");
    let text = composed(&[wish("A", FIXED, &["other"], &[])]).unwrap();
    assert!(!text.contains("limit") && !text.contains("MOST"), "{text}");
}

#[test]
fn two_fixes_of_one_file_come_together() {
    let other = FIXED.replace("n + 1", "n + 2");
    let text =
        composed(&[wish("A", FIXED, &["get", "limit"], &["MOST"]), wish("B", &other, &["other"], &[])])
            .unwrap();
    assert!(text.contains("n < 0") && text.contains("n + 2"), "{text}");
}

#[test]
fn two_fixes_that_want_different_things_of_a_function_are_refused_by_name() {
    let other = FIXED.replace("n + 1", "n + 2");
    let wishes = [wish("A", FIXED, &["other"], &[]), wish("B", &other, &["other"], &[])];
    let refusal = composed(&wishes).unwrap_err();
    assert_eq!(refusal, Refusal::new(Gate::Conflict, "x.c: other: A and B"));
    let same = [wish("A", FIXED, &["other"], &[]), wish("B", FIXED, &["other"], &[])];
    assert!(composed(&same).unwrap().contains("n + 1"));
    let whole = Wish { fix: "C", fixed: FIXED, version: Some("6.1.1-1"), what: What::All };
    assert_eq!(composed(&[same[0].clone(), whole]).unwrap_err().gate, Gate::Conflict);
}

#[test]
fn of_two_forms_that_follow_each_other_in_the_distributions_versions_the_later_is_taken() {
    let later = FIXED.replace("n + 1", "n + 2").replace("n > MOST ?", "n >= MOST ?");
    let mut wishes = [wish("B", &later, &["other", "get"], &[]), wish("A", FIXED, &["other", "get"], &[])];
    wishes[0].version = Some("6.1.187-1");
    wishes[1].version = Some("6.1.176-1");
    let text = composed(&wishes).unwrap();
    assert!(text.contains("n + 2") && !text.contains("n + 1"), "{text}");
    assert!(text.contains("n >= MOST") && text.matches("int limit").count() == 1, "{text}");
    wishes[1].version = Some("6.1.187-1");
    assert_eq!(composed(&wishes).unwrap_err().gate, Gate::Conflict);
}

#[test]
fn a_macro_that_is_named_takes_the_place_of_its_old_form() {
    let (old, new) = (
        "#define MOST 1\nint get(int n)\n{\n\treturn n + MOST;\n}\n",
        "#define MOST 2\nint get(int n)\n{\n\treturn n - MOST;\n}\n",
    );
    let text =
        compose("x.c", old, &[wish("A", new, &["get"], &["#define MOST 2"])], Keys::AsWritten).unwrap();
    assert_eq!(text, new);
}

#[test]
fn a_function_with_two_forms_of_which_one_changed_is_put_in() {
    let old = "#ifdef A\nint f(void)\n{\n\treturn 1;\n}\n#else\nint f(void)\n{\n\treturn 2;\n}\n#endif\n";
    let new = old.replace("return 1", "return 3");
    let text = compose("x.c", old, &[wish("A", &new, &["f"], &[])], Keys::AsWritten).unwrap();
    assert_eq!(text, new);
    assert_eq!(
        compose("x.c", old, &[wish("A", old, &["f"], &[])], Keys::AsWritten).unwrap_err().gate,
        Gate::Changed
    );
}

#[test]
fn a_function_that_did_not_change_is_refused() {
    assert_eq!(composed(&[wish("A", FIXED, &["check"], &[])]).unwrap_err().gate, Gate::Changed);
}

#[test]
fn a_function_that_is_not_there_is_refused() {
    assert_eq!(composed(&[wish("A", FIXED, &["gone"], &[])]).unwrap_err().gate, Gate::Applies);
    assert_eq!(composed(&[wish("A", FIXED, &["get"], &["struct none"])]).unwrap_err().gate, Gate::Applies);
}

#[test]
fn a_whole_file_keeps_the_lines_of_what_did_not_change() {
    let text = composed(&[Wish { fix: "A", fixed: FIXED, version: None, what: What::All }]).unwrap();
    assert!(text.contains("#line 3\nstatic int check"), "{text}");
    assert!(text.contains("n + 1"));
}

#[test]
fn keys_are_read_only_in_what_is_put_in() {
    let text = compose("x.c", ORIGINAL, &[wish("A", FIXED, &["other"], &[])], Keys::Plain).unwrap();
    let (before, after) = text.split_once(PLAIN).unwrap();
    assert!(before.contains("int get") && after.starts_with("#line 13\nint other"), "{text}");
    assert!(after.contains(AS_WRITTEN) && !after.contains(PLAIN));
}

#[test]
fn patches_of_one_file_come_together_unless_they_want_different_things_of_a_function() {
    let one = ORIGINAL.replace("n > 3", "n > 4");
    let two =
        ORIGINAL.replace("\treturn n;", "\treturn -n;").replace("int other", "#define ODD 1\nint other");
    let all = |fix, fixed| Wish { fix, fixed, version: None, what: What::All };
    let text = composed(&[all("A", &one), all("B", &two)]).unwrap();
    assert!(
        text.contains("n > 4") && text.contains("return -n;") && text.contains("#define ODD 1"),
        "{text}"
    );
    let text = composed(&[all("A", &one), wish("B", FIXED, &["get"], &[])]).unwrap();
    assert!(text.contains("n > 4") && text.contains("check(limit(n))"), "{text}");
    let three = ORIGINAL.replace("n > 3", "n > 5");
    let refusal = composed(&[all("A", &one), all("C", &three)]).unwrap_err();
    assert_eq!((refusal.gate, refusal.what.as_str()), (Gate::Conflict, "x.c: check: A and C"));
}

#[test]
fn a_new_function_whose_place_moved_behind_its_caller_is_declared_before_it() {
    let function = |name: &str, body: &str| format!("static int {name}(int n)\n{{\n\treturn {body};\n}}\n");
    let original = [function("get", "n"), function("copy", "n")].concat();
    let fixed = [function("copy", "n"), function("fresh", "copy(n)"), function("get", "fresh(n)")].concat();
    let text = compose("x.c", &original, &[wish("a", &fixed, &["get"], &[])], Keys::AsWritten).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("int")).collect();
    assert_eq!(
        lines,
        [
            "static int fresh(int n);",
            "static int get(int n)",
            "static int copy(int n)",
            "static int fresh(int n)"
        ]
    );
    // And one that was there already.
    let fixed = [function("copy", "n"), function("get", "copy(n)")].concat();
    let text = compose("x.c", &original, &[wish("a", &fixed, &["get"], &[])], Keys::AsWritten).unwrap();
    assert!(text.starts_with("static int copy(int n);\n"), "{text}");
    let declared = format!("static int copy(int n);\n{original}");
    let fixed = format!("static int copy(int n);\n{fixed}");
    let text = compose("x.c", &declared, &[wish("a", &fixed, &["get"], &[])], Keys::AsWritten).unwrap();
    assert_eq!(text.matches("copy(int n);").count(), 1, "{text}");
}
