//! Small files, compiled in the tests as the kernel's are: a kernel of one file, and a fix of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;

use crate::compile::{Compiled, FLAGS};
use crate::judge::{self, Case, Code};
use crate::object::cut::Cut;
use crate::object::extract::extract;
use crate::object::kernel::{Names, NotFound};
use crate::object::resolve::World;
use crate::object::{Object, compare};
use crate::refusal::Refusal;
use crate::reproduce::reproduce;

/// Compiles `text` with the flags that matter, and `more`.
pub(crate) fn compile(text: &str, more: &[&str]) -> Compiled {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sample.c"), text).unwrap();
    let output = Command::new("gcc")
        .current_dir(folder.path())
        .args(
            "-O2 -std=gnu11 -fno-PIE -mcmodel=kernel -mno-red-zone -mno-sse -fcf-protection=none".split(' '),
        )
        .args("-pg -mfentry -fno-stack-protector -fno-asynchronous-unwind-tables -w".split(' '))
        .args(FLAGS.split(' '))
        .args(more)
        .args(["-c", "-o", "sample.o", "sample.c"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let object = std::fs::read(folder.path().join("sample.o")).unwrap();
    let types = Object::parse(&object).unwrap().section(".BTF").map_or(Vec::new(), |s| s.data.to_vec());
    Compiled { object, types, module: None, checksums: BTreeMap::new() }
}

/// `number` damaged forms of `good`, the same in every run: bytes that are others, bytes of the file's
/// sizes and places that are at their limits, and an early end.
pub(crate) fn damaged(good: &[u8], number: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    // xorshift64
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 8).unwrap() % below.max(1)
    };
    (0..number).map(move |_| {
        let mut bytes = good.to_vec();
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes.truncate(at),
                1 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = 0xff),
                2 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0),
                _ => {
                    let value = u8::try_from(next(256)).unwrap();
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
                }
            }
        }
        bytes
    })
}

/// A fix of a kernel that consists of one file.
pub(crate) struct Sample {
    pub(crate) before: Compiled,
    pub(crate) after: Compiled,
    pub(crate) kernel: Compiled,
    pub(crate) path: &'static str,
    /// What it includes and is edited.
    pub(crate) edited: Vec<&'static str>,
    /// `vmlinux`, or the module that the file is.
    pub(crate) object: &'static str,
    pub(crate) named: Vec<&'static str>,
    pub(crate) exports: HashMap<String, String>,
    /// Modules that `object` keeps loaded.
    pub(crate) held: Vec<&'static str>,
    /// Types that the fix defines otherwise.
    pub(crate) types: BTreeSet<String>,
    /// New functions that other parts of the patch call, and those that they have.
    pub(crate) gives: BTreeSet<String>,
    pub(crate) takes: BTreeSet<String>,
    /// Whether the kernel may stop a task anywhere.
    pub(crate) is_preemptible: bool,
}

impl Sample {
    /// The file `before`, which the fix makes `after`.
    pub(crate) fn new(before: &str, after: &str) -> Self {
        let compiled = compile(before, &[]);
        let exports = ["__fentry__", "printk", "kfree"].map(|name| (name.to_owned(), "vmlinux".to_owned()));
        Self {
            kernel: compiled.clone(),
            before: compiled,
            after: compile(after, &[]),
            path: "net/core/sample.c",
            object: "vmlinux",
            edited: Vec::new(),
            named: Vec::new(),
            exports: exports.into(),
            held: Vec::new(),
            types: BTreeSet::new(),
            gives: BTreeSet::new(),
            takes: BTreeSet::new(),
            is_preemptible: false,
        }
    }

    /// What the gates say and, if they let it pass, what is taken out.
    pub(crate) fn cut(&self) -> Result<Cut, Refusal> {
        let cut = self.cut_out()?;
        judge::cut(&cut, Code::Goes)?;
        Ok(cut)
    }

    /// The same without the gates on what was taken out.
    pub(crate) fn cut_out(&self) -> Result<Cut, Refusal> {
        let [old, new, kernel] =
            [&self.before, &self.after, &self.kernel].map(|c| Object::parse(&c.object).unwrap());
        let names = Names::of_vmlinux(&kernel);
        let difference = compare::compare(&old, &new).unwrap();
        judge::difference(&Case {
            path: self.path,
            edited: &self.edited,
            named: &self.named,
            before: (&self.before, &old),
            after: (&self.after, &new),
            difference: &difference,
            report: &reproduce(&old, &kernel, "sample.c"),
            names: &names,
            types: &self.types,
            gives: &self.gives,
        })?;
        let world = World {
            object: self.object,
            own: &names,
            exports: &self.exports,
            holds: &|module| self.held.contains(&module),
            of_module: &|module, _| if self.held.contains(&module) { Ok(0) } else { Err(NotFound::Absent) },
            takes: &self.takes,
            objtool_at_link: false,
            is_preemptible: self.is_preemptible,
        };
        extract(&old, &new, &difference, &self.gives, &world)
    }

    /// The gate that refuses.
    pub(crate) fn gate(&self) -> crate::refusal::Gate {
        self.cut().unwrap_err().gate
    }
}
