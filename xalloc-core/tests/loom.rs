//! Models of the ring, the stack trie, the lock and the tenure of a place: loom runs each under every interleaving and every reordering that the
//! memory model allows, up to a bound on preemptions.
//!
//! Run with `RUSTFLAGS="--cfg xalloc_loom" CARGO_TARGET_DIR=target/loom cargo test -p xalloc-core --test loom --release`
//! (a target directory of its own: otherwise each switch of the cfg builds everything again).
//!
//! # Safety
//! Each model makes one producer and one consumer per ring, over slots whose number is a power of two, which is all
//! that their constructors ask for.
#![cfg(xalloc_loom)]
#![allow(unsafe_code)]

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use xalloc_core::intern::{Counters, FrameWord, Growth, Node, Reserve, Trie};
use xalloc_core::primitive::{AtomicU32, AtomicU64, Ordering, UnsafeCell};
use xalloc_core::ring::{Consumer, Full, Indices, Producer, Slot};
use xalloc_core::sys::lock::Lock;
use xalloc_core::sys::tenure::{Holder, Tenure};
use xalloc_core::units::StackId;
use xalloc_core::wire::Record;

/// Preemptions that a model explores. Known bugs of rings and tables show with two; a third is the margin.
const PREEMPTIONS: usize = 3;

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(body);
}

struct Ring {
    indices: Indices,
    slots: Vec<Slot>,
    kernel: Kernel,
}

impl Ring {
    fn new(capacity: usize) -> Arc<Ring> {
        assert!(capacity.is_power_of_two());
        let slots = (0..capacity).map(|_| Slot::empty()).collect();
        Arc::new(Ring { indices: Indices::new(), slots, kernel: Kernel::default() })
    }

    fn producer(&self) -> Producer<'_> {
        // SAFETY: every model calls this once (module); the slots' number was checked in `new`.
        unsafe { Producer::new(&self.indices, &self.slots) }
    }

    fn consumer(&self) -> Consumer<'_> {
        // SAFETY: every model calls this once (module); the slots' number was checked in `new`.
        unsafe { Consumer::new(&self.indices, &self.slots) }
    }

    /// What a hook does with a full ring: announce, sleep, try again.
    fn push_waiting(&self, producer: &mut Producer<'_>, records: &[Record]) {
        let push = |producer: &mut Producer<'_>| match records {
            [one] => producer.push_one(*one),
            _ => producer.push(records),
        };
        while push(producer) == Err(Full) {
            if let Some(seen) = producer.prepare_wait(records.len()) {
                self.kernel.wait(self.indices.space(), seen);
            }
        }
    }

    /// What the recorder does: take what is there, give the slots back, wake whom it must.
    fn take(&self, consumer: &mut Consumer<'_>, into: &mut Vec<Record>) {
        let available = consumer.available();
        if available == 0 {
            thread::yield_now();
            return;
        }
        into.extend((0..available).map(|ahead| consumer.peek(ahead)));
        if consumer.release(available) {
            self.kernel.wake();
        }
    }
}

/// A futex: the word is compared and the sleeper enqueued under one lock, as the kernel does it. A wake-up that is
/// lost leaves a sleeper that nobody wakes, which loom reports as a deadlock.
#[derive(Default)]
struct Kernel {
    queue: Mutex<()>,
    sleepers: Condvar,
}

impl Kernel {
    fn wait(&self, word: &AtomicU32, expected: u32) {
        let queue = self.queue.lock().unwrap();
        if word.load(Ordering::Relaxed) == expected {
            drop(self.sleepers.wait(queue).unwrap());
        }
    }

    fn wake(&self) {
        let _queue = self.queue.lock().unwrap();
        self.sleepers.notify_all();
    }
}

/// A record whose fields all tell its number, so that a torn one shows.
fn record(number: u64) -> Record {
    Record { stamp: number, a: number, b: number, stack: number as u32, kind: 1, sub: 0, extra: number as u16 }
}

fn records(numbers: std::ops::Range<u64>) -> Vec<Record> {
    numbers.map(record).collect()
}

#[test]
fn records_arrive_whole_and_in_order_while_the_ring_wraps() {
    model(|| {
        let ring = Ring::new(2);
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let mut producer = ring.producer();
                for number in 0..3 {
                    ring.push_waiting(&mut producer, &[record(number)]);
                }
            })
        };
        let mut consumer = ring.consumer();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            ring.take(&mut consumer, &mut seen);
        }
        writer.join().unwrap();
        assert_eq!(seen, records(0..3));
        assert_eq!(consumer.available(), 0);
    });
}

#[test]
fn records_of_one_push_become_visible_together() {
    model(|| {
        let ring = Ring::new(4);
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let mut producer = ring.producer();
                producer.push(&records(0..2)).unwrap();
                producer.push(&records(2..4)).unwrap();
            })
        };
        let mut consumer = ring.consumer();
        let mut seen = Vec::new();
        while seen.len() < 4 {
            ring.take(&mut consumer, &mut seen);
            assert!(seen.len().is_multiple_of(2), "half of a push was seen: {seen:?}");
        }
        writer.join().unwrap();
        assert_eq!(seen, records(0..4));
    });
}

#[test]
fn a_thread_that_waits_for_space_is_always_woken() {
    model(|| {
        let ring = Ring::new(1);
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let mut producer = ring.producer();
                for number in 0..3 {
                    ring.push_waiting(&mut producer, &[record(number)]);
                }
            })
        };
        let mut consumer = ring.consumer();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            ring.take(&mut consumer, &mut seen);
        }
        writer.join().unwrap();
        assert_eq!(seen, records(0..3));
    });
}

#[test]
fn what_a_thread_pushed_last_is_seen_by_whoever_sees_that_it_ended() {
    const CLOSING: u32 = 2;
    model(|| {
        let ring = Ring::new(2);
        let state = Arc::new(AtomicU32::new(1));
        let writer = {
            let (ring, state) = (Arc::clone(&ring), Arc::clone(&state));
            thread::spawn(move || {
                ring.producer().push_one(record(7)).unwrap();
                // ORDERING: pairs with the Acquire load of the recorder below.
                state.store(CLOSING, Ordering::Release);
            })
        };
        let mut consumer = ring.consumer();
        let mut seen = Vec::new();
        // ORDERING: pairs with the Release store of the ending thread.
        let ended = state.load(Ordering::Acquire) == CLOSING;
        if consumer.available() > 0 {
            ring.take(&mut consumer, &mut seen);
        }
        if ended {
            assert_eq!(consumer.available(), 0);
            assert_eq!(seen, [record(7)]);
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_ring_that_half_filled_tells_its_producer_at_least_once() {
    use xalloc_core::ring::Level;
    model(|| {
        let ring = Ring::new(2);
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let mut producer = ring.producer();
                [producer.push_one(record(0)).unwrap(), producer.push_one(record(1)).unwrap()]
            })
        };
        let mut consumer = ring.consumer();
        let early = consumer.available();
        let _ = consumer.release(early);
        let levels = writer.join().unwrap();
        if early == 0 {
            assert!(levels.contains(&Level::PassedHalf), "the recorder sleeps over a full ring");
        }
    });
}

struct Memory {
    counters: Counters,
    nodes: Vec<Node>,
    levels: Vec<Vec<AtomicU32>>,
}

impl Memory {
    fn new(nodes: usize, levels: &[usize]) -> Arc<Memory> {
        let level = |&entries: &usize| (0..entries).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Memory {
            counters: Counters::new(),
            nodes: (0..nodes).map(|_| Node::empty()).collect(),
            levels: levels.iter().map(level).collect(),
        })
    }

    fn with<R>(&self, body: impl FnOnce(Trie<'_>) -> R) -> R {
        let levels: Vec<&[AtomicU32]> = self.levels.iter().map(Vec::as_slice).collect();
        body(Trie::new(&self.counters, &self.nodes, &levels))
    }

    /// Inserts one stack, innermost frame last, and checks that each of its nodes is whole at once.
    fn insert(&self, frames: &[u64]) -> StackId {
        self.with(|trie| {
            let mut id = StackId::NONE;
            for &address in frames {
                let frame = FrameWord::return_address(address);
                let parent = id;
                id = trie.insert(parent, frame);
                assert_eq!(trie.get(id), Some((parent, frame)), "node {id:?} is not whole");
            }
            id
        })
    }
}

/// The frames of a stack, innermost first, as the recorder reads them.
fn frames(trie: Trie<'_>, mut id: StackId) -> Vec<FrameWord> {
    let mut frames = Vec::new();
    while id != StackId::NONE {
        let (parent, frame) = trie.get(id).expect("an id that travelled names a node that is whole");
        frames.push(frame);
        id = parent;
    }
    frames
}

#[test]
fn two_threads_that_insert_the_same_stack_both_name_a_whole_one() {
    model(|| {
        let memory = Memory::new(8, &[4, 16]);
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || memory.insert(&[0x1000, 0x2000]))
        };
        let mine = memory.insert(&[0x1000, 0x2000]);
        let theirs = other.join().unwrap();
        memory.with(|trie| {
            assert_eq!(frames(trie, mine), frames(trie, theirs));
            assert_eq!(trie.lost(), 0);
        });
        // Once both are done there is one answer for good.
        assert_eq!(memory.insert(&[0x1000, 0x2000]), memory.insert(&[0x1000, 0x2000]));
    });
}

#[test]
fn two_threads_that_insert_different_stacks_get_different_ids() {
    model(|| {
        let memory = Memory::new(8, &[4, 16]);
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || memory.insert(&[0x1000, 0x2000]))
        };
        let mine = memory.insert(&[0x1000, 0x3000]);
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs);
        memory.with(|trie| {
            let [leaf, root] = frames(trie, mine)[..] else { panic!("two frames went in") };
            assert_eq!((leaf, root), (FrameWord::return_address(0x3000), FrameWord::return_address(0x1000)));
            let [leaf, root] = frames(trie, theirs)[..] else { panic!("two frames went in") };
            assert_eq!((leaf, root), (FrameWord::return_address(0x2000), FrameWord::return_address(0x1000)));
        });
    });
}

#[test]
fn a_stack_that_a_record_names_is_whole_when_the_record_is_read() {
    model(|| {
        let memory = Memory::new(4, &[4, 8]);
        let ring = Ring::new(1);
        let writer = {
            let (memory, ring) = (Arc::clone(&memory), Arc::clone(&ring));
            thread::spawn(move || {
                let stack = memory.insert(&[0x1000, 0x2000]);
                ring.producer().push_one(Record { stack: stack.0, ..record(1) }).unwrap();
            })
        };
        let mut consumer = ring.consumer();
        let mut seen = Vec::new();
        while seen.is_empty() {
            ring.take(&mut consumer, &mut seen);
        }
        memory.with(|trie| {
            assert!(seen[0].stack < trie.end().0);
            let expected = [0x2000, 0x1000].map(FrameWord::return_address);
            assert_eq!(frames(trie, StackId(seen[0].stack)), expected);
        });
        writer.join().unwrap();
    });
}

#[test]
fn when_nodes_run_out_one_thread_gets_the_last_and_the_other_is_counted() {
    model(|| {
        let memory = Memory::new(3, &[4, 8]);
        let last_of = |memory: &Memory, address| {
            memory.with(|trie| trie.insert(StackId::NONE, FrameWord::return_address(address)))
        };
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || last_of(&memory, 0x1000))
        };
        let mine = last_of(&memory, 0x2000);
        let theirs = other.join().unwrap();
        let unknown = [mine, theirs].iter().filter(|&&id| id == StackId::UNKNOWN).count();
        assert_eq!(unknown, 1, "{mine:?} {theirs:?}");
        assert_eq!(memory.with(|trie| trie.lost()), 1);
    });
}

/// Memory that grants the first step, refuses the second once, and then grants what is asked for.
#[derive(Debug)]
struct Grudging {
    asked: AtomicU32,
    granted: AtomicU32,
}

impl Reserve for Grudging {
    fn reserve(&self, growth: &Growth) -> bool {
        let is_granted = self.asked.fetch_add(1, Ordering::Relaxed) != 1;
        if is_granted {
            self.granted.fetch_max(growth.nodes.end as u32, Ordering::Relaxed);
        }
        is_granted
    }
}

#[test]
fn room_that_comes_while_another_thread_is_refused_hands_out_no_node_twice_and_none_beyond_it() {
    model(|| {
        let memory = Memory::new(8, &[8, 16]);
        let kernel = Arc::new(Grudging { asked: AtomicU32::new(0), granted: AtomicU32::new(0) });
        let insert = |memory: &Memory, kernel: &Grudging, address| {
            let levels: Vec<&[AtomicU32]> = memory.levels.iter().map(Vec::as_slice).collect();
            let trie = Trie::growing(&memory.counters, &memory.nodes, &levels, kernel);
            let id = trie.insert(StackId::NONE, FrameWord::return_address(address));
            // Relaxed: an answer that is too small shows that the trie has not ordered the reservation before its use.
            let granted = kernel.granted.load(Ordering::Relaxed);
            assert!(id == StackId::UNKNOWN || id.0 < granted, "{id:?} of {granted}");
            id
        };
        // Two nodes are the first step.
        let first = [0x100, 0x200].map(|address| insert(&memory, &kernel, address));
        assert_eq!(first, [StackId(2), StackId(3)]);
        let other = {
            let (memory, kernel) = (Arc::clone(&memory), Arc::clone(&kernel));
            thread::spawn(move || [0x1000, 0x2000].map(|address| insert(&memory, &kernel, address)))
        };
        let mine = insert(&memory, &kernel, 0x3000);
        let theirs = other.join().unwrap();
        let mut known: Vec<StackId> = theirs.into_iter().chain([mine]).filter(|&id| id != StackId::UNKNOWN).collect();
        let count = known.len();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), count, "one node for two stacks");
        assert_eq!(memory.with(|trie| trie.lost()) as usize, 3 - count);
    });
}

#[test]
fn threads_that_want_a_lock_have_it_one_at_a_time_and_none_sleeps_for_ever() {
    model(|| {
        let shared = Arc::new((Lock::new(), UnsafeCell::new(0_u32)));
        let add = |shared: &(Lock, UnsafeCell<u32>), tid| {
            let (lock, counter) = shared;
            lock.acquire(tid);
            assert_eq!(lock.owner(), Some(tid));
            // SAFETY: the lock is held; loom fails the model if another thread is here too.
            counter.with_mut(|place| unsafe { *place += 1 });
            lock.release();
        };
        let others = [2, 3].map(|tid| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || add(&shared, tid))
        });
        add(&shared, 1);
        for other in others {
            other.join().unwrap();
        }
        // SAFETY: the other threads are gone.
        assert_eq!(shared.1.with(|place| unsafe { *place }), 3);
        assert_eq!(shared.0.owner(), None);
    });
}

#[test]
fn of_a_thief_and_a_successor_with_the_old_address_one_gets_the_place() {
    const GONE: u32 = 7;
    model(|| {
        let (former, thief) = (Holder::at(64).unwrap(), Holder::at(128).unwrap());
        let shared = Arc::new((Tenure::new(), UnsafeCell::new(0_u64)));
        assert!(shared.0.claim(former));
        shared.0.end(former, GONE);
        // A place is used by whoever got it; loom fails the model if two threads do at once.
        let use_it = |cell: &UnsafeCell<u64>| {
            // SAFETY: by what the model shows.
            cell.with_mut(|place| unsafe { *place += 1 });
        };
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (place, cell) = &*shared;
                let won = place.over().is_some_and(|over| over.thread() == GONE && place.take_over(over, thief));
                if won {
                    use_it(cell);
                }
                won
            })
        };
        // A new thread has the descriptor that the former holder had.
        let (place, cell) = &*shared;
        let won = place.is_of(former) && place.over().is_some_and(|over| place.take_over(over, former));
        if won {
            use_it(cell);
        }
        assert!(won != other.join().unwrap(), "one of the two");
        assert!(place.is_of(if won { former } else { thief }));
    });
}

/// The models trust that loom sees these words; a core atomic in their place would make every model pass.
#[test]
fn the_shared_words_are_looms() {
    assert!(std::any::type_name::<AtomicU64>().starts_with("loom::"));
    assert!(std::any::type_name::<AtomicU32>().starts_with("loom::"));
}
