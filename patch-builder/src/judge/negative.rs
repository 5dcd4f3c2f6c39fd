//! The negative set: fixes none of which may become a patch. It only grows; a case that is let pass is
//! a false accept.

use super::tests::FILE;
use crate::refusal::Gate;
use crate::sample::{Sample, compile};

/// A change that makes code differ and would pass by itself.
const TOUCH: (&str, &str) = ("int n)\n{\n", "int n)\n{\n\tif (n < 0)\n\t\treturn -22;\n");

/// `FILE` with `edits`; each must be there.
fn edited(text: &str, edits: &[(&str, &str)]) -> String {
    edits.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?}");
        text.replacen(from, to, 1)
    })
}

/// What a fix changes besides the harmless, and the gate that must refuse it.
const CHANGES: [(&str, &str, Gate); 24] = [
    // Layout.
    ("long mark;", "long mark; int more;", Gate::Layout),
    ("long mark;", "int more; long mark;", Gate::Layout),
    ("int state; long mark;", "long mark; int state;", Gate::Layout),
    ("long mark;", "int mark;", Gate::Layout),
    ("int state;", "unsigned int state;", Gate::Layout),
    ("int state;", "short state;", Gate::Layout),
    ("int state;", "int state:31; int flag:1;", Gate::Layout),
    ("int state;", "int state[2];", Gate::Layout),
    ("void (*done)(struct sock *);", "int (*done)(struct sock *, int);", Gate::Layout),
    ("void (*done)(struct sock *);", "union { void *done; long id; };", Gate::Layout),
    ("const char *name; };", "const char *name; long flags; };", Gate::Operations),
    ("enum { LOW = 3,", "enum { NEW, LOW = 4,", Gate::Layout),
    ("struct inner { short a; }", "struct inner { short a, b; }", Gate::Layout),
    ("struct list { struct list *next", "struct list { struct list *prev, *next", Gate::Layout),
    // Data.
    ("int limit = 7;", "int limit = 8;", Gate::Data),
    ("int table[] = { 1, 2, 3 };", "int table[] = { 1, 2, 4 };", Gate::Data),
    ("int table[] = { 1, 2, 3 };", "int table[] = { 1, 2, 3, 4 };", Gate::Data),
    ("char motto[] = \"live\"", "char motto[] = \"dead\"", Gate::Data),
    ("\"live\", *say = \"on\"", "\"live\", *say = \"off\"", Gate::Data),
    // Tables of functions.
    ("{ open_it, \"ops\" }", "{ close_it, \"ops\" }", Gate::Operations),
    ("{ open_it, \"ops\" }", "{ 0, \"ops\" }", Gate::Data),
    ("= { open_it, close_it }", "= { close_it, open_it }", Gate::Operations),
    // Code that runs once.
    ("return n + 100;", "return n + 101;", Gate::InitCode),
    ("return n + 200;", "return n + 201;", Gate::InitCode),
];

const MORE: &str = r#"
enum { LOW = 3, HIGH };
struct inner { short a; };
struct list { struct list *next; struct inner in; };
int table[] = { 1, 2, 3 };
char motto[] = "live", *say = "on";
int low_or_high(struct list *list)
{
	return list->next ? LOW : HIGH + list->in.a;
}
static int close_it(struct sock *sk)
{
	return sk->mark < 3;
}
int (*hooks[])(struct sock *) = { open_it, close_it };
const struct ops more_ops = { open_it, "ops" };
__attribute__((__noinline__, section(".init.text"))) int start(int n)
{
	return n + 100;
}
__attribute__((__noinline__, section(".exit.text"))) int stop(int n)
{
	return n + 200;
}
__attribute__((weak)) int soft(int n)
{
	return n;
}
__attribute__((no_instrument_function)) int untraced(int n)
{
	return n;
}
__attribute__((section(".noinstr.text"))) int quiet(int n)
{
	return n;
}
__attribute__((__noinline__, section(".sched.text"))) static int two(int n)
{
	return n * 2;
}
__attribute__((section(".sched.text"))) int one(int n)
{
	return two(n);
}
asm(".pushsection .strange,\"a\"; .quad marked; .popsection");
int marked(int n)
{
	return n;
}
"#;

/// What a changed function does that it must not: its text, and the gate.
const DEEDS: [(&str, &str, Gate); 15] = [
    ("static int seen;", "n += seen++;", Gate::NewData),
    ("", "static int seen; n += seen++;", Gate::NewData),
    ("struct sock spare;", "spare.state = n;", Gate::NewData),
    ("static void late(struct sock *s) { s->state = 1; }", "sk->done = late;", Gate::Escape),
    ("static void late(struct sock *s) { s->state = 1; }", "register_it(late);", Gate::Escape),
    (
        "static int late(struct sock *s) { return s->state; }\nstatic const struct ops new_ops = { late, \"new\" };",
        "register_it(&new_ops);",
        Gate::Escape,
    ),
    (
        "static noinline void late(struct sock *s) { if (s->state) s->done = late; }",
        "late(sk);",
        Gate::Escape,
    ),
    ("static const char *const words[] = { \"a\", \"bc\" };", "register_it(words);", Gate::Escape),
    ("__attribute__((section(\".exit.text\"))) void leave(void) { count = 0; }", "n++;", Gate::Reached),
    ("extern int nowhere(int);", "n += nowhere(n);", Gate::OneSymbol),
    ("extern int nowhere_data;", "n += nowhere_data;", Gate::OneSymbol),
    ("extern int start(int);", "n += start(n);", Gate::InitCode),
    ("extern int stop(int);", "n += stop(n);", Gate::InitCode),
    ("static int early __attribute__((section(\".init.data\"))) = 1;", "n += early++;", Gate::NewData),
    (
        "extern __attribute__((section(\".data..percpu\"))) int mine;\n__attribute__((section(\".data..percpu\"))) int mine;",
        "n += mine++;",
        Gate::NewData,
    ),
];

#[test]
fn nothing_of_the_negative_set_is_let_pass() {
    let base = format!("struct sock;\nstatic int close_it(struct sock *sk);\n{FILE}{MORE}");
    let mut number = 0;
    let mut wrong = Vec::new();
    let mut refused = |name: String, sample: Sample, gates: &[Gate]| {
        number += 1;
        match sample.cut() {
            Ok(_) => wrong.push(format!("{name}: let pass")),
            Err(refusal) if gates.contains(&refusal.gate) => {}
            Err(refusal) => wrong.push(format!("{name}: {refusal}")),
        }
    };
    for (from, to, gate) in CHANGES {
        refused(format!("{from} -> {to}"), Sample::new(&base, &edited(&base, &[TOUCH, (from, to)])), &[gate]);
    }
    for (before, deed, gate) in DEEDS {
        let head = "int get(struct sock *sk, int n)\n{\n";
        let to = format!("extern void register_it(const void *p);\n{before}\n{head}\t{deed}\n");
        let mut sample = Sample::new(&base, &edited(&base, &[(head, to.as_str())]));
        sample.exports.insert("register_it".to_owned(), "vmlinux".to_owned());
        refused(format!("{before} {deed}"), sample, &[gate]);
    }
    for (name, gate) in [
        ("soft", Gate::Weak),
        ("untraced", Gate::Traceable),
        ("quiet", Gate::Context),
        ("marked", Gate::KnownSections),
    ] {
        let from = format!("int {name}(int n)\n{{\n\treturn n;");
        let to = format!("int {name}(int n)\n{{\n\treturn n * 5;");
        refused(
            name.to_owned(),
            Sample::new(&base, &edited(&base, &[(from.as_str(), to.as_str())])),
            &[gate],
        );
    }
    let near = Sample::new(&base, &edited(&base, &[("return two(n);", "return two(n * 5);")]));
    refused("near".to_owned(), near, &[Gate::OwnSection]);
    let harmless = || Sample::new(&base, &edited(&base, &[TOUCH]));
    for path in [
        "kernel/livepatch/transition.c",
        "kernel/stop_machine.c",
        "kernel/sched/idle.c",
        "kernel/trace/ftrace.c",
        "arch/x86/kernel/nmi.c",
        "arch/x86/kernel/alternative.c",
    ] {
        refused(path.to_owned(), Sample { path, ..harmless() }, &[Gate::Context]);
    }
    // The kernel was made by another compiler, with another configuration, from another source, with
    // other headers.
    let flags: [&[&str]; 6] = [
        &["-O1"],
        &["-Os"],
        &["-fno-omit-frame-pointer"],
        &["-fstack-protector-all"],
        &["-fcf-protection=branch"],
        &["-mindirect-branch=thunk-extern", "-mfunction-return=thunk-extern"],
    ];
    for more in flags {
        refused(
            format!("{more:?}"),
            Sample { kernel: compile(&base, more), ..harmless() },
            &[Gate::Reproduced],
        );
    }
    for (from, to) in [
        ("n & 3", "n & 2"),
        ("sizes[n & 3] + n", "sizes[n & 3] - n"),
        ("int state; long mark;", "long mark; int state;"),
    ] {
        let kernel = compile(&edited(&base, &[(from, to)]), &[]);
        let touched = edited(&base, &[TOUCH, ("return sk->state > limit;", "return sk->state >= limit;")]);
        refused(
            format!("kernel with {to}"),
            Sample { kernel, ..Sample::new(&base, &touched) },
            &[Gate::Reproduced],
        );
    }
    refused("no change".to_owned(), Sample::new(&base, &base), &[Gate::Changed]);
    refused(
        "another file".to_owned(),
        Sample { kernel: compile("int x(void) { return 1; }\n", &[]), ..harmless() },
        &[Gate::FileBuilt],
    );
    refused("named and the same".to_owned(), Sample { named: vec!["other"], ..harmless() }, &[Gate::Changed]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(number >= 40, "{number}");
    eprintln!("negative set: {number} cases, all refused");
}
