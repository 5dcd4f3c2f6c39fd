//! The archive that a kernel unpacks before it starts its first program (`cpio`, format "newc").
//!
//! Written by hand because it is forty lines, needs no other program, and comes out the same from
//! the same files: everything is root's and dated 0.

/// An initramfs in the making.
#[derive(Debug, Default, Clone)]
pub struct Initramfs {
    bytes: Vec<u8>,
    inodes: u32,
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

impl Initramfs {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder. Folders must come before what is in them.
    #[must_use]
    pub fn directory(mut self, path: &str) -> Self {
        self.entry(path, DIRECTORY, &[]);
        self
    }

    /// Adds a file with the permission bits `mode`.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, FILE | (mode & 0o7777), content);
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entry(path, LINK, target.as_bytes());
        self
    }

    /// The finished archive, uncompressed.
    pub fn finish(mut self) -> Vec<u8> {
        self.inodes = 0;
        self.entry("TRAILER!!!", 0, &[]);
        self.pad(512);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let (size, name_size) = (content.len(), path.len() + 1);
        self.inodes += 1;
        let inode = self.inodes;
        // magic, inode, mode, uid, gid, links, mtime, size, 2 x device, 2 x rdev, name size, check
        self.bytes.extend_from_slice(
            format!(
                "070701{inode:08X}{mode:08X}{0:08X}{0:08X}{links:08X}{0:08X}{size:08X}\
                 {0:08X}{0:08X}{0:08X}{0:08X}{name_size:08X}{0:08X}",
                0
            )
            .as_bytes(),
        );
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        let length = self.bytes.len().next_multiple_of(to);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_in_the_form_that_linux_reads() {
        let bytes = Initramfs::new()
            .directory("bin")
            .file("init", 0o755, b"#!/bin/sh\n")
            .link("bin/sh", "busybox")
            .finish();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ED"));
        assert!(text.contains("init\0"));
        assert!(text.contains("TRAILER!!!"));
        // Each header starts at a multiple of four.
        for (at, _) in text.match_indices("070701") {
            assert_eq!(at % 4, 0);
        }
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let make = || Initramfs::new().file("a", 0o644, b"abc").finish();
        assert_eq!(make(), make());
    }
}
