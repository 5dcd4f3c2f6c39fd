//! The command line of `invivo repo`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use invivo_feed::document::{Channel, Role};
use invivo_terms::{RepositoryName, SetName};

use crate::output::Format;

/// `invivo repo`
#[derive(Debug, Args)]
pub struct RepoArguments {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub output: Format,
    /// The step.
    #[command(subcommand)]
    pub command: RepoCommand,
}

/// One step of making a repository. DESK is the author's folder: DESK/repository is what a static
/// server carries, the rest stays at home.
#[derive(Debug, Subcommand)]
pub enum RepoCommand {
    /// Make an OpenPGP key, for tests and small set-ups.
    Keygen(Keygen),
    /// Begin a repository: DESK with a trust document to be signed.
    Create(Create),
    /// Put a bundle into a set; the set is made where it is new.
    Add(Add),
    /// Write the next index for signing: DESK/staged/index.json.
    Stage(Stage),
    /// Sign what is staged with one holder's key.
    Sign(Sign),
    /// Add a detached signature that gpg or sq made over a file in DESK/staged.
    Import(Import),
    /// Publish what enough holders have signed, with a new timestamp.
    Publish(WithTimestampKey),
    /// Make a new timestamp for what is published; do this before the old one expires.
    Refresh(WithTimestampKey),
    /// Take a set back: nobody starts to apply it any more. Then stage, sign, publish.
    Withdraw(OneSet),
    /// Move a set from the test to the stable channel. Then stage, sign, publish.
    Promote(OneSet),
    /// Stage a new trust document: other keys or thresholds, or a later date. Then sign, publish.
    Rotate(Rotate),
    /// What is published, drafted and staged, and who must still sign.
    Show(Show),
}

/// `keygen`
#[derive(Debug, Args)]
pub struct Keygen {
    /// The holder, as it stands in the certificate.
    #[arg(long)]
    pub name: String,
    /// Where the secret key goes (mode 0600). It is not protected by a passphrase.
    #[arg(long)]
    pub key: PathBuf,
    /// Where the public certificate goes.
    #[arg(long)]
    pub cert: PathBuf,
}

/// `create`
#[derive(Debug, Args)]
pub struct Create {
    /// The author's folder, empty or absent.
    pub desk: PathBuf,
    /// The repository's name, signed into every document.
    #[arg(long)]
    pub name: RepositoryName,
    #[command(flatten)]
    pub keys: FoundingKeys,
}

/// `rotate`
#[derive(Debug, Args)]
pub struct Rotate {
    /// The author's folder.
    pub desk: PathBuf,
    #[command(flatten)]
    pub keys: FoundingKeys,
}

/// Who may sign what.
#[derive(Debug, Args)]
pub struct FoundingKeys {
    /// How many holders must sign trust documents and indexes.
    #[arg(long, default_value_t = 2)]
    pub threshold: u16,
    /// Certificate of a holder who may say who may sign; repeat for each.
    #[arg(long = "trust", value_name = "CERT", required = true)]
    pub trust: Vec<PathBuf>,
    /// Certificate of a holder who may publish; repeat for each.
    #[arg(long = "index", value_name = "CERT", required = true)]
    pub index: Vec<PathBuf>,
    /// Certificate of the online key that signs timestamps and nothing else; may be repeated.
    #[arg(long = "timestamp", value_name = "CERT", required = true)]
    pub timestamp: Vec<PathBuf>,
    /// How many days a timestamp lives.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=90))]
    pub timestamp_days: u16,
}

/// `add`
#[derive(Debug, Args)]
pub struct Add {
    /// The author's folder.
    pub desk: PathBuf,
    /// The bundle that `invivo build` made.
    pub bundle: PathBuf,
    /// The set it must be for; a bundle of another set is refused.
    #[arg(long)]
    pub set: Option<SetName>,
    /// Whether the set's tests are finished. Counts when the set is new.
    #[arg(long, value_enum, default_value_t = ChannelName::Stable)]
    pub channel: ChannelName,
    /// The author's words on the set, at most 1,024 characters. Counts when the set is new.
    #[arg(long, default_value = "")]
    pub summary: String,
}

/// A channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ChannelName {
    /// Tests are finished.
    Stable,
    /// Not yet.
    Test,
}

impl From<ChannelName> for Channel {
    fn from(name: ChannelName) -> Self {
        match name {
            ChannelName::Stable => Self::Stable,
            ChannelName::Test => Self::Test,
        }
    }
}

/// A document that people sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// DESK/staged/trust.json
    Trust,
    /// DESK/staged/index.json
    Index,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Trust => Self::Trust,
            RoleName::Index => Self::Index,
        }
    }
}

/// `stage`
#[derive(Debug, Args)]
pub struct Stage {
    /// The author's folder.
    pub desk: PathBuf,
    /// How many days the index lives.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=90))]
    pub days: u16,
}

/// `sign`
#[derive(Debug, Args)]
pub struct Sign {
    /// The author's folder.
    pub desk: PathBuf,
    /// The holder's secret key, unprotected, in a file that only its owner can read.
    #[arg(long)]
    pub key: PathBuf,
    /// Which document; all that are staged and that the key may sign where it is left out.
    #[arg(long, value_enum)]
    pub role: Option<RoleName>,
}

/// `import`
#[derive(Debug, Args)]
pub struct Import {
    /// The author's folder.
    pub desk: PathBuf,
    /// The detached signature, armoured or binary, with the notation `role@invivo.dev`.
    pub signature: PathBuf,
    /// Which document it is of; found out where it is left out.
    #[arg(long, value_enum)]
    pub role: Option<RoleName>,
}

/// `publish`, `refresh`
#[derive(Debug, Args)]
pub struct WithTimestampKey {
    /// The author's folder.
    pub desk: PathBuf,
    /// The timestamp key, in a file that only its owner can read.
    #[arg(long)]
    pub timestamp_key: PathBuf,
}

/// `withdraw`, `promote`
#[derive(Debug, Args)]
pub struct OneSet {
    /// The author's folder.
    pub desk: PathBuf,
    /// The set.
    #[arg(long)]
    pub set: SetName,
}

/// `show`
#[derive(Debug, Args)]
pub struct Show {
    /// The author's folder.
    pub desk: PathBuf,
}
