//! State on disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::Floors;
use crate::store::{self, StoreError};

#[test]
fn what_was_written_is_read_back_with_its_mode_and_nothing_is_left_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("floors.json");
    assert_eq!(store::read_json::<Floors>(&path, 1024).unwrap(), None);
    for version in 1..3 {
        let floors =
            Floors { repository: Some(super::repository()), trust: 1, index: version, timestamp: version };
        store::write_json(&path, &floors).unwrap();
        assert_eq!(store::read_json(&path, 1024).unwrap(), Some(floors));
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    store::remove(&path).unwrap();
    store::remove(&path).unwrap();
    assert_eq!(store::read(&path, 1024).unwrap(), None);
}

#[test]
fn a_half_written_file_from_a_crash_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("floors.json");
    store::replace(&path, b"old", 0o600).unwrap();
    fs::write(folder.path().join("floors.json.new"), b"ha").unwrap();
    assert_eq!(store::read(&path, 1024).unwrap().as_deref(), Some(&b"old"[..]));
    store::replace(&path, b"new", 0o600).unwrap();
    assert_eq!(store::read(&path, 1024).unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_link_planted_beside_the_file_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("floors.json"), folder.path().join("other"));
    fs::write(&other, b"other").unwrap();
    symlink(&other, folder.path().join("floors.json.new")).unwrap();
    store::replace(&path, b"new", 0o600).unwrap();
    assert_eq!(fs::read(&other).unwrap(), b"other");
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn a_file_over_its_limit_or_that_does_not_parse_is_an_error_and_a_missing_folder_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("floors.json");
    store::replace(&path, b"{\"surprise\": 1}", 0o600).unwrap();
    assert!(matches!(store::read(&path, 4), Err(StoreError::TooLong { .. })));
    let error = store::read_json::<Floors>(&path, 1024).unwrap_err();
    assert_eq!((matches!(error, StoreError::Parse { .. }), error.category()), (true, "Malformed"));
    let error = store::replace(&folder.path().join("absent/floors.json"), b"", 0o600).unwrap_err();
    assert_eq!(error.category(), "NodeIo");
}

#[test]
fn a_file_holds_what_it_holds_to_the_last_byte_and_not_what_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("module.ko");
    let bytes: Vec<u8> = (0..9000_u32).map(|n| n.to_le_bytes()[0]).collect();
    assert!(!store::holds(&path, &bytes));
    store::replace(&path, &bytes, 0o600).unwrap();
    assert!(store::holds(&path, &bytes));
    assert!(!store::holds(&path, &bytes[1..]) && !store::holds(&path, &[]));
    for at in [0, 4096, 8999] {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert!(!store::holds(&path, &other), "{at}");
    }
    assert!(!store::holds(folder.path(), &bytes));
}

#[test]
fn storage_full_is_called_by_its_name_and_the_old_file_stays() {
    let full =
        StoreError::Full { path: "floors.json".into(), source: std::io::ErrorKind::StorageFull.into() };
    assert_eq!(full.category(), "StorageFull");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("floors.json");
    store::replace(&path, b"old", 0o600).unwrap();
    // A folder where the new file would be stands for a disk that takes nothing.
    fs::create_dir(folder.path().join("floors.json.new")).unwrap();
    assert!(store::replace(&path, b"new", 0o600).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"old");
}
