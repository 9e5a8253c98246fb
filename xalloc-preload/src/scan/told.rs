//! What the kernel tells of a thread that cannot be asked itself (proc(5)).

use crate::host::File;
use crate::text::Text;

/// Words of a call that a thread waits in: arguments, stack pointer, place in the code.
pub(super) const WORDS: usize = 8;
/// Where among them the stack pointer is; behind it stands the place in the code.
pub(super) const SP_WORD: usize = 6;

/// What a thread is at.
pub(super) struct Status {
    /// It has ended, but for its number.
    pub(super) is_gone: bool,
    /// The signals that it blocks: bit 0 stands for signal 1.
    pub(super) blocked_signals: u64,
}

/// Arguments, stack pointer and place of a thread that waits in the kernel; `None` of one that runs.
pub(super) fn waiting_at(tid: u32) -> Option<[u64; WORDS]> {
    let mut buffer = [0; 256];
    // `number arguments... stack-pointer place`, or a word in the place of a number.
    let text = read_of(tid, b"/syscall", &mut buffer)?;
    first_number(text)?;
    let mut words = [0; WORDS];
    let fields = text.split(|&byte| byte == b' ' || byte == b'\n').skip(1);
    for (to, field) in words.iter_mut().zip(fields) {
        *to = from_hex(field.strip_prefix(b"0x")?)?;
    }
    (words[SP_WORD] != 0).then_some(words)
}

/// Whether a thread is in `sigwait` or one of its kin, whichever signals it waits for.
pub(super) fn waits_for_signals(tid: u32) -> bool {
    let mut buffer = [0; 256];
    let number = read_of(tid, b"/syscall", &mut buffer).and_then(first_number);
    number == u64::try_from(libc::SYS_rt_sigtimedwait).ok()
}

/// The processor time that a thread has used, as of its last tick; `None` where the kernel does not tell.
pub(super) fn used_ns(tid: u32) -> Option<u64> {
    let mut buffer = [0; 64];
    let text = read_of(tid, b"/schedstat", &mut buffer)?;
    // A kernel that does not count says 0, of a thread that has run.
    first_number(text).filter(|&used_ns| used_ns > 0)
}

/// What a thread is at; `None`: there is none of this number, or the kernel does not tell.
pub(super) fn status(tid: u32) -> Option<Status> {
    let mut buffer = [0; 4096];
    let text = read_of(tid, b"/status", &mut buffer)?;
    let behind = |name: &[u8]| {
        let at = text.windows(name.len()).position(|part| part == name)?;
        text.get(at + name.len()..)
    };
    let is_gone = behind(b"State:\t").and_then(<[u8]>::first).is_some_and(|letter| matches!(letter, b'Z' | b'X'));
    let blocked_signals = behind(b"SigBlk:\t").and_then(|digits| from_hex(digits.split(|&byte| byte == b'\n').next()?));
    match blocked_signals {
        Some(blocked_signals) => Some(Status { is_gone, blocked_signals }),
        None => is_gone.then_some(Status { is_gone, blocked_signals: 0 }),
    }
}

/// Reads a file of the thread's; what fits.
fn read_of<'b>(tid: u32, name: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut path = Text::<64>::of(b"/proc/self/task/");
    path.push_number(u64::from(tid));
    path.push(name);
    let got = File::open(path.as_c(), libc::O_RDONLY)?.read_at(buffer, 0);
    buffer.get(..got)
}

/// The decimal number that a text begins with, up to its first space.
fn first_number(text: &[u8]) -> Option<u64> {
    let digits = text.split(|&byte| byte == b' ').next()?;
    core::str::from_utf8(digits).ok()?.parse().ok()
}

fn from_hex(digits: &[u8]) -> Option<u64> {
    let add = |value: u64, &digit: &u8| Some(value << 4 | u64::from(char::from(digit).to_digit(16)?));
    digits.iter().try_fold(0, add)
}
