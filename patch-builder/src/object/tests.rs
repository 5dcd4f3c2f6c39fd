use super::*;
use crate::object::extract::extract;
use crate::object::kernel::{Names, NotFound};
use crate::object::resolve::World;
use crate::sample::{Sample, compile as compile_sample};

const FILE: &str = "\
static int count;
extern int far(int n, const char *text);
static __attribute__((noinline)) int helper(int n)
{
	return n + count++;
}
int get(int n)
{
	return far(helper(n), \"text\");
}
";

fn sample() -> Sample {
    let mut sample =
        Sample::new(FILE, &FILE.replace("return far(", "if (n > 8)\n\t\treturn 8;\n\treturn 1 + far("));
    sample.exports.insert("far".to_owned(), "vmlinux".to_owned());
    sample
}

#[test]
fn an_object_is_taken_apart() {
    let compiled = compile_sample(FILE, &[]);
    let object = Object::parse(&compiled.object).unwrap();
    assert_eq!(object.file(), Some("sample.c"));
    let get = object.functions().find(|s| s.name == "get").unwrap();
    assert_eq!(object.section_of(get).unwrap().name, ".text.get");
    assert!(!get.is_local && object.functions().any(|s| s.is_local && s.name.starts_with("helper")));
    let names: Vec<_> = object.relocations_of(get).iter().map(|r| object.symbols[r.symbol].name).collect();
    assert!(names.contains(&"__fentry__") && names.contains(&"far"), "{names:?}");
}

#[test]
fn what_is_written_is_read_again_with_everything_it_needs() {
    let sample = sample();
    let cut = sample.cut().unwrap();
    let bytes = emit::emit(&cut, "sample.c").unwrap();
    assert_eq!(bytes, emit::emit(&cut, "sample.c").unwrap());
    let object = Object::parse(&bytes).unwrap();
    let undefined: Vec<_> = object
        .symbols
        .iter()
        .filter(|s| s.place == Place::Undefined && !s.name.is_empty())
        .map(|s| s.name)
        .collect();
    assert_eq!(undefined.len(), 3, "{undefined:?}");
    assert!(undefined.contains(&"far") && undefined.contains(&"__fentry__"));
    assert!(undefined.iter().any(|name| name.starts_with("__klpsym_vmlinux__helper")), "{undefined:?}");
    // The new function has its own name, and the one that the table knows, at the same place.
    let named = |name: &str| *object.functions().find(|s| s.name == name).unwrap();
    let (own, of_table) = (named("get"), named("invivo_new_vmlinux_get"));
    assert_eq!((own.value, own.size), (of_table.value, of_table.size));
    assert!(own.is_local && !of_table.is_local);
    // Its code is that of the fixed object.
    let after = Object::parse(&sample.after.object).unwrap();
    let fixed = after.functions().find(|s| s.name == "get").unwrap();
    assert_eq!(object.bytes_of(&own), after.bytes_of(fixed));
}

#[test]
fn without_debug_information_everything_else_stays() {
    let compiled = compile_sample(FILE, &["-g"]);
    let whole = Object::parse(&compiled.object).unwrap();
    let slimmed = slim::slim(compiled.object.as_slice()).unwrap();
    let slim = Object::parse(&slimmed).unwrap();
    assert!(
        slimmed.len() < compiled.object.len() && whole.section(".debug_info").is_some_and(|s| s.size > 0)
    );
    assert!(slim.section(".debug_info").is_none_or(|s| s.size == 0));
    for (one, other) in whole.sections.iter().zip(&slim.sections).filter(|(s, _)| !s.name.contains("debug")) {
        assert_eq!((one.name, one.data), (other.name, other.data));
    }
    assert_eq!(whole.symbols.len(), slim.symbols.len());
}

#[test]
fn the_position_of_a_symbol_is_its_place_among_those_of_its_name() {
    let text = "\
        .file \"a.c\"\n.text\n.type f,@function\nf: ret\n.size f,1\n\
        .globl g\n.type g,@function\ng: ret\n.size g,1\n";
    let compiled = compile_sample(&format!("asm({text:?});\n"), &[]);
    let object = Object::parse(&compiled.object).unwrap();
    let names = Names::of_vmlinux(&object);
    assert_eq!(names.global("g").unwrap().position, 0);
    assert_eq!(names.global("h").unwrap_err(), NotFound::Absent);
    assert!(names.local("f", "b.c").is_err());
}

#[test]
fn damaged_objects_are_refused_or_read_but_never_end_the_builder() {
    let sample = sample();
    let good = Object::parse(&sample.before.object).unwrap();
    let names = Names::of_vmlinux(&good);
    let none = std::collections::BTreeSet::new();
    let world = World {
        takes: &none,
        object: "vmlinux",
        own: &names,
        exports: &sample.exports,
        holds: &|_| false,
        of_module: &|_, _| Err(NotFound::Absent),
        is_preemptible: false,
        objtool_at_link: false,
    };
    let (mut unread, mut refused, mut taken) = (0, 0, 0);
    for bytes in crate::sample::damaged(&sample.after.object, 4000) {
        drop(slim::slim(bytes.as_slice()));
        drop(crate::klp::undefined(&bytes));
        drop(crate::modinfo::Modinfo::of(&bytes));
        let Ok(object) = Object::parse(&bytes) else {
            unread += 1;
            continue;
        };
        drop(crate::reproduce::reproduce(&object, &good, "sample.c"));
        let Ok(difference) = compare::compare(&good, &object) else {
            refused += 1;
            continue;
        };
        match extract(&good, &object, &difference, &none, &world) {
            Ok(cut) => {
                drop(emit::emit(&cut, "sample.c"));
                taken += 1;
            }
            Err(_) => refused += 1,
        }
    }
    // All three ways were gone.
    assert!(unread > 100 && refused > 20 && taken > 20, "{unread} {refused} {taken}");
}

/// Two places that the kernel patches as it boots. Of the first nothing comes in their place, so that the
/// code for the second begins where the first's would.
const ALTERNATIVES: &str = r#"
int alternate(int n)
{
	asm volatile("1: .byte 0x0f,0x1f,0x44,0x00,0x00\n"
		     ".pushsection .altinstructions,\"a\"\n"
		     ".long 1b - .\n .long 2f - .\n .word 3\n .byte 5\n .byte 0\n"
		     ".popsection\n"
		     ".pushsection .altinstr_replacement,\"ax\"\n 2:\n .popsection\n"
		     "3: .byte 0x0f,0x1f,0x44,0x00,0x00\n"
		     ".pushsection .altinstructions,\"a\"\n"
		     ".long 3b - .\n .long 4f - .\n .word 4\n .byte 5\n .byte 5\n"
		     ".popsection\n"
		     ".pushsection .altinstr_replacement,\"ax\"\n 4: .byte 0x66,0x66,0x66,0x66,0x90\n .popsection\n");
	return n;
}
"#;

#[test]
fn what_the_kernel_puts_in_place_of_code_comes_along_as_long_as_it_is() {
    let cut = Sample::new(ALTERNATIVES, &ALTERNATIVES.replace("return n;", "return n + 1;")).cut().unwrap();
    let table = cut.tables.iter().find(|table| table.section == special::ALTERNATIVES).unwrap();
    let [first, nothing, second, code] = &table.fills[..] else { panic!("{:?}", table.fills) };
    assert_eq!((&first.to, &first.to), (&second.to, &nothing.to));
    let crate::object::cut::To::Part(key) = &code.to else { panic!("{code:?}") };
    let part = &cut.parts[key];
    assert_eq!(
        (part.section.as_str(), &part.bytes[..]),
        (special::REPLACEMENT, &b"\x66\x66\x66\x66\x90"[..])
    );
}

mod older;
