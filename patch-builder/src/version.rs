//! Versions of packages, in the order in which Debian puts them.

use std::cmp::Ordering;

/// Which of two versions is the later: `[epoch:]upstream[-revision]`, as dpkg compares them
/// (deb-version(7)).
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    let ((epoch, one), (other_epoch, other)) = (epoch(one), epoch(other));
    let ((upstream, revision), (other_upstream, other_revision)) = (split(one), split(other));
    number(epoch)
        .cmp(&number(other_epoch))
        .then_with(|| part(upstream, other_upstream))
        .then_with(|| part(revision, other_revision))
}

fn epoch(version: &str) -> (&str, &str) {
    version.split_once(':').unwrap_or(("0", version))
}

fn split(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Leading zeroes do not count; a longer number is larger.
fn number(digits: &str) -> (usize, &str) {
    let digits = digits.trim_start_matches('0');
    (digits.len(), digits)
}

/// Text and numbers by turns: `~` before the end, the end before letters, letters before the rest.
fn part(mut one: &str, mut other: &str) -> Ordering {
    let rank = |c: Option<char>| match c {
        Some('~') => (0, '~'),
        None => (1, ' '),
        Some(c) if c.is_ascii_alphabetic() => (2, c),
        Some(c) => (3, c),
    };
    while !one.is_empty() || !other.is_empty() {
        let (text, rest) = until(one, |c| c.is_ascii_digit());
        let (other_text, other_rest) = until(other, |c| c.is_ascii_digit());
        let length = text.chars().count().max(other_text.chars().count());
        for n in 0..length {
            match rank(text.chars().nth(n)).cmp(&rank(other_text.chars().nth(n))) {
                Ordering::Equal => {}
                different => return different,
            }
        }
        let (digits, rest) = until(rest, |c| !c.is_ascii_digit());
        let (other_digits, other_rest) = until(other_rest, |c| !c.is_ascii_digit());
        match number(digits).cmp(&number(other_digits)) {
            Ordering::Equal => (one, other) = (rest, other_rest),
            different => return different,
        }
    }
    Ordering::Equal
}

fn until(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_dpkg() {
        let ascending = [
            "6.1.9-1",
            "6.1.170-2",
            "6.1.170-3",
            "6.1.170-10",
            "6.1.176-1",
            "6.12.107-1~deb12u1",
            "6.12.107-1",
            "6.12.107-1+b1",
            "1:2-1",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("6.1.01-1", "6.1.1-1"), Ordering::Equal);
    }
}
