//! Names with a syntax of their own. Each is checked once, where it enters.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A text that does not have the form its kind of name requires.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?}: expected {expected}")]
pub struct InvalidName {
    /// Which kind of name was wanted.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub text: String,
    /// The form that was expected, for people.
    pub expected: &'static str,
}

impl InvalidName {
    pub(crate) fn new(kind: &'static str, text: &str, expected: &'static str) -> Self {
        Self { kind, text: text.chars().take(80).collect(), expected }
    }
}

/// A string newtype that can only hold what `valid` accepts; `pattern` says the same to the API server.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $pattern:expr, $expected:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName::new(stringify!($name), text, $expected))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "maxLength": 128})
            }
        }
    };
}
pub(crate) use checked_name;

fn lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `YYYY-MM-DD.N`, N from 1 without leading zeros, at most six digits.
fn is_set_name(text: &str) -> bool {
    let Some((date, n)) = text.split_once('.') else { return false };
    let mut parts = date.split('-');
    let (Some(y), Some(m), Some(d), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let number = |s: &str, len: usize| {
        (s.len() == len && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u32>().unwrap_or(0))
    };
    let date_ok = number(y, 4).is_some_and(|v| v >= 2000)
        && number(m, 2).is_some_and(|v| (1..=12).contains(&v))
        && number(d, 2).is_some_and(|v| (1..=31).contains(&v));
    date_ok && (1..=6).contains(&n.len()) && !n.starts_with('0') && n.bytes().all(|b| b.is_ascii_digit())
}

fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let (Some(year), Some(month), Some(day), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let number = |text: &str, digits: usize| {
        let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (Some(year), Some(month), Some(day)) = (number(year, 4), number(month, 2), number(day, 2)) else {
        return false;
    };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    };
    year >= 2000 && (1..=days).contains(&day)
}

checked_name!(
    /// A day in UTC: `2026-05-31`.
    Date,
    r"^2[0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
    "a day, YYYY-MM-DD",
    is_date
);

checked_name!(
    /// One publication of a repository: `2026-11-21.1`.
    SetName,
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\.[1-9][0-9]{0,5}$",
    "YYYY-MM-DD.N, such as 2026-11-21.1",
    is_set_name
);

checked_name!(
    /// A repository's own name, signed into every one of its documents.
    RepositoryName,
    r"^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$",
    "1 to 64 lower-case letters, digits, dots and dashes",
    |t| {
        (1..=64).contains(&t.len())
            && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
            && !t.starts_with(['.', '-'])
            && !t.ends_with(['.', '-'])
    }
);

checked_name!(
    /// An OpenPGP certificate's fingerprint, version 4 (40) or 6 (64 lower-case hex digits).
    Fingerprint,
    r"^([0-9a-f]{40}|[0-9a-f]{64})$",
    "40 or 64 lower-case hex digits",
    |t| (t.len() == 40 || t.len() == 64) && lower_hex(t)
);

checked_name!(
    /// A patch module's name in the kernel: `invivo_l4_0123456789abcdef` (level, first 16 hex
    /// digits of the digest of the build's inputs), so that the kernel alone tells what is loaded.
    ModuleName,
    r"^invivo_l[0-9]{1,10}_[0-9a-f]{16}$",
    "invivo_l<level>_<16 hex digits>",
    |t| {
        t.strip_prefix("invivo_l").and_then(|rest| rest.split_once('_')).is_some_and(|(level, hex)| {
            (1..=10).contains(&level.len())
                && level.bytes().all(|b| b.is_ascii_digit())
                && hex.len() == 16
                && lower_hex(hex)
        })
    }
);

impl ModuleName {
    /// The level that the name carries.
    pub fn level(&self) -> crate::Level {
        let digits = self.0.strip_prefix("invivo_l").and_then(|r| r.split('_').next()).unwrap_or("0");
        crate::Level(digits.parse().unwrap_or(0))
    }
}

checked_name!(
    /// The name of a kernel module that a patch changes, as the kernel has it: `nf_tables`, never
    /// `nf-tables`. It stands in parameters and in paths, so it holds nothing else.
    TargetName,
    r"^[A-Za-z0-9_]{1,55}$",
    "1 to 55 letters, digits and underscores; not vmlinux",
    |t| {
        (1..=55).contains(&t.len())
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && t != "vmlinux"
    }
);

/// What a policy aims at: `Latest`, `None`, or a set's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TargetSet {
    /// The newest eligible set; never lowers a node.
    Latest,
    /// Take every patch off.
    None,
    /// This set, be it higher or lower than what a node runs.
    Named(SetName),
}

impl TryFrom<String> for TargetSet {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        match text.as_str() {
            "Latest" => Ok(Self::Latest),
            "None" => Ok(Self::None),
            other => other.parse().map(Self::Named).map_err(|_| {
                InvalidName::new("TargetSet", other, "Latest, None or a set's name such as 2026-11-21.1")
            }),
        }
    }
}

impl From<TargetSet> for String {
    fn from(target: TargetSet) -> Self {
        target.to_string()
    }
}

impl fmt::Display for TargetSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("Latest"),
            Self::None => f.write_str("None"),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl JsonSchema for TargetSet {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TargetSet".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(Latest|None|[0-9]{4}-[0-9]{2}-[0-9]{2}\.[1-9][0-9]{0,5})$",
            "maxLength": 32
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_name_is_a_date_and_a_number() {
        for good in ["2026-11-21.1", "2026-01-01.999999"] {
            assert_eq!(good.parse::<SetName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21.0",
            "2026-11-21.01",
            "2026-13-01.1",
            "2026-1-1.1",
            "2026-11-21.1 ",
            "1999-01-01.1",
        ] {
            assert!(bad.parse::<SetName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_day_is_one_that_the_calendar_has() {
        for good in ["2026-05-31", "2028-02-29", "2000-02-29", "2026-12-01"] {
            assert_eq!(good.parse::<Date>().unwrap().as_str(), good);
        }
        for bad in ["", "2026-5-31", "2026-02-29", "2100-02-29", "2026-04-31", "2026-13-01", "1999-01-01"] {
            assert!(bad.parse::<Date>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_module_name_tells_its_level_and_never_exceeds_what_the_kernel_takes() {
        let name: ModuleName = "invivo_l12_0123456789abcdef".parse().unwrap();
        assert_eq!(name.level(), crate::Level(12));
        assert!("invivo_l4294967295_0123456789abcdef".len() <= 55);
        for bad in [
            "invivo_l_0123456789abcdef",
            "livepatch_l1_0123456789abcdef",
            "invivo_l1_0123456789ABCDEF",
            "invivo_l1_0123",
        ] {
            assert!(bad.parse::<ModuleName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_target_is_named_as_the_kernel_names_modules_and_can_be_nothing_but_one_name() {
        for good in ["nf_tables", "8021q", "x"] {
            assert_eq!(good.parse::<TargetName>().unwrap().as_str(), good);
        }
        for bad in ["", "nf-tables", "a,b", "..", "a/b", "a b", "a.ko", "vmlinux", &"x".repeat(56)] {
            assert!(bad.parse::<TargetName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_target_reads_back_as_it_was_written() {
        for text in ["Latest", "None", "2026-11-21.1"] {
            assert_eq!(TargetSet::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        assert!(TargetSet::try_from("latest".to_owned()).is_err());
    }
}
