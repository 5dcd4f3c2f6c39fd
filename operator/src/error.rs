//! What can go wrong between the operator and the API server.

use kube::Error as Kube;

/// A write that did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status of an object.
    #[error("write the status of {kind} {name}")]
    WriteStatus {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<Kube>,
    },
    /// One node's instruction.
    #[error("instruct node {node}")]
    Instruct {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: Box<Kube>,
    },
    /// The labels of a node.
    #[error("label node {node}")]
    LabelNode {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: Box<Kube>,
    },
    /// The finalizer of a policy.
    #[error("put the finalizer of PatchPolicy {name} on or take it off")]
    SetFinalizer {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<Kube>,
    },
    /// A new NodePatch.
    #[error("create the NodePatch of node {node}")]
    CreateNodePatch {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: Box<Kube>,
    },
    /// A PatchSet that nobody needs.
    #[error("delete PatchSet {name}")]
    DeletePatchSet {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<Kube>,
    },
    /// A new PatchSet.
    #[error("create PatchSet {name}")]
    CreatePatchSet {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<Kube>,
    },
}

/// Kinds of trouble, few enough for a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue)]
pub enum Category {
    /// What was written to has changed since it was read (409).
    Conflict,
    /// RBAC or an admission policy said no (403).
    Forbidden,
    /// The object is gone (404).
    NotFound,
    /// The schema said no (400, 422).
    Invalid,
    /// Too many requests (429).
    Throttled,
    /// The API server is in trouble (5xx and the rest).
    ServerError,
    /// No answer; the write may have happened.
    NoAnswer,
}

impl Category {
    /// The category of what the client says.
    pub fn of(error: &Kube) -> Self {
        match error {
            Kube::Api(status) => match status.code {
                409 => Self::Conflict,
                403 => Self::Forbidden,
                404 => Self::NotFound,
                400 | 422 => Self::Invalid,
                429 => Self::Throttled,
                _ => Self::ServerError,
            },
            _ => Self::NoAnswer,
        }
    }
}

impl Category {
    /// Whether the write may have happened all the same.
    pub const fn is_open(self) -> bool {
        match self {
            Self::NoAnswer | Self::ServerError => true,
            Self::Conflict | Self::Forbidden | Self::NotFound | Self::Invalid | Self::Throttled => false,
        }
    }
}

impl Error {
    /// What kind of trouble it is.
    pub fn category(&self) -> Category {
        match self {
            Self::WriteStatus { source, .. }
            | Self::Instruct { source, .. }
            | Self::LabelNode { source, .. }
            | Self::SetFinalizer { source, .. }
            | Self::CreateNodePatch { source, .. }
            | Self::DeletePatchSet { source, .. }
            | Self::CreatePatchSet { source, .. } => Category::of(source),
        }
    }
}
