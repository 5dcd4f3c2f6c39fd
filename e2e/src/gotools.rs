//! The programs written in Go, built from pinned modules: Kubernetes, etcd, Helm, crane.
//!
//! Each set has a module of its own (`e2e/go/`), so that one does not lift another's dependencies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Cache, Key};
use crate::command;
use crate::progress;

/// The version of Kubernetes that the control plane and the nodes run.
pub const KUBERNETES: &str = "1.34.4";

/// Why they could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The go command.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}

struct Module {
    name: &'static str,
    files: [(&'static str, &'static str); 2],
    /// Name of the program and its package; those of Kubernetes get its version.
    programs: &'static [(&'static str, &'static str)],
}

macro_rules! module_files {
    ($name:literal) => {
        [
            ("go.mod", include_str!(concat!("../go/", $name, "/go.mod"))),
            ("go.sum", include_str!(concat!("../go/", $name, "/go.sum"))),
        ]
    };
}

const MODULES: &[Module] = &[
    Module {
        name: "controlplane",
        files: module_files!("controlplane"),
        programs: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            ("etcd", "go.etcd.io/etcd/server/v3"),
        ],
    },
    Module { name: "helm", files: module_files!("helm"), programs: &[("helm", "helm.sh/helm/v4/cmd/helm")] },
    Module {
        name: "crane",
        files: module_files!("crane"),
        programs: &[("crane", "github.com/google/go-containerregistry/cmd/crane")],
    },
];

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct GoTools {
    folders: Vec<(&'static Module, PathBuf)>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl GoTools {
    /// Builds what is not in the cache yet.
    ///
    /// # Errors
    /// When the go command fails.
    pub fn build(cache: &Cache) -> Result<Self, Error> {
        Self::of(cache, MODULES.iter())
    }

    /// The same, of one set.
    ///
    /// # Errors
    /// When the go command fails.
    pub fn only(cache: &Cache, name: &str) -> Result<Self, Error> {
        Self::of(cache, MODULES.iter().filter(|module| module.name == name))
    }

    fn of(cache: &Cache, modules: impl Iterator<Item = &'static Module>) -> Result<Self, Error> {
        let go = command::output(Command::new("go").arg("version").env("GOTOOLCHAIN", "local"))?;
        let mut folders = Vec::new();
        for module in modules {
            let mut key = Key::new(module.name).with("go", go.trim());
            for (name, content) in module.files {
                key = key.with(name, content);
            }
            for (name, package) in module.programs {
                key = key.with(name, package);
            }
            key = key.with("flags", link_flags());
            let folder = cache.make("go/programs", &key, |out| module.build(cache, out))?;
            folders.push((module, folder));
        }
        Ok(Self { folders })
    }

    /// The file of a program; a path that does not exist if there is no such program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folders
            .iter()
            .find(|(module, _)| module.programs.iter().any(|(known, _)| *known == name))
            .map_or_else(|| PathBuf::from(name), |(_, folder)| folder.join(name))
    }

    /// The folder with kubelet and kube-proxy.
    pub fn kubernetes(&self) -> PathBuf {
        self.program("kubelet").parent().map_or_else(PathBuf::new, Path::to_owned)
    }
}

impl Module {
    fn build(&self, cache: &Cache, out: &Path) -> Result<(), Error> {
        let sources = out.join("module");
        let write = |path: &Path, content: &str| {
            fs::write(path, content).map_err(|source| cache::Error::Io {
                what: "write",
                path: path.to_owned(),
                source,
            })
        };
        fs::create_dir_all(&sources).map_err(|source| cache::Error::Io {
            what: "make the folder",
            path: sources.clone(),
            source,
        })?;
        for (name, content) in self.files {
            write(&sources.join(name), content)?;
        }
        let (modules, builds) = (cache.folder("go/mod")?, cache.folder("go/build")?);
        for (program, package) in self.programs {
            let step = progress::begin(format!("build {program}"));
            command::output(
                Command::new("go")
                    .args(["build", "-trimpath", "-buildvcs=false", "-ldflags", &link_flags()])
                    .arg("-o")
                    .arg(out.join(program))
                    .arg(package)
                    .current_dir(&sources)
                    .env("CGO_ENABLED", "0")
                    .env("GOFLAGS", "-mod=readonly")
                    .env("GOTOOLCHAIN", "local")
                    .env("GOMODCACHE", &modules)
                    .env("GOCACHE", &builds),
            )?;
            step.done();
        }
        Ok(())
    }
}

/// No symbols, and the version that Kubernetes' own build puts in.
fn link_flags() -> String {
    format!(
        "-s -w \
         -X k8s.io/component-base/version.gitVersion=v{KUBERNETES} \
         -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor=34 \
         -X k8s.io/client-go/pkg/version.gitVersion=v{KUBERNETES}"
    )
}
