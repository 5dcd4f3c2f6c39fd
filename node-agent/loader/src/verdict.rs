//! What the loader holds against a bundle on this node. Pure.
//!
//! A boot that ended before a level had settled is no proof: power fails too. It makes the bundle
//! suspected, and one new instruction may try again. A second such boot, or a panic record that
//! names the bundle's module, convicts it: it is never loaded on this node again, until a person
//! says so here.

use std::collections::BTreeMap;

use invivo_feed::digest;
use invivo_terms::{Digest, ModuleName};
use invivo_wire::{Evidence, Judgement, Verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journal::Loaded;

/// Longest excerpt of a record, in bytes.
const EXCERPT: usize = 200;
/// Most bundles that are remembered, if no more than these are convicted. What is on already when the
/// last room goes is remembered beyond it.
const MOST: usize = 64;

/// Why it was judged so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// A panic record names its module.
    Named,
    /// It was suspected before.
    Again,
    /// Nothing but the boot.
    Boot,
}

/// Verdicts by the digest of the module's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verdicts(BTreeMap<Digest, Verdict>);

impl Verdicts {
    /// What is held against these bytes.
    pub fn of(&self, module: &Digest) -> Option<&Verdict> {
        self.0.get(module)
    }

    /// These bytes are never to be loaded here.
    pub fn convicted(&self, module: &Digest) -> Option<&Verdict> {
        self.of(module).filter(|verdict| match verdict.judgement {
            Judgement::Convicted => true,
            Judgement::Suspected => false,
        })
    }

    /// A boot ended before `loaded` had settled, or while it was being brought back; or the kernel
    /// survived what it did, and it was taken off.
    pub fn blame(&mut self, loaded: &Loaded, records: &[Record], now: Timestamp) -> (Ground, &Verdict) {
        let named = records.iter().find_map(|record| record.naming(&loaded.module));
        let (ground, judgement) = match (&named, self.of(&loaded.module_digest)) {
            (Some(_), _) => (Ground::Named, Judgement::Convicted),
            (None, Some(_)) => (Ground::Again, Judgement::Convicted),
            (None, None) => (Ground::Boot, Judgement::Suspected),
        };
        // A record of something else is worth reading too, and so is what was found the last time.
        let evidence = named
            .or_else(|| records.iter().find_map(|record| record.complaint(&loaded.module)))
            .or_else(|| records.iter().find_map(Record::panic))
            .or_else(|| self.of(&loaded.module_digest)?.evidence.clone());
        let Loaded { level, set, module, .. } = loaded;
        let (level, set, module) = (*level, set.clone(), module.clone());
        let verdict = Verdict { judgement, module, level, set, since: now, evidence };
        if !self.0.contains_key(&loaded.module_digest) {
            self.make_room();
        }
        (ground, self.0.entry(loaded.module_digest.clone()).insert_entry(verdict).into_mut())
    }

    /// A record may name a bundle that was on no more when the kernel died: a thread that it stopped
    /// stays in its code. Convicts those that are suspected already, and tells which.
    pub fn convict_named(&mut self, records: &[Record], now: Timestamp) -> Vec<Verdict> {
        let suspected = self.0.values_mut().filter(|verdict| verdict.judgement == Judgement::Suspected);
        suspected
            .filter_map(|verdict| {
                let evidence = records.iter().find_map(|record| record.naming(&verdict.module))?;
                verdict.judgement = Judgement::Convicted;
                (verdict.since, verdict.evidence) = (now, Some(evidence));
                Some(verdict.clone())
            })
            .collect()
    }

    /// A level has settled: it was not to blame.
    pub fn settled(&mut self, module: &Digest) {
        if self.convicted(module).is_none() {
            self.0.remove(module);
        }
    }

    /// All of them, and none is left.
    pub fn clear(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.0).into_values().collect()
    }

    /// Digests of the records that are evidence.
    pub fn records(&self) -> impl Iterator<Item = &Digest> {
        self.0.values().filter_map(|verdict| Some(&verdict.evidence.as_ref()?.digest))
    }

    /// Whether these bytes could be judged too, without forgetting a conviction.
    pub fn has_room_for(&self, module: &Digest) -> bool {
        self.0.len() < MOST || self.0.contains_key(module) || self.oldest_suspicion().is_some()
    }

    /// The oldest suspicion goes. Convictions are never forgotten: nothing is loaded that would need
    /// their room.
    fn make_room(&mut self) {
        if self.0.len() >= MOST
            && let Some(oldest) = self.oldest_suspicion()
        {
            self.0.remove(&oldest);
        }
    }

    fn oldest_suspicion(&self) -> Option<Digest> {
        let suspected = self.0.iter().filter(|(_, verdict)| verdict.judgement == Judgement::Suspected);
        suspected.min_by_key(|(_, verdict)| verdict.since).map(|(module, _)| module.clone())
    }
}

/// What a dying kernel left behind: the end of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    digest: Digest,
    text: String,
}

impl Record {
    /// Of the bytes of one file.
    pub fn new(bytes: &[u8]) -> Self {
        Self { digest: digest(bytes), text: String::from_utf8_lossy(bytes).into_owned() }
    }

    /// Names it for good, wherever it is kept.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// As the kernel wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first line that names the module as the place of the code that brought the kernel down.
    pub fn naming(&self, module: &ModuleName) -> Option<Evidence> {
        self.first(module, self.text.contains("panic_on_warn set"))
    }

    /// The same, or of code that the kernel warned of.
    pub fn complaint(&self, module: &ModuleName) -> Option<Evidence> {
        self.first(module, true)
    }

    fn first(&self, module: &ModuleName, warnings_count: bool) -> Option<Evidence> {
        let mut part = Part::Fatal;
        let mut tells = |line: &&str| {
            part = part.after(line);
            let counts = match part {
                Part::Fatal => true,
                Part::Warning => warnings_count,
                Part::Elsewhere => false,
            };
            counts && names(line, module)
        };
        self.text.lines().find(|line| tells(line)).map(|line| self.evidence(line))
    }

    /// Of a living kernel's log what came after this patch was put on last, as livepatch itself says
    /// there; all of it where that is gone already.
    #[must_use]
    pub fn since(&self, module: &ModuleName) -> Self {
        let said = format!("enabling patch '{module}'");
        let from = self.text.rfind(&said).map_or(0, |at| at + said.len());
        Self::new(self.text.get(from..).unwrap_or_default().as_bytes())
    }

    /// The line that says why the kernel stopped.
    fn panic(&self) -> Option<Evidence> {
        let says = |line: &&str| ["Kernel panic", "BUG: ", "Oops: "].iter().any(|word| line.contains(word));
        self.text.lines().find(says).map(|line| self.evidence(line))
    }

    fn evidence(&self, line: &str) -> Evidence {
        let mut excerpt: String = line.trim().chars().filter(|c| !c.is_control()).collect();
        excerpt.truncate(excerpt.floor_char_boundary(EXCERPT));
        Evidence { digest: self.digest.clone(), excerpt }
    }
}

/// Whose trace a line of a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// What brought the kernel down, or may have: a record can begin in the middle of it.
    Fatal,
    /// A warning that the kernel survived, unless it was told not to.
    Warning,
    /// What another processor did at that moment.
    Elsewhere,
}

impl Part {
    fn after(self, line: &str) -> Self {
        const FATAL: [&str; 5] =
            ["BUG: ", "Oops: ", "Kernel panic", "kernel BUG at", "general protection fault"];
        if line.contains("NMI backtrace for cpu") {
            Self::Elsewhere
        } else if line.contains("WARNING: CPU") {
            Self::Warning
        } else if line.contains("---[ end trace") || FATAL.iter().any(|word| line.contains(word)) {
            Self::Fatal
        } else {
            self
        }
    }
}

/// Whether a line names the module as the place of running code: `function+0x12/0x260 [module]`, the
/// brackets alone or with a build id. The list of all modules, which every record has, is without
/// brackets; a file of that name (a program's, in the line about its end) is without a function; a
/// frame with `?` is what happened to lie on the stack. A function that the module replaces counts only
/// with the module behind it: without, it is the kernel's own code of that name.
fn names(line: &str, module: &ModuleName) -> bool {
    let opened = format!("[{module}");
    line.match_indices(opened.as_str()).any(|(at, _)| {
        let (before, after) = (line.get(..at).unwrap_or_default(), line.get(at + opened.len()..));
        let mut words = before.split_whitespace().rev();
        let is_code = words.next().is_some_and(|word| word.contains("+0x") && word.contains("/0x"));
        is_code && words.next() != Some("?") && after.is_some_and(|after| after.starts_with([']', ' ']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use invivo_terms::{BuildId, Level};

    const MODULE: &str = "invivo_l3_0123456789abcdef";

    fn loaded(module: &str) -> Loaded {
        let some = digest(module.as_bytes());
        Loaded {
            build_id: "ab".repeat(20).parse::<BuildId>().unwrap(),
            module: module.parse().unwrap(),
            module_digest: some.clone(),
            level: Level(3),
            set: "2026-11-21.1".parse().unwrap(),
            set_digest: some.clone(),
            manifest: some.clone(),
            complete: None,
            settle_after_seconds: 1800,
            root: some,
            changes: crate::targets::Changes::default(),
            allow_partial: false,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record(line: &str) -> Record {
        let text = format!(
            "Panic#1 Part1\n<4>[   61.3] Modules linked in: {MODULE}(OEK) xt_nat(E)\n{line}\n<0>[   61.4] Kernel panic - not syncing: Fatal exception\n"
        );
        Record::new(text.as_bytes())
    }

    #[test]
    fn a_record_names_a_module_by_its_code_and_not_in_the_list_of_all() {
        let module: ModuleName = MODULE.parse().unwrap();
        for line in [
            format!("<4>[   61.3] RIP: 0010:ip_options_get+0x12/0x260 [{MODULE}]"),
            format!("<4>[   61.3]  ip_options_get+0x12/0x260 [{MODULE} 0123456789abcdef]"),
        ] {
            assert_eq!(record(&line).naming(&module).unwrap().excerpt, line);
        }
        for line in [
            "<4>[   61.3] RIP: 0010:ext4_sync_file+0x12/0x260 [ext4]".to_owned(),
            format!("<4>[   61.3]  ip_options_get+0x12/0x260 [{MODULE}f]"),
            format!("<4>[   61.3]  {MODULE}(OEK) [last unloaded: {MODULE}(OEK)]"),
            format!("<6>[   61.3] a[77]: segfault at 0 ip 0 sp 0 error 4 in [{MODULE}][400000+1000]"),
            format!("<4>[   61.3]  ? ip_options_get+0x12/0x260 [{MODULE}]"),
        ] {
            assert_eq!(record(&line).naming(&module), None, "{line}");
        }
    }

    #[test]
    fn traces_of_warnings_and_of_other_processors_tell_nothing_of_what_brought_the_kernel_down() {
        let module: ModuleName = MODULE.parse().unwrap();
        let code = format!("<4>[   61.3] RIP: 0010:ip_options_get+0x12/0x260 [{MODULE}]");
        let warning = |end: &str| {
            record(&format!(
                "<4>[   60.1] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n{code}\n<4>[   60.2] ---[ end trace 0 ]---\n{end}"
            ))
        };
        assert_eq!(warning("<4>[   61.2] RIP: 0010:g+0x1/0x2 [ext4]").naming(&module), None);
        assert!(
            warning("<0>[   61.2] Kernel panic - not syncing: panic_on_warn set ...")
                .naming(&module)
                .is_some()
        );
        assert!(
            warning(&format!("<1>[   61.2] BUG: kernel NULL pointer dereference\n{code}"))
                .naming(&module)
                .is_some()
        );
        let other = record(&format!("<4>[   61.2] NMI backtrace for cpu 1\n{code}"));
        assert_eq!(other.naming(&module), None);
    }

    #[test]
    fn a_living_kernels_log_counts_from_where_the_patch_was_put_on() {
        let module: ModuleName = MODULE.parse().unwrap();
        let warning = format!(
            "<4>[    1.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2 [{MODULE}]\n<4>[    1.0] ---[ end trace 0 ]---\n"
        );
        let enabled = format!("<5>[    2.0] livepatch: enabling patch '{MODULE}'\n");
        let log = |text: String| Record::new(text.as_bytes()).since(&module);
        assert_eq!(log(format!("{warning}{enabled}")).complaint(&module), None);
        let since = log(format!("{warning}{enabled}{warning}"));
        assert!(since.complaint(&module).is_some());
        assert_eq!(since.naming(&module), None);
        assert!(log(warning).complaint(&module).is_some());
    }

    #[test]
    fn a_record_that_comes_later_convicts_what_is_suspected_and_keeps_what_was_found() {
        let naming = record(&format!("<4>[   61.3] RIP: 0010:ip_options_get+0x12/0x260 [{MODULE}]"));
        let (mut verdicts, level) = (Verdicts::default(), loaded(MODULE));
        verdicts.blame(&level, &[], at(1));
        assert_eq!(verdicts.convict_named(&[record("")], at(2)), []);
        let convicted = verdicts.convict_named(std::slice::from_ref(&naming), at(3));
        assert_eq!((convicted.len(), convicted[0].judgement), (1, Judgement::Convicted));
        assert_eq!(verdicts.convict_named(std::slice::from_ref(&naming), at(4)), []);
        verdicts.blame(&level, &[], at(5));
        assert_eq!(verdicts.records().collect::<Vec<_>>(), [naming.digest()]);
    }

    #[test]
    fn a_boot_alone_makes_suspected_and_a_second_one_convicts() {
        let (mut verdicts, level) = (Verdicts::default(), loaded(MODULE));
        let (ground, verdict) = verdicts.blame(&level, &[], at(1));
        assert_eq!(
            (ground, verdict.judgement, &verdict.evidence),
            (Ground::Boot, Judgement::Suspected, &None)
        );
        assert_eq!(verdicts.convicted(&level.module_digest), None);
        let (ground, verdict) = verdicts.blame(&level, &[], at(2));
        assert_eq!((ground, verdict.judgement), (Ground::Again, Judgement::Convicted));
        assert!(verdicts.convicted(&level.module_digest).is_some());
    }

    #[test]
    fn a_record_that_names_it_convicts_at_once_and_another_record_is_only_shown() {
        let other = record("<4>[   61.3] RIP: 0010:ext4_sync_file+0x12/0x260 [ext4]");
        let naming = record(&format!("<4>[   61.3] RIP: 0010:ip_options_get+0x12/0x260 [{MODULE}]"));
        let (mut verdicts, level) = (Verdicts::default(), loaded(MODULE));
        let (ground, verdict) = verdicts.blame(&level, std::slice::from_ref(&other), at(1));
        assert_eq!((ground, verdict.judgement), (Ground::Boot, Judgement::Suspected));
        assert!(
            verdict
                .evidence
                .as_ref()
                .unwrap()
                .excerpt
                .ends_with("Kernel panic - not syncing: Fatal exception")
        );
        let (mut verdicts, records) = (Verdicts::default(), [other, naming]);
        let (ground, verdict) = verdicts.blame(&level, &records, at(1));
        assert_eq!((ground, verdict.judgement), (Ground::Named, Judgement::Convicted));
        assert_eq!(verdict.evidence.as_ref().unwrap().digest, *records[1].digest());
    }

    #[test]
    fn settling_answers_a_suspicion_and_never_lifts_a_conviction() {
        let (mut verdicts, level) = (Verdicts::default(), loaded(MODULE));
        verdicts.blame(&level, &[], at(1));
        verdicts.settled(&level.module_digest);
        assert_eq!(verdicts.of(&level.module_digest), None);
        for second in [2, 3] {
            verdicts.blame(&level, &[], at(second));
        }
        verdicts.settled(&level.module_digest);
        assert!(verdicts.convicted(&level.module_digest).is_some());
        assert_eq!(verdicts.clear().len(), 1);
        assert_eq!(verdicts, Verdicts::default());
    }

    fn other(number: usize) -> Loaded {
        loaded(&format!("invivo_l3_{number:016x}"))
    }

    #[test]
    fn no_conviction_is_ever_forgotten_and_what_could_not_be_convicted_any_more_finds_no_room() {
        let mut verdicts = Verdicts::default();
        for number in 0..MOST {
            assert!(verdicts.has_room_for(&other(number).module_digest));
            verdicts.blame(&other(number), &[], at(1));
            verdicts.blame(&other(number), &[], at(2));
        }
        let another = other(MOST);
        assert!(!verdicts.has_room_for(&another.module_digest));
        // It is on already.
        for second in [3, 4] {
            verdicts.blame(&another, &[], at(second));
            assert!(verdicts.has_room_for(&another.module_digest));
        }
        assert!((0..=MOST).all(|number| verdicts.convicted(&other(number).module_digest).is_some()));
        assert!(!verdicts.has_room_for(&other(MOST + 1).module_digest));
        verdicts.clear();
        assert!(verdicts.has_room_for(&another.module_digest));
    }

    #[test]
    fn however_many_are_suspected_the_youngest_are_and_excerpts_are_short() {
        let mut verdicts = Verdicts::default();
        let first = loaded(MODULE);
        for second in [0, 1] {
            verdicts.blame(&first, &[], at(second));
        }
        for number in 0..200 {
            let long = record(&format!("Kernel panic {}", "ä".repeat(300)));
            verdicts.blame(&loaded(&format!("invivo_l3_{number:016x}")), &[long], at(number + 2));
        }
        assert_eq!(verdicts.0.len(), MOST);
        assert!(verdicts.convicted(&first.module_digest).is_some());
        assert!(
            verdicts.of(&other(199).module_digest).is_some()
                && verdicts.of(&other(0).module_digest).is_none()
        );
        assert!(verdicts.has_room_for(&other(200).module_digest));
        assert!(verdicts.0.values().filter_map(|v| v.evidence.as_ref()).all(|e| e.excerpt.len() <= EXCERPT));
    }
}
