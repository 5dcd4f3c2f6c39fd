//! A corrupted agent: someone who owns the agent's container says to the loader what they like.

use anyhow::Context;
use invivo_api::Apply;
use invivo_feed::document::{Index, KernelDocument, TimestampDocument};
use invivo_feed::{Floors, Proof, Signed};
use invivo_terms::Revision;
use invivo_wire::{ApplyRequest, Order, Request, frame};

use crate::forgery::{Forged, Forgery};
use crate::loader;
use crate::stage::Stage;

/// Sends an instruction with a forged proof or module to the loader of `node`, as the agent's user;
/// returns what the loader answered.
///
/// # Errors
/// When the message cannot be made or sent.
pub(crate) fn ask_loader(
    stage: &Stage<'_>,
    node: &str,
    apply: &Apply,
    forgery: Forgery,
) -> anyhow::Result<String> {
    let (proof, mut module) = proof(&Forged::make(&stage.repository, forgery)?, apply)?;
    if forgery == Forgery::ChangedModule {
        let middle = module.len() / 2;
        *module.get_mut(middle).context("an empty module")? ^= 1;
    }
    let request = Request::Apply(ApplyRequest {
        // An object of its own, so that the true one's next revision is still news to the loader.
        order: Order { object: forgery.name().to_owned(), revision: Revision(1) },
        build_id: apply.build_id.clone(),
        level: apply.level,
        set: apply.set.clone(),
        digest: apply.digest.clone(),
        manifest: apply.manifest.clone(),
        mechanism: apply.mechanism,
        deadline: jiff::Timestamp::now() + jiff::SignedDuration::from_mins(5),
        settle_after_seconds: 5,
        allow_partial: apply.allow_partial,
        floors: Floors::default(),
        server_date: None,
    });
    let mut message = Vec::new();
    frame::write(&mut message, &request, &[&serde_json::to_vec(&proof)?, &module])?;
    loader::said(stage, node, &message)
}

/// Everything that vouches for the instruction's level, as it stands in the repository's files.
fn proof(repository: &Forged, apply: &Apply) -> anyhow::Result<(Proof, Vec<u8>)> {
    let read =
        |path: &str| std::fs::read(repository.folder().join(path)).with_context(|| format!("read {path}"));
    let signed =
        |path: &str| anyhow::Ok(Signed { document: read(path)?, signatures: read(&format!("{path}.sig"))? });
    let timestamp = signed("timestamp.json")?;
    let current: TimestampDocument = serde_json::from_slice(&timestamp.document)?;
    let index = signed(&format!("index/{}.json", current.index.version))?;
    let offered: Index = serde_json::from_slice(&index.document)?;
    let reference = offered.kernels.get(&apply.build_id).context("the index does not know the build")?;
    let kernel = read(&format!("kernels/{}.json", reference.sha256))?;
    let document: KernelDocument = serde_json::from_slice(&kernel)?;
    let level = document.levels.iter().find(|level| level.level == apply.level).context("no such level")?;
    let bundle = invivo_bundle::unpack(&read(&format!("bundles/{}", level.bundle.sha256))?)?;
    let module = bundle.modules.into_iter().next().context("a bundle without a module")?.bytes;
    Ok((
        Proof { trust: vec![signed("trust/1.json")?], timestamp, index, kernel, manifest: bundle.manifest },
        module,
    ))
}
