//! A repository from the author's side.

use std::fs;
use std::process::Command;

use invivo_terms::Refusal;
use jiff::Timestamp;

use super::{House, addition, assert_refused, at, bundle, days, now, repository};
use crate::document::Role;
use crate::publish::{Certificate, Desk, Founding, PublishError, RoleKeys, SecretKey, SmallHouse};
use crate::{Document, Floors, FolderError, paths};

fn look(house: &House, now: Timestamp) -> Result<crate::FolderLook, FolderError> {
    house.desk.repository().look(&house.root(), &Floors::default(), at(now))
}

#[test]
fn nothing_is_published_before_enough_have_signed() {
    let folder = tempfile::tempdir().unwrap();
    let keys = SmallHouse::generate(&repository(), now()).unwrap();
    let desk = Desk::create(&folder.path().join("desk"), &keys.founding(&repository()), now()).unwrap();
    let sample = bundle('a', 1, 1);
    desk.add(&addition(&sample, b"a bundle"), now()).unwrap();
    desk.stage(90, now()).unwrap();
    for role in [Role::Trust, Role::Index] {
        let one = desk.sign(role, &keys.holders[0], now()).unwrap();
        assert!(!one.is_complete());
        // The same hand again is still one hand.
        assert_eq!(desk.sign(role, &keys.holders[0], now()).unwrap(), one);
        assert!(matches!(desk.publish(&keys.timestamp, now()), Err(PublishError::Unsigned { .. })));
        assert!(!desk.tree().join(paths::TIMESTAMP).exists());
        assert!(desk.sign(role, &keys.holders[2], now()).unwrap().is_complete());
    }
    desk.publish(&keys.timestamp, now()).unwrap();
    desk.repository().look(&desk.root().unwrap(), &Floors::default(), at(now())).unwrap();
    assert!(matches!(desk.publish(&keys.timestamp, now()), Err(PublishError::NothingStaged { .. })));
}

#[test]
fn a_signature_that_would_not_count_is_not_taken() {
    let house = House::new();
    house.desk.stage(90, now()).unwrap();
    let stranger = SecretKey::generate("a stranger", now()).unwrap();
    assert!(matches!(house.desk.sign(Role::Index, &stranger, now()), Err(PublishError::Signature { .. })));
    assert!(matches!(
        house.desk.sign(Role::Index, &house.keys.timestamp, now()),
        Err(PublishError::Signature { .. })
    ));
    let staged = house.desk.staged(Role::Index).unwrap();
    let other = house.keys.holders[0].sign(Role::Trust, &staged.document, now()).unwrap();
    assert!(matches!(house.desk.import(Role::Index, &other), Err(PublishError::Signature { .. })));
    assert!(matches!(house.desk.import(Role::Index, b"noise"), Err(PublishError::Rejected(_))));
    assert!(house.desk.staged(Role::Index).unwrap().signatures.is_empty());
}

#[test]
fn the_timestamp_key_alone_cannot_publish() {
    let house = House::new();
    house.desk.stage(90, now()).unwrap();
    assert!(matches!(house.desk.publish(&house.keys.timestamp, now()), Err(PublishError::Unsigned { .. })));
    // Nor may another key make the timestamp.
    let holder = &house.keys.holders[0];
    let Err(PublishError::Rejected(rejection)) = house.desk.refresh(holder, now()) else {
        panic!("it was taken")
    };
    assert_eq!(rejection.refusal, Refusal::UnknownKey);
}

#[test]
fn a_refresh_keeps_the_repository_alive_and_its_index() {
    let house = House::new();
    assert!(look(&house, days(8)).is_err());
    let refreshed = house.desk.refresh(&house.keys.timestamp, days(6)).unwrap();
    assert_eq!((refreshed.index, refreshed.timestamp, refreshed.expires), (1, 2, days(13)));
    look(&house, days(8)).unwrap();
}

#[test]
fn a_reader_between_the_two_files_of_a_refresh_believes_either_timestamp() {
    let house = House::new();
    let path = house.desk.tree().join(paths::TIMESTAMP);
    let before = fs::read(&path).unwrap();
    house.desk.refresh(&house.keys.timestamp, days(1)).unwrap();
    let after = fs::read(&path).unwrap();
    assert_eq!(look(&house, days(1)).unwrap().catalogue.floors().timestamp, 2);
    // The signatures are written first, so this is what a reader may meet.
    fs::write(&path, before).unwrap();
    assert_eq!(look(&house, days(1)).unwrap().catalogue.floors().timestamp, 1);
    // And they do not pile up.
    fs::write(&path, after).unwrap();
    house.desk.refresh(&house.keys.timestamp, days(2)).unwrap();
    let beside = fs::read(house.desk.tree().join("timestamp.json.sig")).unwrap();
    assert_eq!(crate::signature::packets(Document::Timestamp, &beside).unwrap().len(), 2);
}

#[test]
fn a_withdrawn_set_is_refused_and_keeps_its_digest() {
    let house = House::new();
    let set = house.sample.manifest.set.clone();
    let before = look(&house, now()).unwrap().catalogue.set_digest(&set);
    house.desk.withdraw(&set).unwrap();
    house.keys.publish(&house.desk, &[], days(1)).unwrap();
    let after = look(&house, days(1)).unwrap();
    assert_eq!(after.catalogue.set_digest(&set), before);
    assert_eq!(after.catalogue.floors().index, 2);
    let build = &house.sample.manifest.kernel.build_id;
    let verdict = house.desk.repository().proof(
        &after,
        build,
        house.sample.manifest.level,
        house.sample.manifest_bytes.clone(),
    );
    let Err(FolderError::Rejected(rejection)) = verdict else { panic!("it was taken") };
    assert_refused(Err::<(), _>(rejection), Refusal::Withdrawn, Document::Index);
    assert!(matches!(
        house.desk.withdraw(&"2026-11-22.9".parse().unwrap()),
        Err(PublishError::UnknownSet { .. })
    ));
}

#[test]
fn a_published_set_does_not_change_and_levels_rise() {
    let house = House::new();
    let again = addition(&house.sample, b"a bundle");
    assert!(matches!(house.desk.add(&again, now()), Err(PublishError::SetPublished { .. })));
    let lower = bundle('a', 2, 1);
    assert!(matches!(house.desk.add(&addition(&lower, b"x"), now()), Err(PublishError::Unfit { .. })));
    // A draft may be made again.
    let next = bundle('a', 2, 2);
    house.desk.add(&addition(&next, b"first try"), now()).unwrap();
    house.desk.add(&addition(&next, b"second try"), now()).unwrap();
    house.keys.publish(&house.desk, &[], days(1)).unwrap();
    assert_eq!(look(&house, days(1)).unwrap().catalogue.index().sets.len(), 2);
}

#[test]
fn an_index_whose_files_are_missing_is_not_published() {
    let house = House::new();
    let next = bundle('a', 2, 2);
    let stored = crate::digest(b"a second bundle");
    house.desk.add(&addition(&next, b"a second bundle"), now()).unwrap();
    fs::remove_file(house.desk.tree().join(paths::bundle(&stored))).unwrap();
    assert!(matches!(house.keys.publish(&house.desk, &[], now()), Err(PublishError::Store(_))));
    assert_eq!(look(&house, now()).unwrap().catalogue.index().version, 1);
}

#[test]
fn a_rotation_is_published_with_an_index_by_the_new_keys() {
    let house = House::new();
    let new = SmallHouse::generate(&repository(), now()).unwrap();
    house.desk.rotate(&new.founding(&repository()), days(1)).unwrap();
    for key in house.keys.holders.iter().take(2).chain(new.holders.iter().take(2)) {
        house.desk.sign(Role::Trust, key, days(1)).unwrap();
    }
    // The published index is signed by keys that no longer count.
    assert!(matches!(house.desk.publish(&new.timestamp, days(1)), Err(PublishError::Rejected(_))));
    assert_eq!(look(&house, days(1)).unwrap().catalogue.trust().version, 1);
    let published = new.publish(&house.desk, &[], days(1)).unwrap();
    assert_eq!((published.trust, published.index), (2, 2));
    let seen = look(&house, days(1)).unwrap();
    assert_eq!(seen.trust.len(), 2);
}

#[test]
fn a_folder_in_use_or_without_a_desk_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Desk::open(folder.path()), Err(PublishError::NotADesk { .. })));
    fs::write(folder.path().join("mine"), b"mine").unwrap();
    let keys = SmallHouse::generate(&repository(), now()).unwrap();
    let verdict = Desk::create(folder.path(), &keys.founding(&repository()), now());
    assert!(matches!(verdict, Err(PublishError::NotEmpty { .. })));
}

#[test]
fn secrets_are_not_printed() {
    let key = SecretKey::generate("a holder", now()).unwrap();
    assert_eq!(
        format!("{key:?}"),
        format!("SecretKey {{ fingerprint: {:?}, .. }}", key.certificate().fingerprint())
    );
    assert!(Certificate::read(&key.armoured().unwrap()).is_err());
    let read_back = SecretKey::read(&key.armoured().unwrap()).unwrap();
    assert_eq!(read_back.certificate(), key.certificate());
}

/// A key whose secret half never leaves GnuPG.
#[test]
fn a_holder_signs_with_gpg() {
    if Command::new("gpg").arg("--version").output().is_err() {
        // Not installed here; the format is the same that the other tests sign in.
        return;
    }
    let home = tempfile::Builder::new().prefix("g").tempdir().unwrap();
    let mut make = Command::new("gpg");
    make.arg("--homedir").arg(home.path()).args([
        "--batch",
        "--quiet",
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "",
    ]);
    let generated =
        make.args(["--quick-gen-key", "gnupg@example.com", "ed25519", "sign", "never"]).output().unwrap();
    assert!(generated.status.success(), "{}", String::from_utf8_lossy(&generated.stderr));
    let exported = Command::new("gpg")
        .arg("--homedir")
        .arg(home.path())
        .args(["--export", "gnupg@example.com"])
        .output()
        .unwrap();
    let certificate = Certificate::read(&exported.stdout).unwrap();

    let keys = SmallHouse::generate(&repository(), Timestamp::now()).unwrap();
    let mut certificates = vec![certificate];
    certificates.push(keys.holders[0].certificate().clone());
    let people = RoleKeys { threshold: 2, certificates };
    let founding = Founding { trust: people.clone(), index: people, ..keys.founding(&repository()) };
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::create(&folder.path().join("desk"), &founding, Timestamp::now()).unwrap();
    desk.stage(90, Timestamp::now()).unwrap();
    for role in [Role::Trust, Role::Index] {
        for armour in [true, false] {
            let mut sign = Command::new("gpg");
            sign.arg("--homedir").arg(home.path()).args([
                "--batch",
                "--quiet",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
            ]);
            sign.args(armour.then_some("--armor"));
            sign.args([
                "--sig-notation",
                &format!("!role@invivo.dev={}", role.as_str()),
                "--output",
                "-",
                "--detach-sign",
            ]);
            let signed = sign.arg(desk.staged_path(role)).output().unwrap();
            assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
            assert_eq!(desk.import(role, &signed.stdout).unwrap().needs[0].signed.len(), 1);
        }
        desk.sign(role, &keys.holders[0], Timestamp::now()).unwrap();
    }
    // Without the notation GnuPG's signature is for nothing.
    let plain = Command::new("gpg")
        .arg("--homedir")
        .arg(home.path())
        .args(["--batch", "--quiet", "--output", "-", "--detach-sign"])
        .arg(desk.staged_path(Role::Index))
        .output()
        .unwrap();
    assert!(matches!(desk.import(Role::Index, &plain.stdout), Err(PublishError::Signature { .. })));
    desk.publish(&keys.timestamp, Timestamp::now()).unwrap();
    desk.repository().look(&desk.root().unwrap(), &Floors::default(), at(Timestamp::now())).unwrap();
    let _ = Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "gpg-agent"]).status();
}
