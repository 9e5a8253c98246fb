//! A trace on the simulated heap.

use std::collections::HashMap;

use xalloc_core::heap::sim::{BREAK_BASE, Machine, Simulation};
use xalloc_core::heap::{Live, NoSink, Os, Policy, Reallocated, Tunables};
use xalloc_core::units::Addr;

use crate::trace::{Kind, Op, Outcome};

/// Request by which `pthread_create` makes the new thread's vector of modules' storage, when the stack is not from
/// libc's cache: (1 module + 14 spare + 2) entries of 16 bytes.
const THREAD_VECTOR_BYTES: u64 = 272;

/// Cores of the machine: the arena limit depends on them.
pub(crate) fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

/// Whether the kernel has set enough huge pages of the default size aside for whole traces (`XALLOC_PLACEMENT_HUGE_PAGES=1`).
pub(crate) fn has_huge_pages() -> bool {
    std::env::var_os("XALLOC_PLACEMENT_HUGE_PAGES").is_some_and(|value| value == "1")
}

/// A process on this machine whose libc has already asked where its break is.
pub(crate) fn simulation(policy: &Policy, tunables: &Tunables) -> Simulation {
    let usual = Machine::with_cores(cores());
    let machine = Machine {
        transparent_pages: Live::new().transparent_pages(),
        huge_page_bytes: Live::new().huge_page_bytes(None).unwrap_or(usual.huge_page_bytes),
        has_huge_pages: has_huge_pages(),
        ..usual
    };
    let mut simulation = Simulation::on_machine(policy, tunables, machine);
    simulation.move_break(0);
    simulation
}

pub(crate) struct Replay {
    pub(crate) simulation: Simulation,
    slots: HashMap<u32, Addr>,
    /// The simulation's number of each of the trace's threads.
    threads: [usize; 256],
    cached_stacks: u32,
    arenas: Vec<u64>,
}

impl Replay {
    pub(crate) fn new(policy: &Policy, tunables: &Tunables) -> Replay {
        let simulation = simulation(policy, tunables);
        Replay { simulation, slots: HashMap::new(), threads: [0; 256], cached_stacks: 0, arenas: Vec::new() }
    }

    /// The block that a slot names.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) fn block(&self, slot: u32) -> Option<Addr> {
        self.slots.get(&slot).copied()
    }

    pub(crate) fn step(&mut self, op: &Op) -> Outcome {
        let thread = self.threads[usize::from(op.thread)];
        let heap = &mut self.simulation;
        let old = self.slots.get(&op.slot).copied();
        let mut result = 0;
        let block = match op.kind {
            Kind::Malloc => heap.malloc(thread, &mut NoSink, op.size).map(|block| block.addr),
            Kind::Calloc => heap.calloc(thread, &mut NoSink, 1, op.size).map(|block| block.addr),
            Kind::Memalign => heap.memalign(thread, &mut NoSink, op.align, op.size).ok().map(|block| block.addr),
            Kind::Free => {
                if let Some(old) = old {
                    heap.free(thread, &mut NoSink, old).expect("the trace frees live blocks only");
                }
                None
            }
            Kind::Realloc => match old {
                None => heap.malloc(thread, &mut NoSink, op.size).map(|block| block.addr),
                Some(old) => match heap.realloc(thread, &mut NoSink, old, op.size).expect("the block is live") {
                    Reallocated::InPlace(block) | Reallocated::Moved(block) => Some(block.addr),
                    Reallocated::Freed => None,
                    Reallocated::Failed => Some(old),
                },
            },
            Kind::Trim => {
                result = u64::from(heap.trim(thread, &mut NoSink, op.size));
                old
            }
            Kind::Mallopt => {
                result = u64::from(heap.mallopt(thread, &mut NoSink, op.size as i32, op.align as i32));
                old
            }
            Kind::Start => return self.start(op.thread),
            Kind::StartBare => {
                self.threads[usize::from(op.thread)] = heap.spawn();
                return self.describe(None);
            }
            Kind::Exit => {
                heap.exit(thread, &mut NoSink);
                self.cached_stacks += 1;
                return Outcome { brk: heap.break_bytes(), ..Outcome::default() };
            }
            Kind::Sbrk => {
                heap.move_break(op.size as i64);
                old
            }
            Kind::Block => {
                heap.block_break();
                old
            }
        };
        match block {
            Some(addr) => self.slots.insert(op.slot, addr),
            None => self.slots.remove(&op.slot),
        };
        let mut outcome = self.describe(block);
        outcome.heap_size |= result;
        outcome
    }

    fn start(&mut self, thread: u8) -> Outcome {
        self.threads[usize::from(thread)] = self.simulation.spawn();
        if self.cached_stacks > 0 {
            self.cached_stacks -= 1;
        } else {
            self.simulation.calloc(0, &mut NoSink, 1, THREAD_VECTOR_BYTES);
        }
        self.describe(None)
    }

    fn describe(&mut self, block: Option<Addr>) -> Outcome {
        let brk = self.simulation.break_bytes();
        let Some(addr) = block else { return Outcome { brk, ..Outcome::default() } };
        let words = self.simulation.block(addr);
        let usable = words.usable_bytes;
        if words.is_mapped {
            return Outcome { place: 2, offset: addr.0 % 4096, usable, brk, heap_size: 0 };
        }
        let Some(heap) = words.sub_heap else {
            let offset = addr.0.wrapping_sub(BREAK_BASE);
            if offset >= brk {
                return Outcome { place: 4, offset: addr.0 % 4096, usable, brk, heap_size: 0 };
            }
            return Outcome { place: 1, offset, usable, brk, heap_size: 0 };
        };
        let number = self.arenas.iter().position(|&arena| arena == heap.arena).unwrap_or_else(|| {
            self.arenas.push(heap.arena);
            self.arenas.len() - 1
        });
        let place = 3 | (number as u64) << 8 | heap.depth << 24;
        Outcome { place, offset: heap.offset, usable, brk, heap_size: heap.size_bytes }
    }
}

/// The outcomes of a whole trace.
#[allow(dead_code, reason = "not every test asks")]
pub(crate) fn simulate(policy: &Policy, tunables: &Tunables, ops: &[Op]) -> Vec<Outcome> {
    let mut replay = Replay::new(policy, tunables);
    ops.iter().map(|op| replay.step(op)).collect()
}
