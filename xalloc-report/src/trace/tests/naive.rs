//! The oracle: matching as one would write it first, with a hash map and no slots.
#![allow(clippy::wildcard_enum_match_arm, reason = "the oracle knows the events that the generator makes, no others")]

use std::collections::{BTreeMap, HashMap};

use xalloc_core::units::Addr;
use xalloc_core::wire::{Call, Event as Wire};

use super::super::*;
use super::keep::{Told, name};
use super::program::text;

/// Stamp, who, and the number of the event before which a free arrived whose block is not known.
type Waiting = (u64, (u64, u32, u32), u64);

/// The matcher as one would write it first.
#[derive(Default, Clone)]
pub(super) struct Naive {
    pub(super) live: HashMap<u64, Block>,
    held: HashMap<u32, Block>,
    unknown_reallocs: HashMap<u32, u64>,
    parked: BTreeMap<u64, Waiting>,
    implied: HashMap<u64, u64>,
    remaps: HashMap<u32, (u64, u64)>,
    allocs: HashMap<u32, u32>,
    last_us: u64,
    pub(super) told: Vec<Told>,
    pub(super) repairs: Repairs,
}

impl Naive {
    fn tell(&mut self, (at_us, thread, stack): (u64, u32, u32), event: &Event<'_>) -> u64 {
        self.last_us = self.last_us.max(at_us);
        let at_ns = self.last_us * 1000;
        self.told.push((self.told.len() as u64, at_ns, thread, stack, name(event)));
        at_ns
    }

    fn unknown(&mut self, who: (u64, u32, u32), addr: u64) {
        self.repairs.unknown_frees += 1;
        self.tell(who, &Event::FreeUnknown { addr });
    }

    pub(super) fn push(&mut self, incoming: &Incoming) {
        let (thread, stamp) = (incoming.thread.0, incoming.record.stamp);
        let who = (incoming.at_us, thread, incoming.stack.0);
        let nobody = (who.0, thread, 0);
        match incoming.event().unwrap() {
            Wire::Alloc { addr: Addr(addr), size_bytes, slack_bytes, arena, arena_seq, call } => {
                let realloc = matches!(call, Call::Realloc | Call::Reallocarray);
                if realloc && let Some(old) = self.unknown_reallocs.remove(&thread) {
                    self.unknown(nobody, old);
                }
                let parked = self.parked.remove(&addr);
                if let Some((free_stamp, free_who, _)) = parked
                    && stamp >= free_stamp
                {
                    self.unknown(free_who, addr);
                }
                if let Some(block) = self.live.remove(&addr) {
                    self.tell(nobody, &Event::Free { slot: 0, block: &block });
                    self.repairs.implied_frees += 1;
                    self.implied.insert(addr, stamp);
                }
                if realloc {
                    self.held.remove(&thread);
                }
                let nth = self.allocs.entry(thread).or_default();
                let nth_of_thread = std::mem::replace(nth, *nth + 1);
                let at_ns = self.last_us.max(who.0) * 1000;
                let block = Block {
                    addr,
                    size_bytes,
                    at_ns,
                    stack: incoming.stack,
                    thread: incoming.thread,
                    nth_of_thread,
                    slack_bytes,
                    arena,
                    call,
                };
                self.tell(who, &Event::Alloc { slot: 0, block: &block, arena_seq });
                match parked {
                    Some((free_stamp, free_who, _)) if stamp < free_stamp => {
                        self.tell(free_who, &Event::Free { slot: 0, block: &block });
                    }
                    _ => {
                        self.live.insert(addr, block);
                    }
                }
            }
            Wire::Free { addr: Addr(addr), .. } => {
                if self.implied.remove(&addr).is_some_and(|implied_by| stamp < implied_by) {
                } else if let Some(block) = self.live.remove(&addr) {
                    self.tell(who, &Event::Free { slot: 0, block: &block });
                } else if let Some((_, earlier, _)) = self.parked.insert(addr, (stamp, who, self.told.len() as u64)) {
                    self.unknown(earlier, addr);
                }
            }
            Wire::ReallocBegin { addr: Addr(addr) } => match self.live.remove(&addr) {
                Some(block) => {
                    self.tell(who, &Event::ReallocBegin { slot: 0, block: &block });
                    self.held.insert(thread, block);
                }
                None => {
                    self.unknown_reallocs.insert(thread, addr);
                }
            },
            Wire::ReallocUndo { .. } => {
                if self.unknown_reallocs.remove(&thread).is_none()
                    && let Some(block) = self.held.remove(&thread)
                {
                    if let Some(other) = self.live.remove(&block.addr) {
                        self.tell(nobody, &Event::Free { slot: 0, block: &other });
                        self.repairs.implied_frees += 1;
                    }
                    self.tell(who, &Event::ReallocUndo { slot: 0, block: &block });
                    self.live.insert(block.addr, block);
                }
            }
            Wire::Heap { arena, seq, step } => {
                self.tell(who, &Event::Heap { arena, seq, step });
            }
            Wire::ProgramMap { addr, len_bytes, protection, shared, .. } => {
                let path = text(incoming);
                self.tell(
                    who,
                    &Event::Program(ProgramEvent::Map { addr: addr.0, len_bytes, protection, shared, path }),
                );
            }
            Wire::ProgramRemapFrom { addr, len_bytes } => {
                self.remaps.insert(thread, (addr.0, len_bytes));
            }
            Wire::ProgramRemapTo { addr, len_bytes } => {
                let (from, from_bytes) = self.remaps.remove(&thread).unwrap_or((addr.0, len_bytes));
                self.tell(
                    who,
                    &Event::Program(ProgramEvent::Remap { from, from_bytes, to: addr.0, to_bytes: len_bytes }),
                );
            }
            Wire::Marker { .. } => {
                self.tell(who, &Event::Marker { text: text(incoming) });
            }
            Wire::Lost { count, reason } => {
                self.tell(who, &Event::Lost { events: count, reason });
            }
            Wire::Exit { status } => {
                self.tell(who, &Event::Process(ProcessEvent::Exit { status }));
            }
            Wire::AllocFailed { size_bytes, call } => {
                self.tell(who, &Event::AllocFailed { size_bytes, call });
            }
            other => panic!("the tests make no {other:?}"),
        }
    }

    pub(super) fn finish(&mut self) {
        let mut parked: Vec<_> = std::mem::take(&mut self.parked).into_iter().collect();
        parked.sort_by_key(|&(addr, (_, _, seq))| (seq, addr));
        for (addr, (_, who, _)) in parked {
            self.unknown(who, addr);
        }
    }

    pub(super) fn fork(&self) -> Naive {
        Naive { live: self.live.clone(), allocs: self.allocs.clone(), ..Naive::default() }
    }
}
