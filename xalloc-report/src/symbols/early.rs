//! Names while the program still runs: a module is opened when its first frame is seen, and stays open.
//!
//! To open a library with debug information costs far more than to name its addresses: libc's is unpacked and indexed in
//! some 50 ms. A recorder beside a running program has that time, and the end of the recording has it not.
//!
//! # Invariant
//! Every module is read by a thread of its own, for a reader borrows what it has opened. Of these threads as many work
//! at once as there are turns: one while the program runs, so that program and recorder keep the processors, and all of
//! them once it is over.
//!
//! # Why not a pool
//! A worker that takes many modules must close each of them when it goes to the next.

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::remember::resolve;
use super::resolve::Answer;
use super::symbolizer::reader_failed;
use super::{Module, ModuleIndex, Places};

/// Stack of a reader: many times what its bounded recursion takes. Untouched pages cost nothing.
pub(super) const STACK_BYTES: usize = 16 << 20;
/// Most modules that are held open at once; those that come later are opened at the end, some at a time.
const MOST_OPEN: usize = 32;

/// Modules that are being named.
pub struct Early {
    places: Places,
    turns: Arc<Turns>,
    open: BTreeMap<ModuleIndex, Reader>,
}

struct Reader {
    asked: HashSet<u64>,
    /// In the order in which they were asked.
    addresses: Vec<u64>,
    batches: Sender<Vec<u64>>,
    thread: JoinHandle<Answer>,
    module: Module,
}

impl Early {
    /// None yet; debug information is looked for in `places`.
    pub fn new(places: Places) -> Early {
        Early { places, turns: Arc::new(Turns::default()), open: BTreeMap::new() }
    }

    /// Asks for the names of addresses of a module, as [`super::Wanted`] has them. `module` is called when they are the first.
    pub fn ask(&mut self, index: ModuleIndex, addresses: Vec<u64>, module: impl FnOnce() -> Module) {
        if !self.open.contains_key(&index) && self.open.len() < MOST_OPEN {
            // A system out of threads names them at the end.
            self.open.extend(self.reader(module()).map(|reader| (index, reader)));
        }
        if let Some(reader) = self.open.get_mut(&index) {
            reader.ask(addresses);
        }
    }

    fn reader(&self, module: Module) -> Option<Reader> {
        let (batches, receiver) = mpsc::channel();
        let (places, turns, read) = (self.places.clone(), Arc::clone(&self.turns), module.clone());
        let thread = thread::Builder::new().name("names".into()).stack_size(STACK_BYTES).spawn(move || {
            let mut turn = Turn::wait(&turns);
            let batches = std::iter::from_fn(|| turn.next_of(&receiver));
            resolve(&read, &places, batches)
        });
        Some(Reader { asked: HashSet::new(), addresses: Vec::new(), batches, thread: thread.ok()?, module })
    }

    /// Asks for those of `addresses` that were not asked before; gives them back if the module is not open.
    pub(super) fn ask_rest(&mut self, index: ModuleIndex, addresses: Vec<u64>) -> Option<Vec<u64>> {
        match self.open.get_mut(&index) {
            Some(reader) => {
                reader.ask(addresses);
                None
            }
            None => Some(addresses),
        }
    }

    /// The program is over: all may work.
    pub(super) fn hurry(&self) {
        if self.open.len() < 2 {
            return;
        }
        let processors = thread::available_parallelism().map_or(1, usize::from);
        self.turns.lock().most = processors;
        self.turns.freed.notify_all();
    }

    /// Closes the modules: of each the addresses in ascending order, and what is known about them.
    pub(super) fn finish(self) -> Vec<(ModuleIndex, Vec<u64>, Answer)> {
        let ended = self.open.into_iter().map(|(index, reader)| {
            let Reader { addresses, batches, thread, module, .. } = reader;
            drop(batches);
            let answer = thread.join().unwrap_or_else(|_| reader_failed(&module, addresses.len()));
            let (addresses, answer) = sorted(addresses, answer);
            (index, addresses, answer)
        });
        ended.collect()
    }
}

impl Reader {
    fn ask(&mut self, mut addresses: Vec<u64>) {
        addresses.retain(|address| self.asked.insert(*address));
        self.addresses.extend(&addresses);
        // A reader that failed takes nothing more.
        let _ = self.batches.send(addresses);
    }
}

/// The same with the addresses in ascending order.
fn sorted(addresses: Vec<u64>, answer: Answer) -> (Vec<u64>, Answer) {
    let mut rows: Vec<_> = addresses.into_iter().zip(answer.frames.into_iter().zip(answer.callees)).collect();
    rows.sort_unstable_by_key(|(address, _)| *address);
    let (addresses, (frames, callees)) = rows.into_iter().unzip();
    (addresses, Answer { frames, callees, ..answer })
}

/// How many readers work.
struct Turns {
    state: Mutex<Working>,
    freed: Condvar,
}

struct Working {
    now: usize,
    most: usize,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { state: Mutex::new(Working { now: 0, most: 1 }), freed: Condvar::new() }
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Working> {
        // Two numbers, which no panic leaves half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) {
        let mut state = self.lock();
        while state.now >= state.most {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.now += 1;
    }

    fn give_back(&self) {
        self.lock().now -= 1;
        self.freed.notify_one();
    }
}

/// The right to work, given back at its end.
struct Turn<'a>(&'a Turns);

impl<'a> Turn<'a> {
    fn wait(turns: &'a Turns) -> Turn<'a> {
        turns.take();
        Turn(turns)
    }

    /// The next batch; the right is given back for the time of waiting.
    fn next_of(&mut self, batches: &Receiver<Vec<u64>>) -> Option<Vec<u64>> {
        if let Ok(batch) = batches.try_recv() {
            return Some(batch);
        }
        self.0.give_back();
        let next = batches.recv().ok();
        self.0.take();
        next
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}
