//! The trie alone, and asked by several threads at once.

use super::*;
use std::collections::HashMap;

struct Memory {
    counters: Counters,
    nodes: Vec<Node>,
    levels: Vec<Vec<AtomicU32>>,
}

impl Memory {
    fn new(nodes: usize, levels: &[usize]) -> Memory {
        let level = |&entries: &usize| (0..entries).map(|_| AtomicU32::new(0)).collect();
        Memory {
            counters: Counters::new(),
            nodes: (0..nodes).map(|_| Node::empty()).collect(),
            levels: levels.iter().map(level).collect(),
        }
    }

    fn with<R>(&self, body: impl FnOnce(Trie<'_>) -> R) -> R {
        let levels: Vec<&[AtomicU32]> = self.levels.iter().map(Vec::as_slice).collect();
        body(Trie::new(&self.counters, &self.nodes, &levels))
    }
}

#[test]
fn equal_stacks_get_equal_ids_and_different_stacks_different_ones_across_all_levels() {
    Memory::new(1 << 12, &[1 << 4, 1 << 7, 1 << 10, 1 << 13]).with(|trie| {
        let mut naive: HashMap<(StackId, u64), StackId> = HashMap::new();
        let mut ids = vec![StackId::NONE];
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let parent = ids[(state >> 33) as usize % ids.len()];
            let frame = FrameWord::return_address(0x40_0000 + (state >> 20) % 61);
            if naive.len() > 3_000 && !naive.contains_key(&(parent, frame.0)) {
                continue;
            }
            let id = trie.insert(parent, frame);
            let expected = *naive.entry((parent, frame.0)).or_insert(id);
            assert_eq!(id, expected);
            assert_eq!(trie.get(id), Some((parent, frame)));
            if ids.len() < 1_000 {
                ids.push(id);
            }
        }
        assert_eq!(trie.lost(), 0);
    });
}

#[test]
fn frames_that_one_frame_calls_first_are_found_without_the_index_and_others_by_it() {
    let memory = Memory::new(64, &[1 << 7]);
    memory.with(|trie| {
        let chain = |last| {
            let frames = (0..10).map(|frame| 0x1000 + frame).chain([last]);
            frames.fold(StackId::NONE, |caller, frame| trie.insert(caller, FrameWord::return_address(frame)))
        };
        let (first, second) = (chain(0x2000), chain(0x3000));
        assert_eq!(trie.end(), StackId(FIRST + 12));
        assert_eq!((chain(0x2000), chain(0x3000)), (first, second));
        assert_eq!(trie.end(), StackId(FIRST + 12));
    });
    let entries = |level: &Vec<AtomicU32>| level.iter().filter(|entry| entry.load(Ordering::Relaxed) != 0).count();
    assert_eq!(memory.levels.iter().map(entries).sum::<usize>(), 1);
}

#[test]
fn a_full_trie_answers_unknown_and_counts() {
    Memory::new(16, &[1 << 3, 1 << 5]).with(|trie| {
        for address in 0..14 {
            assert_ne!(trie.insert(StackId::NONE, FrameWord::return_address(0x1000 + address)), StackId::UNKNOWN);
        }
        assert_eq!(trie.insert(StackId::NONE, FrameWord::return_address(0x9000)), StackId::UNKNOWN);
        assert_eq!(trie.insert(StackId::NONE, FrameWord::return_address(0x9001)), StackId::UNKNOWN);
        assert_eq!(trie.lost(), 2);
        assert_ne!(trie.insert(StackId::NONE, FrameWord::return_address(0x1003)), StackId::UNKNOWN);
        assert_eq!(trie.end(), StackId(16));
    });
}

/// Memory that notes what it is asked for, until it has no more nodes to give.
#[derive(Debug)]
struct Budget {
    nodes: AtomicU32,
    granted: std::sync::Mutex<Vec<Growth>>,
}

impl Reserve for Budget {
    fn reserve(&self, growth: &Growth) -> bool {
        let is_there = growth.nodes.end as u32 <= self.nodes.load(Ordering::Relaxed);
        if is_there {
            self.granted.lock().expect("no holder panics").push(growth.clone());
        }
        is_there
    }
}

#[test]
fn nodes_and_levels_are_reserved_in_steps_before_they_are_used() {
    let memory = Memory::new(1 << 17, &[1 << 6, 1 << 12, 1 << 18]);
    let budget = Budget { nodes: AtomicU32::new(u32::MAX), granted: std::sync::Mutex::default() };
    let levels: Vec<&[AtomicU32]> = memory.levels.iter().map(Vec::as_slice).collect();
    let trie = Trie::growing(&memory.counters, &memory.nodes, &levels, &budget);
    for address in 0..70_000 {
        let id = trie.insert(StackId::NONE, FrameWord::return_address(0x1000 + address));
        let granted = budget.granted.lock().expect("no holder panics");
        assert!((id.0 as usize) < granted.last().expect("one step at least").nodes.end);
        if address.is_power_of_two() {
            let used = memory.levels.iter().filter(|level| is_used(level)).count();
            assert_eq!(used, granted.iter().filter(|growth| growth.level.is_some()).count());
        }
    }
    let granted = budget.granted.into_inner().expect("no holder panics");
    let steps = [(0..32, Some(0)), (32..2048, Some(1)), (2048..67_584, Some(2)), (67_584..1 << 17, None)];
    assert_eq!(granted, steps.map(|(nodes, level)| Growth { nodes, level }));
}

fn is_used(level: &[AtomicU32]) -> bool {
    level.iter().any(|entry| entry.load(Ordering::Relaxed) != 0)
}

#[test]
fn where_there_is_no_room_nothing_is_touched_and_room_that_comes_later_is_used() {
    let memory = Memory::new(1 << 12, &[1 << 6, 1 << 13]);
    let budget = Budget { nodes: AtomicU32::new(0), granted: std::sync::Mutex::default() };
    let levels: Vec<&[AtomicU32]> = memory.levels.iter().map(Vec::as_slice).collect();
    let trie = Trie::growing(&memory.counters, &memory.nodes, &levels, &budget);
    let insert = |address| trie.insert(StackId::NONE, FrameWord::return_address(address));
    assert_eq!(insert(0x1000), StackId::UNKNOWN);
    assert!(!memory.levels.iter().any(|level| is_used(level)));
    budget.nodes.store(32, Ordering::Relaxed);
    let mut known = 0;
    for address in 0..3 * PATIENCE {
        known += u64::from(insert(0x1_0000 + address) != StackId::UNKNOWN);
    }
    assert_eq!(known, 30);
    assert_eq!(trie.lost(), 1 + 3 * PATIENCE - known);
    assert!(!is_used(&memory.levels[1]));
    // What was interned is still found.
    assert_eq!(trie.get(StackId(2)).map(|(_, frame)| trie.insert(StackId::NONE, frame)), Some(StackId(2)));
    budget.nodes.store(u32::MAX, Ordering::Relaxed);
    assert!((0..=PATIENCE).any(|address| insert(0x2_0000 + address) != StackId::UNKNOWN));
}
