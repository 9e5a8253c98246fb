//! Order in what is lost: which blocks were leaked, and which are lost because those were.
//!
//! The lost blocks and the pointers between them are a graph. Its strongly connected components (Tarjan's algorithm,
//! SIAM J. Computing 1, 1972) form a graph without cycles; a component that no other one points to was leaked by itself,
//! everything else hangs on such a one. A component of one block is definite, also where that block points to itself; of
//! a larger one the block with the lowest address stands for all.
//!
//! # Why no recursion
//! A lost list is as deep as it is long. The path of the search is a chain of parents in the scratch memory, with a
//! cursor into the words of each block.

use super::Marker;
use super::mark::AT_ONCE;
use super::{Memory, Verdict, flag};
use crate::units::PAGE_BYTES;

/// Words of scratch memory for each block: number, low, parent, cursor, component stack.
pub(super) const WORDS_PER_BLOCK: usize = 5;

/// No block.
const NONE: u32 = u32::MAX;

/// The arrays of the search, each with an entry for every block.
struct Search<'a> {
    /// Order of discovery, from 1; 0: not discovered.
    number: &'a mut [u32],
    /// While on the stack: the lowest number that is reachable. Afterwards: the component, as its lowest block.
    low: &'a mut [u32],
    parent: &'a mut [u32],
    /// Words of the block that have been followed.
    cursor: &'a mut [u32],
    stack: &'a mut [u32],
    depth: usize,
    discovered: u32,
}

/// Numbers at or above it in `low` are components: they are offset by it, so that both fit one array.
const CLOSED: u32 = 1 << 31;

fn get(array: &[u32], at: u32) -> u32 {
    array.get(at as usize).copied().unwrap_or(0)
}

fn put(array: &mut [u32], at: u32, value: u32) {
    if let Some(place) = array.get_mut(at as usize) {
        *place = value;
    }
}

impl<M: Memory> Marker<'_, M> {
    /// Gives every lost block of the process's own its verdict.
    pub(super) fn order_lost(&mut self) {
        let count = self.blocks.len();
        let rest = core::mem::take(&mut self.rest);
        let mut parts = rest.chunks_exact_mut(count.max(1));
        let mut part = || parts.next().unwrap_or_default();
        let mut search = Search {
            number: part(),
            low: part(),
            parent: part(),
            cursor: part(),
            stack: part(),
            depth: 0,
            discovered: 0,
        };
        for block in 0..count as u32 {
            if self.is_lost(block) && get(search.number, block) == 0 {
                self.explore(block, &mut search);
            }
        }
        if search.discovered > 0 {
            self.find_leaders(&mut search);
        }
    }

    /// Whether the block is lost and this process's own to lose.
    fn is_lost(&self, block: u32) -> bool {
        self.verdict(block) == Verdict::Lost && !self.block(block).has(flag::INHERITED)
    }

    /// The next lost block that `block` points to, from its word number `cursor` on, and the number behind that word.
    fn next_edge(&mut self, block: u32, mut cursor: u32) -> Option<(u32, u32)> {
        let words = self.block(block).words();
        let extent = self.index.extent();
        let mut buffer = [0; AT_ONCE];
        loop {
            let at = words.start + 8 * u64::from(cursor);
            if at >= words.end {
                return None;
            }
            // Small blocks are the rule, and a cursor comes back to each of their pointers.
            let wanted = ((words.end - at) / 8).min(if cursor == 0 { 16 } else { AT_ONCE as u64 }) as usize;
            let copied = self.memory.copy(at, &mut buffer[..wanted]);
            for &value in &buffer[..copied] {
                cursor += 1;
                if extent.contains(&value)
                    && let Some(to) = self.index.find(self.blocks, value)
                    && to != block
                    && self.is_lost(to)
                {
                    return Some((to, cursor));
                }
            }
            if copied < wanted {
                let next = (words.start + 8 * u64::from(cursor) + 1).next_multiple_of(PAGE_BYTES);
                cursor = u32::try_from((next - words.start) / 8).unwrap_or(NONE);
            }
            if cursor == NONE {
                return None;
            }
        }
    }

    /// Searches from `root`, and closes the components that are found.
    fn explore(&mut self, root: u32, search: &mut Search<'_>) {
        search.discover(root, NONE);
        let mut block = root;
        while block != NONE {
            match self.next_edge(block, get(search.cursor, block)) {
                Some((to, cursor)) => {
                    put(search.cursor, block, cursor);
                    if get(search.number, to) == 0 {
                        search.discover(to, block);
                        block = to;
                    } else if get(search.low, to) < CLOSED {
                        search.lower(block, get(search.number, to));
                    }
                }
                None => {
                    let parent = get(search.parent, block);
                    if get(search.low, block) == get(search.number, block) {
                        search.close(block);
                    } else {
                        search.lower(parent, get(search.low, block));
                    }
                    block = parent;
                }
            }
        }
    }

    fn find_leaders(&mut self, search: &mut Search<'_>) {
        let count = self.blocks.len() as u32;
        // From here on: `number` of a component is 1 if another one points to it, `cursor` is free.
        let component = |search: &Search<'_>, block: u32| get(search.low, block).wrapping_sub(CLOSED);
        search.number.fill(0);
        for block in 0..count {
            if self.is_lost(block) {
                let mut cursor = 0;
                while let Some((to, next)) = self.next_edge(block, cursor) {
                    cursor = next;
                    if component(search, to) != component(search, block) {
                        put(search.number, component(search, to), 1);
                    }
                }
            }
        }
        // `parent` counts the blocks of each component, at most 2.
        search.parent.fill(0);
        for block in 0..count {
            if self.is_lost(block) {
                let of = component(search, block);
                put(search.parent, of, (get(search.parent, of) + 1).min(2));
            }
        }
        for leader in 0..count {
            if !self.is_lost(leader) || component(search, leader) != leader || get(search.number, leader) != 0 {
                continue;
            }
            self.set(leader, if get(search.parent, leader) == 1 { Verdict::Definite } else { Verdict::Cycle });
            self.claim(leader, search.stack);
        }
    }

    /// Gives what hangs on `leader`, and on no leader before it, to it.
    fn claim(&mut self, leader: u32, stack: &mut [u32]) {
        let mut depth = 1;
        put(stack, 0, leader);
        while depth > 0 {
            depth -= 1;
            let block = get(stack, depth);
            let mut cursor = 0;
            while let Some((to, next)) = self.next_edge(block, cursor) {
                cursor = next;
                self.set(to, Verdict::Indirect);
                if let Some(mark) = self.marks.get_mut(to as usize) {
                    mark.other = leader;
                }
                put(stack, depth, to);
                depth += 1;
            }
        }
    }
}

impl Search<'_> {
    fn discover(&mut self, block: u32, parent: u32) {
        self.discovered += 1;
        put(self.number, block, self.discovered);
        put(self.low, block, self.discovered);
        put(self.parent, block, parent);
        put(self.stack, self.depth as u32, block);
        self.depth += 1;
    }

    fn lower(&mut self, block: u32, to: u32) {
        if to < get(self.low, block) {
            put(self.low, block, to);
        }
    }

    /// Takes the component of `root` from the stack; its name is its lowest block.
    fn close(&mut self, root: u32) {
        let mut from = self.depth;
        let mut lowest = root;
        while let Some(before) = from.checked_sub(1) {
            from = before;
            let block = get(self.stack, from as u32);
            lowest = lowest.min(block);
            if block == root {
                break;
            }
        }
        for place in from..self.depth {
            let block = get(self.stack, place as u32);
            put(self.low, block, CLOSED + lowest);
        }
        self.depth = from;
    }
}
