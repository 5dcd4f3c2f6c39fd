//! A kernel that holds state instead of code: modules, live patches, transitions, boots.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use invivo_feed::ModInfo;
use invivo_terms::{Arch, BuildId, Mechanism, ModuleName, TargetName};
use invivo_wire::{Blocker, Kernel as KernelFacts, Signing};
use jiff::{SignedDuration, Timestamp};
use rustix::io::Errno;

use crate::health::Health;
use crate::kernel::Kernel;
use crate::running::{Running, RunningError};
use crate::seen::{Patch, Resident, Seen};
use crate::targets::{Build, Builds, Shown, Target};
use crate::verdict::Record;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) running: Running,
    pub(crate) since_boot: Duration,
    pub(crate) now: Timestamp,
    pub(crate) patches: Vec<(Patch, Option<Duration>)>,
    pub(crate) modules: Vec<ModuleName>,
    /// What was handed to `init_module`, in order.
    pub(crate) loads: Vec<Vec<u8>>,
    pub(crate) load_error: Option<Errno>,
    /// A load ends in an oops of the loader's own thread.
    pub(crate) load_oopses: bool,
    /// Half a module that such a load left.
    pub(crate) half: Option<ModuleName>,
    /// What dead kernels left behind.
    pub(crate) records: Vec<String>,
    /// Its log, where it may be read.
    pub(crate) log: Option<String>,
    pub(crate) health: Health,
    /// When it oopses by itself, since boot.
    pub(crate) oops_at: Option<Duration>,
    /// How long a transition takes; none for ever.
    pub(crate) transition: Option<Duration>,
    /// How long a reversal takes; none for ever.
    pub(crate) reversal: Option<Duration>,
    /// When a stuck transition ends after all.
    pub(crate) ends: Option<Moment>,
    /// How often `enabled` was written.
    pub(crate) switches: u32,
    /// What was put on again that way.
    pub(crate) put_on: Vec<String>,
    /// The disk is full once a module has been loaded.
    pub(crate) load_fills_disk: bool,
    /// Where the loader is killed.
    pub(crate) killed: Option<Killed>,
    /// The builds of the modules that there are, of files and loaded.
    pub(crate) builds: BTreeMap<TargetName, Builds>,
    /// What is shown of targets; what is not here is not patched.
    pub(crate) shown: BTreeMap<TargetName, Shown>,
    /// What was to be healed, in order.
    pub(crate) heals: Vec<TargetName>,
    /// It is not let.
    pub(crate) cannot_heal: bool,
    /// The parameters of the loads, in order.
    pub(crate) parameters: Vec<String>,
    /// After how many more looks and deeds the loader is killed.
    pub(crate) calls_left: Option<u32>,
    /// Where it is killed once a stuck transition has ended after all.
    pub(crate) killed_then: Option<Killed>,
}

/// When a stuck transition ends after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// While the threads are looked at that had kept it from ending.
    WhileBlockersAreRead,
    /// After the last look, before `enabled` is written.
    BeforeItIsReversed,
}

/// Where the loader is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Killed {
    /// Before the kernel has taken the module.
    BeforeLoad,
    /// While it waits for the transition.
    Waiting,
}

/// A handle on it; clones are handles on the same one.
#[derive(Debug, Clone)]
pub(crate) struct Fake(pub(crate) Rc<RefCell<World>>);

pub(crate) fn build_id(byte: u8) -> BuildId {
    format!("{byte:02x}").repeat(20).parse().unwrap()
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self(Rc::new(RefCell::new(World {
            running: Running {
                boot_id: "boot-1".to_owned(),
                kernel: KernelFacts {
                    build_id: build_id(0xab),
                    release: "6.1.0-47-cloud-amd64".to_owned(),
                    version: Some("6.1.170-3".to_owned()),
                    arch: Arch::X86_64,
                    supports: vec![Mechanism::Livepatch],
                    signing: Signing::Off,
                },
            },
            since_boot: Duration::from_secs(1000),
            now: "2026-11-21T12:00:00Z".parse().unwrap(),
            patches: Vec::new(),
            modules: Vec::new(),
            loads: Vec::new(),
            load_error: None,
            load_oopses: false,
            half: None,
            records: Vec::new(),
            log: None,
            health: Health { oopses: Some(0), warnings: Some(0), tainted: 0 },
            oops_at: None,
            transition: Some(Duration::from_millis(1200)),
            reversal: Some(Duration::from_millis(700)),
            ends: None,
            switches: 0,
            put_on: Vec::new(),
            load_fills_disk: false,
            builds: BTreeMap::new(),
            shown: BTreeMap::new(),
            heals: Vec::new(),
            cannot_heal: false,
            parameters: Vec::new(),
            killed: None,
            calls_left: None,
            killed_then: None,
        })))
    }

    /// Power off and on: every patch and module is gone.
    pub(crate) fn reboot(&self, boot_id: &str, up_for: Duration) {
        let mut world = self.0.borrow_mut();
        world.running.boot_id = boot_id.to_owned();
        world.since_boot = up_for;
        world.health = Health { oopses: Some(0), warnings: Some(0), tainted: 0 };
        world.patches.clear();
        world.modules.clear();
        world.half = None;
        world.loads.clear();
    }

    /// One look or deed.
    fn call(&self) {
        let mut world = self.0.borrow_mut();
        match world.calls_left {
            Some(0) => {
                drop(world);
                // As a panic, without its words: hundreds of thousands of them are wanted.
                std::panic::resume_unwind(Box::new("killed"));
            }
            Some(left) => world.calls_left = Some(left - 1),
            None => {}
        }
    }

    fn killed(&self) -> Option<Killed> {
        self.0.borrow().killed
    }

    pub(crate) fn loads(&self) -> usize {
        self.0.borrow().loads.len()
    }
}

impl World {
    /// What held the tasks lets them go, if that is the moment for it.
    fn end_stuck(&mut self, moment: Moment) {
        let moving = self.patches.iter().any(|(patch, _)| patch.transition);
        if !moving || self.ends != Some(moment) {
            return;
        }
        self.ends = None;
        self.killed = self.killed_then;
        self.transition = Some(Duration::from_secs(1));
        let now = self.since_boot;
        self.patches
            .iter_mut()
            .filter(|(patch, _)| patch.transition)
            .for_each(|(_, until)| *until = Some(now));
        self.pass(Duration::ZERO);
    }

    fn pass(&mut self, length: Duration) {
        self.since_boot += length;
        self.now += SignedDuration::try_from(length).unwrap();
        let since_boot = self.since_boot;
        if self.oops_at.take_if(|at| *at <= since_boot).is_some() {
            self.health.oopses = self.health.oopses.map(|oopses| oopses + 1);
        }
        let mut applied = None;
        for (patch, until) in &mut self.patches {
            if patch.transition && until.is_some_and(|until| until <= since_boot) {
                patch.transition = false;
                if patch.enabled {
                    applied = Some(patch.name.clone());
                }
            }
        }
        // Taken off, or replaced by the one that is now on.
        self.patches.retain(|(patch, _)| {
            (patch.enabled || patch.transition) && applied.as_ref().is_none_or(|name| *name == patch.name)
        });
    }
}

impl Kernel for Fake {
    fn running(&self) -> Result<Running, RunningError> {
        Ok(self.0.borrow().running.clone())
    }

    fn seen(&self) -> io::Result<Seen> {
        self.call();
        let world = self.0.borrow();
        let patches: Vec<Patch> = world.patches.iter().map(|(patch, _)| patch.clone()).collect();
        let modules = world
            .modules
            .iter()
            .map(|name| Resident {
                name: name.clone(),
                references: u32::from(patches.iter().any(|patch| patch.name == name.as_str())),
                loading: false,
            })
            .chain(world.half.iter().map(|name| Resident {
                name: name.clone(),
                references: 1,
                loading: true,
            }))
            .collect();
        Ok(Seen { patches, modules })
    }

    fn records(&self) -> Vec<Record> {
        self.call();
        self.0.borrow().records.iter().map(|text| Record::new(text.as_bytes())).collect()
    }

    fn log(&self) -> Option<Record> {
        self.0.borrow().log.as_ref().map(|text| Record::new(text.as_bytes()))
    }

    fn health(&self) -> io::Result<Health> {
        self.call();
        Ok(self.0.borrow().health)
    }

    fn holders(&self, functions: &[String]) -> Vec<String> {
        functions.iter().map(|function| format!("{function} is held by a kprobe")).collect()
    }

    fn blockers(&self, _: i8) -> Vec<Blocker> {
        self.0.borrow_mut().end_stuck(Moment::WhileBlockersAreRead);
        vec![Blocker { tid: 77, comm: "sleeper".to_owned(), pod_uid: None, container: None }]
    }

    fn builds(&self, _: &str, targets: &[Target]) -> BTreeMap<TargetName, Builds> {
        let world = self.0.borrow();
        let none = Builds { file: Build::None, loaded: Build::None };
        let of = |name: &TargetName| world.builds.get(name).unwrap_or(&none).clone();
        targets.iter().map(|target| (target.name.clone(), of(&target.name))).collect()
    }

    fn shown(&self, _: &ModuleName, _: &[Target]) -> BTreeMap<TargetName, Shown> {
        self.0.borrow().shown.clone()
    }

    fn heal(&self, _: &ModuleName, target: &TargetName) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.heals.push(target.clone());
        if world.cannot_heal {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if let Some(shown) = world.shown.get_mut(target) {
            shown.needs_heal = false;
        }
        Ok(())
    }

    fn load(&mut self, image: &[u8], parameters: &CStr) -> Result<(), Errno> {
        self.call();
        assert_ne!(self.killed(), Some(Killed::BeforeLoad), "killed");
        let mut world = self.0.borrow_mut();
        if let Some(errno) = world.load_error {
            return Err(errno);
        }
        let name: ModuleName =
            ModInfo::read(image).map_err(|_| Errno::NOEXEC)?.name.parse().map_err(|_| Errno::NOEXEC)?;
        assert_ne!(world.half.as_ref(), Some(&name), "a load that would never end");
        assert!(world.patches.iter().all(|(patch, _)| patch.ours().is_some()), "a foreign patch replaced");
        if world.modules.contains(&name) {
            return Err(Errno::EXIST);
        }
        if world.load_oopses {
            world.half = Some(name);
            world.health.oopses = world.health.oopses.map(|oopses| oopses + 1);
            drop(world);
            std::panic::resume_unwind(Box::new("killed"));
        }
        if world.patches.iter().any(|(patch, _)| patch.transition) {
            return Err(Errno::BUSY);
        }
        let until = world.transition.map(|length| world.since_boot + length);
        world.patches.push((Patch { name: name.to_string(), enabled: true, transition: true }, until));
        world.modules.push(name);
        world.loads.push(image.to_vec());
        world.parameters.push(parameters.to_str().unwrap().to_owned());
        if world.load_fills_disk {
            crate::store::full::FULL.set(true);
        }
        Ok(())
    }

    fn unload(&mut self, name: &ModuleName) -> Result<(), Errno> {
        self.call();
        let mut world = self.0.borrow_mut();
        if world.patches.iter().any(|(patch, _)| patch.name == name.as_str()) {
            return Err(Errno::AGAIN);
        }
        let before = world.modules.len();
        world.modules.retain(|module| module != name);
        if world.modules.len() == before { Err(Errno::NOENT) } else { Ok(()) }
    }

    fn switch(&mut self, name: &ModuleName, enabled: bool) -> io::Result<()> {
        self.call();
        let mut world = self.0.borrow_mut();
        world.end_stuck(Moment::BeforeItIsReversed);
        world.switches += 1;
        let others = world.patches.iter().any(|(patch, _)| patch.transition && patch.name != name.as_str());
        if others {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        if enabled {
            world.put_on.push(name.to_string());
        }
        let since_boot = world.since_boot;
        let (transition, reversal) = (world.transition, world.reversal);
        let (patch, until) = world
            .patches
            .iter_mut()
            .find(|(patch, _)| patch.name == name.as_str())
            .ok_or(io::ErrorKind::NotFound)?;
        let length = if patch.transition { reversal } else { transition };
        (patch.enabled, patch.transition) = (enabled, true);
        *until = length.map(|length| since_boot + length);
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.0.borrow().now
    }

    fn since_boot(&self) -> Duration {
        self.0.borrow().since_boot
    }

    fn began(&self) -> Duration {
        self.0.borrow().since_boot
    }

    fn pause(&mut self, length: Duration) {
        self.call();
        assert_ne!(self.killed(), Some(Killed::Waiting), "killed");
        self.0.borrow_mut().pass(length);
    }
}

impl Fake {
    pub(crate) fn pass(&self, length: Duration) {
        self.0.borrow_mut().pass(length);
    }
}
