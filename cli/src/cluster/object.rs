//! Objects as they were read, without the types of this program's own version: a brake must work
//! on an object whose status a newer operator has written.

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Resource;
use kube::api::ApiResource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::Failure;

/// The kinds that commands change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PatchPolicy
    Policy,
    /// PatchFeed
    Feed,
    /// PatchSet
    Set,
    /// Node
    Node,
    /// ConfigMap, in the operator's namespace
    ConfigMap,
}

impl Kind {
    /// As it stands in `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "PatchPolicy",
            Self::Feed => "PatchFeed",
            Self::Set => "PatchSet",
            Self::Node => "Node",
            Self::ConfigMap => "ConfigMap",
        }
    }

    /// How the API server names it.
    pub fn resource(self) -> ApiResource {
        fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
            ApiResource::erase::<K>(&())
        }
        match self {
            Self::Policy => of::<invivo_api::PatchPolicy>(),
            Self::Feed => of::<invivo_api::PatchFeed>(),
            Self::Set => of::<invivo_api::PatchSet>(),
            Self::Node => of::<Node>(),
            Self::ConfigMap => of::<ConfigMap>(),
        }
    }
}

/// An object as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    value: Value,
}

impl Object {
    /// The object of this content.
    pub fn new(kind: Kind, value: Value) -> Self {
        Self { kind, value }
    }

    /// What stands at this JSON pointer; `Null` where nothing does.
    pub fn at(&self, pointer: &str) -> &Value {
        self.value.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The text at this pointer.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.at(pointer).as_str()
    }

    /// The number at this pointer.
    pub fn number(&self, pointer: &str) -> Option<u64> {
        self.at(pointer).as_u64()
    }

    /// What stands there, as `T`; nothing where it is absent or of another form.
    pub fn read<T: DeserializeOwned>(&self, pointer: &str) -> Option<T> {
        serde_json::from_value(self.at(pointer).clone()).ok()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name").unwrap_or_default()
    }

    /// What tells it from one of the same name that was made again.
    ///
    /// # Errors
    ///
    /// It has none, so it did not come from an API server.
    pub fn uid(&self) -> Result<&str, Failure> {
        self.text("/metadata/uid")
            .ok_or_else(|| Failure::error(format!("{} {} has no uid", self.kind.as_str(), self.name())))
    }

    /// Which version of the object this is.
    ///
    /// # Errors
    ///
    /// It did not come from an API server.
    pub fn resource_version(&self) -> Result<&str, Failure> {
        self.text("/metadata/resourceVersion").ok_or_else(|| {
            Failure::error(format!("{} {} has no resource version", self.kind.as_str(), self.name()))
        })
    }
}
