use super::*;
use crate::sample::{Sample, compile};

/// A file with most of what files have.
pub(super) const FILE: &str = r#"
extern int printk(const char *format, ...);
extern void kfree(const void *p);
#define noinline __attribute__((noinline))
struct sock { int state; long mark; void (*done)(struct sock *); };
struct ops { int (*open)(struct sock *); const char *name; };
int limit = 7;
static int count;
static const int sizes[] = { 1, 2, 3, 5, 8, 13, 21 };
static noinline int helper(struct sock *sk)
{
	count++;
	return sk->state > limit;
}
int get(struct sock *sk, int n)
{
	if (helper(sk))
		printk("too much: %d\n", n);
	return sizes[n & 3] + n;
}
static int open_it(struct sock *sk)
{
	return sk->mark > 3;
}
const struct ops the_ops = { open_it, "ops" };
int other(struct sock *sk)
{
	kfree(sk);
	return 0;
}
"#;

fn fixed(from: &str, to: &str) -> Sample {
    assert!(FILE.contains(from), "{from:?}");
    Sample::new(FILE, &FILE.replacen(from, to, 1))
}

pub(super) fn passes(sample: &Sample) -> Cut {
    sample.cut().unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn replaced(cut: &Cut) -> Vec<&str> {
    cut.replaced.iter().map(|r| r.name.as_str()).collect()
}

/// A fix that every gate lets pass.
fn harmless() -> Sample {
    fixed("int n)\n{\n", "int n)\n{\n\tif (n < 0)\n\t\treturn -22;\n")
}

#[test]
fn a_fix_of_one_function_passes_and_nothing_else_is_replaced() {
    let cut = passes(&harmless());
    assert_eq!(replaced(&cut), ["get"]);
    // The static helper is the kernel's, and so is its state.
    assert!(cut.parts.values().all(|part| part.symbol.as_ref().is_none_or(|(name, ..)| name != "helper")));
}

#[test]
fn a_new_function_comes_along() {
    let to = "static noinline int check(int n)\n{\n\treturn n * 3 > limit;\n}\nint get(struct sock *sk, int n)\n{\n\tif (check(n))\n\t\treturn 1;\n";
    let cut = passes(&fixed("int get(struct sock *sk, int n)\n{\n", to));
    assert_eq!(replaced(&cut), ["get"]);
    assert!(cut.parts.values().any(|part| part.section == ".text.check"));
}

#[test]
fn a_struct_that_grew_is_refused() {
    // No function that is there uses what is new: only the types tell.
    let after = FILE
        .replacen("void (*done)(struct sock *); };", "void (*done)(struct sock *); long tail; };", 1)
        .replacen("int n)\n{\n", "int n)\n{\n\tif (n < 0)\n\t\treturn -22;\n", 1);
    assert_eq!(Sample::new(FILE, &after).gate(), Gate::Layout);
}

#[test]
fn a_constant_of_an_enumeration_that_moved_is_refused() {
    let before = "enum state { OPEN, CLOSED };\nint get(enum state s)\n{\n\treturn s == CLOSED;\n}\n";
    let after = before.replace("{ OPEN, CLOSED", "{ OPEN, OPENING, CLOSED");
    assert_eq!(Sample::new(before, &after).gate(), Gate::Layout);
    let after = before.replace("CLOSED };", "CLOSED, GONE };").replace("s == CLOSED", "s >= CLOSED");
    passes(&Sample::new(before, &after));
}

#[test]
fn a_variable_that_differs_is_refused() {
    let after = FILE.replacen("limit = 7", "limit = 9", 1).replacen("return 0;", "return 1;", 1);
    assert_eq!(Sample::new(FILE, &after).gate(), Gate::Data);
    let after = FILE.replacen("8, 13, 21", "8, 14, 21", 1).replacen("return 0;", "return 1;", 1);
    assert_eq!(Sample::new(FILE, &after).gate(), Gate::Data);
    passes(&fixed("return 0;", "return 1;"));
}

#[test]
fn a_table_of_functions_that_differs_is_refused() {
    let after = FILE.replacen("{ open_it, \"ops\" }", "{ other, \"ops\" }", 1).replacen(
        "int other(struct sock *sk)\n{",
        "int unused;\nint other(struct sock *sk)\n{",
        1,
    );
    let after = after.replacen("int unused;\n", "", 1);
    let before = FILE.replacen(
        "const struct ops the_ops",
        "extern int other(struct sock *sk);\nconst struct ops the_ops",
        1,
    );
    let after = after
        .replacen(
            "const struct ops the_ops",
            "extern int other(struct sock *sk);\nconst struct ops the_ops",
            1,
        )
        .replacen("return 0;", "return 1;", 1);
    assert_eq!(Sample::new(&before, &after).gate(), Gate::Operations);
}

#[test]
fn a_new_variable_is_refused_and_a_new_constant_is_not() {
    let sample = |data: &str, used: &str| {
        let to = format!("{data}\nint get(struct sock *sk, int n)\n{{\n\tn += {used};\n");
        fixed("int get(struct sock *sk, int n)\n{\n", &to)
    };
    assert_eq!(sample("static int seen;", "seen++").gate(), Gate::NewData);
    passes(&sample("static const int more[] = { 3, 1, 4, 1, 5, 9, 2, 6 };", "more[n & 7]"));
}

#[test]
fn code_that_runs_once_is_refused() {
    let init = "__attribute__((section(\".init.text\"))) int start(int n)\n{\n\treturn n + limit;\n}\n";
    let before = format!("{FILE}{init}");
    assert_eq!(Sample::new(&before, &before.replace("n + limit", "n - limit")).gate(), Gate::InitCode);
    passes(&Sample::new(&before, &before.replacen("return 0;", "return 1;", 1)));
}

#[test]
fn a_function_that_the_tracer_cannot_redirect_is_refused() {
    let mark = "__attribute__((no_instrument_function)) int other";
    let before = FILE.replacen("int other", mark, 1);
    assert_eq!(Sample::new(&before, &before.replacen("return 0;", "return 1;", 1)).gate(), Gate::Traceable);
}

#[test]
fn what_the_tracer_cannot_redirect_is_carried_by_its_callers_unless_others_may_call_it() {
    let quiet = "static __attribute__((__noinline__, no_instrument_function)) int quiet(int n)\n{\n\treturn n * 3 + limit;\n}\n";
    let callers =
        "int one(int n)\n{\n\treturn quiet(n) + 1;\n}\nint two(int n)\n{\n\treturn quiet(n) ^ 2;\n}\n";
    let before = format!("{FILE}{quiet}{callers}");
    let cut = passes(&Sample::new(&before, &before.replace("n * 3", "n * 5")));
    assert_eq!(replaced(&cut), ["one", "two"]);
    assert!(cut.parts.values().any(|part| part.symbol.as_ref().is_some_and(|(name, ..)| name == "quiet")));

    let known = format!("{before}int (*keep(void))(int)\n{{\n\treturn quiet;\n}}\n");
    assert_eq!(Sample::new(&known, &known.replace("n * 3", "n * 5")).gate(), Gate::Traceable);
    let global = before.replace("static __attribute__((__noinline__", "__attribute__((__noinline__");
    assert_eq!(Sample::new(&global, &global.replace("n * 3", "n * 5")).gate(), Gate::Traceable);
}

#[test]
fn code_where_no_stack_is_looked_at_is_refused() {
    let mut sample = harmless();
    for path in
        ["kernel/livepatch/core.c", "kernel/stop_machine.c", "arch/x86/kernel/nmi.c", "kernel/sched/idle.c"]
    {
        sample.path = path;
        assert_eq!(sample.gate(), Gate::Context, "{path}");
    }
    sample.path = "net/core/sample.c";
    passes(&sample);
    for name in ["__schedule", "do_idle", "perf_event_nmi_handler"] {
        let rename = |text: &str| text.replace("int get(", &format!("int {name}("));
        let (before, after) = (rename(FILE), rename(&FILE.replacen("int n)\n{\n", "int n)\n{\n\tn++;\n", 1)));
        assert_eq!(Sample::new(&before, &after).gate(), Gate::Context, "{name}");
    }
    let before = FILE.replacen("int other", "__attribute__((section(\".noinstr.text\"))) int other", 1);
    assert_eq!(Sample::new(&before, &before.replacen("return 0;", "return 1;", 1)).gate(), Gate::Context);
}

#[test]
fn a_part_of_a_file_is_judged_by_its_own_path_too() {
    let mut sample = harmless();
    sample.path = "kernel/sched/build_policy.c";
    sample.edited = vec!["kernel/sched/rt.c"];
    passes(&sample);
    sample.edited.push("kernel/sched/idle.c");
    assert_eq!(sample.gate(), Gate::Context);
}

#[test]
fn a_function_that_is_nowhere_but_inlined_shows_in_those_that_have_it_in_them() {
    let header = "static inline int low(int n)\n{\n\treturn n & 7;\n}\n";
    let file = "int one(int n)\n{\n\treturn low(n) + 1;\n}\nint two(int n)\n{\n\treturn n;\n}\nint three(int n)\n{\n\treturn low(n) * 3;\n}\n";
    let before = format!("{header}{file}");
    let mut sample = Sample::new(&before, &before.replace("n & 7", "n & 3"));
    sample.named = vec!["low"];
    assert_eq!(replaced(&passes(&sample)), ["one", "three"]);
}

#[test]
fn data_of_a_file_without_functions_is_judged() {
    let data = Sample::new("const int sizes[] = { 1, 2 };\n", "const int sizes[] = { 1, 3 };\n");
    assert_eq!(data.gate(), Gate::Data);
}

#[test]
fn an_address_of_new_code_that_is_given_away_is_refused_and_a_call_is_not() {
    let new = "static noinline void done(struct sock *sk)\n{\n\tcount--;\n}\n";
    let with = |used: &str| {
        fixed(
            "int get(struct sock *sk, int n)\n{\n",
            &format!("{new}int get(struct sock *sk, int n)\n{{\n\t{used}\n"),
        )
    };
    let refusal = with("sk->done = done;").cut().unwrap_err();
    assert_eq!(refusal, Refusal::new(Gate::Escape, "get gives away the address of done"));
    passes(&with("done(sk);"));
}

#[test]
fn code_whose_address_is_given_away_passes_where_it_may_stay_and_nothing_else_stays() {
    let cut = |used: &str| {
        let new = "static noinline void done(struct sock *sk)\n{\n\tcount--;\n}\n";
        let head = "int get(struct sock *sk, int n)\n{\n";
        fixed(head, &format!("{new}{head}\t{used}\n")).cut_out().unwrap()
    };
    assert_eq!(super::cut(&cut("sk->done = done;"), Code::Stays), Ok(Code::Stays));
    assert_eq!(super::cut(&cut("done(sk);"), Code::Stays), Ok(Code::Goes));
}

#[test]
fn the_address_of_a_function_that_changed_is_the_originals() {
    let after = FILE.replacen("return sk->mark > 3;", "return sk->mark > 4;", 1).replacen(
        "int n)\n{\n",
        "int n)\n{\n\tsk->done = (void *)open_it;\n",
        1,
    );
    let before = FILE.replacen("static int open_it", "static noinline int open_it", 1);
    let after = after.replacen("static int open_it", "static noinline int open_it", 1);
    let move_up = |text: &str| text.replacen("int get(", "static int open_it(struct sock *sk);\nint get(", 1);
    let cut = passes(&Sample::new(&move_up(&before), &move_up(&after)));
    assert_eq!(replaced(&cut), ["get", "open_it"]);
    let fills = cut.parts.values().flat_map(|part| &part.fills);
    let to_old = crate::object::cut::To::Symbol("__klpsym_vmlinux__open_it__0".to_owned());
    assert!(fills.filter(|fill| fill.to == to_old).count() > 0);
}

#[test]
fn what_the_kernel_does_not_run_is_refused() {
    // Another compiler, another configuration, another source: the kernel's code is another.
    let flags: [&[&str]; 3] =
        [&["-O1"], &["-fno-optimize-sibling-calls", "-fno-omit-frame-pointer"], &["-Os"]];
    for more in flags {
        let mut sample = harmless();
        sample.kernel = compile(FILE, more);
        assert_eq!(sample.gate(), Gate::Reproduced, "{more:?}");
    }
    let mut sample = harmless();
    sample.kernel = compile(&FILE.replace("n & 3", "n & 1"), &[]);
    assert_eq!(sample.gate(), Gate::Reproduced);
    // Functions that are not replaced may differ.
    sample.kernel = compile(&FILE.replace("return 0;", "return 3;"), &[]);
    passes(&sample);
}

#[test]
fn a_file_that_is_not_in_the_kernel_is_refused() {
    let mut sample = harmless();
    sample.kernel = compile("int nothing(void)\n{\n\treturn 0;\n}\n", &[]);
    assert_eq!(sample.gate(), Gate::FileBuilt);
}

#[test]
fn a_fix_that_changes_no_function_is_refused_and_so_is_one_that_did_not_change() {
    assert_eq!(Sample::new(FILE, FILE).gate(), Gate::Changed);
    let mut sample = harmless();
    sample.named = vec!["get"];
    passes(&sample);
    sample.named = vec!["get", "other"];
    assert_eq!(sample.cut().unwrap_err(), Refusal::new(Gate::Changed, "net/core/sample.c: other"));
}

#[test]
fn a_symbol_that_two_files_have_is_named_by_its_position_or_refused() {
    // The same file name twice: nothing tells the two apart.
    let mut sample = harmless();
    sample.exports.remove("printk");
    let refusal = sample.cut().unwrap_err();
    assert_eq!(refusal.gate, Gate::OneSymbol);
    assert!(refusal.what.contains("printk"), "{refusal}");
}

#[test]
fn a_weak_function_is_refused() {
    let before = FILE.replacen("int other", "__attribute__((weak)) int other", 1);
    assert_eq!(Sample::new(&before, &before.replacen("return 0;", "return 1;", 1)).gate(), Gate::Weak);
}

#[test]
fn of_functions_that_share_a_section_one_is_taken_unless_it_jumps_too_near() {
    let mark = |name: &str| format!("__attribute__((section(\".sched.text\"))) int {name}");
    let before = FILE.replacen("int other", &mark("other"), 1).replacen("int get", &mark("get"), 1);
    passes(&Sample::new(&before, &before.replacen("return 0;", "return 1;", 1)));
    let low =
        "__attribute__((noinline, section(\".sched.text\"))) static int low(int n)\n{\n\treturn n * n;\n}\n";
    let near = format!("{low}{}", before.replacen("return 0;", "return low(sk->state);", 1));
    let far = near.replacen("low(sk->state)", "low(sk->state) + 1", 1);
    let cut = passes(&Sample::new(&far, &far.replacen("+ 1;", "+ 2;", 1)));
    let part = cut.parts.values().find(|part| part.section == ".text.other").unwrap();
    let call = part
        .fills
        .iter()
        .find(|fill| matches!(&fill.to, crate::object::cut::To::Symbol(name) if name.contains("low")));
    let place = usize::try_from(call.unwrap().offset).unwrap();
    assert_eq!(part.bytes[place..place + 4], [0; 4], "the kernel takes no other");
    let sample = Sample::new(&near, &near.replacen("low(sk->state)", "low(sk->state + 1)", 1));
    assert_eq!(sample.gate(), Gate::OwnSection);
}

#[test]
fn how_to_unwind_from_the_beginning_of_a_function_may_be_said_of_the_one_before_it() {
    let shared = "__attribute__((section(\".sched.text\"))) int";
    let text = |said: &str| {
        format!(
            "{shared} one(int n)\n{{\n\treturn n * 3;\n}}\n{shared} two(int n)\n{{\n\treturn n;\n}}\n\
             asm(\".pushsection .orc_unwind_ip,\\\"a\\\"; .long {said} - .; .popsection\");\n\
             asm(\".pushsection .orc_unwind,\\\"a\\\"; .long 0x11223344; .short 0x5566; .popsection\");\n"
        )
    };
    let sample = |said: &str| Sample::new(&text(said), &text(said).replace("return n;", "return n - 1;"));
    let cut = passes(&sample("one"));
    let table = |name: &str| cut.tables.iter().find(|table| table.section == name).unwrap();
    assert_eq!(table(".orc_unwind_ip").fills.len(), 1);
    assert_eq!(table(".orc_unwind").bytes, [0x44, 0x33, 0x22, 0x11, 0x66, 0x55]);
    assert_eq!(sample("two + 1").gate(), Gate::OwnSection, "nothing is before it");
}

#[test]
fn a_new_function_is_taken_for_other_parts_and_exported_to_nobody() {
    let after = format!("{FILE}int fresh(int n)\n{{\n\treturn n + limit;\n}}\n");
    let mut sample = Sample::new(FILE, &after);
    assert_eq!(sample.gate(), Gate::Reached);
    sample.gives.insert("fresh".to_owned());
    sample.after.checksums.insert("fresh".to_owned(), "0x1".to_owned());
    let cut = passes(&sample);
    assert!(cut.replaced.is_empty() && cut.gives.contains("fresh") && cut.only_for_others.contains("fresh"));
    sample.exports.insert("fresh".to_owned(), "vmlinux".to_owned());
    assert_eq!(sample.gate(), Gate::OneSymbol, "the kernel has one, which all others would go on calling");
    sample.exports.remove("fresh");
    sample.after.checksums.insert("get".to_owned(), "0x1".to_owned());
    assert_eq!(sample.gate(), Gate::Exports, "another export came too");
}

#[test]
fn a_new_function_of_another_part_is_called_and_not_given_away() {
    let of = |deed: &str| {
        let after = FILE.replacen("return 0;", deed, 1);
        let mut sample = Sample::new(FILE, &format!("extern int fresh(struct sock *sk);\n{after}"));
        sample.takes.insert("fresh".to_owned());
        sample
    };
    let mut calls = of("return fresh(sk) + 1;");
    let cut = passes(&calls);
    assert!(cut.takes.contains("fresh"));
    let fills = cut.parts.values().flat_map(|part| &part.fills);
    let to = |fill: &crate::object::cut::Fill| format!("{:?}", fill.to).contains("invivo_given_fresh");
    assert_eq!(fills.filter(|fill| to(fill)).count(), 1);
    assert_eq!(of("sk->done = (void (*)(struct sock *))fresh; return 0;").gate(), Gate::Escape);
    calls.takes.clear();
    assert_eq!(calls.gate(), Gate::OneSymbol);
}

#[test]
fn a_new_function_keeps_the_protection_of_its_section_or_is_refused() {
    for (section, gate) in [(".kprobes.text", Gate::Context), (".init.text", Gate::InitCode)] {
        let new = format!(
            "__attribute__((__noinline__, section(\"{section}\"))) static int low(int n)\n{{\n\treturn n * n;\n}}\n"
        );
        let after = format!("{new}{}", FILE.replacen("return 0;", "return low(sk->state) + 1;", 1));
        assert_eq!(Sample::new(FILE, &after).gate(), gate, "{section}");
    }
}

#[test]
fn a_type_that_changed_and_that_only_the_fix_uses_is_refused() {
    let before = format!("struct odd {{ int a; }};\n{FILE}");
    let after = before.replacen("int a;", "long mark; int a;", 1);
    let after = after.replacen("return 0;", "return ((struct odd *)sk)->a;", 1);
    let mut sample = Sample::new(&before, &after);
    passes(&sample);
    sample.types.insert("odd".to_owned());
    assert_eq!(sample.gate(), Gate::Layout);
}

#[test]
fn a_section_that_says_something_unknown_is_refused() {
    let say = "asm(\".pushsection .strange,\\\"a\\\"; .quad other; .popsection\");\n";
    let before = format!("{FILE}{say}");
    assert_eq!(
        Sample::new(&before, &before.replacen("return 0;", "return 1;", 1)).gate(),
        Gate::KnownSections
    );
    passes(&Sample::new(&before, &before.replacen("int n)\n{\n", "int n)\n{\n\tn++;\n", 1)));
}

#[test]
fn a_checksum_of_an_export_that_differs_is_refused() {
    let mut sample = harmless();
    sample.before.checksums.insert("get".to_owned(), "0x1".to_owned());
    sample.after.checksums.insert("get".to_owned(), "0x1".to_owned());
    passes(&sample);
    sample.after.checksums.insert("get".to_owned(), "0x2".to_owned());
    assert_eq!(sample.gate(), Gate::Exports);
}

/// The compiler keeps apart what it takes for hardly ever run.
const RARE: &str = r#"
extern int printk(const char *format, ...) __attribute__((cold));
struct sock { int state; long mark; };
int take(struct sock *sk, int n)
{
	sk->state += n;
	if (n > 100) {
		printk("too much\n");
		return -22;
	}
	return n;
}
"#;

#[test]
fn what_is_hardly_ever_run_of_a_function_replaces_all_of_it() {
    let sample = Sample::new(RARE, &RARE.replace("return -22;", "sk->mark = 0;\n\t\treturn -22;"));
    let has_cold = |compiled: &crate::compile::Compiled| {
        Object::parse(&compiled.object).unwrap().functions().any(|s| s.name == "take.cold")
    };
    assert!(has_cold(&sample.before) && has_cold(&sample.after));
    assert_eq!(replaced(&passes(&sample)), ["take"]);
}

#[test]
fn a_table_that_the_compiler_makes_of_a_switch_is_compared_by_its_content() {
    let before = "int code(int n)\n{\n\tswitch (n) {\n\tcase 0: return -5;\n\tcase 1: return -1;\n\
        \tcase 2: return -22;\n\tcase 3: return -13;\n\tcase 4: return -9;\n\tcase 5: return -71;\n\
        \tdefault: return 0;\n\t}\n}\n";
    let sample = Sample::new(before, &before.replace("-13", "-14"));
    let object = Object::parse(&sample.before.object).unwrap();
    assert!(object.defined(Kind::Data).any(|s| s.name.starts_with("CSWTCH")));
    assert_eq!(replaced(&passes(&sample)), ["code"]);
}

#[test]
fn a_function_with_two_names_is_replaced_once_and_refused_if_they_part() {
    let twin = "int twin(struct sock *sk) __attribute__((alias(\"other\")));\n";
    let before = format!("{FILE}{twin}");
    let after = before.replacen("return 0;", "return 1;", 1);
    assert_eq!(passes(&Sample::new(&before, &after)).replaced.len(), 1);
    let apart = after.replace(twin, "int twin(struct sock *sk)\n{\n\tkfree(sk);\n\treturn 0;\n}\n");
    let refusal = Sample::new(&before, &apart).cut().unwrap_err();
    assert_eq!(refusal.gate, Gate::OneSymbol, "{refusal}");
}

#[test]
fn a_new_function_that_gives_away_its_own_address_is_refused() {
    let new = "static noinline void late(struct sock *sk)\n{\n\tif (sk->mark)\n\t\tsk->done = late;\n\telse\n\t\tcount--;\n}\n";
    let head = "int get(struct sock *sk, int n)\n{\n";
    let refusal = fixed(head, &format!("{new}{head}\tlate(sk);\n")).cut().unwrap_err();
    assert_eq!(refusal, Refusal::new(Gate::Escape, "late gives away the address of late"));
}

#[test]
fn a_function_that_goes_is_refused_if_others_may_have_its_address() {
    let work = |name: &str| format!("static noinline void {name}(struct sock *sk)\n{{\n\tcount--;\n}}\n");
    let with = |new: &str, used: &str| {
        let head = "int get(struct sock *sk, int n)\n{\n";
        FILE.replacen(head, &format!("{new}{head}\t{used}\n"), 1)
    };
    let stored = Sample::new(&with(&work("work"), "sk->done = work;"), &with("", "sk->done = 0;"));
    assert_eq!(stored.cut().unwrap_err(), Refusal::new(Gate::Gone, "work"));
    passes(&Sample::new(&with(&work("work"), "work(sk);"), &with("", "sk->mark--;")));
}

#[test]
fn what_is_new_and_needed_by_nothing_that_is_replaced_is_refused() {
    let new = "__attribute__((section(\".exit.text\"))) void leave(void)\n{\n\tcount = 0;\n}\n";
    let after = format!("{}{new}", FILE.replacen("return 0;", "return 1;", 1));
    assert_eq!(Sample::new(FILE, &after).cut().unwrap_err(), Refusal::new(Gate::Reached, "leave"));
    let alone = format!("{FILE}{new}");
    assert_eq!(Sample::new(FILE, &alone).cut().unwrap_err(), Refusal::new(Gate::Reached, "leave"));
}

#[test]
fn a_file_whose_tables_alone_differ_is_not_said_to_be_the_same() {
    assert_eq!(Sample::new(FILE, &FILE.replacen("limit = 7", "limit = 9", 1)).gate(), Gate::Data);
}

#[test]
fn a_new_table_of_places_is_taken_for_given_away_and_a_new_table_of_numbers_is_not() {
    let with = |table: &str, used: &str| {
        let head = "int get(struct sock *sk, int n)\n{\n";
        fixed(head, &format!("{table}\n{head}\t{used}\n"))
    };
    let names =
        with("static const char *const words[] = { \"a\", \"bc\", \"def\" };", "n += words[n & 1][0];");
    assert_eq!(names.cut().unwrap_err().gate, Gate::Escape);
    passes(&with("static const int more[] = { 3, 1, 4, 1, 5 };", "n += more[n & 3];"));
}

#[test]
fn what_another_module_exports_is_called_only_if_it_cannot_go() {
    let mut sample = fixed(
        "int get(struct sock *sk, int n)\n{\n",
        "extern void put_it(int n);\nint get(struct sock *sk, int n)\n{\n\tput_it(n);\n",
    );
    sample.object = "exfat";
    sample.exports.insert("put_it".to_owned(), "nls".to_owned());
    assert_eq!(sample.gate(), Gate::OneSymbol);
    sample.held = vec!["nls"];
    passes(&sample);
}
