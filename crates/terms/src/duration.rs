//! Durations as people write them: `30m`, `12h`, `1h30m`, `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::InvalidName;

/// A whole number of seconds, written with the units `d`, `h`, `m`, `s` in that order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanDuration(Duration);

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
const EXPECTED: &str = "a duration such as 90s, 30m, 1h30m or 7d, at most 366d";
const LONGEST: u64 = 366 * 86_400;

impl HumanDuration {
    /// This many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The same as the standard library's type.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for HumanDuration {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = || InvalidName::new("duration", text, EXPECTED);
        let mut seconds: u64 = 0;
        let mut rest = text;
        let mut units = UNITS.iter();
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (digits, tail) = rest.split_at(end);
            let number: u64 = digits.parse().map_err(|_| wrong())?;
            let unit = tail.chars().next().ok_or_else(wrong)?;
            let (_, factor) = units.find(|(u, _)| *u == unit).ok_or_else(wrong)?;
            seconds = number.checked_mul(*factor).and_then(|s| s.checked_add(seconds)).ok_or_else(wrong)?;
            rest = tail.get(unit.len_utf8()..).ok_or_else(wrong)?;
        }
        if text.is_empty() || seconds > LONGEST {
            return Err(wrong());
        }
        Ok(Self::from_secs(seconds))
    }
}

impl TryFrom<String> for HumanDuration {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<HumanDuration> for String {
    fn from(duration: HumanDuration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_secs();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in UNITS {
            if left >= factor {
                write!(f, "{}{unit}", left / factor)?;
                left %= factor;
            }
        }
        Ok(())
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HumanDuration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([12]?[0-9]{1,2}d)?([0-9]{1,3}h)?([0-9]{1,4}m)?([0-9]{1,6}s)?$",
            "minLength": 2,
            "maxLength": 24
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_the_same_length() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("7d", 604_800), ("0s", 0)] {
            let parsed: HumanDuration = text.parse().unwrap();
            assert_eq!(parsed.get().as_secs(), seconds);
            assert_eq!(parsed.to_string().parse::<HumanDuration>().unwrap(), parsed);
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for bad in ["", "5", "m", "-5m", "5m1h", "1h1h", "367d", "99999999999999999999s", "5 m", "5µ"] {
            assert!(bad.parse::<HumanDuration>().is_err(), "{bad:?} was accepted");
        }
    }
}
