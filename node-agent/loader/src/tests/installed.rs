use super::*;
use std::fs;

fn id(byte: u8) -> BuildId {
    format!("{byte:02x}").repeat(20).parse().unwrap()
}

fn note(byte: u8) -> Vec<u8> {
    let head: [u32; 3] = [4, 20, 3];
    let mut note: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    note.extend(b"GNU\0");
    note.extend([byte; 20]);
    note
}

/// A module as linkers write them: notes first, headers last, and a signature behind them.
fn module(byte: u8, padding: usize) -> Vec<u8> {
    use object::write::{Object, SectionKind};
    let mut file =
        Object::new(object::BinaryFormat::Elf, object::Architecture::X86_64, object::Endianness::Little);
    let notes = file.add_section(Vec::new(), b".note.gnu.build-id".to_vec(), SectionKind::Note);
    file.append_section_data(notes, &note(byte), 4);
    let text = file.add_section(Vec::new(), b".text".to_vec(), SectionKind::Text);
    file.append_section_data(text, &vec![0xc3; padding], 16);
    [file.write().unwrap(), b"~Module signature appended~\n".to_vec()].concat()
}

/// `modinfo` of what Debian's 6.12 has: `xz --check=crc32 --lzma2=dict=1MiB`.
fn packed(module: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), module).unwrap();
    let output = std::process::Command::new("xz")
        .args(["--check=crc32", "--lzma2=dict=1MiB", "--stdout"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

struct Root(tempfile::TempDir);

impl Root {
    fn new(index: &str) -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        root.put("modules/modules.dep", index.as_bytes());
        root
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn look(&self, installed: &mut Installed, name: &str) -> Builds {
        let name: TargetName = name.parse().unwrap();
        let (modules, sys) = (self.0.path().join("modules"), self.0.path().join("sys"));
        installed.builds(&modules, &sys, std::iter::once(&name)).remove(&name).unwrap()
    }

    fn file(&self, name: &str) -> Build {
        self.look(&mut Installed::default(), name).file
    }
}

#[test]
fn the_file_is_the_one_that_the_index_names_packed_or_not() {
    let root = Root::new(
        "updates/dkms/tgt.ko:\nkernel/fs/tgt.ko: kernel/lib/crc.ko\nkernel/net/nf-tables.ko.xz:\n\
         kernel/b.ko.zst:\nkernel/gone.ko:\n../outside.ko:\n/abs.ko:\nkernel/text.ko:\n",
    );
    root.put("modules/updates/dkms/tgt.ko", &module(1, 10));
    root.put("modules/kernel/fs/tgt.ko", &module(2, 10));
    root.put("modules/kernel/net/nf-tables.ko.xz", &packed(&module(3, 3 << 20)));
    root.put("modules/kernel/b.ko.zst", &module(4, 10));
    root.put("outside.ko", &module(5, 10));
    root.put("modules/kernel/text.ko", b"no module");
    assert_eq!(root.file("tgt"), Build::Is(id(1)));
    assert_eq!(root.file("nf_tables"), Build::Is(id(3)));
    assert_eq!(root.file("nowhere"), Build::None);
    for unknown in ["b", "gone", "outside", "abs", "text"] {
        assert_eq!(root.file(unknown), Build::Unknown, "{unknown}");
    }
}

#[test]
fn without_an_index_nothing_is_known() {
    let root = Root::new("");
    assert_eq!(root.file("tgt"), Build::None);
    fs::remove_file(root.0.path().join("modules/modules.dep")).unwrap();
    assert_eq!(root.file("tgt"), Build::Unknown);
}

#[test]
fn what_is_loaded_is_read_from_the_kernel() {
    let root = Root::new("");
    let loaded = |root: &Root| root.look(&mut Installed::default(), "tgt").loaded;
    assert_eq!(loaded(&root), Build::None);
    root.put("sys/module/tgt/refcnt", b"0\n");
    assert_eq!(loaded(&root), Build::Unknown, "a kernel that shows no notes");
    root.put("sys/module/tgt/notes/.note.gnu.build-id", &note(7));
    assert_eq!(loaded(&root), Build::Is(id(7)));
}

#[test]
fn a_file_that_was_replaced_is_read_again_and_one_that_was_not_is_remembered() {
    let root = Root::new("kernel/tgt.ko:\n");
    let mut installed = Installed::default();
    root.put("modules/kernel/tgt.ko", &module(1, 10));
    assert_eq!(root.look(&mut installed, "tgt").file, Build::Is(id(1)));
    assert_eq!(installed.0.len(), 1);
    // As a package manager does it.
    root.put("modules/kernel/new", &module(2, 10));
    let folder = root.0.path().join("modules/kernel");
    fs::rename(folder.join("new"), folder.join("tgt.ko")).unwrap();
    assert_eq!(root.look(&mut installed, "tgt").file, Build::Is(id(2)));
    let (_, remembered) = installed.0.values_mut().next().unwrap();
    *remembered = Build::Is(id(9));
    assert_eq!(root.look(&mut installed, "tgt").file, Build::Is(id(9)), "not read again");
}

#[test]
fn modules_cut_short_or_with_wild_numbers_tell_nothing_and_harm_nothing() {
    let whole = module(1, 1000);
    assert_eq!(in_module(whole.as_slice()), Some(id(1)));
    let end = whole.len() - b"~Module signature appended~\n".len();
    for cut in 0..end - 64 {
        let found = in_module(&whole[..cut]);
        assert!(found.is_none() || found == Some(id(1)), "cut at {cut}");
    }
    assert_eq!(in_module(&whole[..200]), None);
    for at in 0..64 {
        let mut wild = whole.clone();
        wild[at] = 0xff;
        let _ = in_module(wild.as_slice());
    }
    let bomb = packed(&vec![0; 8 << 20]);
    assert_eq!(in_module(XzReader::new_mem_limit(bomb.as_slice(), false, MOST_WINDOW)), None);
    assert_eq!(in_module(XzReader::new_mem_limit(&bomb[..100], false, MOST_WINDOW)), None);
}
