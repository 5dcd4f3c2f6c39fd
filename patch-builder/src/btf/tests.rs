use super::*;

/// Types as a test writes them.
#[derive(Default)]
struct Section {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Section {
    fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0] }
    }

    fn text(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind: u32, count: usize, size: u32, rest: &[u32]) {
        let name = self.text(name);
        let info = kind << 24 | u32::try_from(count).unwrap();
        for word in [name, info, size].iter().chain(rest) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn integer(&mut self, name: &str, size: u32) {
        self.add(name, 1, 0, size, &[size * 8]);
    }

    fn record(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) {
        let mut rest = Vec::new();
        for (name, of, place) in members {
            rest.extend([self.text(name), *of, *place]);
        }
        self.add(name, 4, members.len(), size, &rest);
    }

    fn enumeration(&mut self, values: &[(&str, u32)]) {
        let mut rest = Vec::new();
        for (name, value) in values {
            rest.extend([self.text(name), *value]);
        }
        self.add("state", 6, values.len(), 4, &rest);
    }

    fn bytes(&self) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let mut out = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, length(&self.types), length(&self.types), length(&self.strings)] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out
    }
}

fn sample(size: u32, members: &[(&str, u32, u32)], values: &[(&str, u32)]) -> Vec<u8> {
    let mut section = Section::new();
    section.integer("int", 4);
    section.integer("long", 8);
    section.record("", 4, &[("x", 1, 0)]);
    section.record("sock", size, members);
    section.enumeration(values);
    section.bytes()
}

const MEMBERS: [(&str, u32, u32); 2] = [("a", 1, 0), ("b", 2, 64)];
const VALUES: [(&str, u32); 2] = [("OPEN", 0), ("CLOSED", 1)];

fn differ(size: u32, members: &[(&str, u32, u32)], values: &[(&str, u32)]) -> Vec<String> {
    let (before, after) = (sample(16, &MEMBERS, &VALUES), sample(size, members, values));
    contradictions(&Types::parse(&before).unwrap(), &Types::parse(&after).unwrap())
}

#[test]
fn equal_types_do_not_contradict_each_other() {
    assert_eq!(differ(16, &MEMBERS, &VALUES), [""; 0]);
}

#[test]
fn a_struct_that_grew_is_found() {
    assert_eq!(differ(24, &[("a", 1, 0), ("b", 2, 64), ("c", 2, 128)], &VALUES), ["struct sock"]);
}

#[test]
fn a_member_that_moved_or_became_something_else_is_found() {
    assert_eq!(differ(16, &[("b", 2, 0), ("a", 1, 64)], &VALUES), ["struct sock"]);
    assert_eq!(differ(16, &[("a", 3, 0), ("b", 2, 64)], &VALUES), ["struct sock"]);
}

#[test]
fn a_constant_that_moved_is_found_and_one_more_at_the_end_is_none() {
    assert_eq!(differ(16, &MEMBERS, &[("OPEN", 1), ("CLOSED", 0)]), ["constant CLOSED", "constant OPEN"]);
    assert_eq!(differ(16, &MEMBERS, &[("OPEN", 0), ("CLOSED", 1), ("GONE", 2)]), [""; 0]);
}

#[test]
fn a_type_that_leads_to_itself_ends() {
    let mut section = Section::new();
    section.add("", 2, 0, 2, &[]);
    section.add("", 2, 0, 1, &[]);
    section.record("loop", 8, &[("p", 1, 0)]);
    let bytes = section.bytes();
    assert_eq!(count(&Types::parse(&bytes).unwrap()), 1);
}

#[test]
fn a_damaged_section_is_refused_wherever_it_is_damaged() {
    let good = sample(16, &MEMBERS, &VALUES);
    assert!(Types::parse(b"").is_err());
    for length in 0..good.len() - 1 {
        assert!(Types::parse(&good[..length]).is_err(), "{length}");
    }
    // Any other byte gives types or an error, never a panic.
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(types) = Types::parse(&bad) {
                contradictions(&types, &types);
            }
        }
    }
}

#[test]
fn a_type_that_holds_itself_comes_to_an_end_and_is_no_type_to_rely_on() {
    let mut section = Section::new();
    // 200 members without a name, each of the record itself.
    let members: Vec<u32> = (0..200).flat_map(|n| [0, 1, n]).collect();
    section.add("", 4, 200, 8, &members);
    section.add("outer", 4, 1, 8, &[0, 1, 0]);
    let bytes = section.bytes();
    let types = Types::parse(&bytes).unwrap();
    assert_eq!(contradictions(&types, &types), ["struct outer"]);
}

#[test]
fn damaged_types_are_refused_or_read_but_never_end_the_builder() {
    let text = "struct s { int a; union { long b; char c[8]; }; enum { ONE, TWO } d; int (*f)(struct s *); };\n\
                struct s use(struct s *s) { return *s; }";
    let compiled = crate::sample::compile(text, &[]);
    let object = crate::object::Object::parse(&compiled.object).unwrap();
    let good = object.section(".BTF").unwrap().data;
    let types = Types::parse(good).unwrap();
    let mut refused = 0;
    for bytes in crate::sample::damaged(good, 5000) {
        match Types::parse(&bytes) {
            Ok(other) => drop(contradictions(&types, &other)),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 500, "{refused}");
}
