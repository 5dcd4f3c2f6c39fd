//! Mirroring, against repositories as their authors publish them and as others change them.

use std::fs;

use crate::support::{Author, Mirror, Static, get, only};
use invivo_feed::{digest, paths, sample};
use jiff::Timestamp;

const FEED: &str = "production";

struct House {
    author: Author,
    bundle: Vec<u8>,
    source: Static,
    mirror: Mirror,
    data: tempfile::TempDir,
}

/// A repository with one set, mirrored.
async fn mirrored() -> House {
    let author = Author::new("acme");
    let bundle = author.publish(1);
    let source = Static::new(author.desk.tree()).await;
    let data = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::new(data.path()).await;
    mirror.follow(FEED, &source.url, &author.root());
    mirror.until(FEED, "Verified").await;
    House { author, bundle, source, mirror, data }
}

impl House {
    async fn serves(&self, bundle: &[u8], timestamp: u64) {
        let (code, found) = get(&self.mirror.file(FEED, &paths::bundle(&digest(bundle)))).await;
        assert_eq!((code, found.as_slice()), (200, bundle));
        let (_, found) = get(&self.mirror.file(FEED, paths::TIMESTAMP)).await;
        let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
        assert_eq!(found["version"], timestamp);
    }

    /// Shows `folder` instead, awaits its refusal, and that the good mirror stays.
    async fn refuses(&self, folder: std::path::PathBuf, reason: &str, document: Option<&str>) {
        let verified = self.mirror.library.state(FEED).unwrap().verified;
        self.source.show(Some(folder));
        let state = self.mirror.until(FEED, reason).await;
        assert_eq!(state.document.as_deref(), document, "{state:?}");
        assert!(state.message.contains(';'), "it says what to do: {}", state.message);
        assert!(state.verified >= verified);
        self.serves(&self.bundle, 1).await;
        let metrics = self.mirror.metrics();
        let line = |reason: &str, value: u8| {
            format!("invivo_mirror_state{{feed=\"{FEED}\",reason=\"{reason}\"}} {value}\n")
        };
        assert!(metrics.contains(&line(reason, 1)), "{metrics}");
        assert!(metrics.contains(&line("Verified", 0)), "{metrics}");
    }
}

#[tokio::test]
async fn every_file_is_mirrored_byte_for_byte() {
    let house = mirrored().await;
    let tree = house.author.desk.tree();
    let mut seen = 0;
    for folder in ["", "trust", "index", "kernels", "bundles"] {
        for entry in fs::read_dir(tree.join(folder)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let path = entry.path();
                let name = path.strip_prefix(&tree).unwrap().to_str().unwrap();
                let (code, bytes) = get(&house.mirror.file(FEED, name)).await;
                assert_eq!((code, bytes), (200, fs::read(&path).unwrap()), "{name}");
                let kept = house.data.path().join("feeds").join(FEED).join(name);
                assert_eq!(fs::read(kept).unwrap(), fs::read(&path).unwrap(), "{name} on disk");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 8);
    assert_eq!(get(&house.mirror.file(FEED, &paths::trust(2))).await.0, 404);
}

#[tokio::test]
async fn what_is_there_already_is_not_fetched_again() {
    let house = mirrored().await;
    house.mirror.next(FEED).await;
    house.mirror.next(FEED).await;
    assert_eq!(house.source.asked("/bundles/"), 1);
    assert_eq!(house.source.asked("/kernels/"), 1);
}

#[tokio::test]
async fn an_attempt_that_finds_nothing_new_verifies_nothing_and_writes_nothing() {
    let house = mirrored().await;
    let first = house.mirror.next(FEED).await;
    let record = house.data.path().join("records").join(format!("{FEED}.json"));
    let written = fs::metadata(&record).unwrap().modified().unwrap();
    let later = house.mirror.next(FEED).await;
    assert!(later.attempt > first.attempt);
    assert_eq!((later.reason.as_str(), later.verified), ("Verified", first.verified));
    assert_eq!(fs::metadata(&record).unwrap().modified().unwrap(), written);
    // A file that got lost all the same comes back.
    let bundle = only(&house.data.path().join("feeds").join(FEED).join("bundles"), "");
    fs::remove_file(&bundle).unwrap();
    house.mirror.next(FEED).await;
    house.serves(&house.bundle, 1).await;
}

#[tokio::test]
async fn a_new_set_is_taken_and_the_one_before_can_still_be_read() {
    let house = mirrored().await;
    let second = house.author.publish(2);
    let before = house.mirror.library.state(FEED).unwrap().attempt;
    while house.mirror.library.state(FEED).unwrap().attempt == before
        || get(&house.mirror.file(FEED, &paths::index(2))).await.0 != 200
    {
        house.mirror.next(FEED).await;
    }
    house.serves(&second, 2).await;
    house.serves(&house.bundle, 2).await;
    assert_eq!(get(&house.mirror.file(FEED, &paths::index(1))).await.0, 200);
    house.author.publish(3);
    while get(&house.mirror.file(FEED, &paths::index(3))).await.0 != 200 {
        house.mirror.next(FEED).await;
    }
    assert_eq!(get(&house.mirror.file(FEED, &paths::index(1))).await.0, 404);
    assert!(!house.data.path().join("feeds").join(FEED).join(paths::index(1)).exists());
}

#[tokio::test]
async fn a_bundle_with_one_byte_changed_is_arbitrary_software() {
    let house = mirrored().await;
    house.author.publish(2);
    let folder = house.author.copy("changed");
    let tree = house.author.desk.tree();
    for entry in fs::read_dir(tree.join("bundles")).unwrap() {
        let name = entry.unwrap().file_name();
        let path = folder.join("bundles").join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[1000] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    house.refuses(folder, "ArbitrarySoftware", Some("bundle")).await;
}

#[tokio::test]
async fn an_index_that_one_of_two_signed_is_below_the_threshold() {
    let house = mirrored().await;
    house.author.publish(2);
    let folder = house.author.copy("one-signature");
    let path = folder.join(paths::signatures(&paths::index(2)));
    let signatures = fs::read(&path).unwrap();
    fs::write(&path, sample::first_signature(&signatures)).unwrap();
    house.refuses(folder, "BelowThreshold", Some("index")).await;
}

#[tokio::test]
async fn an_older_timestamp_is_a_rollback_also_after_a_restart() {
    let House { author, bundle, source, mirror, data } = mirrored().await;
    let old = author.copy("old");
    author.keys.timestamp.certificate();
    author.desk.refresh(&author.keys.timestamp, Timestamp::now()).unwrap();
    while !mirror.next(FEED).await.message.contains("timestamp 2 ") {}
    source.show(Some(old));
    let state = mirror.until(FEED, "Rollback").await;
    assert_eq!(state.document.as_deref(), Some("timestamp"));
    drop(mirror);

    let mut mirror = Mirror::new(data.path()).await;
    mirror.follow(FEED, &source.url, &author.root());
    let state = mirror.until(FEED, "Rollback").await;
    assert!(state.verified.is_some(), "the stored mirror is served: {state:?}");
    let house = House { author, bundle, source, mirror, data };
    house.serves(&house.bundle, 2).await;
}

#[tokio::test]
async fn another_root_is_refused_and_nothing_of_the_former_one_is_served() {
    let mut house = mirrored().await;
    let other = Author::new("acme");
    house.mirror.follow(FEED, &house.source.url, &other.root());
    let state = house.mirror.until(FEED, "WrongRoot").await;
    assert_eq!(state.verified, None);
    let (code, body) = get(&house.mirror.file(FEED, paths::TIMESTAMP)).await;
    assert_eq!(code, 503);
    assert!(String::from_utf8(body).unwrap().contains("WrongRoot"));
}

#[tokio::test]
async fn a_source_that_does_not_answer_is_unreachable_and_the_mirror_stays() {
    let house = mirrored().await;
    house.source.show(None);
    let state = house.mirror.until(FEED, "Unreachable").await;
    assert_eq!(state.document, None);
    assert!(state.message.contains("spec.source.repository.url"), "{}", state.message);
    house.serves(&house.bundle, 1).await;
    house.source.show(Some(house.author.desk.tree()));
    house.mirror.until(FEED, "Verified").await;
}

#[tokio::test]
async fn the_stored_mirror_is_served_after_a_restart_without_its_source() {
    let House { author, bundle, source, mirror, data } = mirrored().await;
    drop(mirror);
    source.show(None);
    let mut mirror = Mirror::new(data.path()).await;
    mirror.follow(FEED, &source.url, &author.root());
    mirror.until(FEED, "Unreachable").await;
    let house = House { author, bundle, source, mirror, data };
    house.serves(&house.bundle, 1).await;
}

#[tokio::test]
async fn a_stored_mirror_that_was_changed_on_disk_is_not_served() {
    let House { author, source, mirror, data, .. } = mirrored().await;
    drop(mirror);
    source.show(None);
    let path = only(&data.path().join("feeds").join(FEED).join("bundles"), "");
    let mut bytes = fs::read(&path).unwrap();
    bytes[7] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut mirror = Mirror::new(data.path()).await;
    mirror.follow(FEED, &source.url, &author.root());
    assert_eq!(mirror.until(FEED, "Unreachable").await.verified, None);
    assert_eq!(get(&mirror.file(FEED, paths::TIMESTAMP)).await.0, 503);
    source.show(Some(author.desk.tree()));
    mirror.until(FEED, "Verified").await;
}

#[tokio::test]
async fn a_repository_of_another_name_is_refused() {
    let house = mirrored().await;
    let other = Author::new("other");
    other.publish(1);
    let folder = house.author.copy("confused");
    // The other repository's timestamp below this one's trust.
    for name in [paths::TIMESTAMP.to_owned(), paths::signatures(paths::TIMESTAMP)] {
        fs::copy(other.desk.tree().join(&name), folder.join(&name)).unwrap();
    }
    house.source.show(Some(folder));
    let state = loop {
        let state = house.mirror.next(FEED).await;
        if state.reason.as_str() != "Verified" {
            break state;
        }
    };
    assert!(
        matches!(state.reason.as_str(), "UnknownKey" | "SignatureConfusion" | "BelowThreshold"),
        "{state:?}"
    );
    house.serves(&house.bundle, 1).await;
}

#[tokio::test]
async fn an_empty_repository_is_unreachable_and_says_where_it_looked() {
    let empty = tempfile::tempdir().unwrap();
    let source = Static::new(empty.path().to_owned()).await;
    let data = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::new(data.path()).await;
    mirror.follow(FEED, &source.url, &digest(b"root"));
    let state = mirror.until(FEED, "Unreachable").await;
    assert!(state.message.contains("trust/1.json"), "{}", state.message);
    assert_eq!(state.verified, None);
}

#[tokio::test]
async fn a_repository_over_its_share_of_the_disk_is_not_taken() {
    let author = Author::new("acme");
    author.publish(1);
    let source = Static::new(author.desk.tree()).await;
    let data = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::with(data.path(), 1, 100_000).await;
    mirror.follow(FEED, &source.url, &author.root());
    let state = mirror.until(FEED, "StorageFull").await;
    assert!(state.message.contains("--max-feed-bytes"), "{}", state.message);
    assert_eq!(source.asked("/bundles/"), 0);

    mirror.follow("one-too-many", &source.url, &author.root());
    let state = mirror.until("one-too-many", "StorageFull").await;
    assert!(state.message.contains("--max-feeds"), "{}", state.message);
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_named_and_the_mirror_stays() {
    let house = mirrored().await;
    // A file where a folder must be: works as any user, root included.
    let bundles = house.data.path().join("feeds").join(FEED).join("index");
    fs::remove_dir_all(&bundles).unwrap();
    fs::write(&bundles, b"in the way").unwrap();
    house.author.publish(2);
    let state = house.mirror.until(FEED, "StorageFull").await;
    assert!(state.message.contains("data volume"), "{}", state.message);
    house.serves(&house.bundle, 1).await;
}

#[tokio::test]
async fn a_feed_that_is_gone_is_not_served_and_its_files_are_removed() {
    let mut house = mirrored().await;
    house.mirror.supervisor.delete(&FEED.parse().unwrap());
    assert_eq!(get(&house.mirror.file(FEED, paths::TIMESTAMP)).await.0, 404);
    assert_eq!(get(&house.mirror.file(FEED, "state")).await.0, 404);
    assert!(!house.data.path().join("feeds").join(FEED).exists());
    assert!(!house.mirror.metrics().contains(FEED));
}

#[tokio::test]
async fn a_suspended_feed_is_served_and_not_looked_at_until_it_is_resumed() {
    let mut house = mirrored().await;
    let (url, root) = (house.source.url.clone(), house.author.root());
    house.mirror.suspend(FEED, &url, &root);
    // Another feed of the same repository shows that there was time to look.
    house.mirror.follow("witness", &url, &root);
    house.mirror.until("witness", "Verified").await;
    house.mirror.next("witness").await;
    let before = house.mirror.library.state(FEED).unwrap().attempt;
    let second = house.author.publish(2);
    while get(&house.mirror.file("witness", &paths::bundle(&digest(&second)))).await.0 != 200 {
        house.mirror.next("witness").await;
    }
    house.mirror.next("witness").await;
    assert_eq!(house.mirror.library.state(FEED).unwrap().attempt, before);
    house.serves(&house.bundle, 1).await;
    house.mirror.follow(FEED, &url, &root);
    while get(&house.mirror.file(FEED, &paths::bundle(&digest(&second)))).await.0 != 200 {
        house.mirror.next(FEED).await;
    }
    house.serves(&second, 2).await;
}
