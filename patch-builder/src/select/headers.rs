//! Small functions and macros of a newer header that a fix uses and the original headers do not have. Put
//! into the fixed file they change nothing for any other.

use std::collections::BTreeMap;

use super::split::{self, Piece, identifiers};

/// How a kernel is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Each option that is set; whether to be built as a module.
    set: BTreeMap<String, bool>,
}

impl Config {
    /// What `.config` says.
    pub fn of(text: &str) -> Self {
        let set = text.lines().filter_map(|line| line.split_once('='));
        let set = set.filter(|(name, _)| name.starts_with("CONFIG_"));
        Self { set: set.map(|(name, value)| (name.to_owned(), value.trim() == "m")).collect() }
    }

    /// Whether the option `name` is set, and not as a module.
    pub fn is_built_in(&self, name: &str) -> bool {
        self.set.get(name).is_some_and(|module| !module)
    }

    /// Whether a task may be stopped anywhere in the kernel.
    pub fn is_preemptible(&self) -> bool {
        // The second is set by any model of that kind.
        ["CONFIG_PREEMPT", "CONFIG_PREEMPTION"].into_iter().any(|name| self.is_built_in(name))
    }

    /// Whether what stands behind `#if` holds; none if that cannot be told.
    fn holds(&self, condition: &str) -> Option<bool> {
        let condition = condition.trim();
        if let Some(rest) = condition.strip_prefix('!') {
            return self.holds(rest).map(|holds| !holds);
        }
        let option = |before: &str| {
            let rest = condition.strip_prefix(before)?.trim_start().strip_prefix('(')?;
            let name = rest.strip_suffix(')')?.trim();
            identifiers(name).eq([name]).then_some(name)
        };
        if let Some(name) = option("defined") {
            return self.is_defined(name);
        }
        let (name, as_module) = match option("IS_ENABLED") {
            Some(name) => (name, true),
            None => (option("IS_BUILTIN")?, false),
        };
        let is_option = name.starts_with("CONFIG_");
        is_option.then(|| self.set.get(name).is_some_and(|module| as_module || !module))
    }

    /// Whether a macro of this name is there, if it tells of an option.
    fn is_defined(&self, name: &str) -> Option<bool> {
        let of_module = name.strip_suffix("_MODULE").and_then(|name| self.set.get(name).copied());
        name.starts_with("CONFIG_").then(|| self.is_built_in(name) || of_module.unwrap_or_default())
    }
}

/// The functions and macros of a header in a configuration, by their names: what is defined under a
/// condition that cannot be told may be the stub of another kernel. None of a header that is not in the
/// kernel's style.
pub fn pieces<'h>(header: &'h str, config: &Config) -> BTreeMap<&'h str, &'h str> {
    let parts = split::parts(header).unwrap_or_default();
    let is_guard = |word: &str| {
        let named = format!("#define {word}");
        !word.is_empty() && parts.iter().any(|part| part.text.trim() == named)
    };
    // Each open condition, and whether it holds.
    let mut open: Vec<Option<bool>> = Vec::new();
    let mut found: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for part in &parts {
        let (word, rest) = part.directive().unwrap_or_default();
        match word {
            "ifndef" if open.is_empty() && is_guard(rest) => open.push(Some(true)),
            "ifdef" => open.push(config.is_defined(rest)),
            "ifndef" => open.push(config.is_defined(rest).map(|is_defined| !is_defined)),
            "if" => open.push(config.holds(rest)),
            "else" => open.iter_mut().last().into_iter().for_each(|last| *last = last.map(|holds| !holds)),
            "elif" => open.iter_mut().last().into_iter().for_each(|last| *last = None),
            "endif" => drop(open.pop()),
            _ if open.contains(&Some(false)) => {}
            _ => {
                let is_code = matches!(part.piece, Piece::Function(_) | Piece::Preprocessor { .. });
                for name in part.defines().take(1) {
                    let text = Some(part.text).filter(|_| is_code && !open.contains(&None));
                    // Twice, in whatever form: which of them it is cannot be told.
                    found.entry(name).and_modify(|found| *found = None).or_insert(text);
                }
            }
        }
    }
    found.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
}

/// `fixed` with `piece` behind what it includes at its beginning, and so before what was put there earlier.
pub fn put_in(fixed: &str, piece: &str) -> String {
    let parts = split::parts(fixed).unwrap_or_default();
    let head = parts.iter().take_while(|part| part.function().is_none());
    let mut place = 0;
    let mut at = 0;
    for part in head {
        at += part.text.len();
        if part.text.trim_start().starts_with("#include") {
            place = at;
        }
    }
    let (before, after) = fixed.split_at_checked(place).unwrap_or(("", fixed));
    [before, piece, after].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUBS: &str = "#ifndef H\n#define H\n#ifdef CONFIG_A /* a */\nvoid real(int n);\nstatic inline void both(void)\n{\n}\n\
        #else\nstatic inline void real(int n)\n{\n}\n#define both() do { } while (0)\n#endif\n#define LIMIT 1\n\
        int twice(int n);\n#define twice twice\n#endif /* H */\n";

    fn of(header: &'static str, config: &str) -> Vec<&'static str> {
        pieces(header, &Config::of(config)).into_keys().collect()
    }

    #[test]
    fn a_kernel_that_stops_tasks_only_where_they_ask_for_it_is_not_preemptible() {
        let is_preemptible = |config: &str| Config::of(config).is_preemptible();
        assert!(!is_preemptible(
            "# CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_VOLUNTARY=y\nCONFIG_PREEMPT_COUNT=y\n"
        ));
        assert!(is_preemptible("CONFIG_PREEMPT=y\n") && is_preemptible("CONFIG_PREEMPTION=y\n"));
    }

    #[test]
    fn of_the_forms_that_a_header_has_of_a_function_the_configurations_is_taken() {
        assert_eq!(of(STUBS, "CONFIG_A=y\n"), ["H", "LIMIT", "both"]);
        assert_eq!(of(STUBS, "# CONFIG_A is not set\n"), ["H", "LIMIT", "both", "real"]);
        let both = |config: &str| pieces(STUBS, &Config::of(config))["both"];
        assert!(both("CONFIG_A=y\n").starts_with("static inline") && both("").starts_with("#define"));
    }

    #[test]
    fn what_stands_under_a_condition_that_cannot_be_told_is_left_out() {
        let header = "#if A > 1\n#define B 1\n#else\n#define C 1\n#endif\n#if IS_ENABLED(CONFIG_D)\n#define E 1\n#elif F\n\
            #define G 1\n#endif\n#if !defined(CONFIG_D)\n#define I 1\n#endif\n#if IS_BUILTIN(CONFIG_D)\n#define J 1\n#endif\n";
        assert_eq!(of(header, "CONFIG_D=m\n"), ["E", "I"]);
        assert_eq!(of(header, "CONFIG_D=y\n"), ["E", "J"]);
    }

    #[test]
    fn pieces_of_a_header_go_behind_what_is_included() {
        let header = "#ifndef H\n#define H\n#define LIMIT(n) \\\n\t((n) + 1)\nstruct a;\nstatic inline int twice(int n)\n{\n\treturn 2 * n;\n}\n#endif\n";
        let found = pieces(header, &Config::default());
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["H", "LIMIT", "twice"]);
        let fixed = "#include <a.h>\n#include <b.h>\n\nint f(void)\n{\n\treturn twice(LIMIT(1));\n}\n#include \"c.c\"\n";
        let text = put_in(&put_in(fixed, found["twice"]), found["LIMIT"]);
        assert_eq!(text.matches("static inline int twice").count(), 1);
        assert!(text.starts_with("#include <a.h>\n#include <b.h>\n#define LIMIT"), "{text}");
    }
}
