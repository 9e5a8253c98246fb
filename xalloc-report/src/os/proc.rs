//! Texts of /proc.

use std::path::Path;
use std::{fs, io};

/// A text of the kernel's. The names in it are a program's own bytes: of a thread's name 15, which may end within a letter.
///
/// # Errors
/// What the system reports, as where the process is gone.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = fs::read(path)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
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
