use super::*;

fn pieces(text: &str) -> Vec<Piece<'_>> {
    parts(text).unwrap().into_iter().map(|p| p.piece).filter(|p| *p != Piece::Comment).collect()
}

#[test]
fn pieces_cover_the_file_and_know_their_lines() {
    let text = "// a\n\n#define A(x) \\\n\tx\n/* b\n * c */\nint f(int a,\n      int b)\n{\n\treturn a;\n}\nEXPORT_SYMBOL(f);\n";
    let found = pieces(text);
    assert!(matches!(found[0], Piece::Preprocessor { line: 3, text: "#define A(x) \\\n\tx\n" }));
    let Piece::Function(f) = &found[1] else { panic!("{found:?}") };
    assert_eq!((f.name, f.line), ("f", 7));
    assert_eq!(f.head(), "int f(int a,\n      int b)\n");
    assert_eq!(f.body(), "{\n\treturn a;\n}\n");
    assert_eq!(found[2..], [Piece::Other]);
}

#[test]
fn names_of_functions_are_found_behind_attributes() {
    for (head, name) in [
        ("static __printf(2, 3) int say(int n, const char *f, ...)", "say"),
        ("int __sched wait (struct x *x) __acquires(x->lock)", "wait"),
        ("static void (*get(int n))(void)", "get"),
        ("asmlinkage __visible void __attribute__((used)) go(void)", "go"),
    ] {
        let text = format!("{head}\n{{\n}}\n");
        let found = pieces(&text);
        assert!(matches!(&found[..], [Piece::Function(f)] if f.name == name), "{head}: {found:?}");
    }
}

#[test]
fn types_prototypes_and_data_are_told_apart() {
    let text = "struct a {\n\tint b;\n} __packed;\nstruct c;\ntypedef int d;\nenum { E, F = 3 };\n\
        static int g(int h);\nstatic int i;\nstatic const struct j k[] = {\n\t{ 1 },\n};\n\
        static DEFINE_MUTEX(l);\nstruct m {\n\tint n;\n} o;\nint *p = &i; /* q */\nmodule_init(r);\n";
    let kinds: Vec<_> = pieces(text)
        .iter()
        .map(|p| match p {
            Piece::Type { .. } => "type",
            Piece::Prototype { name, .. } | Piece::Data { name } => name,
            Piece::Other => "other",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["type", "type", "type", "type", "g", "i", "k", "l", "m", "p", "other"]);
}

#[test]
fn labels_and_conditions_in_the_first_column_stay_in_their_function() {
    let text = "void f(void)\n{\n\tgoto out;\n#ifdef X\n\tg();\n#endif\nout:\n\treturn;\n}\n";
    assert!(matches!(&pieces(text)[..], [Piece::Function(f)] if f.text == text));
}

#[test]
fn small_functions_of_headers_and_comments_that_go_on_end_where_they_end() {
    let text = "static inline void f(void) { }\nstatic inline int g(int n) {\n\tif (n) {\n\t\treturn 1;\n\t}\n\treturn 0;\n}\n\
        #define A 1 /* is\n * one */\nint h(void); /* goes\n on */\n#define B \"/*\"\nint i;\nextern struct a {\n\tint b;\n} c;\n";
    let found = pieces(text);
    let [Piece::Function(f), Piece::Function(g), Piece::Preprocessor { .. }, rest @ ..] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((f.name, f.body(), g.name, g.head()), ("f", "{ }\n", "g", "static inline int g(int n) "));
    assert!(
        matches!(
            rest,
            [Piece::Prototype { name: "h", .. }, Piece::Preprocessor { .. }, Piece::Data { name: "i" }, _]
        ),
        "{rest:?}"
    );
}

#[test]
fn types_and_tables_may_have_their_brace_where_functions_have_it() {
    let text =
        "struct a\n{\n\tint b;\n};\nstatic const struct ops c =\n{\n\t.d = e,\n};\nint f(void)\n{\n}\n";
    let found = pieces(text);
    assert!(
        matches!(&found[..], [Piece::Type { .. }, Piece::Data { name: "c" }, Piece::Function(_)]),
        "{found:?}"
    );
}

#[test]
fn a_blank_behind_a_brace_and_a_word_before_a_type_change_nothing() {
    let text = "int f(void)\n{\t\n\treturn 0;\n}\ntypedef struct a\n{\n\tint b;\n} c;\nstatic struct d\n{\n\tint e;\n} g;\n";
    let found = pieces(text);
    assert!(matches!(&found[..], [Piece::Function(f), Piece::Type { .. }, _] if f.name == "f"), "{found:?}");
}

#[test]
fn a_macro_may_be_the_head_of_a_function() {
    let text =
        "BPF_CALL_2(bpf_cork, struct msg *, msg,\n\t   u32, bytes)\n{\n\treturn 0;\n}\nBPF_END(x)\nint i;\n";
    let found = pieces(text);
    assert!(
        matches!(&found[..], [Piece::Function(f), Piece::Other, Piece::Data { .. }] if f.name == "BPF_CALL_2"),
        "{found:?}"
    );
}

#[test]
fn what_stands_in_texts_macros_and_comments_ends_nothing() {
    let text = "EVENT(a,\n\tprint(\"range (%u %u\",\n\t\t'\"', '\\\"', x) /* 3.5\" (wide */\n);\nstruct a /* private (ours) */\n{\n\tint b;\n};\n\
        int f(void)\n{\n#define CHECK(x) do { \\\n\tg(x); \\\n} while (0)\n\tCHECK(1);\n\treturn 0;\n};\ninitcall(f);\n";
    let found = pieces(text);
    assert!(
        matches!(&found[..], [_, Piece::Type { .. }, Piece::Function(f), _] if f.text.ends_with("};\n")),
        "{found:?}"
    );
}

#[test]
fn a_function_that_does_not_end_is_refused_with_its_line() {
    assert_eq!(parts("\n\nint f(void)\n{\n").unwrap_err(), Error::Unfinished(3));
    assert_eq!(parts("/* never\n").unwrap_err(), Error::Unfinished(1));
    assert_eq!(parts("module_init(start\n").unwrap_err(), Error::Unfinished(1));
    assert_eq!(parts("int i;\nmodule_init(start)\n").unwrap().len(), 2);
}

#[test]
fn identifiers_are_words_that_do_not_begin_with_a_digit() {
    assert_eq!(identifiers("a->b2 + 0xff * _c(3UL)").collect::<Vec<_>>(), ["a", "b2", "_c"]);
}
