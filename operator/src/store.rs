//! One kind's objects as last seen, and whether all of them have been.
//!
//! Written by the watch and by the answers to our own writes, so that the next decision sees
//! what the last one did. Of two versions of an object the newer one stays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;

use crate::seen::Seen;

/// How many deleted objects are remembered, so that a late answer to a write does not bring one back.
const REMEMBERED_DELETIONS: usize = 4096;

/// One object.
#[derive(Debug)]
pub struct Entry<T> {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its version, for preconditions.
    pub resource_version: String,
    /// What is kept of it.
    pub value: Arc<T>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            value: Arc::clone(&self.value),
        }
    }
}

impl<T: Seen> Entry<T> {
    /// The entry that this object makes.
    pub fn of(object: T::Object) -> Self {
        let name = object.name_any();
        let uid = object.uid().unwrap_or_default();
        let resource_version = object.resource_version().unwrap_or_default();
        Self { name, uid, resource_version, value: Arc::new(T::see(object)) }
    }

    /// Whether this is an older state of the same object than `other`.
    fn is_older_than(&self, other: &Self) -> bool {
        let version = |entry: &Self| entry.resource_version.parse::<u64>().ok();
        match (version(self), version(other)) {
            (Some(own), Some(others)) => self.uid == other.uid && own < others,
            (None, _) | (_, None) => false,
        }
    }
}

/// What became of one object.
#[derive(Debug)]
pub struct Change<T> {
    /// Its name.
    pub name: String,
    /// What it was; none if it is new.
    pub before: Option<Arc<T>>,
    /// What it is; none if it is gone.
    pub after: Option<Arc<T>>,
}

struct Inner<T> {
    held: BTreeMap<String, Entry<T>>,
    incoming: Option<BTreeMap<String, Entry<T>>>,
    deleted: BTreeMap<String, String>,
    complete: bool,
}

/// One kind's objects by name.
pub struct Store<T>(Mutex<Inner<T>>);

impl<T: Seen> Default for Store<T> {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            held: BTreeMap::new(),
            incoming: None,
            deleted: BTreeMap::new(),
            complete: false,
        }))
    }
}

impl<T: Seen> Store<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every object has been seen at least once. Nothing is decided before.
    pub fn is_complete(&self) -> bool {
        self.lock().complete
    }

    /// One object.
    pub fn get(&self, name: &str) -> Option<Entry<T>> {
        self.lock().held.get(name).cloned()
    }

    /// Every object, by name.
    pub fn all(&self) -> Vec<Entry<T>> {
        self.lock().held.values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().held.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lock().held.is_empty()
    }

    /// A list begins.
    pub fn list_begins(&self) {
        self.lock().incoming = Some(BTreeMap::new());
    }

    /// One object of a list.
    pub fn listed(&self, entry: Entry<T>) {
        let mut inner = self.lock();
        if let Some(incoming) = inner.incoming.as_mut() {
            incoming.insert(entry.name.clone(), entry);
        }
    }

    /// The list is complete: what it does not name is gone, except what we wrote meanwhile.
    pub fn list_ends(&self) -> Vec<Change<T>> {
        let mut inner = self.lock();
        let Some(mut incoming) = inner.incoming.take() else { return Vec::new() };
        let mut changes = Vec::new();
        for (name, entry) in &mut incoming {
            let before = inner.held.remove(name);
            if let Some(held) = before.as_ref().filter(|held| entry.is_older_than(held)) {
                *entry = held.clone();
            }
            let before = before.map(|held| held.value);
            changes.extend(difference(name.clone(), before, Arc::clone(&entry.value)));
        }
        let gone = std::mem::replace(&mut inner.held, incoming);
        inner.deleted.clear();
        inner.complete = true;
        changes.extend(gone.into_values().map(|entry| Change {
            name: entry.name,
            before: Some(entry.value),
            after: None,
        }));
        changes
    }

    /// The watch tells of a new state.
    pub fn watched(&self, entry: Entry<T>) -> Option<Change<T>> {
        let mut inner = self.lock();
        if inner.held.get(&entry.name).is_some_and(|held| entry.is_older_than(held)) {
            return None;
        }
        let (name, after) = (entry.name.clone(), Arc::clone(&entry.value));
        let before = inner.held.insert(entry.name.clone(), entry).map(|held| held.value);
        difference(name, before, after)
    }

    /// The API server answered one of our writes with this state.
    pub fn wrote(&self, entry: Entry<T>) {
        let mut inner = self.lock();
        let deleted = inner.deleted.get(&entry.name).is_some_and(|uid| *uid == entry.uid);
        if !deleted && !inner.held.get(&entry.name).is_some_and(|held| entry.is_older_than(held)) {
            inner.held.insert(entry.name.clone(), entry);
        }
    }

    /// The watch tells that an object is gone.
    pub fn deleted(&self, name: &str, uid: &str) -> Option<Change<T>> {
        let mut inner = self.lock();
        if inner.deleted.len() >= REMEMBERED_DELETIONS {
            inner.deleted.clear();
        }
        inner.deleted.insert(name.to_owned(), uid.to_owned());
        if inner.held.get(name).is_some_and(|held| held.uid != uid) {
            return None;
        }
        let before = inner.held.remove(name)?;
        Some(Change { name: before.name, before: Some(before.value), after: None })
    }
}

fn difference<T: PartialEq>(name: String, before: Option<Arc<T>>, after: Arc<T>) -> Option<Change<T>> {
    if before.as_ref().is_some_and(|value| *value == after) {
        return None;
    }
    Some(Change { name, before, after: Some(after) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use invivo_rollout::Readiness;

    const NOT_READY: Readiness = Readiness::NotReady { since: jiff::Timestamp::UNIX_EPOCH };
    use crate::seen::SeenNode;

    fn entry(uid: &str, version: u64, ready: bool) -> Entry<SeenNode> {
        Entry {
            name: "a".into(),
            uid: uid.into(),
            resource_version: version.to_string(),
            value: Arc::new(SeenNode {
                uid: uid.into(),
                labels: BTreeMap::new(),
                ready: if ready { Readiness::Ready } else { NOT_READY },
                cordoned: false,
                held: None,
                boot_id: None,
            }),
        }
    }

    #[test]
    fn nothing_is_complete_before_the_first_list_has_ended() {
        let store = Store::<SeenNode>::default();
        store.list_begins();
        store.listed(entry("u", 1, true));
        assert!(!store.is_complete() && store.is_empty());
        assert_eq!(store.list_ends().len(), 1);
        assert!(store.is_complete() && store.get("a").is_some());
    }

    #[test]
    fn what_we_wrote_is_not_undone_by_an_older_event() {
        let store = Store::default();
        store.watched(entry("u", 5, true));
        store.wrote(entry("u", 9, false));
        assert!(store.watched(entry("u", 7, true)).is_none());
        assert_eq!(store.get("a").unwrap().value.ready, NOT_READY);
        store.list_begins();
        store.listed(entry("u", 8, true));
        store.list_ends();
        assert_eq!(store.get("a").unwrap().value.ready, NOT_READY);
    }

    #[test]
    fn an_event_without_a_difference_is_no_change() {
        let store = Store::default();
        assert!(store.watched(entry("u", 1, true)).is_some());
        assert!(store.watched(entry("u", 2, true)).is_none());
        assert_eq!(store.get("a").unwrap().resource_version, "2");
    }

    #[test]
    fn a_late_answer_does_not_bring_a_deleted_object_back() {
        let store = Store::default();
        store.watched(entry("u", 1, true));
        assert!(store.deleted("a", "u").is_some());
        store.wrote(entry("u", 2, true));
        assert!(store.get("a").is_none());
        store.wrote(entry("another", 3, true));
        assert!(store.get("a").is_some());
    }
}
