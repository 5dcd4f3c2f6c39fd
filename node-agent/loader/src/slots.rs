//! The journal's two files. Each is a ring of checksummed records that is written one after the
//! other: a power cut in the middle of one leaves the other whole, and garbage in one leaves every
//! value in the other. Both take their room when they are made, so that a full disk cannot keep
//! the loader from writing down what it does.
//!
//! A record is a line and a value:
//!
//! ```text
//! invivo1 <sequence, 16 hex digits> <length of the value, 8 hex digits> <SHA-256>\n<value>
//! ```
//!
//! The sum is over the line without itself, and the value. The first word is the format's version:
//! a record of a later one is left alone.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use invivo_feed::digest;
use invivo_feed::store::{StoreError, read, replace};

use crate::store::at;

/// Length of each file, in bytes. A journal was seen to take 2 to 4 KiB.
const SLOT: usize = 256 << 10;
/// The files are root's alone.
const MODE: u32 = 0o600;
const FORMAT: &str = "invivo1";
/// `invivo1`, sequence, length, sum, with three blanks and the end of the line.
const LINE: usize = FORMAT.len() + 16 + 8 + 64 + 4;

/// Where the next records go.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    sequence: u64,
    slots: [Slot; 2],
}

#[derive(Debug, Clone)]
struct Slot {
    path: PathBuf,
    /// End of its last good record; none where the file has to be made anew.
    end: Option<usize>,
}

/// The last good record of a file.
#[derive(Debug, PartialEq, Eq)]
struct Record<V> {
    sequence: u64,
    value: V,
    end: usize,
}

/// Why a file has no good record although something was written to it.
#[derive(Debug, PartialEq, Eq)]
enum Damage {
    Garbage,
    LaterFormat,
}

impl Slots {
    /// Reads both files of `folder`, and the last value that was written.
    ///
    /// # Errors
    ///
    /// `Damaged` if something was written and no good value is left, or by a later version; `Io`.
    /// Nothing is changed.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Option<Vec<u8>>), StoreError> {
        let paths = ["journal.a", "journal.b"].map(|name| folder.join(name));
        let mut newest: Option<Record<Vec<u8>>> = None;
        let mut trouble = None;
        let slots = paths.map(|path| {
            let record = look(&path).unwrap_or_else(|error| {
                trouble = Some(error);
                None
            });
            let end = record.as_ref().map(|record| record.end);
            newest = newest.take().into_iter().chain(record).max_by_key(|record| record.sequence);
            Slot { path, end }
        });
        match (newest, trouble) {
            (Some(_), Some(error @ StoreError::LaterFormat { .. })) | (None, Some(error)) => Err(error),
            (Some(Record { sequence, value, .. }), damaged) => {
                if let Some(error) = damaged {
                    tracing::warn!(error = %error, "one of the journal's files is of no use; the other is");
                }
                Ok((Self { sequence, slots }, Some(value)))
            }
            (None, None) => Ok((Self { sequence: 0, slots }, None)),
        }
    }

    /// Writes a value down for good; one file that takes it is enough.
    ///
    /// # Errors
    ///
    /// `TooLong`, `Full`, `Io`, if neither does. The values of before are still there.
    pub(crate) fn write(&mut self, value: &[u8]) -> Result<(), StoreError> {
        self.sequence += 1;
        let record = record(self.sequence, value);
        let [first, second] = &mut self.slots;
        match (first.write(&record), second.write(&record)) {
            (Ok(()), Ok(())) => Ok(()),
            (Ok(()), Err(error)) | (Err(error), Ok(())) => {
                tracing::warn!(error = %error, "one of the journal's files takes nothing; the other does");
                Ok(())
            }
            (Err(error), Err(_)) => Err(error),
        }
    }
}

impl Slot {
    fn write(&mut self, record: &[u8]) -> Result<(), StoreError> {
        if record.len() > SLOT {
            return Err(StoreError::TooLong { path: self.path.clone(), limit: SLOT as u64 });
        }
        let start = match self.end {
            Some(end) if end + record.len() <= SLOT => end,
            Some(_) => 0,
            None => {
                let mut whole = record.to_vec();
                whole.resize(SLOT, 0);
                replace(&self.path, &whole, MODE)?;
                self.end = Some(record.len());
                return Ok(());
            }
        };
        let written = OpenOptions::new().write(true).open(&self.path).and_then(|file| {
            file.write_all_at(record, start as u64)?;
            file.sync_all()
        });
        match written {
            Ok(()) => self.end = Some(start + record.len()),
            // Somebody took the file away; the next write makes it anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.end = None;
                return self.write(record);
            }
            Err(error) => return Err(at(&self.path)(error)),
        }
        Ok(())
    }
}

fn record(sequence: u64, value: &[u8]) -> Vec<u8> {
    let head = format!("{FORMAT} {sequence:016x} {:08x}", value.len());
    let sum = digest(&[head.as_bytes(), value].concat());
    [format!("{head} {sum}\n").as_bytes(), value].concat()
}

/// A file's last good record; none for a file that is not there.
fn look(path: &Path) -> Result<Option<Record<Vec<u8>>>, StoreError> {
    let damaged = |detail: &str| StoreError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let bytes = match read(path, SLOT as u64) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => bytes,
        Err(StoreError::TooLong { .. }) => return Err(damaged("it is longer than it was made")),
        Err(error) => return Err(error),
    };
    match last(&bytes) {
        Ok(Record { sequence, value, end }) => Ok(Some(Record { sequence, value: value.to_vec(), end })),
        Err(Damage::Garbage) => Err(damaged("it holds no good record")),
        Err(Damage::LaterFormat) => Err(StoreError::LaterFormat { path: path.to_owned() }),
    }
}

/// The last good record. A ring: what follows it is the torn end of a write, what an earlier round
/// left, or nothing yet.
fn last(bytes: &[u8]) -> Result<Record<&[u8]>, Damage> {
    let mut found: Option<Record<&[u8]>> = None;
    loop {
        let start = found.as_ref().map_or(0, |record| record.end);
        match one(bytes, start)? {
            Some(record) if found.as_ref().is_none_or(|last| last.sequence < record.sequence) => {
                found = Some(record);
            }
            Some(_) | None => break,
        }
    }
    // A file is made with its first record in it.
    found.ok_or(Damage::Garbage)
}

/// The good record that begins at `start`, if there is one.
fn one(bytes: &[u8], start: usize) -> Result<Option<Record<&[u8]>>, Damage> {
    let parsed = || {
        let value_at = start.checked_add(LINE)?;
        let line = std::str::from_utf8(bytes.get(start..value_at)?).ok()?.strip_suffix('\n')?;
        let (head, sum) = line.rsplit_once(' ')?;
        let mut words = head.split(' ');
        let (format, sequence, length) = (words.next()?, words.next()?, words.next()?);
        let length = usize::from_str_radix(length, 16).ok()?;
        let end = value_at.checked_add(length)?;
        let value = bytes.get(value_at..end)?;
        if digest(&[head.as_bytes(), value].concat()).as_str() != sum {
            return None;
        }
        Some((format, Record { sequence: u64::from_str_radix(sequence, 16).ok()?, value, end }))
    };
    match parsed() {
        None => Ok(None),
        Some((FORMAT, record)) => Ok(Some(record)),
        Some(_) => Err(Damage::LaterFormat),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(folder: &Path) -> Option<Vec<u8>> {
        Slots::open(folder).unwrap().1
    }

    fn value(number: usize) -> Vec<u8> {
        format!("value {number} {}", "x".repeat(number * 37 % 5000)).into_bytes()
    }

    /// A folder in which `count` values were written, and the next sequence.
    fn written(count: usize) -> (tempfile::TempDir, Slots) {
        let folder = tempfile::tempdir().unwrap();
        let (mut slots, before) = Slots::open(folder.path()).unwrap();
        assert_eq!(before, None);
        for number in 0..count {
            slots.write(&value(number)).unwrap();
        }
        (folder, slots)
    }

    #[test]
    fn the_last_value_comes_back_however_often_the_rings_went_round() {
        for count in [1, 2, 50, 300] {
            let (folder, mut slots) = written(count);
            assert_eq!(open(folder.path()), Some(value(count - 1)));
            // A loader that opens in between goes on where the one before ended.
            let (mut again, _) = Slots::open(folder.path()).unwrap();
            again.write(b"again").unwrap();
            assert_eq!(open(folder.path()), Some(b"again".to_vec()));
            slots.sequence = again.sequence;
            slots.write(b"and again").unwrap();
            assert_eq!(fs::metadata(folder.path().join("journal.a")).unwrap().len(), SLOT as u64);
        }
    }

    #[test]
    fn a_write_cut_anywhere_leaves_the_value_of_before_or_the_new_one() {
        // So many that the next one begins the ring anew, and so few that it does not.
        for count in [3, 107] {
            let (folder, mut slots) = written(count);
            let names = ["journal.a", "journal.b"].map(|name| folder.path().join(name));
            let before = names.clone().map(|name| fs::read(name).unwrap());
            slots.write(&value(count)).unwrap();
            let after = names.clone().map(|name| fs::read(name).unwrap());
            let changed = |slot: usize| {
                (0..SLOT).filter(|at| before[slot][*at] != after[slot][*at]).collect::<Vec<_>>()
            };
            for slot in [0, 1] {
                let places = changed(slot);
                for cut in places.iter().step_by(97).chain(places.last()) {
                    for other in [0, 1] {
                        let whole = if other < slot { &after } else { &before };
                        fs::write(&names[other], &whole[other]).unwrap();
                    }
                    let torn = [&after[slot][..*cut], &before[slot][*cut..]].concat();
                    fs::write(&names[slot], torn).unwrap();
                    let found = open(folder.path()).unwrap();
                    let allowed = if slot == 0 {
                        [value(count - 1), value(count)]
                    } else {
                        [value(count), value(count)]
                    };
                    assert!(allowed.contains(&found), "slot {slot}, cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn one_file_that_takes_nothing_keeps_nothing_from_the_other() {
        for name in ["journal.a", "journal.b"] {
            let (folder, mut slots) = written(3);
            fs::remove_file(folder.path().join(name)).unwrap();
            fs::create_dir(folder.path().join(name)).unwrap();
            slots.write(b"new").unwrap();
            assert_eq!(open(folder.path()), Some(b"new".to_vec()));
        }
    }

    #[test]
    fn garbage_in_one_file_loses_nothing_and_is_written_over() {
        for name in ["journal.a", "journal.b"] {
            for garbage in [b"garbage".to_vec(), vec![0xff; SLOT], vec![0xff; SLOT + 1], Vec::new()] {
                let (folder, _) = written(5);
                fs::write(folder.path().join(name), garbage).unwrap();
                let (mut slots, found) = Slots::open(folder.path()).unwrap();
                assert_eq!(found, Some(value(4)));
                slots.write(b"next").unwrap();
                let whole = fs::read(folder.path().join(name)).unwrap();
                assert_eq!(last(&whole).unwrap().value, b"next");
            }
            let (folder, mut slots) = written(5);
            fs::remove_file(folder.path().join(name)).unwrap();
            slots.write(b"next").unwrap();
            fs::remove_file(folder.path().join(if name == "journal.a" { "journal.b" } else { "journal.a" }))
                .unwrap();
            assert_eq!(open(folder.path()), Some(b"next".to_vec()));
        }
    }

    #[test]
    fn garbage_in_both_files_is_an_error_and_stays() {
        let (folder, _) = written(5);
        for (name, content) in [("journal.a", "garbage"), ("journal.b", "")] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        for _ in 0..2 {
            assert!(matches!(Slots::open(folder.path()), Err(StoreError::Damaged { .. })));
        }
        fs::remove_file(folder.path().join("journal.a")).unwrap();
        assert!(matches!(Slots::open(folder.path()), Err(StoreError::Damaged { .. })));
        fs::remove_file(folder.path().join("journal.b")).unwrap();
        assert_eq!(open(folder.path()), None);
    }

    #[test]
    fn a_record_of_a_later_format_is_left_alone_even_beside_one_of_ours() {
        let (folder, _) = written(2);
        let head = format!("invivo2 {:016x} {:08x}", 9, 3);
        let sum = digest(format!("{head}new").as_bytes());
        fs::write(folder.path().join("journal.b"), format!("{head} {sum}\nnew")).unwrap();
        assert!(matches!(Slots::open(folder.path()), Err(StoreError::LaterFormat { .. })));
    }

    #[test]
    fn any_changed_byte_in_one_file_changes_no_value() {
        let (folder, _) = written(4);
        let path = folder.path().join("journal.b");
        let good = fs::read(&path).unwrap();
        let end = last(&good).unwrap().end;
        for place in (0..end).step_by(13) {
            let mut bad = good.clone();
            bad[place] ^= 0x20;
            fs::write(&path, bad).unwrap();
            assert_eq!(open(folder.path()), Some(value(3)), "byte {place}");
        }
    }

    #[test]
    fn a_value_over_the_room_is_refused_and_the_one_before_stays() {
        let (folder, mut slots) = written(1);
        let long = slots.write(&vec![b'x'; SLOT]);
        assert!(matches!(long, Err(StoreError::TooLong { .. })));
        assert_eq!(open(folder.path()), Some(value(0)));
    }
}
