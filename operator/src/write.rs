//! The operator's writes, one function each. Every one of them is idempotent, bound to the state
//! that it rests on, and its answer goes into the store at once.

use std::time::Duration;

use invivo_api::{
    GROUP, NodePatch, NodePatchSpec, PatchFeed, PatchFeedStatus, PatchPolicy, PatchPolicyStatus,
};
use invivo_api::{PatchSet, PatchSetSpec, PatchSetStatus, VERSION};
use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, ReplaceOperation};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde_json::{Value, json};

use crate::deletion::FINALIZER;
use crate::error::Error;
use crate::observe::Stores;
use crate::seen::{Seen, SeenNode, SeenPatch};
use crate::store::{Entry, Store, Unreadable};

/// The field manager of everything that the operator writes.
pub const MANAGER: &str = "invivo-operator";

/// How long one write may take. After that nobody knows whether it happened; it is tried again.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

async fn within<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Box<kube::Error>> {
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer.map_err(Box::new),
        Err(elapsed) => Err(Box::new(kube::Error::Service(elapsed.into()))),
    }
}

fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}

/// Writes the whole status of `entry`, if it still is what it was when it was read.
async fn status<T>(
    client: &Client,
    store: &Store<T>,
    entry: &Entry<T>,
    status: &impl Serialize,
) -> Result<(), Error>
where
    T: Seen<Object = T> + Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let body = json!({
        "apiVersion": api_version(),
        "kind": T::KIND,
        "metadata": {"name": entry.name, "uid": entry.uid, "resourceVersion": entry.resource_version},
        "status": status,
    });
    let api: Api<T> = Api::all(client.clone());
    let answer =
        within(api.patch_status(&entry.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body)))
            .await;
    let name = entry.name.clone();
    let written = answer.map_err(|source| Error::WriteStatus { kind: T::KIND, name, source })?;
    store.wrote(Entry::of(written));
    Ok(())
}

/// Writes a policy's status by compare-and-swap.
///
/// # Errors
///
/// A conflict if the policy has changed since it was read; then nothing else may be written.
pub async fn policy_status(
    client: &Client,
    stores: &Stores,
    policy: &Entry<PatchPolicy>,
    wanted: &PatchPolicyStatus,
) -> Result<(), Error> {
    status(client, &stores.policies, policy, wanted).await
}

/// Writes a feed's status by compare-and-swap.
///
/// # Errors
///
/// A conflict if the feed has changed since it was read.
pub async fn feed_status(
    client: &Client,
    stores: &Stores,
    feed: &Entry<PatchFeed>,
    wanted: &PatchFeedStatus,
) -> Result<(), Error> {
    status(client, &stores.feeds, feed, wanted).await
}

/// Writes a set's status by compare-and-swap.
///
/// # Errors
///
/// A conflict if the set has changed since it was read.
pub async fn set_status(
    client: &Client,
    stores: &Stores,
    set: &Entry<PatchSet>,
    wanted: &PatchSetStatus,
) -> Result<(), Error> {
    status(client, &stores.sets, set, wanted).await
}

/// Creates a PatchSet.
///
/// # Errors
///
/// Whatever the API server says; an existing set of another content is refused by its schema.
pub async fn create_set(
    client: &Client,
    stores: &Stores,
    name: &str,
    spec: &PatchSetSpec,
) -> Result<(), Error> {
    let body = json!({
        "apiVersion": api_version(), "kind": "PatchSet", "metadata": {"name": name}, "spec": spec,
    });
    let api: Api<PatchSet> = Api::all(client.clone());
    let answer = within(api.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(&body))).await;
    let set = answer.map_err(|source| Error::CreatePatchSet { name: name.to_owned(), source })?;
    stores.sets.wrote(Entry::of(set));
    Ok(())
}

/// Puts our finalizer on a policy or takes it off, if the policy still is what it was when it was
/// read. The finalizers of others stay.
///
/// # Errors
///
/// A conflict if the policy has changed since it was read; whatever else the API server says.
pub async fn policy_finalizer(
    client: &Client,
    stores: &Stores,
    policy: &Entry<PatchPolicy>,
    guarded: bool,
) -> Result<(), Error> {
    let mut finalizers = policy.value.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    finalizers.extend(guarded.then(|| FINALIZER.to_owned()));
    let body = json!({"metadata": {
        "uid": policy.uid, "resourceVersion": policy.resource_version, "finalizers": finalizers,
    }});
    let api: Api<PatchPolicy> = Api::all(client.clone());
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let answer = within(api.patch(&policy.name, &params, &Patch::Merge(&body))).await;
    let written = answer.map_err(|source| Error::SetFinalizer { name: policy.name.clone(), source })?;
    stores.policies.wrote(Entry::of(written));
    Ok(())
}

/// Deletes a PatchSet, if it still is what it was when it was read: a decision made since keeps it.
///
/// # Errors
///
/// A conflict if the set has changed since it was read; whatever else the API server says.
pub async fn delete_set(client: &Client, stores: &Stores, set: &Entry<PatchSet>) -> Result<(), Error> {
    let api: Api<PatchSet> = Api::all(client.clone());
    let preconditions =
        Preconditions { uid: Some(set.uid.clone()), resource_version: Some(set.resource_version.clone()) };
    let params = DeleteParams::default().preconditions(preconditions);
    let answer = within(api.delete(&set.name, &params)).await;
    answer.map_err(|source| Error::DeletePatchSet { name: set.name.clone(), source })?;
    stores.sets.deleted(&set.name, &set.uid);
    Ok(())
}

/// The owner reference of a NodePatch.
fn owner(node: &str, uid: &str) -> Value {
    json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}])
}

/// Creates the NodePatch of a node. One that is there already is not changed: its schema lets a
/// revision only rise.
///
/// # Errors
///
/// Whatever the API server says.
pub async fn create_patch(
    client: &Client,
    stores: &Stores,
    node: &Entry<SeenNode>,
    spec: &NodePatchSpec,
) -> Result<(), Error> {
    let body = json!({
        "apiVersion": api_version(), "kind": "NodePatch",
        "metadata": {"name": node.name, "ownerReferences": owner(&node.name, &node.uid)},
        "spec": spec,
    });
    let api: Api<NodePatch> = Api::all(client.clone());
    let answer =
        within(api.patch(&node.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body))).await;
    let patch = answer.map_err(|source| Error::CreateNodePatch { node: node.name.clone(), source })?;
    stores.patches.wrote(Entry::of(patch));
    Ok(())
}

/// Gives a node its instruction, if its NodePatch still is what it was when it was read. A second
/// operator that read the same is refused.
///
/// The whole spec is replaced, never applied: of a spec that a person edited, an apply would leave
/// the fields that became theirs, and two halves of two instructions are none.
///
/// # Errors
///
/// A conflict if the NodePatch has changed since; whatever else the API server says.
pub async fn instruct(
    client: &Client,
    stores: &Stores,
    patch: &Entry<SeenPatch>,
    spec: &NodePatchSpec,
) -> Result<(), Error> {
    let replace = |path: PointerBuf, value: Value| PatchOperation::Replace(ReplaceOperation { path, value });
    let body = json_patch::Patch(vec![
        // Another version than the object's is a conflict. An object made anew has another version.
        replace(PointerBuf::from_tokens(["metadata", "resourceVersion"]), json!(patch.resource_version)),
        replace(PointerBuf::from_tokens(["spec"]), json!(spec)),
    ]);
    let api: Api<NodePatch> = Api::all(client.clone());
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let answer = within(api.patch(&patch.name, &params, &Patch::Json::<()>(body))).await;
    let patch = answer.map_err(|source| Error::Instruct { node: patch.name.clone(), source })?;
    stores.patches.wrote(Entry::of(patch));
    Ok(())
}

/// Puts our labels on a node. Merged, never applied: an apply would create a node that has just gone.
///
/// # Errors
///
/// Whatever the API server says.
pub async fn label(
    client: &Client,
    stores: &Stores,
    node: &Entry<SeenNode>,
    labels: &std::collections::BTreeMap<&'static str, String>,
) -> Result<(), Error> {
    let body = json!({"metadata": {"uid": node.uid, "labels": labels}});
    let api: Api<Node> = Api::all(client.clone());
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let answer = within(api.patch(&node.name, &params, &Patch::Merge(&body))).await;
    let written = answer.map_err(|source| Error::LabelNode { node: node.name.clone(), source })?;
    stores.nodes.wrote(Entry::of(written));
    Ok(())
}

/// Reads one NodePatch now, past the store.
///
/// # Errors
///
/// Whatever the API server says.
pub async fn read_patch(client: &Client, stores: &Stores, node: &str) -> Result<Entry<SeenPatch>, Error> {
    let api: Api<NodePatch> = Api::all(client.clone());
    let answer = within(api.get(node)).await;
    let patch = answer.map_err(|source| Error::Instruct { node: node.to_owned(), source })?;
    let entry = Entry::of(patch);
    stores.patches.wrote(entry.clone());
    Ok(entry)
}

/// Reads one policy now, past the store.
///
/// # Errors
///
/// Whatever the API server says.
pub async fn read_policy(client: &Client, stores: &Stores, name: &str) -> Result<Entry<PatchPolicy>, Error> {
    let api: Api<PatchPolicy> = Api::all(client.clone());
    let answer = within(api.get(name)).await;
    let policy =
        answer.map_err(|source| Error::WriteStatus { kind: "PatchPolicy", name: name.to_owned(), source })?;
    let entry = Entry::of(policy);
    stores.policies.wrote(entry.clone());
    Ok(entry)
}

/// The conditions of an object that cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// The object.
    pub about: ObjectReference,
    /// Its version.
    pub resource_version: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// As they stand there.
    pub conditions: Vec<Condition>,
}

/// Reads no more of an object than its conditions; none where it is gone, or they cannot be read either.
///
/// # Errors
///
/// Whatever the API server says.
pub async fn read_conditions<T: Seen>(
    client: &Client,
    unreadable: &Unreadable,
) -> Result<Option<Conditions>, Error> {
    let answer = within(dynamic::<T>(client).get_opt(&unreadable.name)).await;
    let object = answer.map_err(|source| about_status(unreadable, source))?;
    let Some(object) =
        object.filter(|object| object.metadata.uid.as_deref() == Some(unreadable.uid.as_str()))
    else {
        return Ok(None);
    };
    let conditions = match object.data.pointer("/status/conditions") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(conditions) => serde_json::from_value(conditions.clone()).ok(),
    };
    Ok(conditions.map(|conditions| Conditions {
        about: object.object_ref(&ApiResource::erase::<T::Object>(&())),
        resource_version: object.metadata.resource_version.unwrap_or_default(),
        generation: object.metadata.generation,
        conditions,
    }))
}

/// Writes the conditions of an object that cannot be read, and nothing else of it, if it still is what it
/// was when they were read.
///
/// # Errors
///
/// A conflict if it has changed since; whatever else the API server says.
pub async fn conditions<T: Seen>(
    client: &Client,
    unreadable: &Unreadable,
    present: &Conditions,
    wanted: &[Condition],
) -> Result<(), Error> {
    let body = json!({
        "metadata": {"uid": unreadable.uid, "resourceVersion": present.resource_version},
        "status": {"conditions": wanted},
    });
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let api = dynamic::<T>(client);
    let answer = within(api.patch_status(&unreadable.name, &params, &Patch::Merge(&body))).await;
    answer.map(drop).map_err(|source| about_status(unreadable, source))
}

fn dynamic<T: Seen>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<T::Object>(&()))
}

fn about_status(unreadable: &Unreadable, source: Box<kube::Error>) -> Error {
    Error::WriteStatus { kind: unreadable.kind, name: unreadable.name.clone(), source }
}
