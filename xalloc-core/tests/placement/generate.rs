//! Random traces with the habits of programs: few sizes used often, phases of growth and decay, blocks that die young.

use crate::trace::{Kind, Op};

/// A small generator of pseudo-random numbers (xorshift64*): equal seeds give equal traces on every machine.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// Whether an event of `percent` probability happens.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The range that sizes come from.
#[derive(Clone, Copy, Debug)]
enum Sizes {
    Tiny,
    Small,
    Mixed,
    /// Log-uniform up to this power of two.
    Log(u64),
}

impl Sizes {
    fn draw(self, rng: &mut Rng) -> u64 {
        match self {
            Sizes::Tiny => rng.below(130),
            Sizes::Small => rng.below(1100),
            Sizes::Mixed if rng.percent(80) => rng.below(600),
            Sizes::Mixed => rng.below(60_000),
            Sizes::Log(bits) => {
                let top = 1 << (3 + rng.below(bits - 2));
                top / 2 + rng.below(top / 2 + 1)
            }
        }
    }
}

/// What others than malloc do to the break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code, reason = "not every test makes every kind")]
pub(crate) enum Others {
    Nothing,
    /// They move it by whole pages, or stand in its way.
    MoveByPages,
    /// As before, and by some bytes more.
    MoveByBytes,
}

/// How a trace is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) ops: usize,
    /// Most threads beside the main one; 0 for a process that never starts one.
    pub(crate) threads: u8,
    /// Whether the mmap threshold is raised, so that thread arenas grow to several sub-heaps.
    pub(crate) raise_mmap_threshold: bool,
    /// What else happens to the break.
    pub(crate) others: Others,
}

/// Bytes that a trace keeps live at most, so that the real process stays small.
const LIVE_MAX: u64 = 400 << 20;

struct Maker {
    rng: Rng,
    ops: Vec<Op>,
    sizes: Sizes,
    hot: [u64; 12],
    live: Vec<(u32, u64)>,
    live_bytes: u64,
    unused: Vec<u32>,
    next_slot: u32,
    /// Threads that run, by number.
    running: Vec<u8>,
}

impl Maker {
    fn size(&mut self) -> u64 {
        if self.rng.percent(50) {
            let pick = self.rng.below(12) as usize;
            return self.hot[pick];
        }
        self.sizes.draw(&mut self.rng)
    }

    fn thread(&mut self) -> u8 {
        let pick = self.rng.below(self.running.len() as u64) as usize;
        self.running[pick]
    }

    fn push(&mut self, kind: Kind, slot: u32, size: u64, align: u64) {
        let thread = self.thread();
        self.ops.push(Op { kind, thread, slot, size, align });
    }

    fn allocate(&mut self) {
        let size = self.size();
        if self.live_bytes + size > LIVE_MAX {
            return self.release();
        }
        let slot = self.unused.pop().unwrap_or_else(|| {
            self.next_slot += 1;
            self.next_slot - 1
        });
        match self.rng.below(100) {
            0..=11 => self.push(Kind::Calloc, slot, size, 0),
            12..=17 => {
                let align = 8 << self.rng.below(10);
                self.push(Kind::Memalign, slot, size, align);
            }
            _ => self.push(Kind::Malloc, slot, size, 0),
        }
        self.live.push((slot, size));
        self.live_bytes += size;
    }

    /// Half of the time the latest block dies, else any.
    fn pick_live(&mut self) -> Option<usize> {
        let count = self.live.len();
        if count == 0 {
            return None;
        }
        let recent = self.rng.percent(50);
        let range = if recent { count.min(8) } else { count };
        Some(count - 1 - self.rng.below(range as u64) as usize)
    }

    fn release(&mut self) {
        let Some(pick) = self.pick_live() else { return };
        let (slot, size) = self.live.swap_remove(pick);
        self.live_bytes -= size;
        self.unused.push(slot);
        self.push(Kind::Free, slot, 0, 0);
    }

    fn resize(&mut self) {
        let Some(pick) = self.pick_live() else { return };
        let size = self.size().max(1);
        if self.live_bytes + size > LIVE_MAX {
            return;
        }
        let (slot, old) = self.live[pick];
        self.live_bytes = self.live_bytes - old + size;
        self.live[pick] = (slot, size);
        self.push(Kind::Realloc, slot, size, 0);
    }

    fn start_thread(&mut self, most: u8) {
        let free = (1..=most).find(|thread| !self.running.contains(thread));
        if let Some(thread) = free {
            self.running.push(thread);
            self.ops.push(Op { kind: Kind::Start, thread, slot: 0, size: 0, align: 0 });
        }
    }

    fn end_thread(&mut self) {
        if self.running.len() > 1 {
            let pick = 1 + self.rng.below(self.running.len() as u64 - 1) as usize;
            let thread = self.running.swap_remove(pick);
            self.ops.push(Op { kind: Kind::Exit, thread, slot: 0, size: 0, align: 0 });
        }
    }

    fn tune(&mut self) {
        let (parameter, value): (i32, u64) = match self.rng.below(6) {
            0 => (1, self.rng.below(161)),
            1 => (-1, self.rng.below(1 << 20)),
            2 => (-2, self.rng.below(1 << 18)),
            3 => (-3, self.rng.below(1 << 22)),
            4 => (-4, self.rng.below(20)),
            _ => (-7, 1 + self.rng.below(4)),
        };
        self.ops.push(Op { kind: Kind::Mallopt, thread: 0, slot: 0xffff, size: parameter as u64, align: value });
    }
}

/// A trace of about `plan.ops` operations.
pub(crate) fn generate(seed: u64, plan: Plan) -> Vec<Op> {
    let mut rng = Rng::new(seed);
    let sizes = match rng.below(5) {
        0 => Sizes::Tiny,
        1 => Sizes::Small,
        2 => Sizes::Mixed,
        3 => Sizes::Log(17),
        _ => Sizes::Log(22 + rng.below(3)),
    };
    let sizes = if plan.raise_mmap_threshold { Sizes::Log(24) } else { sizes };
    let mut hot = [0; 12];
    for size in &mut hot {
        *size = sizes.draw(&mut rng);
    }
    let mut maker = Maker {
        rng,
        ops: Vec::with_capacity(plan.ops + 8),
        sizes,
        hot,
        live: Vec::new(),
        live_bytes: 0,
        unused: Vec::new(),
        next_slot: 0,
        running: vec![0],
    };
    if plan.raise_mmap_threshold {
        let threshold = 30 << 20;
        maker.ops.push(Op { kind: Kind::Mallopt, thread: 0, slot: 0xffff, size: -3_i64 as u64, align: threshold });
    } else if maker.rng.percent(30) {
        for _ in 0..1 + maker.rng.below(2) {
            maker.tune();
        }
    }
    while maker.ops.len() < plan.ops {
        let allocation_bias = 35 + maker.rng.below(36);
        let phase_end = maker.ops.len() + 300 + maker.rng.below(101) as usize;
        while maker.ops.len() < phase_end.min(plan.ops) {
            let before = maker.ops.len();
            if plan.threads > 0 && maker.rng.percent(2) {
                if maker.rng.percent(60) { maker.start_thread(plan.threads) } else { maker.end_thread() }
            } else if maker.rng.below(1000) == 0 {
                let pad = maker.rng.below(3) * 65_536;
                maker.push(Kind::Trim, 0xffff, pad, 0);
            } else if plan.others != Others::Nothing && maker.rng.below(400) == 0 {
                let (pages, odd_bytes) = (4096 * (1 + maker.rng.below(4)), 24 * maker.rng.below(2));
                let step = pages + if plan.others == Others::MoveByBytes { odd_bytes } else { 0 };
                let kind = if maker.rng.percent(80) { Kind::Sbrk } else { Kind::Block };
                maker.ops.push(Op { kind, thread: 0, slot: 0xffff, size: step, align: 0 });
            } else if maker.rng.percent(8) {
                maker.resize();
            } else if maker.rng.percent(allocation_bias) {
                maker.allocate();
            } else {
                maker.release();
            }
            if maker.ops.len() == before {
                maker.allocate();
            }
        }
    }
    maker.ops
}
