//! Texts of /proc.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longer than most of them.
const BUFFER_BYTES: usize = 8 << 10;

/// A text of the kernel's. The names in it are a program's own bytes: of a thread's name 15, which may end within a letter.
///
/// # Errors
/// What the system reports, as where the process is gone.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(BUFFER_BYTES);
    // Their lengths are 0: who believes that asks in small pieces first. A limited reader does not ask.
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_that_is_cut_within_a_letter_hides_nothing_of_the_rest() {
        std::thread::spawn(|| {
            fs::write("/proc/thread-self/comm", b"a\xc3").unwrap();
            assert_eq!(text("/proc/thread-self/comm").unwrap(), "a\u{fffd}\n");
            let status = text("/proc/thread-self/status").unwrap();
            assert!(status.starts_with("Name:\ta\u{fffd}\n") && status.contains("\nState:\t"), "{status}");
        })
        .join()
        .unwrap();
    }
}
