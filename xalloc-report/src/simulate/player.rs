//! Serving the requests of a process by a simulated heap.

use xalloc_core::heap::sim::Simulation;
use xalloc_core::heap::{Allocation, Reallocated};
use xalloc_core::sys::prefetch;
use xalloc_core::units::{Addr, ArenaId};
use xalloc_core::wire::HeapEvent;

use super::meter::{Measured, Meter};
use super::placement::{Parting, Placement};
use super::pool::Pool;
use super::requests::{Kind, Placed, Request, Requests};
use super::settings::Settings;

/// The recorded break begins where the kernel put it. A block that is aligned to more than a page lies differently for
/// different addresses, so the simulated break begins at the same place of a range of this size.
const LEAD_MASK: u64 = (64 << 20) - 1;

/// How many requests ahead a block that will be given back is fetched into the cache, and twice that its slot. Serving
/// one takes some 100 ns, which is what a miss takes.
const AHEAD: usize = 8;

/// A block of the simulated process.
#[derive(Clone, Copy)]
struct Slot {
    /// 0: none.
    addr: u64,
    size: u64,
}

/// A run under way.
struct Player<'r> {
    requests: &'r Requests,
    simulation: Simulation,
    slots: Vec<Slot>,
    meter: Meter,
    placement: Option<Placement>,
    parting: Option<Parting>,
    placed: std::slice::Iter<'r, Placed>,
    /// The block that the next request changes.
    changing: Option<u32>,
    live_bytes: u64,
    refused: u64,
    trim_every_ns: Option<u64>,
    trim_at_ns: u64,
    pool: Pool,
}

/// Serves all requests; with `compare`, each block's place is compared with the recorded one.
pub(super) fn play(requests: &Requests, settings: &Settings, compare: bool) -> (Measured, Option<Parting>, u64) {
    let mut player = Player::new(requests, settings, compare);
    for (at, request) in requests.list.iter().enumerate() {
        player.foresee(&requests.list, at);
        player.serve(request);
    }
    player.finish()
}

impl<'r> Player<'r> {
    fn new(requests: &'r Requests, settings: &Settings, compare: bool) -> Player<'r> {
        let mut simulation = Simulation::new(&settings.policy, &settings.tunables, settings.processors);
        let lead_bytes = requests.break_base.unwrap_or(0) & LEAD_MASK;
        // There is nothing in the way of a break that has not moved.
        let _moved = simulation.start_break(lead_bytes);
        simulation.forget_calls();
        Player {
            requests,
            simulation,
            slots: vec![Slot { addr: 0, size: 0 }; requests.slots as usize],
            meter: Meter::starting(requests.from_ns),
            placement: compare.then(|| Placement::new(requests.break_base, lead_bytes)),
            parting: None,
            placed: requests.placed.iter(),
            changing: None,
            live_bytes: 0,
            refused: 0,
            trim_every_ns: settings.trim_every_ns,
            pool: Pool::default(),
            trim_at_ns: requests.from_ns.saturating_add(settings.trim_every_ns.unwrap_or(0)),
        }
    }

    /// Fetches what the requests that come soon will ask for: most of a run's time would go by waiting for it.
    #[inline]
    fn foresee(&self, list: &[Request], at: usize) {
        let gives_back = |request: &&Request| matches!(request.kind, Kind::Free | Kind::ReallocOf);
        if let Some(later) = list.get(at + 2 * AHEAD).filter(gives_back)
            && let Some(slot) = self.slots.get(later.slot as usize)
        {
            prefetch(slot);
        }
        if let Some(soon) = list.get(at + AHEAD).filter(gives_back)
            && let Some(slot) = self.slots.get(soon.slot as usize)
        {
            self.simulation.expect(Addr(slot.addr), slot.size);
        }
    }

    fn serve(&mut self, request: &Request) {
        let &Request { size, slot, thread, kind, align_log2 } = request;
        let thread = usize::from(thread);
        let heap = &mut self.simulation;
        let meter = &mut self.meter;
        let mut sink = |_: ArenaId, _: u16, step: HeapEvent| meter.step(step);
        match kind {
            Kind::Malloc => {
                let block = heap.malloc(thread, &mut sink, size);
                self.obtained(request, block);
            }
            Kind::Calloc => {
                let block = heap.calloc(thread, &mut sink, 1, size);
                self.obtained(request, block);
            }
            Kind::Memalign => {
                let block = heap.memalign(thread, &mut sink, 1 << align_log2.min(63), size).ok();
                self.obtained(request, block);
            }
            Kind::Free => {
                let block = std::mem::replace(&mut self.slots[slot as usize], Slot { addr: 0, size: 0 });
                self.live_bytes -= block.size;
                if block.addr != 0 && heap.free(thread, &mut sink, Addr(block.addr)).is_err() {
                    self.refused += 1;
                }
            }
            Kind::ReallocOf => {
                self.changing = Some(slot);
                return;
            }
            Kind::Failed => {
                let block = if align_log2 > 0 {
                    heap.memalign(thread, &mut sink, 1 << align_log2.min(63), size).ok()
                } else {
                    heap.malloc(thread, &mut sink, size)
                };
                // Nobody knows of a block that there was not in the recording.
                if let Some(block) = block
                    && heap.free(thread, &mut sink, block.addr).is_err()
                {
                    self.refused += 1;
                }
            }
            Kind::Realloc | Kind::ReallocFailed => self.change(request),
            Kind::Move => {
                self.slots[slot as usize] =
                    std::mem::replace(&mut self.slots[size as usize], Slot { addr: 0, size: 0 });
                return;
            }
            Kind::PoolMalloc | Kind::PoolRealloc | Kind::PoolFree => self.pooled(request),
            Kind::Start => {
                heap.spawn();
            }
            Kind::Exit => heap.exit(thread, &mut sink),
            Kind::Break => {
                heap.move_break(size as i64);
            }
            Kind::Trim => {
                heap.trim(thread, &mut sink, size);
            }
            Kind::Mallopt => {
                heap.mallopt(thread, &mut sink, slot as i32, size as i32);
            }
            Kind::Tick => return self.tick(size),
        }
        self.meter.served();
    }

    fn pooled(&mut self, request: &Request) {
        let &Request { size, slot, kind, .. } = request;
        let none = Slot { addr: 0, size: 0 };
        let old = if kind == Kind::PoolFree { Some(slot) } else { self.changing.take() };
        let old = old.map_or(none, |slot| std::mem::replace(&mut self.slots[slot as usize], none));
        if kind == Kind::PoolFree {
            self.pool.take_back(old.size);
        } else if kind == Kind::PoolRealloc {
            self.pool.resize(old.size, size);
        } else {
            self.pool.make(size);
        }
        self.live_bytes -= old.size;
        if kind != Kind::PoolFree {
            self.live_bytes += size;
            self.slots[slot as usize] = Slot { addr: 0, size };
        }
        self.meter.beside(self.pool.held_bytes());
        self.meter.resident(self.simulation.resident_bytes() + self.pool.resident_bytes());
    }

    fn change(&mut self, request: &Request) {
        let changing = self.changing.take().unwrap_or(request.slot);
        let none = Slot { addr: 0, size: 0 };
        let old = self.slots.get_mut(changing as usize).map_or(none, |slot| std::mem::replace(slot, none));
        let meter = &mut self.meter;
        let mut sink = |_: ArenaId, _: u16, step: HeapEvent| meter.step(step);
        let thread = usize::from(request.thread);
        self.live_bytes -= old.size;
        let block = if old.addr == 0 {
            self.simulation.malloc(thread, &mut sink, request.size)
        } else {
            match self.simulation.realloc(thread, &mut sink, Addr(old.addr), request.size) {
                Ok(Reallocated::InPlace(block) | Reallocated::Moved(block)) => Some(block),
                Ok(Reallocated::Freed | Reallocated::Failed) | Err(_) => None,
            }
        };
        if request.kind == Kind::Realloc {
            return self.obtained(request, block);
        }
        let addr = block.map_or(old.addr, |block| block.addr.0);
        self.slots[changing as usize] = Slot { addr, ..old };
        self.live_bytes += old.size;
    }

    fn obtained(&mut self, request: &Request, block: Option<Allocation>) {
        let placed = self.placed.next();
        let Some(block) = block else {
            self.refused += 1;
            if self.parting.is_none()
                && let Some(placement) = &mut self.placement
                && let Some(&placed) = placed
            {
                self.parting = Some(placement.refused(placed));
            }
            return;
        };
        self.slots[request.slot as usize] = Slot { addr: block.addr.0, size: request.size };
        self.live_bytes += request.size;
        self.simulation.touch(block.addr, request.size.max(1));
        self.meter.resident(self.simulation.resident_bytes() + self.pool.resident_bytes());
        if self.parting.is_none()
            && let Some(placement) = &mut self.placement
            && let Some(&placed) = placed
        {
            self.parting = placement.compare(&self.simulation, placed, &block, request.size, request.align_log2);
        }
    }

    fn tick(&mut self, at_ns: u64) {
        self.meter.tick(at_ns);
        let Some(period_ns) = self.trim_every_ns else { return };
        if at_ns >= self.trim_at_ns {
            // Periods without an event have nothing to trim either.
            self.trim_at_ns += (at_ns - self.trim_at_ns) / period_ns * period_ns + period_ns;
            let meter = &mut self.meter;
            self.simulation.trim(0, &mut |_: ArenaId, _: u16, step: HeapEvent| meter.step(step), 0);
        }
    }

    fn finish(mut self) -> (Measured, Option<Parting>, u64) {
        self.meter.tick(self.requests.to_ns);
        let threads = usize::from(self.requests.threads.max(1));
        let measured = self.meter.finish(&mut self.simulation, self.requests.from_ns, threads);
        let mut measured = Measured { end_live_bytes: self.live_bytes, refused: self.refused, ..measured };
        measured.end_resident_bytes += self.pool.resident_bytes();
        measured.calls.mmap += self.pool.maps;
        measured.calls.munmap += self.pool.unmaps;
        (measured, self.parting, self.placement.map_or(0, |placement| placement.compared()))
    }
}
