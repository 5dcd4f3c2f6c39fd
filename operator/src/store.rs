//! One kind's objects as last seen, and whether all of them have been.
//!
//! Written by the watch and by the answers to our own writes, so that the next decision sees
//! what the last one did. Of two versions of an object the newer one stays.
//!
//! An object that is there and cannot be read, as one that a newer version wrote, keeps its place: it
//! is neither gone nor what it was. What was last read of it stays, and [`Store::unreadable`] names it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
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
        self.uid == other.uid && precedes(&self.resource_version, &other.resource_version)
    }
}

fn precedes(one: &str, other: &str) -> bool {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => one < other,
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// An object that is there and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
    /// What is not understood.
    pub why: String,
}

impl Unreadable {
    /// The object with this metadata.
    pub fn of<T: Seen>(metadata: ObjectMeta, why: &str) -> Self {
        Self {
            kind: T::KIND,
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            why: why.chars().take(200).collect(),
        }
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, name, why, .. } = self;
        write!(
            f,
            "{kind} {name} cannot be read ({why}): a newer version wrote it; upgrade the operator, or correct it"
        )
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

/// An object as the API server tells of it.
pub type Told<T> = Result<Entry<T>, Unreadable>;

struct Inner<T> {
    held: BTreeMap<String, Entry<T>>,
    unreadable: BTreeMap<String, Unreadable>,
    incoming: Option<BTreeMap<String, Told<T>>>,
    deleted: BTreeMap<String, String>,
    complete: bool,
}

/// One kind's objects by name.
pub struct Store<T>(Mutex<Inner<T>>);

impl<T: Seen> Default for Store<T> {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            held: BTreeMap::new(),
            unreadable: BTreeMap::new(),
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

    /// The objects that are there and cannot be read, by name.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.lock().unreadable.values().cloned().collect()
    }

    /// Why this one cannot be read, if it is there and cannot.
    pub fn unreadable_of(&self, name: &str) -> Option<Unreadable> {
        self.lock().unreadable.get(name).cloned()
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
    pub fn listed(&self, told: Told<T>) {
        let mut inner = self.lock();
        if let Some(incoming) = inner.incoming.as_mut() {
            let name = match &told {
                Ok(entry) => &entry.name,
                Err(unreadable) => &unreadable.name,
            };
            incoming.insert(name.clone(), told);
        }
    }

    /// The list is complete: what it does not name is gone, except what we wrote meanwhile.
    pub fn list_ends(&self) -> Vec<Change<T>> {
        let mut inner = self.lock();
        let Some(incoming) = inner.incoming.take() else { return Vec::new() };
        let gone: Vec<String> = inner
            .held
            .keys()
            .chain(inner.unreadable.keys())
            .filter(|name| !incoming.contains_key(*name))
            .cloned()
            .collect();
        let mut changes: Vec<Change<T>> =
            incoming.into_values().filter_map(|told| inner.take_in(told)).collect();
        changes.extend(gone.into_iter().filter_map(|name| inner.remove(&name)));
        inner.deleted.clear();
        inner.complete = true;
        changes
    }

    /// The watch tells of a new state.
    pub fn watched(&self, told: Told<T>) -> Option<Change<T>> {
        self.lock().take_in(told)
    }

    /// The API server answered one of our writes with this state.
    pub fn wrote(&self, entry: Entry<T>) {
        let mut inner = self.lock();
        let deleted = inner.deleted.get(&entry.name).is_some_and(|uid| *uid == entry.uid);
        if !deleted {
            inner.take_in(Ok(entry));
        }
    }

    /// The watch tells that an object is gone.
    pub fn deleted(&self, name: &str, uid: &str) -> Option<Change<T>> {
        let mut inner = self.lock();
        if inner.deleted.len() >= REMEMBERED_DELETIONS {
            inner.deleted.clear();
        }
        inner.deleted.insert(name.to_owned(), uid.to_owned());
        let another = inner.held.get(name).is_some_and(|held| held.uid != uid)
            || inner.unreadable.get(name).is_some_and(|unreadable| unreadable.uid != uid);
        if another { None } else { inner.remove(name) }
    }
}

impl<T: Seen> Inner<T> {
    /// What is told, unless something newer is known.
    fn take_in(&mut self, told: Told<T>) -> Option<Change<T>> {
        match told {
            Ok(entry) => {
                let newer = |held: &Entry<T>| entry.is_older_than(held);
                let unread = |unreadable: &Unreadable| {
                    unreadable.uid == entry.uid
                        && precedes(&entry.resource_version, &unreadable.resource_version)
                };
                let late = self.held.get(&entry.name).is_some_and(newer)
                    || self.unreadable.get(&entry.name).is_some_and(unread);
                if late {
                    return None;
                }
                let was_unreadable = self.unreadable.remove(&entry.name).is_some();
                let (name, after) = (entry.name.clone(), Arc::clone(&entry.value));
                let before = self.held.insert(entry.name.clone(), entry).map(|held| held.value);
                if !was_unreadable {
                    return difference(name, before, after);
                }
                Some(Change { name, before, after: Some(after) })
            }
            Err(unreadable) => {
                let newer = |held: &Entry<T>| {
                    held.uid == unreadable.uid
                        && precedes(&unreadable.resource_version, &held.resource_version)
                };
                if self.held.get(&unreadable.name).is_some_and(newer) {
                    return None;
                }
                let name = unreadable.name.clone();
                // One of the same name that was read is gone.
                let another = self.held.get(&name).is_some_and(|held| held.uid != unreadable.uid);
                let gone = if another { self.held.remove(&name).map(|held| held.value) } else { None };
                let after = self.held.get(&name).map(|held| Arc::clone(&held.value));
                let news = self.unreadable.get(&name).is_none_or(|known| known.why != unreadable.why);
                self.unreadable.insert(name.clone(), unreadable);
                (news || another).then(|| Change { name, before: gone.or_else(|| after.clone()), after })
            }
        }
    }

    fn remove(&mut self, name: &str) -> Option<Change<T>> {
        let unreadable = self.unreadable.remove(name).is_some();
        let before = self.held.remove(name).map(|held| held.value);
        (unreadable || before.is_some()).then(|| Change { name: name.to_owned(), before, after: None })
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
        store.listed(Ok(entry("u", 1, true)));
        assert!(!store.is_complete() && store.is_empty());
        assert_eq!(store.list_ends().len(), 1);
        assert!(store.is_complete() && store.get("a").is_some());
    }

    #[test]
    fn what_we_wrote_is_not_undone_by_an_older_event() {
        let store = Store::default();
        store.watched(Ok(entry("u", 5, true)));
        store.wrote(entry("u", 9, false));
        assert!(store.watched(Ok(entry("u", 7, true))).is_none());
        assert_eq!(store.get("a").unwrap().value.ready, NOT_READY);
        store.list_begins();
        store.listed(Ok(entry("u", 8, true)));
        store.list_ends();
        assert_eq!(store.get("a").unwrap().value.ready, NOT_READY);
    }

    #[test]
    fn an_event_without_a_difference_is_no_change() {
        let store = Store::default();
        assert!(store.watched(Ok(entry("u", 1, true))).is_some());
        assert!(store.watched(Ok(entry("u", 2, true))).is_none());
        assert_eq!(store.get("a").unwrap().resource_version, "2");
    }

    #[test]
    fn a_late_answer_does_not_bring_a_deleted_object_back() {
        let store = Store::default();
        store.watched(Ok(entry("u", 1, true)));
        assert!(store.deleted("a", "u").is_some());
        store.wrote(entry("u", 2, true));
        assert!(store.get("a").is_none());
        store.wrote(entry("another", 3, true));
        assert!(store.get("a").is_some());
    }

    fn unreadable(uid: &str, version: u64) -> Told<SeenNode> {
        Err(Unreadable {
            kind: "Node",
            name: "a".into(),
            uid: uid.into(),
            resource_version: version.to_string(),
            why: "unknown variant".into(),
        })
    }

    type Way = fn(&Store<SeenNode>, Told<SeenNode>) -> Vec<Change<SeenNode>>;

    /// By the watch, and by a list.
    fn ways() -> [Way; 2] {
        [
            |store, told| store.watched(told).into_iter().collect(),
            |store, told| {
                store.list_begins();
                store.listed(told);
                store.list_ends()
            },
        ]
    }

    #[test]
    fn an_object_that_cannot_be_read_any_more_stays_as_it_was_last_seen() {
        for tell in ways() {
            let store = Store::default();
            store.watched(Ok(entry("u", 5, true)));
            let changes = tell(&store, unreadable("u", 6));
            assert!(
                matches!(changes.as_slice(), [Change { before: Some(_), after: Some(_), .. }]),
                "{changes:?}"
            );
            assert_eq!(store.get("a").unwrap().resource_version, "5");
            assert_eq!(store.unreadable_of("a").unwrap().resource_version, "6");
            assert!(tell(&store, unreadable("u", 6)).is_empty(), "told once");
            assert!(tell(&store, Ok(entry("u", 5, true))).is_empty() && store.unreadable_of("a").is_some());
            let changes = tell(&store, Ok(entry("u", 7, true)));
            assert!(matches!(changes.as_slice(), [Change { after: Some(_), .. }]), "{changes:?}");
            assert!(store.unreadable().is_empty());
        }
    }

    #[test]
    fn an_object_that_was_never_read_is_there_and_its_end_is_told() {
        for tell in ways() {
            let store = Store::default();
            let changes = tell(&store, unreadable("u", 6));
            assert!(matches!(changes.as_slice(), [Change { before: None, after: None, .. }]), "{changes:?}");
            assert!(store.get("a").is_none() && store.unreadable_of("a").is_some());
            assert!(store.deleted("a", "another").is_none() && store.unreadable_of("a").is_some());
            assert!(store.deleted("a", "u").is_some() && store.unreadable_of("a").is_none());
        }
    }

    #[test]
    fn of_an_object_made_anew_what_its_namesake_said_does_not_stay() {
        for tell in ways() {
            let store = Store::default();
            store.watched(Ok(entry("u", 5, true)));
            let changes = tell(&store, unreadable("another", 6));
            assert!(
                matches!(changes.as_slice(), [Change { before: Some(_), after: None, .. }]),
                "{changes:?}"
            );
            assert!(store.get("a").is_none() && store.unreadable_of("a").is_some());
        }
    }

    #[test]
    fn what_a_list_does_not_name_is_gone_readable_or_not() {
        let store = Store::default();
        store.watched(Ok(entry("u", 5, true)));
        store.watched(unreadable("u", 6));
        store.list_begins();
        assert!(matches!(store.list_ends().as_slice(), [Change { before: Some(_), after: None, .. }]));
        assert!(store.is_empty() && store.unreadable().is_empty());
    }
}
