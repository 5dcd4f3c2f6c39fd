//! Which part of a file a request asks for.

/// The part to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// From `start` to `end`, both included.
    Range {
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
    },
    /// Nothing: the range begins past the end.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `length` bytes. Several ranges, other units and what does
/// not parse are ignored, as RFC 9110 allows: the whole file is sent.
pub(crate) fn part(header: Option<&str>, length: u64) -> Part {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Part::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Part::Whole };
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (first.is_empty(), number(first), last.is_empty(), number(last)) {
        // The last n bytes.
        (true, _, false, Some(n)) => match (n, length) {
            (0, _) | (_, 0) => Part::Unsatisfiable,
            (n, length) => Part::Range { start: length.saturating_sub(n), end: length - 1 },
        },
        (false, Some(start), true, _) => from(start, u64::MAX, length),
        (false, Some(start), false, Some(end)) if start <= end => from(start, end, length),
        _ => Part::Whole,
    }
}

fn from(start: u64, end: u64, length: u64) -> Part {
    if start >= length { Part::Unsatisfiable } else { Part::Range { start, end: end.min(length - 1) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_cut_to_the_file() {
        for (header, expected) in [
            ("bytes=0-9", Part::Range { start: 0, end: 9 }),
            ("bytes=90-", Part::Range { start: 90, end: 99 }),
            ("bytes=90-1000", Part::Range { start: 90, end: 99 }),
            ("bytes=-10", Part::Range { start: 90, end: 99 }),
            ("bytes=-1000", Part::Range { start: 0, end: 99 }),
            ("bytes=0-99999999999999999999999", Part::Range { start: 0, end: 99 }),
            ("bytes=100-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", Part::Unsatisfiable),
        ] {
            assert_eq!(part(Some(header), 100), expected, "{header}");
        }
        assert_eq!(part(Some("bytes=0-"), 0), Part::Unsatisfiable);
    }

    #[test]
    fn what_is_not_one_range_is_ignored() {
        for header in
            ["bytes=0-1,5-6", "bytes=9-0", "bytes=", "bytes=-", "bytes=a-b", "bytes=+1-2", "lines=0-1", "0-1"]
        {
            assert_eq!(part(Some(header), 100), Part::Whole, "{header}");
        }
        assert_eq!(part(None, 100), Part::Whole);
    }
}
