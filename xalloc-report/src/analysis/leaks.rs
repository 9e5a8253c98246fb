//! What was alive at exit, by call stack, and what a scan says of it.
//!
//! Where a scan looked at a process, its blocks come in the classes that the scan gave them. Where none did, they have
//! no class and the report says why: that a block is alive is a fact, that it is leaked would be a guess.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;

use super::checks::CheckView;
use super::frames::CallStack;
use super::growth::{Growth, Slope};
use super::names;
use super::process::{ThreadName, ThreadNames, pid};
use super::sampling::SamplingView;
use crate::model::{Model, ProcessRow};
use crate::trace::{
    Contents, Disguise, End, Finding, Hint, Holder, LeakClass, Occasion, ProcessIndex, Scan, ScanOutcome, StackIndex,
};

/// Blocks and the bytes in them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct LeakSum {
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
}

impl LeakSum {
    /// Adds more of the same.
    pub fn add(&mut self, bytes: u64, blocks: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.blocks = self.blocks.saturating_add(blocks);
    }
}

/// The blocks of every class, over all processes that were checked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct LeakTotals {
    /// Nothing points to them.
    pub definite: LeakSum,
    /// One block for each leaked ring of blocks.
    pub cycle: LeakSum,
    /// Only leaked blocks point to them.
    pub indirect: LeakSum,
    /// Something points into their middle, and nothing explains it.
    pub possible: LeakSum,
    /// The program can still get at them.
    pub reachable: LeakSum,
    /// The C library, the loader or a language runtime allocated them for itself.
    pub runtime: LeakSum,
    /// A forked process had them from its parent.
    pub inherited: LeakSum,
    /// Nothing points to them, but a function that still ran at `exit` allocated them.
    pub owner_active: LeakSum,
}

impl LeakTotals {
    /// The blocks of one class.
    #[must_use]
    pub fn of(&self, class: LeakClass) -> LeakSum {
        match class {
            LeakClass::Definite => self.definite,
            LeakClass::Cycle => self.cycle,
            LeakClass::Indirect => self.indirect,
            LeakClass::Possible => self.possible,
            LeakClass::Reachable => self.reachable,
            LeakClass::Runtime => self.runtime,
            LeakClass::Inherited => self.inherited,
            LeakClass::OwnerActive => self.owner_active,
        }
    }

    /// Everything that is lost for good: definite, cycle and indirect.
    #[must_use]
    pub fn leaked(&self) -> LeakSum {
        let mut sum = LeakSum::default();
        for class in LeakClass::ALL.into_iter().filter(|class| class.is_leaked()) {
            sum.add(self.of(class).bytes, self.of(class).blocks);
        }
        sum
    }

    /// Adds those of another process.
    pub fn absorb(&mut self, other: &LeakTotals) {
        for class in LeakClass::ALL {
            let LeakSum { bytes, blocks } = other.of(class);
            self.of_mut(class).add(bytes, blocks);
        }
    }

    fn of_mut(&mut self, class: LeakClass) -> &mut LeakSum {
        match class {
            LeakClass::Definite => &mut self.definite,
            LeakClass::Cycle => &mut self.cycle,
            LeakClass::Indirect => &mut self.indirect,
            LeakClass::Possible => &mut self.possible,
            LeakClass::Reachable => &mut self.reachable,
            LeakClass::Runtime => &mut self.runtime,
            LeakClass::Inherited => &mut self.inherited,
            LeakClass::OwnerActive => &mut self.owner_active,
        }
    }
}

/// Whether the blocks of one process were looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ProcessCheck {
    /// Process id.
    pub pid: u32,
    /// Path of its executable.
    pub exe: String,
    /// Whether every block of it has a class.
    pub checked: bool,
    /// Why not; `null` if it was.
    pub not_checked_reason: Option<String>,
    /// What caused the check; `null` without one.
    pub occasion: Option<Occasion>,
    /// Time of the check, nanoseconds since the recording's start; `null` without one.
    pub at_ns: Option<u64>,
    /// How long the process waited for it, nanoseconds; `null` without one.
    pub duration_ns: Option<u64>,
    /// Pages of roots that could not be read, so that pointers in them were not seen; `null` without a check.
    pub unreadable_pages: Option<u64>,
    /// Threads that did not stop for the check, so that a leak of theirs may be missed; `null` without a check.
    pub running_threads: Option<u64>,
}

/// A link of the chain that keeps a block reachable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HolderView {
    /// A block points to it.
    Block {
        /// Requested size of the block, bytes.
        size_bytes: u64,
        /// Where in it the pointer lies, bytes.
        offset_bytes: u64,
        /// Where it was allocated.
        #[serde(flatten)]
        at: CallStack,
    },
    /// Memory that the program can always get at points to it.
    Root {
        /// Which.
        name: String,
    },
}

/// A hidden pointer to a lost block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct HintView {
    /// How it is hidden.
    pub disguise: Disguise,
    /// Where it lies.
    pub at: String,
}

/// The blocks of one call stack that were alive at exit and have one class.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct LeakSite {
    /// What a scan says of them; `null` where none looked.
    pub class: Option<LeakClass>,
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Age of the oldest of them at its process's last event, nanoseconds; at the scan, where one looked.
    pub oldest_ns: u64,
    /// Age of the youngest, nanoseconds.
    pub youngest_ns: u64,
    /// All allocations of this stack, for comparison.
    pub allocations: u64,
    /// How the live bytes of their call stack changed over the run, blocks of other classes and freed ones included; of
    /// several processes, where they rose most. `null`: nobody looked.
    pub growth: Option<Slope>,
    /// Indirectly leaked blocks of any call stack that these hold.
    pub holds: LeakSum,
    /// For one of the blocks, who points to it, then who points to that, up to a root; empty for what nobody points to.
    pub holders: Vec<HolderView>,
    /// For one of the blocks, a hidden pointer to it; `null` if there is none.
    pub hint: Option<HintView>,
    /// The threads that allocated them.
    pub threads: Vec<ThreadName>,
    /// The suppression of the program's own (`__lsan_default_suppressions`) that matches them; `null` if none does.
    pub suppressed_by: Option<String>,
    /// Where they were allocated.
    #[serde(flatten)]
    pub at: CallStack,
    /// The same as the trace has it.
    #[serde(skip)]
    pub origin: StackIndex,
    /// The processes whose scans found them.
    #[serde(skip)]
    pub processes: Vec<ProcessIndex>,
}

/// Which look at the blocks is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ShownCheck {
    /// The verdict on each process at its end.
    Last,
    /// The check of this number, from 1, whenever it was.
    Number(u64),
}

impl ShownCheck {
    /// The scan that is shown of a process.
    fn scan(self, contents: &Contents, process: ProcessIndex) -> Option<&Scan> {
        match self {
            ShownCheck::Last => verdict(contents, process),
            ShownCheck::Number(number) => {
                let scan = contents.scans.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
                Some(scan).filter(|scan| scan.process == process)
            }
        }
    }
}

/// Everything that was alive at exit, or at a check before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Leaks {
    /// Number of the check whose findings these are, as in `checks`; `null`: those of the ends of the processes.
    pub check: Option<u64>,
    /// How the figures were estimated, where only some allocations were recorded; else `null`.
    pub sampling: Option<SamplingView>,
    /// Requested bytes alive at exit; at the check, if it is one before.
    pub bytes: u64,
    /// Blocks alive then.
    pub blocks: u64,
    /// Blocks that forked children had from their parents and did not free; not part of the sums.
    pub inherited_blocks: u64,
    /// Requested bytes of these.
    pub inherited_bytes: u64,
    /// Whether every process was checked; one that exec replaced by another program has nothing left to check.
    pub checked: bool,
    /// Why not, of the first process that was not; `null` if all were.
    pub not_checked_reason: Option<String>,
    /// The classes, over all processes that were checked.
    pub totals: LeakTotals,
    /// Leaked blocks that the programs themselves want suppressed; `totals` has them too.
    pub suppressed: LeakSum,
    /// Every process, in the order of the recording.
    pub processes: Vec<ProcessCheck>,
    /// Every check of them, also those while they ran, in the order of their ends.
    pub checks: Vec<CheckView>,
    /// How many threads the recording has in all.
    pub threads: u64,
    /// By class and call stack: the worst class first, then most bytes, most blocks, name.
    pub sites: Vec<LeakSite>,
}

/// The scan that is a process's verdict: of those at its end the last one that found out something, else the last one.
/// What was found while it ran says nothing of what it did afterwards.
pub(super) fn verdict(contents: &Contents, process: ProcessIndex) -> Option<&Scan> {
    let is_its_last = |scan: &&Scan| scan.process == process && scan.occasion.is_last();
    let of_process = || contents.scans.iter().rev().filter(is_its_last);
    of_process().find(|scan| matches!(scan.outcome, ScanOutcome::Checked(_))).or_else(|| of_process().next())
}

impl ProcessCheck {
    fn of(contents: &Contents, process: ProcessIndex, shown: ShownCheck) -> ProcessCheck {
        let scan = shown.scan(contents, process);
        let checked = match scan.map(|scan| &scan.outcome) {
            Some(ScanOutcome::Checked(checked)) => Ok(checked),
            Some(ScanOutcome::NotChecked { reason }) => Err(reason.clone()),
            None => Err(unchecked_end(contents, process)),
        };
        let exe = contents.processes.get(process.0 as usize).map(|process| process.exe.to_string_lossy().into_owned());
        let found = checked.as_ref().ok();
        ProcessCheck {
            pid: pid(contents, process),
            exe: exe.unwrap_or_default(),
            checked: checked.is_ok(),
            not_checked_reason: checked.as_ref().err().cloned(),
            occasion: found.and(scan).map(|scan| scan.occasion),
            at_ns: found.and(scan).map(|scan| scan.at_ns),
            duration_ns: found.map(|checked| checked.duration_ns),
            unreadable_pages: found.map(|checked| checked.unreadable_pages),
            running_threads: found.map(|checked| checked.running_threads),
        }
    }
}

/// Why a process without any scan has none.
fn unchecked_end(contents: &Contents, process: ProcessIndex) -> String {
    if contents.recording.sampling.is_some() {
        return "with --sample most blocks are not known, nor what points to the others; record without it".to_owned();
    }
    match contents.processes.get(process.0 as usize).map(|process| process.end) {
        Some(End::Signalled(signal)) => format!("ended by signal {signal}"),
        Some(End::Replaced) => "replaced by exec".to_owned(),
        Some(End::Running) => "still running when the recording ended".to_owned(),
        Some(End::Exited(_) | End::Vanished) | None => "the recording holds no leak scan of it".to_owned(),
    }
}

fn was_replaced(contents: &Contents, row: &ProcessRow) -> bool {
    contents.processes.get(row.process.0 as usize).is_some_and(|process| process.end == End::Replaced)
}

impl Leaks {
    pub(super) fn of(contents: &Contents, model: &Model, shown: ShownCheck) -> Leaks {
        let sum = &model.sum;
        let processes = model.processes.iter().map(|row| ProcessCheck::of(contents, row.process, shown)).collect();
        let unchecked = unchecked(contents, model, shown);
        let mut totals = LeakTotals::default();
        let mut found = FxHashMap::default();
        for (scan, finding) in findings(contents, model, shown) {
            totals.of_mut(finding.class).add(finding.bytes, finding.blocks);
            found.entry((finding.stack, finding.class)).or_insert_with(Vec::new).push((scan, finding));
        }
        let allocations: FxHashMap<_, _> = sum.sites.iter().map(|site| (site.stack, site.allocations)).collect();
        let of = |stack| allocations.get(&stack).copied().unwrap_or_default();
        let thread_names = ThreadNames::of(contents);
        let mut sites: Vec<_> =
            found.into_values().map(|same| LeakSite::found(contents, &thread_names, of, &same)).collect();
        if shown == ShownCheck::Last {
            sites.extend(unclassified(contents, &thread_names, model));
        }
        let rank = |site: &LeakSite| site.class.map_or(usize::MAX, |class| class as usize);
        sites.sort_by(|a, b| {
            (rank(a), b.bytes, b.blocks, &a.at.frames).cmp(&(rank(b), a.bytes, a.blocks, &b.at.frames))
        });
        let (check, alive, inherited) = match shown {
            ShownCheck::Last => {
                let alive = LeakSum { bytes: sum.totals.alive_bytes, blocks: sum.totals.alive_blocks };
                let blocks = sum.inherited.blocks - sum.inherited.freed_blocks;
                let bytes = sum.inherited.bytes.saturating_sub(sum.inherited.freed_bytes);
                (None, alive, LeakSum { bytes, blocks })
            }
            // What the events say is of a later moment.
            ShownCheck::Number(number) => {
                let own = LeakClass::ALL.into_iter().filter(|&class| class != LeakClass::Inherited);
                let mut alive = LeakSum::default();
                own.map(|class| totals.of(class)).for_each(|sum| alive.add(sum.bytes, sum.blocks));
                (Some(number), alive, totals.inherited)
            }
        };
        Leaks {
            check,
            sampling: SamplingView::of(model),
            bytes: alive.bytes,
            blocks: alive.blocks,
            inherited_blocks: inherited.blocks,
            inherited_bytes: inherited.bytes,
            checked: unchecked.is_none(),
            not_checked_reason: unchecked,
            totals,
            suppressed: LeakSum::default(),
            processes,
            checks: CheckView::all(contents, model),
            threads: sum.threads.len() as u64,
            sites,
        }
    }
}

impl Leaks {
    /// Adds how the live bytes of each call stack changed in one of the processes.
    pub fn add_growth(&mut self, growth: &Growth) {
        for site in &mut self.sites {
            let steepness = |slope: Option<Slope>| slope.map(|slope| (slope.rises, slope.bytes_per_s));
            let slope = growth.slope(site.origin);
            if steepness(slope) > steepness(site.growth) {
                site.growth = slope;
            }
        }
    }
}

/// Why the first process that should have been checked was not; `None` if all were.
pub(super) fn unchecked(contents: &Contents, model: &Model, shown: ShownCheck) -> Option<String> {
    let due = model.processes.iter().filter(|row| shown != ShownCheck::Last || !was_replaced(contents, row));
    due.map(|row| ProcessCheck::of(contents, row.process, shown)).find_map(|check| check.not_checked_reason)
}

/// What the scans of the model's processes found.
pub(super) fn findings<'a>(
    contents: &'a Contents,
    model: &'a Model,
    shown: ShownCheck,
) -> impl Iterator<Item = (&'a Scan, &'a Finding)> + 'a {
    let scans = model.processes.iter().filter_map(move |row| shown.scan(contents, row.process));
    scans.flat_map(|scan| scan.findings().iter().map(move |finding| (scan, finding)))
}

/// What was alive at exit and is in no finding.
fn unclassified<'a>(
    contents: &'a Contents,
    thread_names: &'a ThreadNames<'a>,
    model: &'a Model,
) -> impl Iterator<Item = LeakSite> + 'a {
    let mut found: FxHashMap<_, LeakSum> = FxHashMap::default();
    for (_, finding) in
        findings(contents, model, ShownCheck::Last).filter(|(_, finding)| finding.class != LeakClass::Inherited)
    {
        found.entry(finding.stack).or_default().add(finding.bytes, finding.blocks);
    }
    model.sum.sites.iter().filter_map(move |site| {
        let found = found.get(&site.stack).copied().unwrap_or_default();
        let blocks = site.alive.blocks.saturating_sub(found.blocks);
        (blocks > 0).then(|| LeakSite {
            class: None,
            bytes: site.alive.bytes.saturating_sub(found.bytes),
            blocks,
            oldest_ns: site.alive.oldest_ns,
            youngest_ns: site.alive.youngest_ns,
            allocations: site.allocations,
            growth: None,
            holds: LeakSum::default(),
            holders: Vec::new(),
            hint: None,
            suppressed_by: None,
            processes: Vec::new(),
            threads: site.alive.threads.iter().map(|&thread| thread_names.at(thread)).collect(),
            at: CallStack::of(contents, site.stack, site.call),
            origin: site.stack,
        })
    })
}

impl LeakSite {
    /// One site of the findings of several processes that share call stack and class; there is at least one.
    fn found(
        contents: &Contents,
        thread_names: &ThreadNames<'_>,
        allocations: impl Fn(StackIndex) -> u64,
        same: &[(&Scan, &Finding)],
    ) -> LeakSite {
        let (_, first) = same[0];
        let mut of = LeakSum::default();
        let mut holds = LeakSum::default();
        let mut threads = Vec::new();
        for (_, finding) in same {
            of.add(finding.bytes, finding.blocks);
            holds.add(finding.held_bytes, finding.held_blocks);
            threads.extend(finding.threads.iter().copied());
        }
        threads.sort_unstable();
        threads.dedup();
        let age = |pick: fn(&Finding) -> u64| {
            same.iter().map(move |(scan, finding)| scan.at_ns.saturating_sub(pick(finding)))
        };
        let explained = same.iter().map(|(_, finding)| &finding.holders).find(|holders| !holders.is_empty());
        LeakSite {
            class: Some(first.class),
            bytes: of.bytes,
            blocks: of.blocks,
            oldest_ns: age(|finding| finding.oldest_at_ns).max().unwrap_or(0),
            youngest_ns: age(|finding| finding.youngest_at_ns).min().unwrap_or(0),
            allocations: allocations(first.stack),
            growth: None,
            holds,
            holders: explained.into_iter().flatten().map(|holder| HolderView::of(contents, holder)).collect(),
            hint: same.iter().find_map(|(_, finding)| finding.hint).map(HintView::of),
            suppressed_by: None,
            processes: same.iter().map(|(scan, _)| scan.process).collect(),
            threads: threads.into_iter().map(|thread| thread_names.at(thread)).collect(),
            at: CallStack::of(contents, first.stack, first.call),
            origin: first.stack,
        }
    }
}

impl HolderView {
    fn of(contents: &Contents, holder: &Holder) -> HolderView {
        match holder {
            Holder::Root { name } => HolderView::Root { name: name.clone() },
            Holder::Block { stack, call, size_bytes, offset_bytes } => HolderView::Block {
                size_bytes: *size_bytes,
                offset_bytes: *offset_bytes,
                at: CallStack::of(contents, *stack, *call),
            },
        }
    }
}

impl HintView {
    fn of(hint: Hint) -> HintView {
        HintView { disguise: hint.disguise, at: names::address(hint.at_addr) }
    }

    /// What lies there.
    #[must_use]
    pub fn pointer(&self) -> &'static str {
        match self.disguise {
            Disguise::Unaligned => "an unaligned pointer to it",
            Disguise::OnePastEnd => "a pointer just behind it",
            Disguise::TopTagged => "a pointer to it with a tag in its upper 16 bits",
            Disguise::Shifted => "a shifted pointer to it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Settings;
    use crate::model::sample::{checked_server, server, server_with_child};

    fn leaks(sample: &crate::model::sample::Sample) -> Leaks {
        let all = (0..sample.streams.len() as u32).map(ProcessIndex);
        let model = Model::of(sample, all, Settings::default()).expect("a sample has no errors");
        Leaks::of(&sample.contents, &model, ShownCheck::Last)
    }

    #[test]
    fn without_a_scan_nothing_has_a_class_and_the_reason_is_said() {
        let leaks = leaks(&server());
        assert!(!leaks.checked);
        assert_eq!(leaks.not_checked_reason.as_deref(), Some("the recording holds no leak scan of it"));
        assert!(leaks.sites.iter().all(|site| site.class.is_none()));
        assert_eq!(leaks.totals, LeakTotals::default());
    }

    #[test]
    fn a_process_that_a_signal_ended_says_so() {
        let mut sample = server();
        sample.contents.processes[0].end = End::Signalled(9);
        assert_eq!(leaks(&sample).not_checked_reason.as_deref(), Some("ended by signal 9"));
    }

    #[test]
    fn a_process_that_exec_replaced_needs_no_check() {
        let mut sample = checked_server();
        let child = server_with_child();
        sample.contents.processes.push(child.contents.processes[1].clone());
        sample.contents.processes[1].end = End::Replaced;
        sample.streams.push(child.streams.into_iter().nth(1).expect("the child has a stream"));
        let leaks = leaks(&sample);
        assert!(leaks.checked);
        assert_eq!(leaks.processes[1].not_checked_reason.as_deref(), Some("replaced by exec"));
    }

    #[test]
    fn a_check_while_a_process_ran_is_shown_for_itself_and_no_verdict_on_its_end() {
        let mut sample = checked_server();
        sample.contents.scans[0].occasion = Occasion::Demand;
        let at_end = leaks(&sample);
        assert_eq!((at_end.check, at_end.checked, at_end.totals), (None, false, LeakTotals::default()));
        let model = Model::of(&sample, [ProcessIndex(0)], Settings::default()).expect("a sample has no errors");
        let then = Leaks::of(&sample.contents, &model, ShownCheck::Number(1));
        assert_eq!((then.check, then.checked, then.processes[0].occasion), (Some(1), true, Some(Occasion::Demand)));
        assert_eq!(then.totals.leaked().bytes, 4_000);
        assert_eq!(then.sites.iter().map(|site| site.bytes).sum::<u64>(), then.bytes, "nothing of a later moment");
        assert!(then.sites.iter().all(|site| site.class.is_some()));
    }

    #[test]
    fn classes_and_the_rest_without_one_add_up_to_what_was_alive() {
        let leaks = leaks(&checked_server());
        assert!(leaks.checked);
        let of = |class| leaks.sites.iter().filter(|site| site.class == class).map(|site| site.bytes).sum::<u64>();
        assert_eq!(of(Some(LeakClass::Definite)), leaks.totals.definite.bytes);
        assert_eq!(of(Some(LeakClass::Reachable)), leaks.totals.reachable.bytes);
        assert_eq!(leaks.sites.iter().map(|site| site.bytes).sum::<u64>(), leaks.bytes);
        assert_eq!(leaks.totals.leaked().bytes, 4_000);
        assert_eq!(leaks.sites[0].class, Some(LeakClass::Definite));
        assert!(leaks.sites.last().is_some_and(|site| site.class.is_none()));
    }
}
