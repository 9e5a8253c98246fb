//! The leaks of a run: what its processes' sites add up to, and what each of them breaks.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Policy;
use super::super::evidence::ProcessEvidence;
use super::super::fingerprint::fingerprint;
use super::super::leak::{Disposition, Leak};
use super::super::rules::Rule;
use super::super::suppressions::SuppressionUse;
use super::super::verdict::BaselineUse;
use crate::analysis::{LeakSite, LeakSum, Slope, StackState};
use crate::trace::LeakClass;

/// What makes two sites one leak.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Identity {
    class: Option<LeakClass>,
    fingerprint: String,
    /// The number of the suppression that takes it out.
    suppression: Option<usize>,
    /// Whether a frame of it is ours.
    is_own: bool,
}

/// A leak that is being put together.
struct Gathered {
    leak: Leak,
    /// Bytes of the site whose stack is shown.
    shown_bytes: u64,
    /// The ids of its call stacks: processes of one program have the same.
    stacks: BTreeSet<String>,
}

/// Leaks that are being put together.
#[derive(Default)]
pub(super) struct Leaks {
    gathered: BTreeMap<Identity, Gathered>,
}

impl Leaks {
    /// Adds a site to its leak and returns which that is.
    pub(super) fn include(&mut self, process: &ProcessEvidence, found: &LeakSite, policy: &Policy) -> Identity {
        let blamed = policy.own.blamed(&found.at);
        let identity = Identity {
            class: found.class,
            fingerprint: fingerprint(found.class, &found.at, blamed),
            suppression: policy.suppressions.matching(found.class, &found.at, &process.program, policy.today),
            is_own: policy.own.counts(&found.at, process.whose),
        };
        let Gathered { leak, shown_bytes, stacks } = self
            .gathered
            .entry(identity.clone())
            .or_insert_with(|| Gathered { leak: empty(&identity), shown_bytes: 0, stacks: BTreeSet::new() });
        if found.blocks > 0 {
            stacks.insert(found.at.id.clone());
            leak.stacks = stacks.len() as u64;
        }
        leak.bytes = leak.bytes.saturating_add(found.bytes);
        leak.blocks = leak.blocks.saturating_add(found.blocks);
        leak.holds.add(found.holds.bytes, found.holds.blocks);
        leak.growth_bytes_per_s = leak.growth_bytes_per_s.max(found.growth.and_then(Slope::rate));
        if leak.hint.is_none() {
            leak.hint = found.hint.as_ref().map(|hint| format!("{} exists", hint.pointer()));
        }
        if let Err(place) = leak.programs.binary_search(&process.program) {
            leak.programs.insert(place, process.program.clone());
        }
        // Ties go to the frames that come first, so that the order of the processes does not show.
        let frames = Leak::places(&found.at, &policy.own);
        if found.bytes > *shown_bytes || leak.frames.is_empty() || (found.bytes == *shown_bytes && frames < leak.frames)
        {
            *shown_bytes = found.bytes;
            leak.frames = frames;
            leak.call.clone_from(&found.at.call);
            leak.stack = found.at.stack;
            leak.blamed = blamed.map(|place| place as u32);
        }
        identity
    }

    /// Decides what each leak breaks; what it has to do with suppressions and baseline is added to `uses` and `met`.
    pub(super) fn settle(&mut self, policy: &Policy, uses: &mut [SuppressionUse], met: &mut Option<BaselineUse>) {
        for (identity, Gathered { leak, .. }) in &mut self.gathered {
            if let Some(entry) = identity.suppression.and_then(|number| uses.get_mut(number)) {
                suppress(leak, entry);
            } else if !identity.is_own {
                leak.disposition = Disposition::NotOwn;
            } else {
                compare(leak, policy, met);
            }
        }
    }

    /// How many leaks that break a rule these sites are of, and what the sites have.
    pub(super) fn failing(&self, sites: &[(Identity, &LeakSite)]) -> (u64, LeakSum) {
        let mut failing = BTreeSet::new();
        let mut sum = LeakSum::default();
        for (identity, site) in sites {
            if self.gathered.get(identity).is_some_and(|gathered| !gathered.leak.breaks.is_empty()) {
                failing.insert(identity);
                sum.add(site.bytes, site.blocks);
            }
        }
        (failing.len() as u64, sum)
    }

    /// The leaks by disposition, then most bytes first.
    pub(super) fn in_order(self) -> Vec<Leak> {
        let mut leaks: Vec<_> = self.gathered.into_values().map(|gathered| gathered.leak).collect();
        leaks.sort_by(|a, b| {
            let rank = |leak: &Leak| (leak.disposition, std::cmp::Reverse((leak.whole_bytes(), leak.whole_blocks())));
            (rank(a), a.class, &a.frames, &a.fingerprint).cmp(&(rank(b), b.class, &b.frames, &b.fingerprint))
        });
        leaks
    }
}

fn empty(identity: &Identity) -> Leak {
    Leak {
        class: identity.class,
        fingerprint: identity.fingerprint.clone(),
        disposition: Disposition::Listed,
        breaks: Vec::new(),
        bytes: 0,
        blocks: 0,
        holds: LeakSum::default(),
        growth_bytes_per_s: None,
        baseline: None,
        suppressed_by: None,
        programs: Vec::new(),
        stacks: 0,
        call: String::new(),
        stack: StackState::None,
        blamed: None,
        frames: Vec::new(),
        hint: None,
    }
}

fn suppress(leak: &mut Leak, by: &mut SuppressionUse) {
    by.blocks = by.blocks.saturating_add(leak.whole_blocks());
    by.bytes = by.bytes.saturating_add(leak.whole_bytes());
    leak.suppressed_by = Some(format!("{} ({}:{})", by.name, by.file, by.line));
    leak.disposition = Disposition::Suppressed;
}

/// Holds a leak that counts against the rules and the baseline.
fn compare(leak: &mut Leak, policy: &Policy, met: &mut Option<BaselineUse>) {
    let asked = |rule: &Rule| policy.fail_on.contains(rule);
    let known = policy.baseline.as_ref().and_then(|baseline| baseline.known(leak.class, &leak.fingerprint));
    leak.baseline = known.map(|known| LeakSum { bytes: known.bytes, blocks: known.blocks });
    let grown = known.is_some_and(|known| leak.whole_bytes() > known.bytes || leak.whole_blocks() > known.blocks);
    let accepted = known.is_some() && !grown;
    let of_class = leak.class.and_then(Rule::of);
    if !accepted {
        leak.breaks.extend(of_class.filter(asked));
        leak.breaks.extend(leak.growth_bytes_per_s.map(|_| Rule::Growth).filter(asked));
        let unknown = policy.baseline.is_some() && known.is_none() && of_class.is_some();
        leak.breaks.extend(unknown.then_some(Rule::New).filter(asked));
    }
    leak.disposition = match (leak.breaks.is_empty(), accepted) {
        (false, _) => Disposition::Fails,
        (true, true) => Disposition::Known,
        (true, false) => Disposition::Listed,
    };
    if let Some(met) = met {
        met.known += u64::from(accepted);
        met.grown += u64::from(grown);
        met.missing += u64::from(known.is_none() && !leak.breaks.is_empty());
    }
}
