//! Who asks, and under which name that person's fields are kept.

use serde::Serialize;

/// Field managers have at most this many characters.
const LONGEST: usize = 128;
const PREFIX: &str = "invivo-";

/// Who the API server takes the caller for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Person(String);

impl Person {
    /// The person of this user name.
    pub fn new(user: impl Into<String>) -> Self {
        Self(user.into())
    }

    /// The user name, exactly as the API server has it.
    pub fn user(&self) -> &str {
        &self.0
    }

    /// The field manager that this person's entries are kept under. One shared by several people
    /// would delete a colleague's entry with the next apply, so different names give different
    /// managers: what had to be changed or cut ends in `~` and a digest of the whole name, and `~`
    /// is never taken over from a name.
    pub fn manager(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':');
        if self.0.chars().all(plain) && !self.0.is_empty() && PREFIX.len() + self.0.len() <= LONGEST {
            return format!("{PREFIX}{}", self.0);
        }
        let digest = invivo_feed::digest(self.0.as_bytes());
        let digest: String = digest.as_str().chars().take(32).collect();
        let readable: String = self.0.chars().map(|c| if plain(c) { c } else { '_' }).take(80).collect();
        format!("{PREFIX}{readable}~{digest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_name_is_kept_readable() {
        assert_eq!(Person::new("ada@example.com").manager(), "invivo-ada@example.com");
        let account = Person::new("system:serviceaccount:ci:approver").manager();
        assert_eq!(account, "invivo-system:serviceaccount:ci:approver");
    }

    #[test]
    fn every_name_has_a_manager_of_its_own_that_the_api_server_takes() {
        let long = "x".repeat(300);
        let other = format!("{}y", "x".repeat(299));
        let spaced = Person::new("a b").manager();
        let posing = spaced.strip_prefix(PREFIX).unwrap().to_owned();
        let names = ["ada", "a b", "a_b", "a/b", "", "ä", "o", &long, &other, &posing, &"é".repeat(200)];
        let managers: Vec<_> = names.iter().map(|name| Person::new(*name).manager()).collect();
        for (at, manager) in managers.iter().enumerate() {
            assert!(manager.len() <= LONGEST && manager.is_ascii(), "{manager}");
            assert!(!managers[..at].contains(manager), "{manager} is of two names");
        }
        let edge = "x".repeat(LONGEST - PREFIX.len());
        assert_eq!(Person::new(edge.clone()).manager(), format!("{PREFIX}{edge}"));
    }
}
