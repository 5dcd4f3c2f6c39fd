//! A node moves only forward in instruction.

use invivo_wire::Order;

/// Where an instruction stands among those already known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Not heard before.
    New,
    /// The one last heard.
    Again,
    /// Older than one already known.
    Stale,
}

/// Revisions are compared within one uid; an object with another uid is another node object, whose
/// revisions begin anew.
pub fn place(known: Option<&Order>, asked: &Order) -> Place {
    match known {
        Some(known) if known.object == asked.object => match asked.revision.cmp(&known.revision) {
            std::cmp::Ordering::Greater => Place::New,
            std::cmp::Ordering::Equal => Place::Again,
            std::cmp::Ordering::Less => Place::Stale,
        },
        Some(_) | None => Place::New,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invivo_terms::Revision;

    #[test]
    fn an_older_revision_of_the_same_object_is_stale_and_another_object_begins_anew() {
        let order =
            |object: &str, revision| Order { object: object.to_owned(), revision: Revision(revision) };
        let known = order("a", 5);
        assert_eq!(place(None, &order("a", 1)), Place::New);
        assert_eq!(place(Some(&known), &order("a", 6)), Place::New);
        assert_eq!(place(Some(&known), &order("a", 5)), Place::Again);
        assert_eq!(place(Some(&known), &order("a", 4)), Place::Stale);
        assert_eq!(place(Some(&known), &order("b", 1)), Place::New);
    }
}
