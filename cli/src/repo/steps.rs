//! The steps themselves.

use std::path::{Path, PathBuf};

use invivo_feed::document::{Role, cap};
use invivo_feed::publish::{Addition, Certificate, Desk, Founding, PublishError, RoleKeys, SecretKey};
use invivo_feed::{Clocks, Floors, FolderError};
use jiff::Timestamp;

use super::answer::{Desk as Answer, Made, Shown, Signing};
use super::arguments::{Add, FoundingKeys, Import, Keygen, OneSet, RepoArguments, RepoCommand, Sign};
use super::key;
use crate::exit::{Failure, chain};
use crate::output;

/// Runs one step.
///
/// # Errors
///
/// The step was not done; nothing is half done.
pub fn run(arguments: &RepoArguments, now: Timestamp) -> Result<(), Failure> {
    let made = match &arguments.command {
        RepoCommand::Keygen(a) => keygen(a, now)?,
        RepoCommand::Create(a) => {
            let founding = founding(&a.keys, a.name.clone())?;
            trust(&Desk::create(&a.desk, &founding, now)?)?
        }
        RepoCommand::Rotate(a) => {
            let desk = Desk::open(&a.desk)?;
            desk.rotate(&founding(&a.keys, desk.name()?)?, now)?;
            trust(&desk)?
        }
        RepoCommand::Add(a) => add(a, now)?,
        RepoCommand::Stage(a) => {
            let desk = Desk::open(&a.desk)?;
            let index = desk.stage(a.days, now)?;
            Made::Staged { index: index.version, expires: index.expires, signing: signing(&desk)? }
        }
        RepoCommand::Sign(a) => sign(a, now)?,
        RepoCommand::Import(a) => import(a)?,
        RepoCommand::Publish(a) => {
            let (desk, key) = (Desk::open(&a.desk)?, key::secret(&a.timestamp_key)?);
            let published = desk.publish(&key, now)?;
            Made::published(desk.tree().display().to_string(), desk.root()?, &published)
        }
        RepoCommand::Refresh(a) => {
            let (desk, key) = (Desk::open(&a.desk)?, key::secret(&a.timestamp_key)?);
            let published = desk.refresh(&key, now)?;
            Made::published(desk.tree().display().to_string(), desk.root()?, &published)
        }
        RepoCommand::Withdraw(a) => change(a, Desk::withdraw)?,
        RepoCommand::Promote(a) => change(a, Desk::promote)?,
        RepoCommand::Show(a) => return output::print(arguments.output, &show(&a.desk, now)?),
    };
    output::print(arguments.output, &made)
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Rejected(rejection) => {
                Self::from(rejection).while_doing("a client would refuse this")
            }
            unsigned @ PublishError::Unsigned { .. } => Self::refused(format!(
                "{unsigned}\n  let more holders sign (invivo repo sign, or import); invivo repo show tells who may"
            )),
            staged @ PublishError::NothingStaged { .. } => Self::error(format!(
                "{staged}\n  the order is: add (or withdraw, promote), stage, sign, publish"
            )),
            other @ (PublishError::Store(_)
            | PublishError::NotEmpty { .. }
            | PublishError::NotADesk { .. }
            | PublishError::Key { .. }
            | PublishError::Unfit { .. }
            | PublishError::SetPublished { .. }
            | PublishError::UnknownSet { .. }
            | PublishError::UnknownLevel { .. }
            | PublishError::Signature { .. }) => Self::of(&other),
        }
    }
}

fn keygen(arguments: &Keygen, now: Timestamp) -> Result<Made, Failure> {
    if let Some(there) = [&arguments.key, &arguments.cert].into_iter().find(|path| path.exists()) {
        return Err(Failure::error(format!("{} is there already; it stays as it is", there.display())));
    }
    let key = SecretKey::generate(&arguments.name, now)?;
    key::create(&arguments.key, &key.armoured()?, 0o600)?;
    key::create(&arguments.cert, key.certificate().armoured().as_bytes(), 0o644)?;
    Ok(Made::Key {
        fingerprint: key.certificate().fingerprint().clone(),
        key: arguments.key.display().to_string(),
        certificate: arguments.cert.display().to_string(),
    })
}

fn founding(keys: &FoundingKeys, repository: invivo_terms::RepositoryName) -> Result<Founding, Failure> {
    let read = |paths: &[PathBuf]| {
        paths.iter().map(|p| key::certificate(p)).collect::<Result<Vec<Certificate>, _>>()
    };
    let people = |paths: &[PathBuf]| {
        Ok::<_, Failure>(RoleKeys { threshold: keys.threshold, certificates: read(paths)? })
    };
    Ok(Founding {
        repository,
        timestamp_days: keys.timestamp_days,
        trust: people(&keys.trust)?,
        index: people(&keys.index)?,
        timestamp: RoleKeys { threshold: 1, certificates: read(&keys.timestamp)? },
    })
}

fn trust(desk: &Desk) -> Result<Made, Failure> {
    Ok(Made::Trust { root: desk.root()?, signing: signing(desk)? })
}

fn add(arguments: &Add, now: Timestamp) -> Result<Made, Failure> {
    let desk = Desk::open(&arguments.desk)?;
    let bundle = key::file(&arguments.bundle, "read the bundle", cap::BUNDLE)?;
    let unpacked = invivo_bundle::unpack(&bundle)
        .map_err(|e| Failure::from(e).while_doing(&arguments.bundle.display().to_string()))?;
    if let Some(wanted) = &arguments.set {
        let is = crate::bundle::set_of(&unpacked)?;
        if is != *wanted {
            return Err(Failure::error(format!(
                "the bundle {} is of set {is}, not {wanted}\n  build it with --set {wanted}, or name the set that it is of",
                arguments.bundle.display()
            )));
        }
    }
    let addition = Addition {
        channel: arguments.channel.into(),
        summary: &arguments.summary,
        manifest: &unpacked.manifest,
        bundle: &bundle,
    };
    let manifest = desk.add(&addition, now)?;
    Ok(Made::Added {
        set: manifest.set,
        build_id: manifest.kernel.build_id,
        release: manifest.kernel.release,
        level: manifest.level,
    })
}

fn sign(arguments: &Sign, now: Timestamp) -> Result<Made, Failure> {
    let desk = Desk::open(&arguments.desk)?;
    let key = key::secret(&arguments.key)?;
    each(&desk, arguments.role.map(Role::from), |role| desk.sign(role, &key, now).map(drop))
}

fn import(arguments: &Import) -> Result<Made, Failure> {
    let desk = Desk::open(&arguments.desk)?;
    let signature = key::file(&arguments.signature, "read the signature", cap::SIGNATURES)?;
    each(&desk, arguments.role.map(Role::from), |role| desk.import(role, &signature).map(drop))
}

/// Does `step` for the role asked for; or for each that is staged, where one success is enough.
fn each(
    desk: &Desk,
    role: Option<Role>,
    step: impl Fn(Role) -> Result<(), PublishError>,
) -> Result<Made, Failure> {
    if let Some(role) = role {
        step(role)?;
        return Ok(Made::Signed { signing: signing(desk)? });
    }
    let mut refused = None;
    let mut done = false;
    for role in staged(desk)? {
        match step(role) {
            Ok(()) => done = true,
            Err(error @ PublishError::Signature { .. }) => refused = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match (done, refused) {
        (true, _) => Ok(Made::Signed { signing: signing(desk)? }),
        (false, Some(error)) => Err(error.into()),
        (false, None) => Err(PublishError::NothingStaged { what: "trust document or index" }.into()),
    }
}

/// The documents that are staged, in the order in which they are published.
fn staged(desk: &Desk) -> Result<Vec<Role>, Failure> {
    let mut roles = Vec::new();
    for role in [Role::Trust, Role::Index] {
        match desk.staged(role) {
            Ok(_) => roles.push(role),
            Err(PublishError::NothingStaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(roles)
}

fn signing(desk: &Desk) -> Result<Vec<Signing>, Failure> {
    staged(desk)?.into_iter().map(|role| Ok(desk.progress(role)?.into())).collect()
}

fn change(
    arguments: &OneSet,
    change: impl Fn(&Desk, &invivo_terms::SetName) -> Result<(), PublishError>,
) -> Result<Made, Failure> {
    let desk = Desk::open(&arguments.desk)?;
    change(&desk, &arguments.set)?;
    let sets = desk.sets()?;
    let set = sets
        .into_iter()
        .find(|s| s.name == arguments.set)
        .ok_or_else(|| Failure::from(PublishError::UnknownSet { set: arguments.set.clone() }))?;
    Ok(Made::Changed { set: set.name, channel: set.channel, status: set.status })
}

fn show(folder: &Path, now: Timestamp) -> Result<Answer, Failure> {
    let desk = Desk::open(folder)?;
    let root = desk.root()?;
    let clocks = Clocks { own: now, server: None };
    let (published, trouble) = match desk.repository().look(&root, &Floors::default(), clocks) {
        Ok(look) => {
            let floors = look.catalogue.floors();
            let shown = Shown {
                trust: floors.trust,
                index: floors.index,
                timestamp: floors.timestamp,
                expires: look.catalogue.expires(),
            };
            (Some(shown), None)
        }
        Err(FolderError::Missing { .. }) => (None, None),
        Err(error @ (FolderError::Rejected(_) | FolderError::Store(_))) => (None, Some(chain(&error))),
    };
    Ok(Answer {
        name: desk.name()?,
        root,
        folder: desk.tree().display().to_string(),
        published,
        trouble,
        sets: desk.sets()?,
        signing: signing(&desk)?,
    })
}
