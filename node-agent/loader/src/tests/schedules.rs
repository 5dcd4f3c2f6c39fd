//! Whatever is asked, in whatever order, and wherever the loader is killed or the power cut: what must
//! always hold, holds. Random schedules on the kernel that is not real; the signatures are real, and
//! each question about them is answered once.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use invivo_feed::{Floors, ModInfo, digest};
use invivo_terms::{Digest, ModuleName};
use jiff::ToSpan;
use rustix::io::Errno;

use super::*;
use crate::fake::build_id;
use crate::journal::Loaded;
use crate::running::Running;
use crate::seen::Patch;
use crate::store::full::FULL;
use crate::verify::{Passed, Refused, Verified, Verify};

/// Each of the two threads does half.
const SCHEDULES: u64 = 100_000;
const EVENTS: u64 = 7;

/// What the real verifier said, said again.
#[derive(Debug)]
struct Remembering {
    real: Pinned,
    passed: RefCell<HashMap<String, Result<Verified, Refused>>>,
    kept: RefCell<HashMap<String, Result<(), Refused>>>,
}

#[derive(Debug, Clone)]
struct Memory(Rc<Remembering>);

impl Verify for Memory {
    fn passed(&self, running: &Running, passed: &Passed<'_>) -> Result<Verified, Refused> {
        let ApplyRequest { build_id, level, set, digest: of_set, manifest, floors, .. } = passed.request;
        let own = (passed.floors)(&self.0.real.0.first().unwrap().clone());
        let day = passed.now.as_second() / 86_400;
        let (proof, module) = (digest(passed.proof), digest(passed.module));
        let key =
            format!("{build_id} {level} {set} {of_set} {manifest} {floors:?} {own:?} {day} {proof} {module}");
        let mut known = self.0.passed.borrow_mut();
        known.entry(key).or_insert_with(|| self.0.real.passed(running, passed)).clone()
    }

    fn kept(&self, running: &Running, loaded: &Loaded, proof: &[u8], module: &[u8]) -> Result<(), Refused> {
        let key = format!("{loaded:?} {} {}", digest(proof), digest(module));
        let mut known = self.0.kept.borrow_mut();
        known.entry(key).or_insert_with(|| self.0.real.kept(running, loaded, proof, module)).clone()
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}

/// What agents can pass.
struct Shelf {
    root: Digest,
    /// Levels 1 to 3 for the kernel that runs.
    good: Vec<Bundle>,
    /// For another kernel, and from a repository that nobody pinned.
    bad: Vec<Bundle>,
}

struct Node<'a> {
    shelf: &'a Shelf,
    memory: Memory,
    kernel: Fake,
    state: TempDir,
    loader: Option<Loader<Fake>>,
    revision: i64,
    boots: u32,
    /// What was acknowledged: the floors, the highest instruction, the convicted.
    floors: Floors,
    order: i64,
    convicted: BTreeSet<Digest>,
    /// What was on when the kernel died in its code, of which a record tells.
    named: BTreeSet<Digest>,
    /// The loads of this boot that were looked at.
    looked: usize,
    /// The level said to be settled last, if nothing was asked since.
    settled: Option<Level>,
    /// What was never to be put on again before the event, in which boot.
    barred: (u32, BTreeSet<ModuleName>),
}

impl<'a> Node<'a> {
    fn new(shelf: &'a Shelf, memory: &Memory) -> Self {
        // Nothing here rests on a disk: `slots` has its own tests for that.
        let folder = ["/dev/shm", "/tmp"].into_iter().find(|path| std::path::Path::new(path).is_dir());
        let state = tempfile::tempdir_in(folder.unwrap()).unwrap();
        let mut node = Self {
            shelf,
            memory: memory.clone(),
            kernel: Fake::new(),
            state,
            loader: None,
            revision: 0,
            boots: 1,
            floors: Floors::default(),
            order: 0,
            convicted: BTreeSet::new(),
            named: BTreeSet::new(),
            looked: 0,
            settled: None,
            barred: (0, BTreeSet::new()),
        };
        node.start();
        node
    }

    fn start(&mut self) {
        let store = Store::new(self.state.path());
        let loader = Loader::new(self.kernel.clone(), store, Box::new(self.memory.clone())).unwrap();
        self.loader.insert(loader).come_up();
        self.check_loads();
    }

    fn reboot(&mut self) {
        self.check_loads();
        self.loader = None;
        self.boots += 1;
        self.kernel.reboot(&format!("boot-{}", self.boots), Duration::from_secs(9));
        self.looked = 0;
    }

    /// In order: nothing is held against anybody for it.
    fn shut_down(&mut self) {
        let loader = self.loader.as_ref().unwrap();
        let held = (!loader.unsaved).then(|| loader.journal.verdicts.clone());
        Store::new(self.state.path()).mark_end(&format!("boot-{}", self.boots)).unwrap();
        self.reboot();
        self.start();
        let loader = self.loader.as_ref().unwrap();
        assert!(held.is_none_or(|held| held == loader.journal.verdicts), "a shutdown in order was judged");
    }

    fn ask(&mut self, request: Request, blobs: &[Vec<u8>]) -> State {
        state(self.loader.as_mut().unwrap().handle(request, blobs))
    }

    fn apply(&mut self, bundle: &Bundle, revision: i64, module: &[u8]) {
        let now = self.kernel.0.borrow().now;
        let request = ApplyRequest {
            order: order("uid", revision),
            build_id: build_id(0xab),
            level: bundle.level,
            set: bundle.set.clone(),
            digest: bundle.set_digest.clone(),
            manifest: bundle.manifest_digest(),
            mechanism: invivo_terms::Mechanism::Livepatch,
            deadline: now + SignedDuration::from_mins(10),
            settle_after_seconds: 600,
            allow_partial: false,
            floors: Floors::default(),
            server_date: None,
        };
        self.ask(Request::Apply(request), &[bundle.proof.clone(), module.to_vec()]);
    }

    /// One event; the loader may be killed within it.
    fn event(&mut self, dice: &mut Dice) {
        let (good, bad) = (&self.shelf.good, &self.shelf.bad);
        self.revision += 1;
        let next = self.revision;
        let of = |bundles: &'a [Bundle], dice: &mut Dice| &bundles[dice.index(bundles.len())];
        match dice.below(24) {
            0..=5 => {
                let bundle = of(good, dice);
                self.apply(bundle, next, &bundle.module);
            }
            6 => {
                let bundle = of(bad, dice);
                self.apply(bundle, next, &bundle.module);
            }
            7 => {
                let bundle = of(good, dice);
                let mut module = bundle.module.clone();
                *module.last_mut().unwrap() ^= 1;
                self.apply(bundle, next, &module);
            }
            8 => {
                let bundle = of(good, dice);
                self.apply(bundle, next / 2, &bundle.module);
            }
            9 => {
                let deadline = self.kernel.0.borrow().now + SignedDuration::from_mins(10);
                self.ask(Request::RollBack(RollBackRequest { order: order("uid", next), deadline }), &[]);
            }
            10 => {
                self.ask(Request::Hold { order: order("uid", next) }, &[]);
            }
            11..=13 => {
                self.kernel.pass(Duration::from_secs(dice.below(1200)));
                self.loader.as_mut().unwrap().tick();
            }
            14 => {
                self.kernel.0.borrow_mut().health.oopses = Some(next.unsigned_abs());
                self.loader.as_mut().unwrap().tick();
            }
            15 => self.die_of_what_is_on(),
            16 => {
                let years = if dice.below(2) == 0 { 10 } else { -10 };
                let span = (365 * 24 * years).hours();
                let mut world = self.kernel.0.borrow_mut();
                world.now = world.now.checked_add(span).unwrap();
            }
            17 => self.start(),
            // Somebody takes a patch off by hand, or puts one of his own on.
            18 => self.kernel.0.borrow_mut().patches.clear(),
            19 => {
                let foreign = Patch { name: "kpatch_x".to_owned(), enabled: true, transition: false };
                self.kernel.0.borrow_mut().patches.push((foreign, None));
            }
            20 => {
                let cleared = self.loader.as_mut().unwrap().handle(Request::ClearVerdicts, &[]);
                if matches!(cleared, Answer::Cleared { .. }) {
                    (self.convicted, self.named) = (BTreeSet::new(), BTreeSet::new());
                }
            }
            21 => return self.shut_down(),
            _ => self.reboot(),
        }
        if self.loader.is_none() {
            self.start();
        }
    }

    /// A kernel in a mood: it may refuse modules, and transitions may be slow or never end.
    fn mood(&self, dice: &mut Dice) {
        let mut world = self.kernel.0.borrow_mut();
        world.load_error = match dice.below(12) {
            0 => Some(Errno::INVAL),
            1 => Some(Errno::BUSY),
            _ => None,
        };
        world.transition = match dice.below(12) {
            0 => None,
            1 => Some(Duration::from_mins(15)),
            _ => Some(Duration::from_millis(200)),
        };
        world.reversal = if dice.below(12) == 0 { None } else { Some(Duration::from_millis(200)) };
        world.load_oopses = dice.below(24) == 0;
        let soon = world.since_boot + Duration::from_millis(dice.below(2000));
        world.oops_at = (dice.below(24) == 0).then_some(soon);
        FULL.set(dice.below(12) == 0);
    }

    /// The kernel dies in the code of the youngest patch, and a record tells.
    fn die_of_what_is_on(&mut self) {
        let ours = crate::kernel::Kernel::seen(&self.kernel).unwrap().ours().last().map(|(name, _)| name);
        let text = format!(
            "<4>[ {}] RIP: f+0x1/0x2 [{}]",
            self.revision,
            ours.as_ref().map_or("ext4", |n| n.as_str())
        );
        self.kernel.0.borrow_mut().records.push(text);
        let of = |bundle: &&Bundle| {
            let name = ModInfo::read(&bundle.module).unwrap().name;
            ours.as_ref().is_some_and(|ours| ours.as_str() == name)
        };
        self.named.extend(self.shelf.good.iter().filter(of).map(|bundle| digest(&bundle.module)));
        self.reboot();
    }

    /// Nobody is asked to remember what the disk did not take.
    fn bar(&mut self) {
        let loader = self.loader.as_ref().unwrap();
        let barred = loader.journal.barred_in(&format!("boot-{}", self.boots));
        self.barred = (self.boots, if loader.unsaved { BTreeSet::new() } else { barred });
        self.kernel.0.borrow_mut().put_on.clear();
    }

    /// Nothing was loaded that was not verified for this kernel, or that had been convicted.
    fn check_loads(&mut self) {
        let world = self.kernel.0.borrow();
        for image in &world.loads[self.looked..] {
            assert!(self.shelf.good.iter().any(|bundle| bundle.module == *image), "an unverified load");
            assert!(!self.convicted.contains(&digest(image)), "a convicted bundle was loaded");
        }
        self.looked = world.loads.len();
    }

    fn check(&mut self, calm_boot: bool) {
        self.check_loads();
        let said = self.ask(Request::State, &[]);
        self.check_loads();
        let seen = crate::kernel::Kernel::seen(&self.kernel).unwrap();
        if seen.level() > UNPATCHED || !seen.runs_ours() {
            assert_eq!(said.level, seen.level(), "the level is the kernel's");
        } else {
            assert!(said.level > UNPATCHED, "unpatched, and tasks run a patch");
        }
        if matches!(said.state, NodeState::Applied | NodeState::Settled) {
            assert!(seen.level() > UNPATCHED, "{} and nothing is on", said.state);
        }
        let (boot, barred) = &self.barred;
        let put_on = &self.kernel.0.borrow().put_on;
        let again = barred.iter().find(|name| put_on.iter().any(|put_on| name.as_str() == put_on));
        assert!(*boot != self.boots || again.is_none(), "{again:?} was put on again");
        if let (true, Some(level)) = (calm_boot, self.settled) {
            assert_eq!((said.state, said.level), (NodeState::Settled, level), "it did not come back");
        }
        let loader = self.loader.as_ref().unwrap();
        let verdicts = &loader.journal.verdicts;
        for module in &self.named {
            assert!(verdicts.convicted(module).is_some(), "what a record names is not convicted");
        }
        self.settled = (said.state == NodeState::Settled && !loader.unsaved).then_some(said.level);
        // What the disk did not take was not promised.
        if loader.unsaved {
            return;
        }
        let floors = loader.journal.floors_of(&self.shelf.root);
        assert!(floors.not_below(&self.floors).is_ok(), "floors were lost");
        self.floors = floors;
        let heard = said.order.map_or(0, |order| order.revision.0);
        assert!(heard >= self.order, "an instruction was forgotten");
        self.order = heard;
        let modules = self.shelf.good.iter().map(|bundle| digest(&bundle.module));
        let convicted: BTreeSet<Digest> =
            modules.filter(|module| verdicts.convicted(module).is_some()).collect();
        assert!(convicted.is_superset(&self.convicted), "a conviction was lost");
        self.convicted = convicted;
    }
}

fn run(shelf: &Shelf, memory: &Memory, seed: u64) {
    let mut dice = Dice(seed);
    FULL.set(false);
    let mut node = Node::new(shelf, memory);
    for _ in 0..EVENTS {
        node.mood(&mut dice);
        node.bar();
        let boots = node.boots;
        let errors =
            node.kernel.0.borrow().load_error.is_some() || node.kernel.0.borrow().transition.is_none();
        let errors = errors || node.kernel.0.borrow().load_oopses || FULL.get();
        let (slow, records) = (
            node.kernel.0.borrow().transition > Some(Duration::from_mins(1)),
            node.kernel.0.borrow().records.len(),
        );
        if dice.below(3) == 0 {
            node.kernel.0.borrow_mut().calls_left = Some(u32::try_from(dice.below(30)).unwrap());
        }
        let killed = catch_unwind(AssertUnwindSafe(|| node.event(&mut dice))).err();
        {
            let mut world = node.kernel.0.borrow_mut();
            (world.calls_left, world.load_oopses) = (None, false);
        }
        let was_killed = killed.is_some();
        if let Some(killed) = killed {
            // Anything else than the kill is what this test looks for.
            if killed.downcast_ref::<&str>() != Some(&"killed") {
                std::panic::resume_unwind(killed);
            }
            node.check_loads();
            if dice.below(2) == 0 {
                node.reboot();
            }
            node.start();
        }
        let calm = node.boots == boots + 1
            && !was_killed
            && !errors
            && !slow
            && node.kernel.0.borrow().records.len() == records;
        node.check(calm);
    }
}

#[test]
fn whatever_happens_what_must_always_hold_holds() {
    let author = author("example");
    let good =
        (1..=3).map(|level| author.publish(&build_id(0xab), level, &format!("2026-11-21.{level}"))).collect();
    let stranger = super::author("stranger");
    let bad = vec![
        author.publish(&build_id(0xcd), 4, "2026-11-21.4"),
        stranger.publish(&build_id(0xab), 4, "2026-11-21.5"),
    ];
    let shelf = Shelf { root: author.root(), good, bad };
    let roots = BTreeSet::from([author.root()]);
    let half = |first: u64| {
        let real = Pinned(roots.clone());
        let memory =
            Memory(Rc::new(Remembering { real, passed: RefCell::default(), kept: RefCell::default() }));
        for seed in (first..SCHEDULES).step_by(2) {
            if let Err(failure) = catch_unwind(AssertUnwindSafe(|| run(&shelf, &memory, seed))) {
                eprintln!("schedule {seed}");
                std::panic::resume_unwind(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        half(0);
        other.join().unwrap();
    });
}
