//! The marker against a naive oracle, and every shape and disguise by itself.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::units::PAGE_BYTES;

/// Memory made by hand: words by address. What is not there cannot be read.
#[derive(Clone, Debug, Default)]
struct Words {
    words: BTreeMap<u64, u64>,
}

/// Where the tests' constant data and code are.
const CONSTANTS: Range<u64> = 0x40_0000..0x50_0000;
const CODE: Range<u64> = 0x10_0000..0x20_0000;
const ROOTS: u64 = 0x60_0000;
const HEAP: u64 = 0x5555_0000_0000;

impl Memory for &Words {
    fn copy(&mut self, addr: u64, into: &mut [u64]) -> usize {
        let mut copied = 0;
        for (at, place) in (addr..).step_by(8).zip(into) {
            let Some(&word) = self.words.get(&at) else { break };
            *place = word;
            copied += 1;
        }
        copied
    }

    fn is_constant(&self, addr: u64) -> bool {
        CONSTANTS.contains(&addr)
    }

    fn is_code(&self, addr: u64) -> bool {
        CODE.contains(&addr)
    }
}

/// Blocks and roots, laid out one behind another.
#[derive(Clone, Debug, Default)]
struct World {
    memory: Words,
    blocks: Vec<Block>,
    roots: u64,
}

impl World {
    /// Adds a block of zeroes and returns its address.
    fn block(&mut self, size_bytes: u64, flags: u8) -> u64 {
        let addr = self.blocks.last().map_or(HEAP, |last| (last.end() + 8).next_multiple_of(16));
        for at in (addr..addr + size_bytes / 8 * 8).step_by(8) {
            self.memory.words.insert(at, 0);
        }
        self.blocks.push(Block::new(addr, size_bytes, flags));
        addr
    }

    fn write(&mut self, at: u64, value: u64) {
        assert!(self.memory.words.insert(at, value).is_some(), "{at:#x} is in no block");
    }

    /// Adds a word to the roots and returns where it is.
    fn root(&mut self, value: u64) -> u64 {
        let at = ROOTS + self.roots;
        self.memory.words.insert(at, value);
        self.roots += 8;
        at
    }

    fn scan(&self) -> Vec<Mark> {
        self.scan_and(|_| ())
    }

    fn scan_and(&self, then: impl FnOnce(&mut Marker<'_, &Words>)) -> Vec<Mark> {
        let count = self.blocks.len();
        let mut marks = vec![Mark::default(); count];
        let mut words = vec![0; Scratch::words_for(count)];
        let mut spans = vec![Span::default(); count];
        let scratch = Scratch { words: &mut words, spans: &mut spans };
        let mut marker = Marker::new(&self.blocks, &mut marks, scratch, &self.memory).expect("the memory is enough");
        marker.root(ROOTS..ROOTS + self.roots);
        marker.finish();
        then(&mut marker);
        marks
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let number = |mark: &Mark| Verdict::from_number(mark.verdict).expect("a verdict");
        self.scan().iter().map(number).collect()
    }

    /// What each word of a block, or of the roots, points to: the block, and whether to its first eight bytes.
    fn pointers(&self, range: Range<u64>) -> Vec<(usize, u64, u64)> {
        let words = self.memory.words.range(range);
        let target = |value: u64| self.blocks.iter().position(|block| (block.addr..block.end()).contains(&value));
        words.filter_map(|(&at, &value)| Some((target(value)?, value, at))).collect()
    }

    fn pointers_of(&self, block: usize) -> Vec<(usize, u64, u64)> {
        self.pointers(self.blocks[block].words())
    }

    /// What `from` reaches, itself included, over `edges`.
    fn closure(&self, from: impl IntoIterator<Item = usize>, edges: impl Fn(usize) -> Vec<usize>) -> BTreeSet<usize> {
        let mut reached: BTreeSet<usize> = from.into_iter().collect();
        loop {
            let more: BTreeSet<usize> = reached.iter().flat_map(|&block| edges(block)).collect();
            let before = reached.len();
            reached.extend(more);
            if reached.len() == before {
                return reached;
            }
        }
    }

    /// The verdicts by definition, without any order of work.
    fn naive(&self) -> (Vec<Verdict>, Vec<u32>) {
        let all = self.blocks.len();
        let is_strong = |&(block, value, at): &(usize, u64, u64)| {
            value - self.blocks[block].addr < 8 || shape::explains(&self.blocks[block], value, at, &mut &self.memory)
        };
        let strong = |pointers: Vec<(usize, u64, u64)>| -> Vec<usize> {
            pointers.iter().filter(|pointer| is_strong(pointer)).map(|pointer| pointer.0).collect()
        };
        let any = |pointers: Vec<(usize, u64, u64)>| -> Vec<usize> { pointers.iter().map(|p| p.0).collect() };
        let roots = self.pointers(ROOTS..ROOTS + self.roots);
        let by_flag = (0..all).filter(|&block| self.blocks[block].has(flag::ROOT));
        let reachable = self.closure(by_flag.chain(strong(roots.clone())), |block| strong(self.pointers_of(block)));
        let from_reachable = reachable.iter().flat_map(|&block| any(self.pointers_of(block)));
        let begin: Vec<_> = any(roots).into_iter().chain(from_reachable).chain(reachable.iter().copied()).collect();
        let kept = self.closure(begin, |block| any(self.pointers_of(block)));
        let is_lost = |block: usize| !kept.contains(&block) && !self.blocks[block].has(flag::INHERITED);
        let edges = |block: usize| -> Vec<usize> {
            any(self.pointers_of(block)).into_iter().filter(|&to| is_lost(to)).collect()
        };
        let lost: Vec<usize> = (0..all).filter(|&block| is_lost(block)).collect();
        let reaches: BTreeMap<usize, BTreeSet<usize>> =
            lost.iter().map(|&block| (block, self.closure([block], edges))).collect();
        let mut verdicts = vec![Verdict::Lost; all];
        let mut owners = vec![0; all];
        for (block, verdict) in verdicts.iter_mut().enumerate() {
            if reachable.contains(&block) {
                *verdict = Verdict::Reachable;
            } else if kept.contains(&block) {
                *verdict = Verdict::Possible;
            }
        }
        let mutual = |a: usize, b: usize| reaches[&a].contains(&b) && reaches[&b].contains(&a);
        let mut leaders = Vec::new();
        for &block in &lost {
            let component: Vec<usize> = lost.iter().copied().filter(|&other| mutual(block, other)).collect();
            let is_pointed_to = lost.iter().any(|&other| reaches[&other].contains(&block) && !mutual(block, other));
            if !is_pointed_to && component[0] == block {
                verdicts[block] = if component.len() == 1 { Verdict::Definite } else { Verdict::Cycle };
                leaders.push(block);
            } else {
                verdicts[block] = Verdict::Indirect;
            }
        }
        for &block in lost.iter().filter(|&&block| verdicts[block] == Verdict::Indirect) {
            let owner = leaders.iter().find(|&leader| reaches[leader].contains(&block));
            owners[block] = *owner.expect("every lost block hangs on a leader") as u32;
        }
        (verdicts, owners)
    }
}

/// A world of random blocks: sizes and flags, and pointers from anywhere to anywhere.
fn worlds() -> impl Strategy<Value = World> {
    let blocks = prop::collection::vec((0_u64..80, prop::sample::select(vec![0, 0, 0, 0, 0, 0, flag::ROOT, 2])), 1..24);
    let pointers = prop::collection::vec((any::<u16>(), any::<u16>(), any::<u16>(), 0_u8..10), 0..60);
    (blocks, pointers).prop_map(|(blocks, pointers)| {
        let mut world = World::default();
        for (size_bytes, flags) in blocks {
            world.block(size_bytes, flags);
        }
        for (from, word, to, kind) in pointers {
            let target = world.blocks[usize::from(to) % world.blocks.len()];
            let value = match kind {
                0 => target.addr + 8,
                1 => target.addr + 16,
                2 => target.addr + u64::from(word) % (target.size_bytes() + 2),
                3 => target.end(),
                4 => u64::from(word % 5),
                _ => target.addr,
            };
            let holder = world.blocks[usize::from(from) % world.blocks.len()];
            let words = holder.size_bytes() / 8;
            if from % 7 == 0 || words == 0 {
                world.root(value);
            } else {
                world.write(holder.addr + 8 * (u64::from(word) % words), value);
            }
        }
        world
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_block_has_the_verdict_that_the_definition_gives_it(world in worlds()) {
        let (verdicts, owners) = world.naive();
        prop_assert_eq!(&world.verdicts(), &verdicts);
        for (mark, owner) in world.scan().iter().zip(owners) {
            prop_assert_eq!(mark.other, owner);
        }
    }

    #[test]
    fn the_holder_of_a_block_is_a_word_that_points_into_it(world in worlds()) {
        for (block, mark) in world.blocks.iter().zip(world.scan()) {
            let held = matches!(Verdict::from_number(mark.verdict), Some(Verdict::Reachable | Verdict::Possible));
            if held && !block.has(flag::ROOT) {
                let value = world.memory.words[&mark.at];
                prop_assert!((block.addr..block.end()).contains(&value));
            }
        }
    }
}

#[test]
fn a_chain_of_a_million_lost_blocks_has_one_leader_and_needs_no_deep_stack() {
    let mut world = World::default();
    let addresses: Vec<u64> = (0..1_000_000).map(|_| world.block(8, 0)).collect();
    for pair in addresses.windows(2) {
        world.write(pair[0], pair[1]);
    }
    let verdicts = world.verdicts();
    assert_eq!(verdicts[0], Verdict::Definite);
    assert!(verdicts[1..].iter().all(|&verdict| verdict == Verdict::Indirect));
}

/// A million blocks of four words in a row, and a root for each; cheap enough to be read, unlike [`Words`].
struct Million {
    roots: Vec<u64>,
}

impl Memory for &Million {
    fn copy(&mut self, addr: u64, into: &mut [u64]) -> usize {
        for (at, place) in (addr..).step_by(8).zip(&mut *into) {
            let root = at.checked_sub(ROOTS).and_then(|offset| self.roots.get(offset as usize / 8));
            *place = root.copied().unwrap_or_default();
        }
        into.len()
    }

    fn is_constant(&self, _addr: u64) -> bool {
        false
    }

    fn is_code(&self, _addr: u64) -> bool {
        false
    }
}

#[test]
fn a_scan_of_a_million_blocks_reads_each_word_once() {
    const COUNT: usize = 1_000_000;
    let blocks: Vec<Block> = (0..COUNT as u64).map(|nth| Block::new(HEAP + 48 * nth, 32, 0)).collect();
    let memory = Million { roots: blocks.iter().map(|block| block.addr).collect() };
    let mut marks = vec![Mark::default(); COUNT];
    let mut words = vec![0; Scratch::words_for(COUNT)];
    let mut spans = vec![Span::default(); COUNT];
    let scratch = Scratch { words: &mut words, spans: &mut spans };
    let mut marker = Marker::new(&blocks, &mut marks, scratch, &memory).expect("the memory is enough");
    marker.root(ROOTS..ROOTS + 8 * COUNT as u64);
    marker.finish();
    assert_eq!(marker.read_words(), (COUNT + 4 * COUNT) as u64);
    assert!(marks.iter().all(|mark| mark.verdict == Verdict::Reachable as u8));
}

#[test]
fn a_ring_that_leaked_is_one_cycle_and_holds_the_rest() {
    let mut world = World::default();
    let ring: Vec<u64> = (0..3).map(|_| world.block(16, 0)).collect();
    let leaf = world.block(8, 0);
    for (at, &from) in ring.iter().enumerate() {
        world.write(from, ring[(at + 1) % 3]);
    }
    world.write(ring[2] + 8, leaf);
    assert_eq!(world.verdicts(), [Verdict::Cycle, Verdict::Indirect, Verdict::Indirect, Verdict::Indirect]);
    assert!(world.scan()[1..].iter().all(|mark| mark.other == 0));
}

#[test]
fn a_block_that_only_points_to_itself_is_definite() {
    let mut world = World::default();
    let block = world.block(16, 0);
    world.write(block, block);
    assert_eq!(world.verdicts(), [Verdict::Definite]);
}

#[test]
fn what_only_an_inherited_block_points_to_is_leaked_by_the_child() {
    let mut world = World::default();
    let inherited = world.block(16, flag::INHERITED);
    let own = world.block(16, 0);
    world.write(inherited, own);
    assert_eq!(world.verdicts(), [Verdict::Lost, Verdict::Definite]);
    world.root(inherited);
    assert_eq!(world.verdicts(), [Verdict::Reachable, Verdict::Reachable]);
}

#[test]
fn a_page_that_cannot_be_read_is_passed_over_and_counted() {
    let mut world = World::default();
    let block = world.block(3 * PAGE_BYTES, 0);
    let behind = world.block(8, 0);
    world.root(block);
    world.write(block + 2 * PAGE_BYTES + 64, behind);
    let hole = (block + 1).next_multiple_of(PAGE_BYTES);
    world.memory.words.retain(|&at, _| !(hole..hole + PAGE_BYTES).contains(&at));
    let mut pages = 0;
    let marks = world.scan_and(|marker| pages = marker.unreadable_pages());
    assert_eq!((marks[1].verdict, pages), (Verdict::Reachable as u8, 1));
}

#[test]
fn a_value_in_a_register_is_a_root_and_says_whose() {
    let mut world = World::default();
    let block = world.block(8, 0);
    let mut marks = [Mark::default()];
    let mut words = vec![0; Scratch::words_for(1)];
    let mut spans = [Span::default()];
    let scratch = Scratch { words: &mut words, spans: &mut spans };
    let mut marker = Marker::new(&world.blocks, &mut marks, scratch, &world.memory).expect("the memory is enough");
    marker.value(7, block);
    marker.finish();
    assert_eq!((marks[0].verdict, marks[0].at), (Verdict::Reachable as u8, 7));
}

/// A block of that many words with a pointer to `offset` in it from a root.
fn held_at(words: &[u64], size_bytes: u64, offset: u64) -> World {
    let mut world = World::default();
    let block = world.block(size_bytes, 0);
    for (at, &word) in (block..).step_by(8).zip(words) {
        world.write(at, word);
    }
    world.root(block + offset);
    world
}

#[test]
fn a_block_that_a_stack_lies_in_is_at_work_and_holds_what_lies_on_it() {
    let mut world = World::default();
    let (stack, held, lost) = (world.block(64, 0), world.block(16, 0), world.block(16, 0));
    world.write(stack + 40, held);
    let count = world.blocks.len();
    let mut marks = vec![Mark::default(); count];
    let (mut words, mut spans) = (vec![0; Scratch::words_for(count)], vec![Span::default(); count]);
    let scratch = Scratch { words: &mut words, spans: &mut spans };
    let mut marker = Marker::new(&world.blocks, &mut marks, scratch, &world.memory).expect("the memory is enough");
    marker.holding(stack + 32);
    marker.holding(lost + 16);
    marker.finish();
    let right = [Verdict::Reachable, Verdict::Reachable, Verdict::Definite].map(|verdict| verdict as u8);
    assert!(marks.iter().map(|mark| mark.verdict).eq(right), "{marks:?}");
}

#[test]
fn known_shapes_make_a_pointer_into_the_middle_a_pointer() {
    let vtable = CONSTANTS.start + 16;
    let base = HEAP;
    let exception = u64::from_be_bytes(*b"GNUCC++\x01");
    let cases: [(&str, &[u64], u64, u64); 9] = [
        ("low tag", &[0, 0], 16, 3),
        ("array cookie", &[5, 1, 2], 8 + 5 * 24, 8),
        ("length word", &[100, 7], 108, 8),
        ("length word, rounded up", &[104, 7], 108, 8),
        ("old string", &[3, 7, 0, 0x0061_6263], 32, 24),
        ("ArcInner", &[2, 1, 99], 40, 16),
        ("aligned header", &[0, 0, 0, base, 1], 128, 32),
        ("exception", &[1, 0, exception, 0, 0, 0, 9], 56, 48),
        ("second base", &[vtable, 1, vtable + 8, 2], 40, 16),
    ];
    for (name, words, size_bytes, offset) in cases {
        let mut world = held_at(words, size_bytes, offset);
        world.memory.words.extend([(vtable, CODE.start), (vtable + 8, CODE.start + 8), (vtable + 16, 0)]);
        assert_eq!(world.verdicts(), [Verdict::Reachable], "{name}");
        // A word spoilt where the shape is told from: nothing explains the pointer any more.
        if offset >= 8 {
            for at in (HEAP..HEAP + offset.max(16)).step_by(8) {
                world.write(at, u64::MAX >> 1);
            }
            assert_eq!(world.verdicts(), [Verdict::Possible], "{name}, spoilt");
        }
    }
}

#[test]
fn a_hash_table_of_rusts_is_held_by_the_pointer_to_its_bytes_of_control() {
    let mut world = World::default();
    let table = world.block(4 * 24 + 4 + 16, 0);
    world.root(table + 4 * 24);
    let mask = world.root(3);
    assert_eq!(world.verdicts(), [Verdict::Reachable]);
    world.memory.words.insert(mask, 4);
    assert_eq!(world.verdicts(), [Verdict::Possible]);
}

#[test]
fn elements_of_a_list_are_held_by_the_node_inside_them() {
    let mut world = World::default();
    let first = world.block(48, 0);
    let second = world.block(48, 0);
    let head = world.root(first + 16);
    world.root(second + 16);
    world.write(first + 16, second + 16);
    world.write(first + 24, head);
    world.write(second + 16, head);
    world.write(second + 24, first + 16);
    assert_eq!(world.verdicts(), [Verdict::Reachable, Verdict::Reachable]);
    world.write(first + 16, 0);
    world.write(first + 24, 0);
    world.write(second + 24, 0);
    world.write(second + 16, 0);
    assert_eq!(world.verdicts(), [Verdict::Possible, Verdict::Possible]);
}

#[test]
fn a_node_with_nothing_but_a_way_back_to_where_it_hangs_is_in_a_list() {
    let mut world = World::default();
    let element = world.block(64, 0);
    let head = world.root(element + 32);
    world.write(element + 40, head);
    assert_eq!(world.verdicts(), [Verdict::Reachable]);
}

#[test]
fn disguised_pointers_to_leaked_blocks_are_hints_and_nothing_more() {
    let hint = |make: fn(&mut World, u64)| {
        let mut world = World::default();
        let block = world.block(64, 0);
        make(&mut world, block);
        let roots = ROOTS..ROOTS + world.roots;
        let mark = world.scan_and(|marker| {
            marker.hint(roots);
        })[0];
        assert_eq!(mark.verdict, Verdict::Definite as u8);
        (mark.disguise, mark.at.wrapping_sub(ROOTS))
    };
    let unaligned = hint(|world, block| {
        world.root(block << 24);
        world.root(block >> 40);
    });
    assert_eq!(unaligned, (disguise::UNALIGNED, 3));
    assert_eq!(
        hint(|world, block| {
            world.root(block + 64);
        }),
        (disguise::ONE_PAST_END, 0)
    );
    assert_eq!(
        hint(|world, block| {
            world.root(block | 0xfff8 << 48);
        }),
        (disguise::TOP_TAGGED, 0)
    );
    assert_eq!(
        hint(|world, block| {
            world.root(block >> 4);
        }),
        (disguise::SHIFTED, 0)
    );
    assert_eq!(
        hint(|world, block| {
            world.root(!block);
        })
        .0,
        0
    );
}
