use std::fs;
use std::path::Path;

use invivo_feed::document::Channel;
use invivo_feed::publish::{Addition, Desk, SmallHouse};
use invivo_feed::sample::{Sample, kernel, sample};
use invivo_terms::Level;

use super::*;
use crate::server::{Manner, Server};

struct House {
    keys: SmallHouse,
    desk: Desk,
    sample: Sample,
    server: Server,
    base: String,
    _folder: tempfile::TempDir,
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = "patches.example.com".parse().unwrap();
        let keys = SmallHouse::generate(&name, now()).unwrap();
        let desk = keys.found(&folder.path().join("desk"), &name, now()).unwrap();
        let set = "2026-11-22.1".parse().unwrap();
        let sample = sample(&name, &kernel('a').unwrap(), &set, Level(1)).unwrap();
        let server = Server::default();
        let base = server.start().await;
        let house = Self { keys, desk, sample, server, base, _folder: folder };
        let manifest = &house.sample.manifest_bytes;
        let addition =
            Addition { channel: Channel::Stable, summary: "a test", manifest, bundle: b"a bundle" };
        house.keys.publish(&house.desk, &[addition], now()).unwrap();
        house.upload();
        house
    }

    /// Serves what is on the desk.
    fn upload(&self) {
        let tree = self.desk.tree();
        let mut folders = vec![tree.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&tree).unwrap().to_str().unwrap().to_owned();
                    self.server.set(&name, Manner::File(fs::read(path).unwrap()));
                }
            }
        }
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.desk.tree().join(Path::new(name))).unwrap()
    }

    fn client(&self) -> Repository {
        Repository::new(&self.base, Options::default()).unwrap()
    }

    async fn look(&self, client: &Repository) -> Result<Look, Error> {
        client.look(&self.desk.root().unwrap(), &Floors::default(), now()).await
    }
}

#[track_caller]
fn assert_category<T>(result: Result<T, Error>, category: &str) {
    let error = result.err().unwrap();
    assert_eq!(error.category(), category, "{error}");
}

#[tokio::test]
async fn a_repository_is_read_from_its_root_to_a_bundle() {
    let house = House::new().await;
    let client = house.client();
    let look = house.look(&client).await.unwrap();
    assert_eq!(look.server_date, Some("2026-11-22T13:00:00Z".parse().unwrap()));
    let build = &house.sample.manifest.kernel.build_id;
    let bytes = client.kernel(&look, build).await.unwrap();
    let kernel = look.catalogue.kernel(build, &bytes).unwrap();
    assert_eq!(client.bundle(&kernel.levels[0]).await.unwrap(), b"a bundle");
    assert_category(client.kernel(&look, &invivo_feed::sample::build_id('b').unwrap()).await, "WrongKernel");
}

#[tokio::test]
async fn looking_again_costs_two_requests_and_sees_what_is_new() {
    let house = House::new().await;
    let client = house.client();
    house.look(&client).await.unwrap();
    house.server.take_seen();
    let look = house.look(&client).await.unwrap();
    let paths: Vec<_> = house.server.take_seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/r/trust/2.json", "/r/timestamp.json"]);
    assert_eq!(look.catalogue.floors().timestamp, 1);
    house.desk.refresh(&house.keys.timestamp, now()).unwrap();
    house.upload();
    assert_eq!(house.look(&client).await.unwrap().catalogue.floors().timestamp, 2);
    let paths: Vec<_> = house.server.take_seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/r/trust/2.json", "/r/timestamp.json", "/r/timestamp.json.sig"]);
}

#[tokio::test]
async fn what_is_remembered_is_judged_by_todays_clock_and_floors() {
    let house = House::new().await;
    let client = house.client();
    let look = house.look(&client).await.unwrap();
    let later = "2026-12-22T12:00:00Z".parse().unwrap();
    let root = house.desk.root().unwrap();
    assert_category(client.look(&root, &Floors::default(), later).await, "Expired");
    let floors = Floors { index: 9, ..look.catalogue.floors().clone() };
    assert_category(client.look(&root, &floors, now()).await, "Rollback");
}

#[tokio::test]
async fn what_held_is_not_verified_again_while_no_byte_no_floor_and_no_date_says_otherwise() {
    let house = House::new().await;
    let client = house.client();
    let root = house.desk.root().unwrap();
    let first = house.look(&client).await.unwrap();
    assert!(!first.unchanged);
    let floors = first.catalogue.floors().clone();
    let again = client.look(&root, &floors, now()).await.unwrap();
    assert!(again.unchanged);
    assert_eq!(
        (again.catalogue.index(), again.timestamp),
        (first.catalogue.index(), first.timestamp.clone())
    );
    // Against other floors it is verified anew.
    assert!(!house.look(&client).await.unwrap().unchanged);
    let higher = Floors { timestamp: 9, ..floors.clone() };
    assert_category(client.look(&root, &higher, now()).await, "Rollback");
    // So it is after an hour, though nothing has changed: a signature may have a date of its own.
    let hour_later = "2026-11-22T14:00:00Z".parse().unwrap();
    assert!(!client.look(&root, &floors, hour_later).await.unwrap().unchanged);
    assert!(client.look(&root, &floors, hour_later).await.unwrap().unchanged);
    // And by a clock that was set back.
    assert!(!client.look(&root, &floors, now()).await.unwrap().unchanged);
    // So it is once it is past its date.
    assert_category(client.look(&root, &floors, first.catalogue.expires()).await, "Expired");
    // A byte more or less is another document, whoever sends it.
    let mut bytes = house.file("timestamp.json.sig");
    *bytes.last_mut().unwrap() ^= 1;
    house.server.set("timestamp.json.sig", Manner::File(bytes));
    let mut document = house.file("timestamp.json");
    document.push(b' ');
    house.server.set("timestamp.json", Manner::File(document));
    assert_category(client.look(&root, &floors, now()).await, "BelowThreshold");
    house.upload();
    house.desk.refresh(&house.keys.timestamp, now()).unwrap();
    house.upload();
    let look = client.look(&root, &floors, now()).await.unwrap();
    assert_eq!((look.unchanged, look.catalogue.floors().timestamp), (false, 2));
}

#[tokio::test]
async fn a_rotation_is_followed_and_another_root_is_refused() {
    let house = House::new().await;
    let client = house.client();
    house.look(&client).await.unwrap();
    let name = "patches.example.com".parse().unwrap();
    let new = SmallHouse::generate(&name, now()).unwrap();
    house.desk.rotate(&new.founding(&name), now()).unwrap();
    for key in house.keys.holders.iter().take(2).chain(new.holders.iter().take(2)) {
        house.desk.sign(invivo_feed::document::Role::Trust, key, now()).unwrap();
    }
    new.publish(&house.desk, &[], now()).unwrap();
    house.upload();
    assert_eq!(house.look(&client).await.unwrap().trust.len(), 2);
    assert_eq!(house.look(&house.client()).await.unwrap().trust.len(), 2);
    assert_category(client.look(&digest(b"other"), &Floors::default(), now()).await, "WrongRoot");
}

#[tokio::test]
async fn a_mirror_that_changes_cuts_or_swaps_files_is_named() {
    let house = House::new().await;
    let build = &house.sample.manifest.kernel.build_id;
    let client = house.client();
    let look = house.look(&client).await.unwrap();
    let kernel = client.kernel(&look, build).await.unwrap();
    let level = look.catalogue.kernel(build, &kernel).unwrap().levels[0].clone();
    let bundle = paths::bundle(&level.bundle.sha256);
    for (manner, category) in [
        (Manner::File(b"b bundle".to_vec()), "ArbitrarySoftware"),
        (Manner::File(b"a bund".to_vec()), "ArbitrarySoftware"),
        (Manner::File(b"a bundle and more".to_vec()), "EndlessData"),
        (Manner::Endless, "EndlessData"),
        (Manner::Status(404), "Unreachable"),
    ] {
        house.server.set(&bundle, manner);
        assert_category(client.bundle(&level).await, category);
    }
    let name = paths::kernel(&digest(&kernel));
    let mut changed = kernel.clone();
    changed[30] ^= 1;
    house.server.set(&name, Manner::File(changed));
    assert_category(client.kernel(&look, build).await, "MixAndMatch");
    for (name, category) in
        [("trust/1.json", "WrongRoot"), ("timestamp.json", "BelowThreshold"), ("index/1.json", "MixAndMatch")]
    {
        let mut bytes = house.file(name);
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
        house.server.set(name, Manner::File(bytes));
        assert_category(house.look(&house.client()).await, category);
        // The client that knows better is not led astray, and is well again when the mirror is.
        house.server.set(name, Manner::File(house.file(name)));
        house.look(&client).await.unwrap();
    }
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_unreachable() {
    let house = House::new().await;
    house.server.unset("timestamp.json");
    assert_category(house.look(&house.client()).await, "Unreachable");
    house.server.unset("trust/1.json");
    assert_category(house.look(&house.client()).await, "Unreachable");
    assert_category(Repository::new("ftp://example.com", Options::default()), "Unreachable");
}

#[tokio::test]
async fn a_refresh_between_the_timestamp_and_its_signatures_is_looked_at_again() {
    let house = House::new().await;
    let old = house.file("timestamp.json.sig");
    house.desk.refresh(&house.keys.timestamp, now()).unwrap();
    house.upload();
    // A mirror that copied one file before and one after: refused, for good while it stays so.
    house.server.set("timestamp.json.sig", Manner::File(old));
    house.server.take_seen();
    assert_category(house.look(&house.client()).await, "BelowThreshold");
    let asked = house.server.take_seen().iter().filter(|seen| seen.path == "/r/timestamp.json").count();
    assert_eq!(asked, 2);
    house.upload();
    house.look(&house.client()).await.unwrap();
}
