//! Counterfactuals: the requests as they would be after a fix at one call site.
//!
//! Each fix makes another list of requests, which is served like any other. What a fix does to the program is stated
//! with it, so that the same change in the source leads to the same heap.

use rustc_hash::FxHashMap;

use super::requests::{Kind, Request, Requests};
use crate::trace::StackIndex;

/// What is done about a call site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fix {
    /// The site's calls are not made. A block that it would have made is not there, whatever others do with it; one
    /// that it would have resized stays as it was.
    Without,
    /// The site's blocks come from a pool of their own ([`super::pool`]) and go back to it.
    Pool,
    /// A block that the site makes or resizes is made with the largest size that its reallocs will give it, and those
    /// are not made.
    Reserve,
}

impl Fix {
    /// The requests after the fix. `is_of_site` tells the site's stacks.
    #[must_use]
    pub fn apply(self, requests: &Requests, is_of_site: impl Fn(StackIndex) -> bool) -> Requests {
        let mut fixed = Fixed::of(requests);
        match self {
            Fix::Without => fixed.without(requests, is_of_site),
            Fix::Pool => fixed.pool(requests, is_of_site),
            Fix::Reserve => fixed.reserve(requests, is_of_site),
        }
        fixed.requests
    }
}

/// A list of requests that is being made from another one.
struct Fixed {
    requests: Requests,
    /// Slots whose block is not there, or is the pool's.
    taken: Vec<bool>,
}

impl Fixed {
    fn of(requests: &Requests) -> Fixed {
        let (list, placed, stacks, written) = (Vec::new(), Vec::new(), Vec::new(), FxHashMap::default());
        let header = Requests { list, placed, stacks, written, ..*requests };
        // One slot more, for a block on its way from one allocator to the other.
        let slots = requests.slots as usize + 1;
        let requests = Requests { slots: slots as u32, list: Vec::with_capacity(requests.list.len()), ..header };
        Fixed { requests, taken: vec![false; slots] }
    }

    fn push(&mut self, request: Request) {
        self.requests.list.push(request);
    }

    /// The block of the slot `from` is in the slot `request.slot` from here on, without a call.
    fn moved(&mut self, request: Request, from: u32) {
        let is_taken = std::mem::replace(&mut self.taken[from as usize], false);
        self.taken[request.slot as usize] = is_taken;
        self.push(Request { kind: Kind::Move, size: from.into(), ..request });
    }

    fn without(&mut self, requests: &Requests, is_of_site: impl Fn(StackIndex) -> bool) {
        each(requests, is_of_site, |request, from, is_of_site| match (request.kind, from) {
            (Kind::Realloc, Some(from)) if is_of_site => self.moved(request, from),
            (Kind::Realloc, Some(from)) => {
                self.taken[from as usize] = false;
                self.taken[request.slot as usize] = false;
                self.push(Request { kind: Kind::ReallocOf, slot: from, ..request });
                self.push(request);
            }
            (kind, _) if kind.obtains() => {
                self.taken[request.slot as usize] = is_of_site;
                if !is_of_site {
                    self.push(request);
                }
            }
            (Kind::Free, _) => {
                if !std::mem::replace(&mut self.taken[request.slot as usize], false) {
                    self.push(request);
                }
            }
            (Kind::ReallocFailed, Some(from)) => {
                if !self.taken[from as usize] {
                    self.push(Request { kind: Kind::ReallocOf, slot: from, ..request });
                    self.push(request);
                }
            }
            _ => self.push(request),
        });
    }

    fn pool(&mut self, requests: &Requests, is_of_site: impl Fn(StackIndex) -> bool) {
        let spare = requests.slots;
        each(requests, is_of_site, |request, from, is_of_site| match (request.kind, from) {
            (Kind::Realloc, Some(from)) => {
                let is_pooled = self.taken[from as usize];
                if is_pooled {
                    self.taken[from as usize] = false;
                    self.taken[request.slot as usize] = true;
                    self.push(Request { kind: Kind::ReallocOf, slot: from, ..request });
                    self.push(Request { kind: Kind::PoolRealloc, ..request });
                } else if is_of_site {
                    self.push(Request { kind: Kind::Move, slot: spare, size: from.into(), ..request });
                    self.taken[request.slot as usize] = true;
                    self.push(Request { kind: Kind::PoolMalloc, ..request });
                    self.push(Request { kind: Kind::Free, slot: spare, ..request });
                } else {
                    self.push(Request { kind: Kind::ReallocOf, slot: from, ..request });
                    self.push(request);
                }
            }
            (kind, _) if kind.obtains() => {
                self.taken[request.slot as usize] = is_of_site;
                let kind = if is_of_site { Kind::PoolMalloc } else { kind };
                self.push(Request { kind, ..request });
            }
            (Kind::Free, _) => {
                let is_pooled = std::mem::replace(&mut self.taken[request.slot as usize], false);
                let kind = if is_pooled { Kind::PoolFree } else { Kind::Free };
                self.push(Request { kind, ..request });
            }
            (Kind::ReallocFailed, Some(from)) => {
                if !self.taken[from as usize] {
                    self.push(Request { kind: Kind::ReallocOf, slot: from, ..request });
                    self.push(request);
                }
            }
            _ => self.push(request),
        });
    }

    fn reserve(&mut self, requests: &Requests, is_of_site: impl Fn(StackIndex) -> bool) {
        let chains = Chains::of(requests, &is_of_site);
        let mut first = chains.first.iter();
        each(requests, is_of_site, |request, from, _| match (request.kind, from) {
            (Kind::Realloc, Some(from)) => {
                if self.taken[from as usize] {
                    self.moved(request, from);
                } else {
                    self.push(Request { kind: Kind::ReallocOf, slot: from, ..request });
                    self.push(request);
                }
            }
            (kind, _) if kind.obtains() => {
                let chain = first.next().and_then(|&chain| chains.all.get(chain as usize));
                let reserved = chain.filter(|chain| chain.is_of_site && chain.reallocs > 0);
                self.taken[request.slot as usize] = reserved.is_some();
                self.push(Request { size: reserved.map_or(request.size, |chain| chain.most_bytes), ..request });
            }
            (Kind::ReallocFailed, Some(from)) => {
                self.push(Request { kind: Kind::ReallocOf, slot: from, ..request });
                self.push(request);
            }
            _ => self.push(request),
        });
    }
}

/// Calls `take` with each request, the block that it changes, and whether it obtains a block for the site.
fn each(
    requests: &Requests,
    is_of_site: impl Fn(StackIndex) -> bool,
    mut take: impl FnMut(Request, Option<u32>, bool),
) {
    let mut stacks = requests.stacks.iter();
    let mut from = None;
    for &request in &requests.list {
        if request.kind == Kind::ReallocOf {
            from = Some(request.slot);
            continue;
        }
        let stack = if request.kind.obtains() { stacks.next() } else { None };
        take(request, from.take(), stack.is_some_and(|&stack| is_of_site(stack)));
    }
}

/// A block from the call that made it through all its reallocs.
struct Chain {
    most_bytes: u64,
    reallocs: u64,
    is_of_site: bool,
}

struct Chains {
    all: Vec<Chain>,
    /// The chain of each request that makes a block, in order.
    first: Vec<u32>,
}

impl Chains {
    fn of(requests: &Requests, is_of_site: impl Fn(StackIndex) -> bool) -> Chains {
        let mut chains = Chains { all: Vec::new(), first: Vec::new() };
        let mut at = vec![0_u32; requests.slots as usize];
        each(requests, is_of_site, |request, from, is_of_site| match (request.kind, from) {
            (Kind::Realloc, Some(from)) => {
                let number = at[from as usize];
                at[request.slot as usize] = number;
                if let Some(chain) = chains.all.get_mut(number as usize) {
                    chain.most_bytes = chain.most_bytes.max(request.size);
                    chain.reallocs += 1;
                    chain.is_of_site |= is_of_site;
                }
            }
            (kind, _) if kind.obtains() => {
                let number = chains.all.len() as u32;
                at[request.slot as usize] = number;
                chains.first.push(number);
                chains.all.push(Chain { most_bytes: request.size, reallocs: 0, is_of_site });
            }
            _ => {}
        });
        chains
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::requests::Placed;

    const SITE: StackIndex = StackIndex(7);
    const OTHER: StackIndex = StackIndex(8);

    fn request(kind: Kind, slot: u32, size: u64) -> Request {
        Request { size, slot, thread: 0, kind, align_log2: 0 }
    }

    /// SITE makes a block that OTHER grows; OTHER makes one that SITE grows; all are freed.
    fn requests() -> Requests {
        let list = vec![
            request(Kind::Malloc, 0, 100),
            request(Kind::Malloc, 1, 200),
            request(Kind::ReallocOf, 0, 0),
            request(Kind::Realloc, 2, 1_000),
            request(Kind::ReallocOf, 1, 0),
            request(Kind::Realloc, 0, 2_000),
            request(Kind::Free, 2, 0),
            request(Kind::Free, 0, 0),
        ];
        let stacks = vec![SITE, OTHER, OTHER, SITE];
        Requests { list, stacks, placed: vec![Placed::new(16, 0); 4], slots: 3, threads: 1, ..Requests::default() }
    }

    fn fixed(fix: Fix) -> Vec<(Kind, u32, u64)> {
        let fixed = fix.apply(&requests(), |stack| stack == SITE);
        fixed.list.iter().map(|request| (request.kind, request.slot, request.size)).collect()
    }

    #[test]
    fn without_a_site_its_blocks_are_not_there_and_those_of_others_keep_their_size() {
        let expected = [
            (Kind::Malloc, 1, 200),
            (Kind::ReallocOf, 0, 1_000),
            (Kind::Realloc, 2, 1_000),
            (Kind::Move, 0, 1),
            (Kind::Free, 2, 0),
            (Kind::Free, 0, 0),
        ];
        assert_eq!(fixed(Fix::Without), expected);
    }

    #[test]
    fn a_pool_serves_the_sites_blocks_for_as_long_as_they_live() {
        let expected = [
            (Kind::PoolMalloc, 0, 100),
            (Kind::Malloc, 1, 200),
            (Kind::ReallocOf, 0, 1_000),
            (Kind::PoolRealloc, 2, 1_000),
            (Kind::Move, 3, 1),
            (Kind::PoolMalloc, 0, 2_000),
            (Kind::Free, 3, 2_000),
            (Kind::PoolFree, 2, 0),
            (Kind::PoolFree, 0, 0),
        ];
        assert_eq!(fixed(Fix::Pool), expected);
    }

    #[test]
    fn a_reserved_block_is_made_with_its_last_size_and_never_resized() {
        let expected = [
            (Kind::Malloc, 0, 1_000),
            (Kind::Malloc, 1, 2_000),
            (Kind::Move, 2, 0),
            (Kind::Move, 0, 1),
            (Kind::Free, 2, 0),
            (Kind::Free, 0, 0),
        ];
        assert_eq!(fixed(Fix::Reserve), expected);
    }
}
