//! What the running system has of huge pages, from the files in which the kernel says it.

use super::{errno, word};
use crate::heap::HugePages;

/// Most that is read of such a file: the line that is looked for stands below this.
const FILE_BYTES: usize = 4096;

/// What there is without a program's asking, what by advice, what not at all.
pub(super) fn transparent() -> HugePages {
    let mut text = [0; FILE_BYTES];
    let mode = read(c"/sys/kernel/mm/transparent_hugepage/enabled", &mut text);
    let is_advised = contains(mode, b"[madvise]");
    if !is_advised && !contains(mode, b"[always]") {
        return HugePages::Ordinary;
    }
    match number(read(c"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", &mut text)) {
        None | Some(0) => HugePages::Ordinary,
        Some(bytes) if is_advised => HugePages::Advised(bytes),
        Some(bytes) => HugePages::Everywhere(bytes),
    }
}

/// Bytes of the pages that are mapped if no size is named.
pub(super) fn default_bytes() -> Option<u64> {
    const LABEL: &[u8] = b"Hugepagesize:";
    let mut text = [0; FILE_BYTES];
    let lines = read(c"/proc/meminfo", &mut text);
    let value = lines.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(LABEL))?;
    number(value.trim_ascii_start())?.checked_mul(1024).filter(|&bytes| bytes != 0)
}

/// Whether the kernel has huge pages of so many bytes: a folder says so.
pub(super) fn is_size(bytes: u64) -> bool {
    const FOLDER: &[u8] = b"/sys/kernel/mm/hugepages/hugepages-";
    if !bytes.is_power_of_two() || bytes < 1024 {
        return false;
    }
    let mut path = [0; 96];
    path[..FOLDER.len()].copy_from_slice(FOLDER);
    let kibibytes = bytes / 1024;
    let digits = kibibytes.ilog10() as usize + 1;
    let mut left = kibibytes;
    for place in path[FOLDER.len()..][..digits].iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
    }
    path[FOLDER.len() + digits..][..2].copy_from_slice(b"kB");
    let mode = word(libc::F_OK);
    // SAFETY: `path` ends with a zero, for it is longer than what was written.
    errno::preserving(|| unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), mode) == 0 })
}

/// The beginning of a file; empty if it cannot be read.
fn read<'t>(path: &core::ffi::CStr, text: &'t mut [u8; FILE_BYTES]) -> &'t [u8] {
    let got = errno::preserving(|| super::read_start(path, text));
    text.get(..got).unwrap_or_default()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The decimal number that a text begins with.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let mut value = None;
    for digit in digits {
        value = Some(u64::checked_add(value.unwrap_or(0_u64).checked_mul(10)?, u64::from(digit - b'0'))?);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_size_is_one_that_the_kernel_has() {
        match default_bytes() {
            Some(bytes) => assert!(is_size(bytes), "{bytes}"),
            None => println!("skipped: this kernel has no huge pages"),
        }
        for bytes in [0, 1, 3, 4096, (2 << 20) + 1, u64::MAX, 1 << 63] {
            assert!(!is_size(bytes), "{bytes}");
        }
    }
}
