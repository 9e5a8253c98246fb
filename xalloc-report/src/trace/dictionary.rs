//! What a trace holds besides events, in increments: what the contents gained is written before the first block of
//! events that needs it, so that a trace whose recorder was killed can be read up to its last whole block.
//!
//! A dictionary block is a column of sections (a tag, a length, a record) and columns for the tables that are large:
//! frames, stacks, and the symbols that come last. Indices only grow; a section that names an index which is already
//! there replaces it, which is how the final contents correct times, ends and counts.
//!
//! # Invariant
//! Whatever an entry refers to is in an earlier section or the same one. The reader checks that, and takes every
//! byte that it keeps from a budget: 1 KiB of zstd can claim a million frames.

use rustc_hash::FxHashMap;

use super::columns::{Column, Unpacker};
use super::container::BlockHeader;
use super::error::Malformed;
use super::mirror::ThreadState;
use super::records;
use super::scan;
use super::varint::{Cursor, put, put_bytes, unzigzag, zigzag};
use super::{Contents, Frame, FrameIndex, Function, ModuleIndex, ScanOutcome, StackIndex, StackNode};

const RECORDING: u8 = 1;
const PROCESS: u8 = 2;
const THREAD: u8 = 3;
const MODULE: u8 = 4;
const FRAMES: u8 = 5;
const STACKS: u8 = 6;
const STRING: u8 = 7;
const FUNCTION: u8 = 8;
const SYMBOLS: u8 = 9;
const JUMPED: u8 = 10;
const SCAN: u8 = 11;
/// Findings before 3.0.
const FINDINGS_ONE_BY_ONE: u8 = 12;
/// Since 3.0.
const FINDINGS: u8 = 13;

#[derive(Clone, Copy)]
#[repr(usize)]
enum Field {
    Sections,
    /// One more than the module, 0 without.
    FrameModule,
    FrameAddr,
    /// How many nodes the parent lies before the node.
    StackParent,
    /// One more than the frame, as difference to the node before.
    StackFrame,
    /// For each frame: how many functions, which.
    Symbols,
}

const FIELDS: usize = Field::Symbols as usize + 1;

/// A dictionary block is closed when its columns are this long.
const BLOCK_BYTES: usize = 1 << 20;

/// Findings of a section: they may be as many as call stacks, and a section does not end with its block.
const FINDINGS_AT_ONCE: usize = 4096;

/// Entries of the tables that have been written, or wait to be.
#[derive(Clone, Copy, Default)]
pub(super) struct Synced {
    pub(super) processes: usize,
    pub(super) threads: usize,
    modules: usize,
    frames: usize,
    pub(super) stacks: usize,
    scans: usize,
}

/// Columns of a dictionary block, not yet packed.
pub(super) struct Increment {
    fields: [Vec<u8>; FIELDS],
}

impl Increment {
    /// The columns, in the order of the payload.
    pub(super) fn columns(&self) -> &[Vec<u8>] {
        &self.fields
    }
}

/// Collects what is to be written of the contents.
#[derive(Default)]
pub(super) struct Collector {
    fields: [Vec<u8>; FIELDS],
    synced: Synced,
    has_recording: bool,
    full: Vec<Increment>,
}

impl Collector {
    pub(super) fn synced(&self) -> Synced {
        self.synced
    }

    fn section(&mut self, tag: u8, record: &[u8]) {
        let field = &mut self.fields[Field::Sections as usize];
        field.push(tag);
        put_bytes(field, record);
        self.cut();
    }

    fn cut(&mut self) {
        if self.fields.iter().map(Vec::len).sum::<usize>() >= BLOCK_BYTES {
            self.full.push(Increment { fields: std::mem::take(&mut self.fields) });
        }
    }

    fn indexed(&mut self, tag: u8, index: usize, put_record: impl FnOnce(&mut Vec<u8>)) {
        let mut record = Vec::new();
        put(&mut record, index as u64);
        put_record(&mut record);
        self.section(tag, &record);
    }

    /// Collects what `contents` has more than it had at the last call.
    pub(super) fn gain(&mut self, contents: &Contents) {
        let Synced { processes, threads, modules, frames, stacks, scans } = self.synced;
        // What a process says of the machine comes with its hello.
        if !self.has_recording || contents.processes.len() > processes {
            self.has_recording = true;
            let mut record = Vec::new();
            records::put_recording(&mut record, &contents.recording);
            self.section(RECORDING, &record);
        }
        for (index, process) in contents.processes.iter().enumerate().skip(processes) {
            self.indexed(PROCESS, index, |out| records::put_process(out, process));
        }
        for (index, thread) in contents.threads.iter().enumerate().skip(threads) {
            self.indexed(THREAD, index, |out| records::put_thread(out, thread));
        }
        for (index, module) in contents.modules.iter().enumerate().skip(modules) {
            self.indexed(MODULE, index, |out| records::put_module(out, module));
        }
        for_chunks(frames, contents.frames.len(), |first, end| self.frames(first, &contents.frames[first..end]));
        for_chunks(stacks, contents.stacks.len(), |first, end| self.stacks(first, &contents.stacks[first..end]));
        for (index, scan) in contents.scans.iter().enumerate().skip(scans) {
            self.indexed(SCAN, index, |out| scan::put_scan(out, scan));
            for some in scan.findings().chunks(FINDINGS_AT_ONCE) {
                self.indexed(FINDINGS, index, |out| scan::put_findings(out, some));
            }
        }
        self.synced = Synced {
            processes: contents.processes.len().max(processes),
            threads: contents.threads.len().max(threads),
            modules: contents.modules.len().max(modules),
            frames: contents.frames.len().max(frames),
            stacks: contents.stacks.len().max(stacks),
            scans: contents.scans.len().max(scans),
        };
    }

    /// Collects what the contents became: everything that may have changed, and the symbols.
    pub(super) fn finish(&mut self, contents: &Contents) {
        self.has_recording = false;
        let Synced { frames, stacks, .. } = self.synced;
        self.synced = Synced { frames, stacks, ..Synced::default() };
        self.gain(contents);
        self.symbols(contents);
    }

    fn frames(&mut self, first: usize, frames: &[Frame]) {
        let mut before = 0;
        for frame in frames {
            let module = frame.module.map(|module| u64::from(module.0));
            records::put_optional(&mut self.fields[Field::FrameModule as usize], module);
            put(&mut self.fields[Field::FrameAddr as usize], zigzag(frame.address.wrapping_sub(before)));
            before = frame.address;
        }
        self.range(FRAMES, first, frames.len());
    }

    fn stacks(&mut self, first: usize, stacks: &[StackNode]) {
        let mut before = 0;
        for (index, node) in (first as u64..).zip(stacks) {
            let parent = zigzag(index.wrapping_sub(u64::from(node.parent.0)));
            put(&mut self.fields[Field::StackParent as usize], parent);
            let frame = node.frame.map_or(0, |frame| u64::from(frame.0) + 1);
            put(&mut self.fields[Field::StackFrame as usize], zigzag(frame.wrapping_sub(before)));
            before = frame;
        }
        self.range(STACKS, first, stacks.len());
    }

    fn range(&mut self, tag: u8, first: usize, len: usize) {
        self.indexed(tag, first, |out| put(out, len as u64));
    }

    fn symbols(&mut self, contents: &Contents) {
        let mut strings: FxHashMap<Vec<u8>, u64> = FxHashMap::default();
        let mut functions: FxHashMap<&Function, u64> = FxHashMap::default();
        let mut string = |collector: &mut Collector, bytes: &[u8]| {
            let next = strings.len() as u64;
            *strings.entry(bytes.to_vec()).or_insert_with(|| {
                collector.section(STRING, bytes);
                next
            })
        };
        for_chunks(0, contents.frames.len(), |first, end| {
            // The functions come before the section that names them, and may not be cut off from it by a full block
            // in between, so the frames' own column is made apart.
            let mut column = Vec::new();
            for frame in &contents.frames[first..end] {
                put(&mut column, frame.functions.len() as u64);
                for function in &frame.functions {
                    let next = functions.len() as u64;
                    let place = *functions.entry(function).or_insert_with(|| {
                        let Function { name, file, line, inlined } = function;
                        let name = string(self, name.as_bytes());
                        let file = file.as_ref().map(|file| {
                            use std::os::unix::ffi::OsStrExt;
                            string(self, file.as_os_str().as_bytes())
                        });
                        let mut record = Vec::new();
                        put(&mut record, name);
                        records::put_optional(&mut record, file);
                        records::put_optional(&mut record, line.map(u64::from));
                        record.push(u8::from(*inlined));
                        self.section(FUNCTION, &record);
                        next
                    });
                    put(&mut column, place);
                }
            }
            self.fields[Field::Symbols as usize].extend_from_slice(&column);
            self.range(SYMBOLS, first, end - first);
        });
        for (index, frame) in contents.frames.iter().enumerate() {
            if let Some(name) = &frame.jumped {
                let name = string(self, name.as_bytes());
                self.indexed(JUMPED, index, |out| put(out, name));
            }
        }
    }

    /// What waits to be written, cut into blocks.
    pub(super) fn take(&mut self) -> Vec<Increment> {
        let mut increments = std::mem::take(&mut self.full);
        if !self.fields[Field::Sections as usize].is_empty() {
            increments.push(Increment { fields: std::mem::take(&mut self.fields) });
        }
        increments
    }
}

/// Calls with consecutive ranges of at most 16 Ki indices.
fn for_chunks(from: usize, to: usize, mut each: impl FnMut(usize, usize)) {
    const CHUNK: usize = 16 << 10;
    let mut first = from;
    while first < to {
        let end = (first + CHUNK).min(to);
        each(first, end);
        first = end;
    }
}

/// Reads dictionary blocks into contents.
pub(super) struct Loader {
    contents: Contents,
    columns: [Column; FIELDS],
    strings: Vec<Vec<u8>>,
    functions: Vec<Function>,
    budget_bytes: u64,
}

impl Loader {
    /// A loader that keeps at most `budget_bytes`.
    pub(super) fn new(budget_bytes: u64) -> Loader {
        Loader {
            contents: Contents::default(),
            columns: std::array::from_fn(|_| Column::default()),
            strings: Vec::new(),
            functions: Vec::new(),
            budget_bytes,
        }
    }

    pub(super) fn into_contents(self) -> Contents {
        self.contents
    }

    /// Reads the next dictionary block.
    pub(super) fn load(
        &mut self,
        header: &BlockHeader,
        payload: &[u8],
        unpacker: &mut Unpacker,
    ) -> Result<(), Malformed> {
        let mut from = Cursor::new(payload);
        let mut allowance_bytes = header.raw_bytes as usize;
        for column in &mut self.columns {
            unpacker.unpack(&mut from, &mut allowance_bytes, column.refill())?;
        }
        let sections = std::mem::take(self.columns[Field::Sections as usize].refill());
        let mut from = Cursor::new(&sections);
        while !from.is_empty() {
            let tag = from.byte()?;
            let record = from.bytes()?;
            self.spend(record.len() as u64 * 4 + 64)?;
            self.section(tag, record)?;
        }
        Ok(())
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Malformed> {
        let left = self.budget_bytes.checked_sub(bytes);
        self.budget_bytes =
            left.ok_or(Malformed::Bytes("its tables exceed the memory that a reader may use for them"))?;
        Ok(())
    }

    fn section(&mut self, tag: u8, record: &[u8]) -> Result<(), Malformed> {
        let mut from = Cursor::new(record);
        let from = &mut from;
        match tag {
            RECORDING => self.contents.recording = records::recording(from)?,
            PROCESS => {
                let index = from.varint()?;
                let processes = self.contents.processes.len();
                let process = records::process(from, processes)?;
                place(&mut self.contents.processes, index, process)?;
            }
            THREAD => {
                // What a replay keeps of a thread, so that a file of a million threads is refused here.
                self.spend(size_of::<ThreadState>() as u64)?;
                let index = from.varint()?;
                let thread = records::thread(from, self.contents.processes.len())?;
                place(&mut self.contents.threads, index, thread)?;
            }
            MODULE => {
                let index = from.varint()?;
                place(&mut self.contents.modules, index, records::module(from)?)?;
            }
            FRAMES => self.frames(from.varint()?, from.varint()?)?,
            STACKS => self.stacks(from.varint()?, from.varint()?)?,
            STRING => self.strings.push(record.to_vec()),
            FUNCTION => {
                let function = self.function(from)?;
                self.functions.push(function);
            }
            SYMBOLS => self.symbols(from.varint()?, from.varint()?)?,
            JUMPED => self.jumped(from.varint()?, from.varint()?)?,
            SCAN => {
                let index = from.varint()?;
                let processes = self.contents.processes.len();
                place(&mut self.contents.scans, index, scan::scan(from, processes)?)?;
            }
            FINDINGS | FINDINGS_ONE_BY_ONE => {
                const ABSENT: Malformed = Malformed::Bytes("findings are of a scan that is not in the trace");
                let index = usize::try_from(from.varint()?).map_err(|_| ABSENT)?;
                let spend = |bytes| self.spend(bytes);
                let mut findings =
                    if tag == FINDINGS { scan::findings(from, spend)? } else { scan::plain::findings(from, spend)? };
                match self.contents.scans.get_mut(index).map(|scan| &mut scan.outcome) {
                    Some(ScanOutcome::Checked(checked)) => checked.findings.append(&mut findings),
                    Some(ScanOutcome::NotChecked { .. }) | None => return Err(ABSENT),
                }
            }
            // A later minor version's.
            _ => {}
        }
        Ok(())
    }

    fn frames(&mut self, first: u64, len: u64) -> Result<(), Malformed> {
        let mut before = 0u64;
        for index in first..first.saturating_add(len) {
            self.spend(size_of::<Frame>() as u64)?;
            let module = match self.columns[Field::FrameModule as usize].varint()?.checked_sub(1) {
                Some(module) if module < self.contents.modules.len() as u64 => Some(ModuleIndex(module as u32)),
                Some(_) => return Err(Malformed::Bytes("a frame's module is not in the trace")),
                None => None,
            };
            let address = before.wrapping_add(unzigzag(self.columns[Field::FrameAddr as usize].varint()?));
            before = address;
            place(&mut self.contents.frames, index, Frame { module, address, functions: Vec::new(), jumped: None })?;
        }
        Ok(())
    }

    fn stacks(&mut self, first: u64, len: u64) -> Result<(), Malformed> {
        let mut before = 0u64;
        for index in first..first.saturating_add(len) {
            self.spend(size_of::<StackNode>() as u64)?;
            let parent = index.wrapping_sub(unzigzag(self.columns[Field::StackParent as usize].varint()?));
            if parent >= index && parent != 0 {
                return Err(Malformed::Bytes("a stack's caller is not before it"));
            }
            let frame = before.wrapping_add(unzigzag(self.columns[Field::StackFrame as usize].varint()?));
            before = frame;
            let frame = match frame.checked_sub(1) {
                Some(frame) if frame < self.contents.frames.len() as u64 => Some(FrameIndex(frame as u32)),
                Some(_) => return Err(Malformed::Bytes("a stack's frame is not in the trace")),
                None => None,
            };
            place(&mut self.contents.stacks, index, StackNode { parent: StackIndex(parent as u32), frame })?;
        }
        Ok(())
    }

    fn function(&mut self, from: &mut Cursor<'_>) -> Result<Function, Malformed> {
        use std::os::unix::ffi::OsStringExt;
        const ABSENT: Malformed = Malformed::Bytes("a function's name is not in the trace");
        let (name, file, line) = (from.varint()?, records::optional(from)?, records::optional(from)?);
        let inlined = from.byte()? != 0;
        let string = |at: u64| self.string(at).ok_or(ABSENT);
        let name = text(string(name)?)?;
        let file = match file {
            Some(file) => Some(std::ffi::OsString::from_vec(string(file)?.to_vec()).into()),
            None => None,
        };
        let line = match line {
            Some(line) => Some(u32::try_from(line).map_err(|_| Malformed::Bytes("a line exceeds 32 bits"))?),
            None => None,
        };
        let function = Function { name, file, line, inlined };
        self.spend(size_of_function(&function))?;
        Ok(function)
    }

    fn string(&self, at: u64) -> Option<&[u8]> {
        usize::try_from(at).ok().and_then(|at| self.strings.get(at)).map(Vec::as_slice)
    }

    fn jumped(&mut self, index: u64, name: u64) -> Result<(), Malformed> {
        const ABSENT: Malformed = Malformed::Bytes("the name of a function that jumped is not in the trace");
        let name = text(self.string(name).ok_or(ABSENT)?)?;
        self.spend(name.len() as u64)?;
        self.frame(index)?.jumped = Some(name);
        Ok(())
    }

    /// A frame that is there already, to be completed.
    fn frame(&mut self, index: u64) -> Result<&mut Frame, Malformed> {
        let frame = usize::try_from(index).ok().and_then(|index| self.contents.frames.get_mut(index));
        frame.ok_or(Malformed::Bytes("symbols are of a frame that is not in the trace"))
    }

    fn symbols(&mut self, first: u64, len: u64) -> Result<(), Malformed> {
        for index in first..first.saturating_add(len) {
            let count = self.columns[Field::Symbols as usize].varint()?;
            let mut functions = Vec::new();
            for _ in 0..count {
                let at = self.columns[Field::Symbols as usize].varint()?;
                let function = usize::try_from(at).ok().and_then(|at| self.functions.get(at)).cloned();
                let function = function.ok_or(Malformed::Bytes("a frame's function is not in the trace"))?;
                self.spend(size_of_function(&function))?;
                functions.push(function);
            }
            self.frame(index)?.functions = functions;
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed::Bytes("a name is not UTF-8"))
}

fn size_of_function(function: &Function) -> u64 {
    let file_bytes = function.file.as_ref().map_or(0, |file| file.as_os_str().len());
    (size_of::<Function>() + function.name.len() + file_bytes) as u64
}

/// Puts an entry behind the last one or in the place of one.
fn place<T>(table: &mut Vec<T>, index: u64, entry: T) -> Result<(), Malformed> {
    let at = usize::try_from(index).unwrap_or(usize::MAX);
    if let Some(place) = table.get_mut(at) {
        *place = entry;
    } else if at == table.len() && u32::try_from(index).is_ok() {
        table.push(entry);
    } else {
        return Err(Malformed::Bytes("an entry of a table comes before the one that it follows"));
    }
    Ok(())
}
