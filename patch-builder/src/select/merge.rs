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

/// `own` with what differs between `before` and `after`; none if there is no one place for it. Which of several
/// equal lines are meant is not known: then all must come to the same.
pub fn merge(before: &str, after: &str, own: &str) -> Option<String> {
    let is_whole = |text: &&str| text.is_empty() || text.ends_with('\n');
    if ![before, after, own].iter().all(is_whole) {
        return None;
    }
    let base: Vec<&str> = before.split_inclusive('\n').collect();
    let others = edits(before, own);
    let mut lines: Vec<&str> = own.split_inclusive('\n').collect();
    let mut puts = Vec::new();
    for edit in edits(before, after) {
        puts.push(put(&edit, &base, &lines, &others)?);
    }
    if puts.windows(2).any(|two| matches!(two, [(one, _), (next, _)] if one.end > next.start)) {
        return None;
    }
    for (place, new) in puts.into_iter().rev() {
        lines.splice(place, new);
    }
    Some(lines.concat())
}

/// The lines of `own` that an edit replaces, and what with.
fn put<'t>(edit: &Edit<'t>, base: &[&'t str], own: &[&'t str], others: &[Edit]) -> Option<Form<'t>> {
    let (forms, along) = slid(edit, base);
    let placed = |(lines, new): &Form<'t>| Some((place(lines, others)?, new.clone()));
    let places: Vec<Form> = forms.iter().filter_map(placed).collect();
    let text = |(place, new): &Form<'t>| {
        let mut lines = own.to_vec();
        lines.splice(place.clone(), new.iter().copied());
        // An empty line more here or there means nothing.
        lines.retain(|line| *line != "\n");
        lines
    };
    let is_same = places.windows(2).all(|two| matches!(two, [one, other] if text(one) == text(other)));
    // Along an empty line it may slide out of the lines of others, along anything else it may not.
    let is_free = places.len() == forms.len() || along.iter().all(|line| *line == "\n");
    places.into_iter().next().filter(|_| is_same && is_free)
}

/// Lines of the base, and what stands in their place.
type Form<'t> = (Range<usize>, Vec<&'t str>);

/// The forms of an edit that mean the same, as it is first, and the lines along which it slides: where lines only
/// come or only go, those before or after them may be equal to the last or the first of them.
fn slid<'t>(edit: &Edit<'t>, base: &[&'t str]) -> (Vec<Form<'t>>, Vec<&'t str>) {
    let original = (edit.first.clone(), edit.lines.clone());
    let (mut forms, mut along) = (vec![original.clone()], Vec::new());
    if !edit.first.is_empty() && !edit.lines.is_empty() {
        return (forms, along);
    }
    let (mut lines, mut new) = original.clone();
    while lines.start > 0 {
        let before = base.get(lines.start - 1);
        if before.is_none() || before != new.last().or_else(|| base.get(lines.end - 1)) {
            break;
        }
        along.extend(before);
        lines = lines.start - 1..lines.end - 1;
        if !new.is_empty() {
            new.rotate_right(1);
        }
        forms.push((lines.clone(), new.clone()));
    }
    let (mut lines, mut new) = original;
    while let Some(after) = base.get(lines.end) {
        if Some(after) != new.first().or_else(|| base.get(lines.start)) {
            break;
        }
        along.push(after);
        lines = lines.start + 1..lines.end + 1;
        if !new.is_empty() {
            new.rotate_left(1);
        }
        forms.push((lines.clone(), new.clone()));
    }
    (forms, along)
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

    /// A line for each word; `.` is an empty one.
    fn text(lines: &str) -> String {
        (lines.replace(' ', "\n") + "\n").replace('.', "")
    }

    fn merged(before: &str, after: &str, own: &str) -> Option<String> {
        let merged = merge(&text(before), &text(after), &text(own))?;
        let words = merged.lines().map(|line| if line.is_empty() { "." } else { line });
        Some(words.collect::<Vec<_>>().join(" "))
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
    fn what_slides_along_an_empty_line_goes_where_there_is_a_place() {
        // Between the lines of others, were it not that its own last line is as empty as the one before it.
        assert_eq!(merged("a . X c", "a . n . X c", "a b c").unwrap(), "a . n b c");
        assert_eq!(merged("a X . c", "a X . n . c", "a b c").unwrap(), "a b n . c");
    }

    #[test]
    fn what_slides_along_other_lines_has_one_place_or_none() {
        let cases = ("1 foo break 2 bar break", "1 foo break 9 baz break 2 bar break");
        assert_eq!(merged(cases.0, cases.1, "1 foo fall 0 bar break"), None, "the first falls through");
        assert_eq!(
            merged(cases.0, cases.1, "1 fou break 2 bar break").unwrap(),
            "1 fou break 9 baz break 2 bar break"
        );
        assert_eq!(merged("put put return", "put return", "put if put return"), None, "which of the two");
        assert_eq!(merged("put put return", "put return", "put put out").unwrap(), "put out");
        assert_eq!(merged("get get c", "get get get c", "b c"), None, "before or after b");
    }

    #[test]
    fn texts_that_do_not_end_with_a_line_are_not_merged() {
        assert_eq!(merge("a\nb\n", "a\nb\nn\n", "a\nb"), None);
        assert_eq!(merge("", "n\n", "").unwrap(), "n\n");
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
