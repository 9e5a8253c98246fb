//! Records that mean something to the stream itself: the process's end and its children, its threads, modules and texts.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use xalloc_core::wire::{Event, HeapCall, Record};

use super::{LastWord, Shared, Stream};
use crate::record::drain::dictionary::Dictionary;
use crate::record::drain::forks::Fork;
use crate::record::drain::lane::Lane;
use crate::record::drain::{Copied, Sink, outside};
use crate::trace::{Incoming, Module};

impl Stream {
    /// Sees to a record that is not common, and was taken from `lane` just now.
    #[inline(never)]
    pub(super) fn special<S: Sink>(
        &mut self,
        lane: &mut Lane,
        record: &Record,
        shared: &mut Shared<'_, S, S::LiveSet>,
    ) -> Result<(), S::Error> {
        let Some(stamped) = record.decode() else {
            self.damaged += 1;
            return Ok(());
        };
        self.events += 1;
        if stamped.stamp >= self.last_stamp {
            self.last_stamp = stamped.stamp;
        } else {
            self.late_events += 1;
        }
        let at_ns = self.time_of(stamped.stamp, shared.timeline);
        self.last_ns = at_ns;
        self.last_us = self.last_us.max(at_ns / 1000);
        let thread = match lane.thread {
            Some(thread) => thread,
            None => self.name_thread(lane, at_ns, shared.dictionary),
        };
        let stack = self.stacks.resolve(stamped.stack, &self.segment, &self.modules, shared.dictionary);
        let incoming = Incoming { record: *record, at_us: self.last_us, thread, stack };
        if shared.dictionary.take_gained() {
            shared.sink.gain(&shared.dictionary.contents);
        }
        self.tell(lane, stamped.event, &incoming, at_ns, shared)
    }

    /// Hands an event on, and does what follows from it, by its kind.
    fn tell<S: Sink>(
        &mut self,
        lane: &mut Lane,
        event: Event,
        incoming: &Incoming,
        at_ns: u64,
        shared: &mut Shared<'_, S, S::LiveSet>,
    ) -> Result<(), S::Error> {
        match event {
            Event::Alloc { .. }
            | Event::AllocAfter { .. }
            | Event::MergeBinned { .. }
            | Event::AllocFailed { .. }
            | Event::Free { .. }
            | Event::FreeBinned { .. }
            | Event::CacheFill { .. }
            | Event::ReallocBegin { .. }
            | Event::ReallocUndo { .. }
            | Event::Heap { .. }
            | Event::Fault { .. }
            | Event::ProgramUnmap { .. }
            | Event::ProgramRemapFrom { .. }
            | Event::ProgramRemapTo { .. }
            | Event::ProgramAdvise { .. }
            | Event::ProgramBrk { .. } => self.push(incoming, shared),
            Event::HeapCall { call, value, .. } => {
                self.push(incoming, shared)?;
                self.heap_call(call, value, at_ns, shared)
            }
            Event::Marker { text_bytes } => {
                self.marks += 1;
                self.push_with_text(lane, incoming, text_bytes, shared).map(|_| ())
            }
            Event::ProgramMap { text_bytes, .. } => self.push_with_text(lane, incoming, text_bytes, shared).map(|_| ()),
            Event::ThreadStart { tid, text_bytes } => self.start_thread(lane, incoming, tid, text_bytes, shared),
            Event::ThreadExit => {
                shared.dictionary.contents.threads[incoming.thread.0 as usize].ended_at_ns = Some(at_ns);
                self.push(incoming, shared)
            }
            Event::Fork { fork_serial } => {
                self.push(incoming, shared)?;
                self.fork(fork_serial, shared)
            }
            Event::Exec { text_bytes } => {
                self.last_word = LastWord::Exec;
                self.push_with_text(lane, incoming, text_bytes, shared).map(|_| ())
            }
            Event::ExecFailed => {
                self.last_word = LastWord::None;
                self.push(incoming, shared)
            }
            Event::Exit { status } => {
                self.last_word = LastWord::Exit(status);
                self.push(incoming, shared)
            }
            Event::Module { bias, serial, text_bytes } => {
                self.announce_module(lane, serial, bias.0, text_bytes, shared.dictionary);
                Ok(())
            }
            Event::ModuleRange { start, len_bytes, serial } => {
                if self.modules.add_range(serial, start.0, len_bytes) {
                    self.stacks.place_homeless(&self.modules, shared.dictionary);
                } else {
                    self.damaged += 1;
                }
                Ok(())
            }
            Event::ModulesClosed { generation } => {
                self.modules.begin_generation(generation);
                self.push(incoming, shared)
            }
            Event::Lost { count, reason } => {
                self.lost[reason as usize] = self.lost[reason as usize].saturating_add(count);
                self.push(incoming, shared)
            }
            // Texts are taken with the record that announces them: this one has none.
            Event::Text { .. } => {
                self.damaged += 1;
                Ok(())
            }
        }
    }

    fn push<S: Sink>(&self, incoming: &Incoming, shared: &mut Shared<'_, S, S::LiveSet>) -> Result<(), S::Error> {
        shared.sink.push_all(self.index, std::slice::from_ref(incoming))
    }

    /// Keeps what a check for leaks will want of the blocks as they are now.
    fn heap_call<S: Sink>(
        &mut self,
        call: HeapCall,
        value: u64,
        at_ns: u64,
        shared: &mut Shared<'_, S, S::LiveSet>,
    ) -> Result<(), S::Error> {
        match call {
            HeapCall::Ignore => self.ignored.extend(shared.sink.live_block(self.index, value)?),
            HeapCall::Copied => {
                let blocks = shared.sink.live_blocks(self.index).ok();
                self.copied = Some(Copied { number: value as u32, at_ns, blocks });
            }
            HeapCall::Aligned | HeapCall::MallocTrim | HeapCall::Mallopt | HeapCall::Tunable | HeapCall::Passed => {}
        }
        Ok(())
    }

    /// Keeps what a child has from this process, if one may come.
    fn fork<S: Sink>(&mut self, serial: u32, shared: &mut Shared<'_, S, S::LiveSet>) -> Result<(), S::Error> {
        if shared.forks.wants(self.identity.pid, serial) {
            let live_set = shared.sink.live_set(self.index)?;
            let fork = Fork { parent: self.index, live_set, modules: self.modules.clone() };
            shared.forks.keep(self.identity.pid, serial, fork);
        }
        Ok(())
    }

    /// A module, of which the text follows.
    fn announce_module(
        &mut self,
        lane: &mut Lane,
        serial: u16,
        bias: u64,
        text_bytes: u16,
        dictionary: &mut Dictionary,
    ) {
        let Some(mut module) = lane.pop_text(usize::from(text_bytes)).as_deref().and_then(module) else {
            self.damaged += 1;
            return;
        };
        if module.path.as_os_str().is_empty() {
            module.path = outside::module_path(self.identity.pid, bias);
        }
        module.path = unmarked(module.path);
        self.modules.announce(serial, dictionary.module(module), bias);
    }

    fn start_thread<S: Sink>(
        &mut self,
        lane: &mut Lane,
        incoming: &Incoming,
        tid: u32,
        text_bytes: u16,
        shared: &mut Shared<'_, S, S::LiveSet>,
    ) -> Result<(), S::Error> {
        let mut name = self.push_with_text(lane, incoming, text_bytes, shared)?;
        if name.is_empty() {
            name = outside::thread_name(self.identity.pid, tid);
        }
        let thread = &mut shared.dictionary.contents.threads[incoming.thread.0 as usize];
        (thread.tid, thread.name) = (tid, name);
        Ok(())
    }

    /// Pushes the event with the text behind it, and returns the text.
    fn push_with_text<S: Sink>(
        &mut self,
        lane: &mut Lane,
        incoming: &Incoming,
        bytes: u16,
        shared: &mut Shared<'_, S, S::LiveSet>,
    ) -> Result<String, S::Error> {
        let text = match lane.pop_text(usize::from(bytes)) {
            Some(text) => String::from_utf8_lossy(&text).into_owned(),
            None => {
                self.damaged += 1;
                String::new()
            }
        };
        shared.sink.push_with_text(self.index, incoming, &text)?;
        Ok(text)
    }
}

/// A module's text: one byte of build-id length, the build-id, the path.
fn module(text: &[u8]) -> Option<Module> {
    let (&length, rest) = text.split_first()?;
    let (build_id, path) = rest.split_at_checked(usize::from(length))?;
    Some(Module { path: OsStr::from_bytes(path).into(), build_id: build_id.to_vec() })
}

/// A path without what the kernel says of a file that was replaced or removed; the one in its place proves by its build-id
/// whether it is the same.
fn unmarked(path: PathBuf) -> PathBuf {
    let plain = path.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    plain.map(|plain| OsStr::from_bytes(plain).into()).unwrap_or(path)
}
