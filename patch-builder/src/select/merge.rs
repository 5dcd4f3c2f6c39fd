//! One change out of many, put on a text that has none of the others: a merge of three texts, line by line.
//!
//! Unlike most, it takes a change whose lines touch those of another, as long as there is one place alone where
//! it can go. Whether it means the same there, a person judges.

use std::ops::Range;

/// What stands between two texts: lines of the first, and lines of the second in their place.
struct Edit<'t> {
    first: Range<usize>,
    second: Range<usize>,
    /// The lines of the second.
    lines: Vec<&'t str>,
}

fn edits<'t>(first: &str, second: &'t str) -> Vec<Edit<'t>> {
    let mut options = diffy::DiffOptions::new();
    let patch = options.set_context_len(0).create_patch(first, second);
    let lines: Vec<&str> = second.split_inclusive('\n').collect();
    let edit = |hunk: &diffy::Hunk<'_, str>| {
        // Lines count from 1, and of none the one before is named.
        let of = |range: diffy::HunkRange| {
            let start = if range.is_empty() { range.start() } else { range.start().saturating_sub(1) };
            start..start + range.len()
        };
        let (first, second) = (of(hunk.old_range()), of(hunk.new_range()));
        let lines = lines.get(second.clone()).unwrap_or_default().to_vec();
        Edit { first, second, lines }
    };
    patch.hunks().iter().map(edit).collect()
}

/// `own` with what differs between `before` and `after`; none if there is no one place for it.
pub fn merge(before: &str, after: &str, own: &str) -> Option<String> {
    let base: Vec<&str> = before.split_inclusive('\n').collect();
    let others = edits(before, own);
    let mut lines: Vec<&str> = own.split_inclusive('\n').collect();
    let mut puts = Vec::new();
    for edit in edits(before, after) {
        let (place, lines) = put(&edit, &base, &others)?;
        puts.push((place, lines));
    }
    if puts.windows(2).any(|two| matches!(two, [(one, _), (next, _)] if one.end > next.start)) {
        return None;
    }
    for (place, new) in puts.into_iter().rev() {
        lines.splice(place, new);
    }
    Some(lines.concat())
}

/// The lines of the own text that an edit replaces, and what with; an edit that only adds lines may have slid along
/// lines that are equal to them.
fn put<'t>(edit: &Edit<'t>, base: &[&'t str], others: &[Edit]) -> Option<(Range<usize>, Vec<&'t str>)> {
    if let Some(place) = place(&edit.first, others) {
        return Some((place, edit.lines.clone()));
    }
    let at = edit.first.start;
    if !edit.first.is_empty() {
        return None;
    }
    let (mut lines, mut up) = (edit.lines.clone(), at);
    while up > 0 && base.get(up - 1) == lines.last() {
        lines.rotate_right(1);
        up -= 1;
        if let Some(place) = place(&(up..up), others) {
            return Some((place, lines));
        }
    }
    let (mut lines, mut down) = (edit.lines.clone(), at);
    while base.get(down).is_some() && base.get(down) == lines.first() {
        lines.rotate_left(1);
        down += 1;
        if let Some(place) = place(&(down..down), others) {
            return Some((place, lines));
        }
    }
    None
}

/// Where lines of the first text are in the second, from which it differs by `others`; none if they are not there,
/// not together, or if there are several places between which no line is.
fn place(lines: &Range<usize>, others: &[Edit]) -> Option<Range<usize>> {
    let is_inside = |edit: &&Edit| edit.first.start < lines.end && lines.start < edit.first.end;
    let is_between = |edit: &&Edit| {
        edit.first.is_empty() && lines.start < edit.first.start && edit.first.start < lines.end
    };
    let is_beside =
        |edit: &&Edit| lines.is_empty() && edit.first.is_empty() && edit.first.start == lines.start;
    if others.iter().any(|edit| is_inside(&edit) || is_between(&edit) || is_beside(&edit)) {
        return None;
    }
    let before = others.iter().rfind(|edit| edit.first.end <= lines.start);
    let moved =
        |n: usize| before.map_or(Some(n), |edit| Some(edit.second.end + n.checked_sub(edit.first.end)?));
    let start = moved(lines.start)?;
    Some(start..start + lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &str) -> String {
        lines.replace(' ', "\n") + "\n"
    }

    fn merged(before: &str, after: &str, own: &str) -> Option<String> {
        let merged = merge(&text(before), &text(after), &text(own))?;
        Some(merged.trim_end().replace('\n', " "))
    }

    #[test]
    fn a_change_goes_where_its_lines_are_without_those_of_others() {
        assert_eq!(merged("a x b c d", "a x b C d", "a b c d").unwrap(), "a b C d");
        assert_eq!(merged("a b c d", "a b d", "w a b c d z").unwrap(), "w a b d z");
        assert_eq!(merged("a b c", "a b c n", "a b c").unwrap(), "a b c n");
    }

    #[test]
    fn a_change_beside_that_of_another_goes_to_the_side_that_is_its_own() {
        // Others replaced the line after it, or the one before, or added one.
        assert_eq!(merged("a b X d", "a b n X d", "a b c d").unwrap(), "a b n c d");
        assert_eq!(merged("a X c", "a X n c", "a b c").unwrap(), "a b n c");
        assert_eq!(merged("a X c", "a X n c", "a c").unwrap(), "a n c");
        assert_eq!(merged("a X c", "a X C", "a b c").unwrap(), "a b C");
    }

    #[test]
    fn what_slides_along_equal_lines_goes_where_there_is_a_place() {
        // Between the lines of others, were it not that its own last line is equal to the one before it.
        assert_eq!(merged("a . X c", "a . n . X c", "a b c").unwrap(), "a . n b c");
        assert_eq!(merged("a X . c", "a X . n . c", "a b c").unwrap(), "a b n . c");
    }

    #[test]
    fn a_change_within_the_lines_of_others_or_with_two_places_is_none() {
        assert_eq!(merged("a X Y c", "a X n Y c", "a b c"), None, "within");
        assert_eq!(merged("a X c", "a n c", "a b c"), None, "of a line that is another");
        assert_eq!(merged("a c", "a n c", "a b c"), None, "before or after b");
        assert_eq!(merged("a c d", "a n d", "a c b d"), Some("a n b d".to_owned()));
        assert_eq!(merged("a c d e", "a n e", "a c b d e"), None, "of lines that are not together");
    }
}
