//! What objects of 5.10 have and later ones do not.

use super::*;
use crate::object::cut::{self, Cut, Key, To};
use crate::object::special::{Entry, Irregular, Layout, TABLES};
use crate::object::target::Target;
use crate::refusal::Gate;

fn layout(name: &str) -> &'static Layout {
    TABLES.iter().find(|layout| layout.name == name).unwrap()
}

/// What is done with the entries of the table `name` that the assembler makes of `lines`.
fn entries<T>(name: &str, lines: &str, with: impl FnOnce(Result<Vec<Entry<'_>>, Irregular>) -> T) -> T {
    let text = format!(
        "int run(int n)\n{{\n\tasm volatile(\"1: nop\\n2: nop\\n3: nop\\n.pushsection {name},\\\"a\\\"\\n\"\n\
         \"{lines}\\n.popsection\");\n\treturn n;\n}}\n"
    );
    let compiled = compile_sample(&text, &[]);
    let object = Object::parse(&compiled.object).unwrap();
    let section = object.section(name).unwrap();
    with(special::entries(&object, section, layout(name)))
}

#[test]
fn an_entry_with_a_reference_to_its_handler_is_as_long_as_one_with_a_number() {
    let handler = ".long 1b - .\\n.long 2b - .\\n.long handler - .\\n";
    let number = ".long 1b - .\\n.long 2b - .\\n.long 3\\n";
    // Six references are three entries of two, by their number alone.
    let each = |lines: &str| {
        let of = |found: Result<Vec<Entry>, Irregular>| {
            found.unwrap().iter().map(|entry| (entry.bytes.len(), entry.references.len())).collect::<Vec<_>>()
        };
        entries("__ex_table", lines, of)
    };
    assert_eq!(each(&handler.repeat(2)), [(12, 3); 2]);
    assert_eq!(each(&handler.repeat(3)), [(12, 3); 3]);
    assert_eq!(each(&number.repeat(2)), [(12, 2); 2]);
    let is_refused = |lines: &str| entries("__ex_table", lines, |found| found.is_err());
    assert!(is_refused(&[handler, number].concat()), "entries of two kinds");
    assert!(is_refused(&".long 1b - .\\n.long 2b - .\\n".repeat(2)), "entries without a third word");
    assert!(is_refused(".long 1b - .\\n.long 2b - .\\n"), "one such entry");
}

#[test]
fn the_last_call_to_a_hypervisor_need_not_be_filled_up_and_is_when_it_is_taken() {
    let entry = ".balign 8\\n.quad 1b\\n.byte 7\\n.byte 5\\n.short 1\\n";
    let bytes = entries(".parainstructions", &entry.repeat(2), |found| {
        found.unwrap().into_iter().map(|entry| entry.bytes.into_owned()).collect::<Vec<_>>()
    });
    assert_eq!(bytes.len(), 2);
    assert!(bytes.iter().all(|bytes| bytes.len() == 16 && bytes.ends_with(&[7, 5, 1, 0, 0, 0, 0, 0])));
    let is_refused = |more: &str| {
        entries(".parainstructions", &format!("{}{more}", entry.repeat(2)), |found| found.is_err())
    };
    assert!(!is_refused(".balign 8\\n"));
    assert!(is_refused(".short 0\\n"), "neither a whole entry nor one that is not filled up");
}

#[test]
fn a_feature_may_have_two_bytes_or_four() {
    for (number, size) in [(".word 3\\n", 12), (".long 3\\n", 14)] {
        let entry = format!(".long 1b - .\\n.long 2b - .\\n{number}.byte 5\\n.byte 5\\n");
        let sizes = entries(special::ALTERNATIVES, &entry.repeat(3), |found| {
            found.unwrap().iter().map(|entry| entry.bytes.len()).collect::<Vec<_>>()
        });
        assert_eq!(sizes, [size; 3]);
    }
}

/// Two functions that read what may not be there; of how to unwind where they go on it is said once, since it
/// is the same.
const READS: &str = r#"
int first(int *from)
{
	int value, error = 0;

	asm volatile("1: movl (%[from]), %[value]\n2:\n"
		     ".pushsection .fixup,\"ax\"\n3: movl $-14, %[error]\n\tjmp 2b\n.popsection\n"
		     ".pushsection __ex_table,\"a\"\n.long 1b - .\n.long 3b - .\n.long handler - .\n.popsection\n"
		     ".pushsection .orc_unwind_ip,\"a\"\n.long 3b - .\n.popsection\n"
		     ".pushsection .orc_unwind,\"a\"\n.byte 8,0,0,0,5,1\n.popsection\n"
		     : [value] "=r" (value), [error] "+r" (error) : [from] "r" (from));
	return error ? error : value;
}

int second(int *from)
{
	int value, error = 0;

	asm volatile("1: movl 8(%[from]), %[value]\n2:\n"
		     ".pushsection .fixup,\"ax\"\n3: movl $-14, %[error]\n\tjmp 2b\n.popsection\n"
		     ".pushsection __ex_table,\"a\"\n.long 1b - .\n.long 3b - .\n.long handler - .\n.popsection\n"
		     : [value] "=r" (value), [error] "+r" (error) : [from] "r" (from));
	return error ? error : value;
}
"#;

/// The fix changes the last line that has `old`.
fn fixed(old: &str, new: &str) -> Sample {
    let at = READS.rfind(old).unwrap();
    let after = format!("{}{new}{}", &READS[..at], &READS[at + old.len()..]);
    let mut sample = Sample::new(READS, &after);
    sample.exports.insert("handler".to_owned(), "vmlinux".to_owned());
    sample
}

/// Where the only jump out of `.fixup` that leads to `function` leads there.
fn return_to(object: &Object, function: &str) -> Vec<i64> {
    let section = object.section(special::FIXUP).unwrap();
    let fields = instruction::fields(section.data);
    let into = |relocation: &Relocation| match object.reference(*relocation, Some(&fields)).target {
        Target::Unit(number, offset) if object.symbols[number].name == function => Some(offset),
        _ => None,
    };
    section.relocations.iter().filter_map(into).collect()
}

fn table<'c>(cut: &'c Cut, name: &str) -> &'c cut::Part {
    cut.tables.iter().find(|table| table.section == name).unwrap()
}

#[test]
fn code_that_a_function_goes_on_at_after_a_fault_comes_along_and_leads_back_into_it() {
    let sample = fixed("return error ? error : value;", "return error ? error : value + 1;");
    let cut = sample.cut().unwrap();
    let is_block = |key: &&Key| matches!(key, Key::Block(..));
    let blocks: Vec<_> = cut.parts.keys().filter(is_block).collect();
    let [block] = blocks[..] else { panic!("{blocks:?}") };
    assert_eq!(cut.parts[block].section, special::FIXUP);
    let faults = table(&cut, "__ex_table");
    let [from, to, handler] = &faults.fills[..] else { panic!("{:?}", faults.fills) };
    assert!(matches!(from.to, To::Part(Key::Unit(_))));
    assert_eq!(to.to, To::Part(*block));
    assert_eq!(handler.to, To::Symbol("handler".to_owned()));
    // Said for the first function alone, and true of the second.
    let places = table(&cut, special::UNWIND_PLACES);
    assert_eq!(places.fills.iter().map(|fill| &fill.to).collect::<Vec<_>>(), [&To::Part(*block)]);
    assert_eq!(table(&cut, special::UNWIND).bytes, [8, 0, 0, 0, 5, 1]);

    let emitted = emit::emit(&cut, "sample.c").unwrap();
    let after = Object::parse(&sample.after.object).unwrap();
    let wanted = return_to(&after, "second");
    assert!(wanted.len() == 1 && wanted[0] > 0, "{wanted:?}");
    // Two names of one place: the new function's own, and that of the patch's table.
    let found = Object::parse(&emitted).unwrap();
    let ways = ["second", "invivo_new_vmlinux_second"].map(|name| return_to(&found, name)).concat();
    assert_eq!(ways, wanted);
}

#[test]
fn a_function_that_goes_on_elsewhere_after_a_fault_has_changed() {
    let sample = fixed("jmp 2b", "jmp 1b");
    let cut = sample.cut().unwrap();
    assert_eq!(cut.replaced.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["second"]);
}

#[test]
fn a_function_that_goes_on_with_another_number_after_a_fault_has_changed() {
    let cut = fixed("movl $-14", "movl $-13").cut().unwrap();
    assert_eq!(cut.replaced.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["second"]);
}

#[test]
fn a_change_behind_the_first_jump_of_such_a_piece_is_noticed() {
    let piece = "3: testl %[error], %[error]\\n\\tjz 4f\\n\\tmovl $-14, %[error]\\n\\tjmp 2b\\n\
                 4: movl $-5, %[error]\\n\\tjmp 2b";
    let at = READS.rfind("3: movl $-14, %[error]\\n\\tjmp 2b").unwrap();
    let end = at + "3: movl $-14, %[error]\\n\\tjmp 2b".len();
    let with = |piece: &str| format!("{}{piece}{}", &READS[..at], &READS[end..]);
    let [before, after] = [with(piece), with(&piece.replace("$-5", "$-6"))];
    assert_ne!(before, after);
    let mut sample = Sample::new(&before, &after);
    sample.exports.insert("handler".to_owned(), "vmlinux".to_owned());
    let [old, new] = [&sample.before, &sample.after].map(|c| Object::parse(&c.object).unwrap());
    assert_eq!(compare::compare(&old, &new).unwrap().changed, ["second"]);
    assert_eq!(sample.gate(), Gate::KnownCode, "it is not taken: its end is not known");
    // And none is noticed where there is none.
    assert_eq!(compare::compare(&old, &old).unwrap(), compare::Difference::default());
}

#[test]
fn what_goes_on_after_a_fault_in_a_function_that_stays_is_refused() {
    let (first, second) = READS.split_once("int second").unwrap();
    let first = first.replace("\"1: movl", "\"nop\\n1: movl").replace("\\n2:\\n", "\\n2: inside:\\n");
    let second = second.replace(".long 3b - .\\n.long handler", ".long inside - .\\n.long handler");
    let before = format!("{first}int second{second}");
    assert!(before.matches("inside").count() == 2);
    let mut sample = Sample::new(&before, &before.replace("\"1: movl 8(", "\"1: movl 12("));
    sample.exports.insert("handler".to_owned(), "vmlinux".to_owned());
    let refusal = sample.cut().unwrap_err();
    assert!(refusal.gate == Gate::KnownCode && refusal.what.contains("goes on at first+"), "{refusal:?}");
}

#[test]
fn code_out_of_line_in_which_a_task_may_be_stopped_is_refused() {
    let mut sample = fixed("movl $-14", "movl $-13");
    sample.is_preemptible = true;
    let refusal = sample.cut().unwrap_err();
    assert!(refusal.gate == Gate::KnownCode && refusal.what.contains("preemptible"), "{refusal:?}");
}

#[test]
fn a_jump_between_two_such_pieces_of_code_is_refused() {
    let before = READS.replace("jmp 2b", "jmp 4f\\n\\tnop\\n4:\\tjmp 2b");
    let mut sample = Sample::new(&before, &before.replace("error : value", "error : value + 1"));
    sample.exports.insert("handler".to_owned(), "vmlinux".to_owned());
    assert_eq!(sample.gate(), Gate::KnownCode);
}
