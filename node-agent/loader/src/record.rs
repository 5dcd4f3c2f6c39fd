//! Records of panics, where the kernel's pstore shows them and where systemd puts them away.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use invivo_feed::store::read;

use crate::verdict::Record;

/// Longest record that is read. Backends were seen to write up to 17 KiB.
const LONGEST: u64 = 256 << 10;
/// Most records that are read, the youngest first.
const MOST: usize = 64;
/// Most entries of a folder that are looked at.
const ENTRIES: usize = 4096;

/// Reads the records in these folders, and one folder deeper: systemd puts each panic's into one
/// of its own. A folder that is not there holds none, nor does one that cannot be read: the log says
/// so, and the others count.
pub(crate) fn observe(folders: &[PathBuf]) -> Vec<Record> {
    let all = |folder: &PathBuf| {
        entries(folder).unwrap_or_else(|error| {
            tracing::warn!(folder = %folder.display(), error = %error, "records of panics not read");
            Vec::new()
        })
    };
    let (deeper, mut found): (Vec<PathBuf>, Vec<PathBuf>) =
        folders.iter().flat_map(all).partition(|path| path.is_dir());
    found.extend(deeper.iter().flat_map(all));
    found.retain(|path| is_record(path));
    let age = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.mtime());
    found.sort_by_cached_key(|path| std::cmp::Reverse(age(path)));
    found.truncate(MOST);
    // One that is too long or went away meanwhile is not evidence.
    found.iter().filter_map(|path| Some(Record::new(&read(path, LONGEST).ok()??))).collect()
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.take(ENTRIES).map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `dmesg-<backend>-<number>`. What systemd puts together from several, `dmesg.txt`, is not a second
/// record; one that the kernel could not unpack ends in `.enc.z`.
fn is_record(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("dmesg-") && !name.contains(".enc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_in_both_places_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let (pstore, archive) = (root.path().join("pstore"), root.path().join("archive"));
        assert!(observe(&[pstore.clone(), archive.clone()]).is_empty());
        fs::create_dir_all(archive.join("7300000000")).unwrap();
        fs::create_dir(&pstore).unwrap();
        fs::write(pstore.join("dmesg-erst-1"), "one").unwrap();
        fs::write(pstore.join("console-ramoops-0"), "console").unwrap();
        fs::write(pstore.join("dmesg-erst-2.enc.z"), "packed").unwrap();
        fs::write(archive.join("7300000000/dmesg-erst-3"), "three").unwrap();
        fs::write(archive.join("7300000000/dmesg.txt"), "three, put together").unwrap();
        fs::write(archive.join("dmesg-erst-4"), vec![b'x'; 300 << 10]).unwrap();
        let mut texts: Vec<String> =
            observe(&[pstore, archive]).iter().map(|record| record.text().to_owned()).collect();
        texts.sort();
        assert_eq!(texts, ["one", "three"]);
    }

    #[test]
    fn a_folder_that_cannot_be_read_hides_no_other() {
        let root = tempfile::tempdir().unwrap();
        let (broken, archive) = (root.path().join("broken"), root.path().join("archive"));
        fs::write(&broken, "not a folder").unwrap();
        fs::create_dir(&archive).unwrap();
        fs::write(archive.join("dmesg-erst-1"), "one").unwrap();
        assert_eq!(observe(&[broken, archive]).len(), 1);
    }

    #[test]
    fn no_more_are_read_than_there_is_room_for_and_the_youngest_are() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..100_u64 {
            let path = root.path().join(format!("dmesg-erst-{number}"));
            fs::write(&path, number.to_string()).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number);
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        let found = observe(&[root.path().to_owned()]);
        assert_eq!((found.len(), found[0].text()), (64, "99"));
    }
}
