//! The positive control of a check: a process that misjudges blocks whose verdicts are known is not believed.
//!
//! A scan that sees nothing, for a reason that nobody thought of, finds nothing leaked or everything; neither may read as
//! a verdict. `xalloc_core::session::blocks::control` says which blocks there are; the process lays them out, they are
//! listed among its live ones, and no report has them.

use xalloc_core::reach::Verdict;
use xalloc_core::session::blocks::control::{BYTES, PLANTED, SIZE_BYTES};
use xalloc_core::units::ArenaId;
use xalloc_core::wire::Call;

use crate::trace::{Block, StackIndex, ThreadIndex};

/// That of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Control {
    /// Where its memory begins; 0: the process laid none out.
    pub(super) addr: u64,
}

impl Control {
    /// Whether a block is one of it.
    pub(super) fn holds(self, addr: u64) -> bool {
        self.addr != 0 && addr.checked_sub(self.addr).is_some_and(|offset| offset < BYTES)
    }

    /// Its blocks.
    pub(super) fn blocks(self) -> impl Iterator<Item = Block> {
        let planted = if self.addr == 0 { &[][..] } else { &PLANTED };
        planted.iter().map(move |planted| Block {
            addr: self.addr.wrapping_add(planted.at),
            size_bytes: SIZE_BYTES,
            at_ns: 0,
            stack: StackIndex::NONE,
            thread: ThreadIndex(0),
            nth_of_thread: 0,
            slack_bytes: 0,
            arena: ArenaId(0),
            call: Call::Malloc,
        })
    }

    /// What is wrong with the verdicts on them, which `verdict` gives by the number in `blocks`.
    pub(super) fn fault(self, blocks: &[Block], verdict: impl Fn(usize) -> Verdict) -> Option<String> {
        if self.addr == 0 {
            return Some("the process laid out no blocks to try its check by".to_owned());
        }
        PLANTED.iter().find_map(|planted| {
            let number = blocks.binary_search_by_key(&self.addr.wrapping_add(planted.at), |block| block.addr).ok();
            let said = number.map(&verdict);
            (said != Some(planted.is)).then(|| {
                let said = said.map_or("nothing", word);
                format!("the check is not to be trusted: it called a planted block {said} that is {}", word(planted.is))
            })
        })
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Lost => "lost",
        Verdict::Reachable => "reachable",
        Verdict::Possible => "possible",
        Verdict::Definite => "definite",
        Verdict::Cycle => "cycle",
        Verdict::Indirect => "indirect",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_finds_everything_reachable_or_nothing_is_not_believed() {
        let control = Control { addr: 0x7000_0000 };
        let blocks: Vec<Block> = control.blocks().collect();
        assert!(blocks.iter().all(|block| control.holds(block.addr)) && !control.holds(0x7000_0000 + BYTES));
        let right = |number: usize| PLANTED[number].is;
        assert_eq!(control.fault(&blocks, right), None);
        for wrong in [Verdict::Reachable, Verdict::Possible, Verdict::Definite, Verdict::Indirect] {
            assert!(control.fault(&blocks, |_| wrong).is_some(), "{wrong:?}");
        }
        assert_eq!(
            control.fault(&blocks, |_| Verdict::Reachable).as_deref(),
            Some("the check is not to be trusted: it called a planted block reachable that is possible")
        );
        assert!(control.fault(&[], right).is_some(), "they are not listed");
        let none = Control { addr: 0 };
        assert!(none.fault(&blocks, right).is_some() && none.blocks().next().is_none());
    }

    #[test]
    fn each_verdict_on_each_planted_block_is_looked_at() {
        let control = Control { addr: 0x7000_0000 };
        let blocks: Vec<Block> = control.blocks().collect();
        for (at, planted) in PLANTED.iter().enumerate() {
            let one_off = |number: usize| if number == at { Verdict::Cycle } else { PLANTED[number].is };
            assert!(control.fault(&blocks, one_off).is_some(), "{planted:?}");
        }
    }
}
