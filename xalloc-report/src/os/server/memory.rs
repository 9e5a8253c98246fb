//! What the kernel says of this process's memory, looked at while it serves requests.
//!
//! All figures are what came after [`Meter::begin`]. Nothing here asks the allocator that is measured for anything: files
//! of `/proc` are read into buffers on the stack, and the time that looking takes is counted, to be taken from the
//! requests' own.
//!
//! # Safety
//! - libc's functions get pointers to locals, with their true lengths, and descriptors that were opened here.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::{PAGE, now_ns, open};

/// Bytes of memory as `/proc/self/statm` counts them.
#[derive(Clone, Copy)]
struct Memory {
    private: u64,
    resident: u64,
    shared: u64,
}

impl Memory {
    const NONE: Memory = Memory { private: 0, resident: 0, shared: 0 };

    fn read(statm: c_int) -> Memory {
        let mut buffer = [0; 128];
        let length = read_at_start(statm, &mut buffer);
        let text = buffer.get(..length).unwrap_or_default();
        let mut fields = text.split(|&byte| byte == b' ').map(|field| number_in(field) * PAGE as u64);
        let (_, resident, shared) = (fields.next(), fields.next(), fields.next());
        Memory { resident: resident.unwrap_or(0), shared: shared.unwrap_or(0), private: fields.nth(2).unwrap_or(0) }
    }

    /// What is resident of no file.
    fn anonymous(self) -> u64 {
        self.resident.saturating_sub(self.shared)
    }
}

/// The measurement of one run.
pub(super) struct Meter {
    statm: c_int,
    base: Memory,
    base_faults: u64,
    peak_footprint: u64,
    sum_footprint: u128,
    /// What was seen last, and its sum over the recorded time from `from_ns` to `at_ns`.
    footprint: u64,
    sum_by_time: u128,
    from_ns: Option<u64>,
    at_ns: u64,
    samples: u64,
    sampling_ns: u64,
}

/// What was measured, in bytes beyond what the process had at first; see [`super::Answer`].
pub(super) struct Measured {
    pub(super) peak_footprint_bytes: u64,
    pub(super) mean_footprint_bytes: u64,
    pub(super) mean_by_request_bytes: u64,
    pub(super) end_footprint_bytes: u64,
    pub(super) peak_rss_bytes: u64,
    pub(super) end_rss_bytes: u64,
    pub(super) page_faults: u64,
    pub(super) samples: u64,
    /// Time that looking at the memory took.
    pub(super) sampling_ns: u64,
}

impl Meter {
    /// One that has not begun.
    pub(super) const fn new() -> Meter {
        Meter {
            statm: -1,
            base: Memory::NONE,
            base_faults: 0,
            peak_footprint: 0,
            sum_footprint: 0,
            footprint: 0,
            sum_by_time: 0,
            from_ns: None,
            at_ns: 0,
            samples: 0,
            sampling_ns: 0,
        }
    }

    /// Measures from here on.
    pub(super) fn begin(&mut self) {
        self.statm = open(c"/proc/self/statm", libc::O_RDONLY);
        forget_resident_peak();
        self.base_faults = page_faults();
        self.base = Memory::read(self.statm);
    }

    /// Looks at the memory once.
    pub(super) fn sample(&mut self) {
        let started_ns = now_ns();
        let footprint = self.footprint(Memory::read(self.statm));
        self.samples += 1;
        self.sum_footprint += u128::from(footprint);
        self.footprint = footprint;
        self.peak_footprint = self.peak_footprint.max(footprint);
        self.sampling_ns += now_ns() - started_ns;
    }

    /// In the recording it is so late: what was held since the last time is weighed by the time that passed.
    pub(super) fn tick(&mut self, at_ns: u64) {
        if self.from_ns.is_none() {
            self.from_ns = Some(at_ns);
            self.at_ns = at_ns;
        }
        self.sum_by_time += u128::from(self.footprint) * u128::from(at_ns.saturating_sub(self.at_ns));
        self.at_ns = at_ns.max(self.at_ns);
    }

    /// Looks at the memory for the last time.
    pub(super) fn end(&self) -> Measured {
        let end = Memory::read(self.statm);
        let file_growth = end.shared.saturating_sub(self.base.shared);
        let marked = resident_peak().saturating_sub(self.base.resident).saturating_sub(file_growth);
        let footprint = self.footprint(end);
        let resident = self.resident(end);
        let passed = u128::from(self.at_ns - self.from_ns.unwrap_or(self.at_ns));
        Measured {
            peak_footprint_bytes: self.peak_footprint.max(footprint),
            mean_footprint_bytes: self.sum_by_time.checked_div(passed).map_or(footprint, |mean| mean as u64),
            mean_by_request_bytes: self.sum_footprint.checked_div(self.samples.into()).unwrap_or(0) as u64,
            end_footprint_bytes: footprint,
            peak_rss_bytes: marked.max(resident),
            end_rss_bytes: resident,
            page_faults: page_faults().saturating_sub(self.base_faults),
            samples: self.samples,
            sampling_ns: self.sampling_ns,
        }
    }

    /// Resident memory of no file beyond what was there before the first request.
    fn resident(&self, now: Memory) -> u64 {
        now.anonymous().saturating_sub(self.base.anonymous())
    }

    /// Private writable memory beyond what was there before the first request. Of an allocator that reserved its memory
    /// when it was loaded, that is what became resident.
    fn footprint(&self, now: Memory) -> u64 {
        now.private.saturating_sub(self.base.private).max(self.resident(now))
    }
}

fn page_faults() -> u64 {
    // SAFETY: all-zero is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes the local struct.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_minflt as u64 + usage.ru_majflt as u64
}

/// Reads the beginning of a file of `/proc`.
fn read_at_start(file: c_int, buffer: &mut [u8]) -> usize {
    // SAFETY: the buffer is writable and has that many bytes.
    let got = unsafe { libc::pread(file, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(got).unwrap_or(0)
}

/// The first number of a text.
fn number_in(text: &[u8]) -> u64 {
    let digits = text.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, byte| number * 10 + u64::from(byte - b'0'))
}

/// The kernel's high-water mark of resident memory.
fn resident_peak() -> u64 {
    let file = open(c"/proc/self/status", libc::O_RDONLY);
    let mut buffer = [0; 4096];
    let length = read_at_start(file, &mut buffer);
    // SAFETY: closes what was opened above.
    unsafe { libc::close(file) };
    let text = buffer.get(..length).unwrap_or_default();
    let line = text.split(|&byte| byte == b'\n').find(|line| line.starts_with(b"VmHWM:"));
    line.map_or(0, |line| number_in(line) * 1024)
}

/// Sets the high-water mark back to what is resident.
fn forget_resident_peak() {
    let file = open(c"/proc/self/clear_refs", libc::O_WRONLY);
    // SAFETY: one byte of a constant.
    unsafe { libc::write(file, c"5".as_ptr().cast(), 1) };
    // SAFETY: closes what was opened above.
    unsafe { libc::close(file) };
}
