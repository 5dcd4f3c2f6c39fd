//! Static keys: the kernel's, those of a module, and the jumps that objtool makes nothing of.

use super::tests::passes;
use super::*;
use crate::object::instruction::NOTHING_FOR_5;
use crate::sample::{Sample, compile};

/// A test of a static key as the kernel's headers write it.
const KEY: &str = r#"
struct static_key { int enabled; };
extern struct static_key far_key;
static inline __attribute__((always_inline)) int branch(struct static_key *key)
{
	asm goto("1: .byte 0x0f,0x1f,0x44,0x00,0x00\n"
		 ".pushsection __jump_table, \"aw\"\n .balign 8\n"
		 ".long 1b - ., %l[yes] - .\n .quad %c0 - .\n .popsection"
		 : : "i"(key) : : yes);
	return 0;
yes:
	return 1;
}
int keyed(int n)
{
	if (branch(&far_key))
		return n + 1;
	return n;
}
struct static_key far_key;
"#;

#[test]
fn a_static_key_of_the_kernel_passes_and_one_of_a_module_is_refused() {
    let mut sample = Sample::new(KEY, &KEY.replace("return n;", "return n - 1;"));
    let cut = passes(&sample);
    assert!(cut.tables.iter().any(|table| table.section == "__jump_table" && table.fills.len() == 3));
    sample.object = "exfat";
    let refusal = sample.cut().unwrap_err();
    assert_eq!(refusal, Refusal::new(Gate::StaticKeys, "far_key of exfat"));
}

#[test]
fn a_tracepoint_of_a_module_is_left_out_and_said_so() {
    let rename = |text: &str| text.replace("far_key", "__tracepoint_far");
    let mut sample = Sample::new(&rename(KEY), &rename(&KEY.replace("return n;", "return n - 1;")));
    sample.object = "exfat";
    let cut = passes(&sample);
    assert!(cut.tables.is_empty());
    assert!(cut.notes.iter().any(|note| note.contains("__tracepoint_far is silent")), "{:?}", cut.notes);
}

/// The same with the jump that objtool has not made nothing of yet.
fn with_jump() -> String {
    KEY.replace("\"1: .byte 0x0f,0x1f,0x44,0x00,0x00\\n\"", "\"1: .byte 0xe9; .long 0\\n\"")
        .replace("%c0 - .", "%c0 + 2 - .")
}

#[test]
fn a_jump_that_objtool_makes_nothing_of_is_the_kernels_if_nothing_is_there() {
    let jump = with_jump();
    let mut sample = Sample::new(&jump, &jump.replace("return n;", "return n - 1;"));
    assert_eq!(sample.gate(), Gate::Reproduced, "the kernel has the jump");
    sample.kernel = compile(&KEY.replace("%c0 - .", "%c0 + 2 - ."), &[]);
    passes(&sample);
}

#[test]
fn of_a_tracepoint_that_is_left_out_nothing_is_made_here() {
    let rename = |text: &str| text.replace("far_key", "__tracepoint_far");
    let jump = rename(&with_jump());
    let mut sample = Sample::new(&jump, &jump.replace("return n;", "return n - 1;"));
    sample.kernel = compile(&rename(&KEY.replace("%c0 - .", "%c0 + 2 - .")), &[]);
    sample.object = "exfat";
    let cut = passes(&sample);
    assert!(cut.tables.is_empty());
    let code = cut.parts.values().find(|part| part.section == ".text.keyed").unwrap();
    assert!(code.bytes.windows(5).any(|bytes| bytes == NOTHING_FOR_5));
}
