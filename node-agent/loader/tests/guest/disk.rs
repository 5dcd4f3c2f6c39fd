//! A disk that forgets at a power cut what its guest did not flush. QEMU reaches it by NBD
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>), so that every write and
//! every flush passes here.
//!
//! Killing QEMU alone would lose no more than the guest's own page cache: what the guest has once
//! written, flushed or not, stays in the host's.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tempfile::TempDir;

use crate::chance::Chance;

/// What a disk of today writes whole or not at all. With less, a commit of ext4's journal could be torn,
/// which ext4 takes for damage; that is for its authors to try.
const SECTOR: usize = 4096;
type Sector = [u8; SECTOR];

/// What the disk holds, and what is only in its cache.
#[derive(Debug, Clone)]
pub(crate) struct Platter {
    image: Arc<Vec<u8>>,
    /// Written for good since the image was made.
    kept: HashMap<u64, Sector>,
    /// In the cache, in the order of writing.
    pending: Vec<(u64, Sector)>,
    /// The newest of those.
    newest: HashMap<u64, Sector>,
    /// Requests to write, since the power came on.
    writes: u64,
    power: Power,
}

#[derive(Debug, Clone, Copy)]
enum Power {
    On,
    /// It goes off at this request to write, by this chance.
    OffAt(u64, Chance),
    Off(Cut),
}

/// What a power cut did to the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Requests to write since the power came on.
    pub(crate) writes: u64,
    /// Sectors in the cache that reached the disk all the same.
    pub(crate) kept: usize,
    /// Sectors that did not.
    pub(crate) lost: usize,
}

impl Platter {
    pub(crate) fn new(image: Arc<Vec<u8>>) -> Self {
        let (kept, newest) = (HashMap::new(), HashMap::new());
        Self { image, kept, pending: Vec::new(), newest, writes: 0, power: Power::On }
    }

    fn len(&self) -> u64 {
        self.image.len() as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        for (number, part) in (offset / SECTOR as u64..).zip(into.chunks_mut(SECTOR)) {
            part.copy_from_slice(&self.sector(number)[..part.len()]);
        }
    }

    fn sector(&self, number: u64) -> Sector {
        if let Some(sector) = self.newest.get(&number).or_else(|| self.kept.get(&number)) {
            return *sector;
        }
        let mut sector = [0; SECTOR];
        let start = usize::try_from(number).unwrap() * SECTOR;
        sector.copy_from_slice(&self.image[start..start + SECTOR]);
        sector
    }

    /// False where the power went off at it: nobody is to hear that it was written.
    fn write(&mut self, offset: u64, bytes: &[u8], for_good: bool) -> bool {
        if matches!(self.power, Power::Off(_)) {
            return false;
        }
        self.writes += 1;
        for (number, part) in (offset / SECTOR as u64..).zip(bytes.chunks_exact(SECTOR)) {
            let sector = part.try_into().unwrap();
            self.pending.push((number, sector));
            self.newest.insert(number, sector);
        }
        if let Power::OffAt(at, mut chance) = self.power
            && self.writes >= at
        {
            self.cut(&mut chance);
            return false;
        }
        if for_good {
            // Its own sectors alone, and what was in the cache for them before is no more.
            let first = offset / SECTOR as u64;
            let written = first..first + (bytes.len() / SECTOR) as u64;
            self.pending.retain(|(number, _)| !written.contains(number));
            for number in written {
                self.kept.extend(self.newest.remove(&number).map(|sector| (number, sector)));
            }
        }
        true
    }

    /// False where the power is off.
    fn flush(&mut self) -> bool {
        match self.power {
            Power::Off(_) => false,
            Power::On | Power::OffAt(..) => {
                self.pending.clear();
                self.kept.extend(self.newest.drain());
                true
            }
        }
    }

    /// A disk may write what is in its cache in any order, and had written any part of it. One time in
    /// three none of it, one time in three all: then a file system that forgot to flush looks right.
    fn cut(&mut self, chance: &mut Chance) -> Cut {
        if let Power::Off(cut) = self.power {
            return cut;
        }
        let share = chance.below(3) * 50;
        let mut cut = Cut { writes: self.writes, kept: 0, lost: 0 };
        for (number, sector) in std::mem::take(&mut self.pending) {
            if chance.below(100) < share {
                self.kept.insert(number, sector);
                cut.kept += 1;
            } else {
                cut.lost += 1;
            }
        }
        self.newest.clear();
        self.power = Power::Off(cut);
        cut
    }
}

/// A disk behind a socket, for one guest after the other.
#[derive(Debug)]
pub(crate) struct Disk {
    platter: Arc<Mutex<Platter>>,
    folder: TempDir,
}

impl Disk {
    /// Serves what `image` holds, in a folder of its own.
    pub(crate) fn serve(image: Arc<Vec<u8>>) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let platter = Arc::new(Mutex::new(Platter::new(image)));
        let disk = Self { platter: Arc::clone(&platter), folder };
        let listener = UnixListener::bind(disk.socket())?;
        thread::spawn(move || {
            for guest in listener.incoming().flatten() {
                // The guest is gone: the next one begins anew.
                let _ = converse(guest, &platter);
            }
        });
        Ok(disk)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder().join("disk")
    }

    /// Where the files of the guest are whose disk it is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn with<T>(&self, what: impl FnOnce(&mut Platter) -> T) -> T {
        what(&mut self.platter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new disk in the place of this one.
    pub(crate) fn renew(&self, image: Arc<Vec<u8>>) {
        self.with(|platter| *platter = Platter::new(image));
    }

    /// Power for the next guest, which goes off by itself at a request to write.
    pub(crate) fn power_on(&self, off_at: Option<(u64, Chance)>) {
        self.with(|platter| {
            platter.writes = 0;
            platter.power = off_at.map_or(Power::On, |(at, chance)| Power::OffAt(at, chance));
        });
    }

    pub(crate) fn is_on(&self) -> bool {
        self.with(|platter| !matches!(platter.power, Power::Off(_)))
    }

    /// Takes the power away now, unless it has gone off already. Nothing that the guest asks for
    /// after this is answered.
    pub(crate) fn cut(&self, chance: &mut Chance) -> Cut {
        self.with(|platter| platter.cut(chance))
    }

    /// Requests to write since the power came on.
    pub(crate) fn writes(&self) -> u64 {
        self.with(|platter| platter.writes)
    }
}

const FIXED_NEWSTYLE: u16 = 1;
const HAS_FLAGS: u16 = 1;
const SEND_FLUSH: u16 = 1 << 2;
const SEND_FUA: u16 = 1 << 3;
const OPTION: u64 = 0x4948_4156_454F_5054;
const OPTION_GO: u32 = 7;
const REPLY_OPTION: u64 = 0x3_E889_0455_65A9;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = (1 << 31) + 1;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const INVALID: u32 = 22;

fn number<const N: usize>(guest: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    guest.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Until the guest goes.
fn converse(mut guest: UnixStream, platter: &Mutex<Platter>) -> io::Result<()> {
    let platter = || platter.lock().unwrap_or_else(PoisonError::into_inner);
    guest.write_all(b"NBDMAGICIHAVEOPT")?;
    guest.write_all(&FIXED_NEWSTYLE.to_be_bytes())?;
    number::<4>(&mut guest)?;
    loop {
        if u64::from_be_bytes(number(&mut guest)?) != OPTION {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let option = u32::from_be_bytes(number(&mut guest)?);
        let length = u32::from_be_bytes(number(&mut guest)?);
        io::copy(&mut (&mut guest).take(length.into()), &mut io::sink())?;
        let reply = |kind: u32, data: &[u8]| {
            let length = u32::try_from(data.len()).unwrap();
            let head = [option.to_be_bytes(), kind.to_be_bytes(), length.to_be_bytes()].concat();
            [REPLY_OPTION.to_be_bytes().as_slice(), &head, data].concat()
        };
        if option == OPTION_GO {
            let size = platter().len().to_be_bytes();
            let flags = (HAS_FLAGS | SEND_FLUSH | SEND_FUA).to_be_bytes();
            guest.write_all(&reply(REPLY_INFO, &[[0, 0].as_slice(), &size, &flags].concat()))?;
            guest.write_all(&reply(REPLY_ACK, &[]))?;
            break;
        }
        guest.write_all(&reply(REPLY_UNSUPPORTED, &[]))?;
    }
    loop {
        if u32::from_be_bytes(number(&mut guest)?) != REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (flags, kind) =
            (u16::from_be_bytes(number(&mut guest)?), u16::from_be_bytes(number(&mut guest)?));
        let cookie = number::<8>(&mut guest)?;
        let offset = u64::from_be_bytes(number(&mut guest)?);
        let length = u32::from_be_bytes(number(&mut guest)?) as usize;
        let mut data = Vec::new();
        let (done, error) = match kind {
            0 => {
                data.resize(length, 0);
                platter().read(offset, &mut data);
                (true, 0)
            }
            1 => {
                let mut bytes = vec![0; length];
                guest.read_exact(&mut bytes)?;
                (platter().write(offset, &bytes, flags & 1 != 0), 0)
            }
            2 => return Ok(()),
            3 => (platter().flush(), 0),
            _ => (true, INVALID),
        };
        // A disk without power says nothing, not even that it failed.
        if done {
            let head = [REPLY.to_be_bytes(), error.to_be_bytes()].concat();
            guest.write_all(&[head.as_slice(), &cookie, &data].concat())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platter() -> Platter {
        Platter::new(Arc::new(vec![0; 8 * SECTOR]))
    }

    fn byte(platter: &Platter, sector: u64) -> u8 {
        let mut bytes = [0; SECTOR];
        platter.read(sector * SECTOR as u64, &mut bytes);
        bytes[0]
    }

    /// Chance by chance, whether sector 1 came through a cut after `what`.
    fn survivals(what: impl Fn(&mut Platter)) -> (usize, usize) {
        let outcomes = (0..200).map(|seed| {
            let mut platter = platter();
            what(&mut platter);
            assert_eq!(byte(&platter, 1), 7, "before the cut");
            platter.cut(&mut Chance::new(seed));
            byte(&platter, 1) == 7
        });
        let survived = outcomes.filter(|survived| *survived).count();
        (survived, 200 - survived)
    }

    #[test]
    fn what_was_flushed_survives_every_cut_and_what_was_not_only_some() {
        let write = |platter: &mut Platter| platter.write(SECTOR as u64, &[7; SECTOR], false);
        let (survived, lost) = survivals(|platter| assert!(write(platter)));
        assert!(survived > 50 && lost > 50, "{survived} {lost}");
        assert_eq!(survivals(|platter| assert!(write(platter) && platter.flush())), (200, 0));
        assert_eq!(survivals(|platter| assert!(platter.write(SECTOR as u64, &[7; SECTOR], true))), (200, 0));
    }

    #[test]
    fn an_older_write_never_comes_back_over_one_that_was_written_for_good() {
        let twice = |platter: &mut Platter| {
            platter.write(SECTOR as u64, &[3; SECTOR], false);
            platter.write(SECTOR as u64, &[7; SECTOR], true);
        };
        assert_eq!(survivals(twice), (200, 0));
    }

    #[test]
    fn a_disk_without_power_takes_nothing_and_flushes_nothing() {
        let mut platter = platter();
        platter.power = Power::OffAt(2, Chance::new(1));
        assert!(platter.write(0, &[1; SECTOR], true));
        assert!(!platter.write(SECTOR as u64, &[1; SECTOR], true));
        assert!(!platter.write(2 * SECTOR as u64, &[1; SECTOR], true) && !platter.flush());
        platter.cut(&mut Chance::new(0));
        assert_eq!((byte(&platter, 0), byte(&platter, 2)), (1, 0));
    }
}
