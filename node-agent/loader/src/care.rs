//! Care for the kernel modules that a patch changes: looked at before a load, and from then on.

use std::collections::BTreeMap;
use std::ffi::CString;

use invivo_feed::ModInfo;
use invivo_terms::{ModuleName, TargetName, TargetState};
use invivo_wire::{Fault, Target};

use crate::journal::{Doing, Loaded, Task};
use crate::kernel::Kernel;
use crate::loader::Loader;
use crate::missed::Missed;
use crate::seen::Seen;
use crate::targets::{Builds, Facts, Memory, Plan, Shown, Terms, parameters, plan};

/// The targets of a patch that is on, as they are now.
struct Looked<'a> {
    loaded: &'a Loaded,
    builds: BTreeMap<TargetName, Builds>,
    shown: BTreeMap<TargetName, Shown>,
}

impl Looked<'_> {
    fn facts(&self) -> impl Iterator<Item = Facts<'_>> {
        self.loaded.changes.targets.iter().map(|target| Facts {
            target,
            builds: self.builds.get(&target.name).unwrap_or(&Builds::UNKNOWN),
            shown: self.shown.get(&target.name).copied().unwrap_or_default(),
        })
    }
}

impl<K: Kernel> Loader<K> {
    /// The parameters with which the task's module is to be loaded; the last thing that can hold it.
    pub(crate) fn parameters(
        &self,
        seen: &Seen,
        task: Option<&Task>,
        image: Option<&[u8]>,
    ) -> Result<CString, Missed> {
        let loaded = match task.map(|task| &task.what) {
            Some(Doing::Applying(loaded) | Doing::BringingBack(loaded)) => loaded,
            Some(Doing::RollingBack | Doing::Undoing(_)) | None => return Ok(CString::default()),
        };
        // On its way already: nothing is loaded.
        let on = seen.patch(&loaded.module).is_some();
        let Some(image) = image.filter(|_| !on && !loaded.changes.targets.is_empty()) else {
            return Ok(CString::default());
        };
        let terms = Terms {
            allow_partial: loaded.allow_partial,
            can_skip: ModInfo::read(image).is_ok_and(|info| info.can("skip")),
        };
        let builds = self.kernel.builds(&self.running.kernel.release, &loaded.changes.targets);
        match plan(&loaded.changes, &builds, terms) {
            Plan::Load { skip } => {
                for name in &skip {
                    tracing::warn!(module = %name, patch = %loaded.module, "left out of the patch");
                }
                Ok(CString::new(parameters(&skip)).unwrap_or_default())
            }
            Plan::Held(held, wrong) => Err(Missed::fault(Fault::ForeignTarget, held.message(&wrong))),
        }
    }

    /// The targets of the patch that is on, for the answer to how things stand.
    pub(crate) fn targets(&self, seen: &Seen) -> Vec<Target> {
        let Some(looked) = self.look_at_targets(seen) else { return Vec::new() };
        let mut memory = self.memory.clone();
        let memory = memory.of(&looked.loaded.module);
        let target =
            |facts: Facts<'_>| Target { name: facts.target.name.clone(), state: memory.state(&facts) };
        looked.facts().map(target).collect()
    }

    /// Heals what the kernel refused. The load itself is tried again by whoever wanted it: it takes
    /// the system's own settings for the module, which are not the loader's to know.
    pub(crate) fn mind_targets(&mut self) {
        let Ok(seen) = self.kernel.seen() else { return };
        let mut memory = std::mem::take(&mut self.memory);
        if let Some(looked) = self.look_at_targets(&seen) {
            let patch = looked.loaded.module.clone();
            memory.of(&patch);
            for facts in looked.facts() {
                let name = &facts.target.name;
                match memory.state(&facts) {
                    TargetState::Patched | TargetState::Pinned => memory.loaded(name),
                    TargetState::NeedsHeal | TargetState::Refused if memory.is_to_heal(&facts) => {
                        self.heal(&patch, name, &mut memory);
                    }
                    TargetState::NeedsHeal
                    | TargetState::Refused
                    | TargetState::Absent
                    | TargetState::Skipped
                    | TargetState::ForeignBuild
                    | TargetState::UnknownBuild => {}
                }
            }
        }
        self.memory = memory;
    }

    fn heal(&self, patch: &ModuleName, name: &TargetName, memory: &mut Memory) {
        match self.kernel.heal(patch, name) {
            Ok(()) => {
                tracing::info!(module = %name, patch = %patch, "healed: the kernel takes it again");
                memory.healed(name);
            }
            Err(error) if memory.is_news(name) => {
                tracing::warn!(module = %name, patch = %patch, error = %error, "not healed");
            }
            Err(_) => {}
        }
    }

    fn look_at_targets(&self, seen: &Seen) -> Option<Looked<'_>> {
        let active = self.journal.active_in(&self.running.boot_id)?;
        let loaded = &active.loaded;
        if loaded.changes.targets.is_empty() || !is_applied(seen, &loaded.module) {
            return None;
        }
        let targets = &loaded.changes.targets;
        Some(Looked {
            loaded,
            builds: self.kernel.builds(&self.running.kernel.release, targets),
            shown: self.kernel.shown(&loaded.module, targets),
        })
    }
}

fn is_applied(seen: &Seen, module: &ModuleName) -> bool {
    seen.patch(module).is_some_and(crate::seen::Patch::is_applied)
}
