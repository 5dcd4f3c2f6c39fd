//! What the builder tells while it works: a step and a sentence.

use std::fmt;

/// The steps of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Packages are downloaded and compared with the lock.
    Fetch,
    /// The kernel image tells what it is.
    Facts,
    /// The kernel's headers and build tools are laid out.
    Tree,
    /// The kernel with all its symbols is unpacked.
    Debug,
    /// The fix is put into the original source.
    Select,
    /// Files are compiled without and with the fix.
    Compile,
    /// What differs between the two is found, and taken out.
    Extract,
    /// The module is linked, twice.
    Link,
    /// References to unexported symbols become livepatch relocations.
    Klp,
    /// The finished module is compared with what was asked for.
    Gates,
    /// The module is loaded in a throw-away guest.
    Boot,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fetch => "fetch",
            Self::Facts => "facts",
            Self::Tree => "tree",
            Self::Debug => "debug",
            Self::Extract => "extract",
            Self::Link => "link",
            Self::Select => "select",
            Self::Compile => "compile",
            Self::Klp => "klp",
            Self::Gates => "gates",
            Self::Boot => "boot",
        })
    }
}

/// Receives each sentence as it becomes true. Called from the thread that builds.
pub type Progress<'a> = &'a mut dyn FnMut(Step, &str);
