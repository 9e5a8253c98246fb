//! What a process cannot say of itself once it has confined itself by a filter of system calls, looked up from outside.
//!
//! It may be over by then: then it is not known, which is what the reports say.

use std::fs;
use std::path::PathBuf;

use crate::os::proc;
use crate::record::memory;

/// The name of a thread; empty where it is gone.
pub(super) fn thread_name(pid: u32, tid: u32) -> String {
    let name = proc::text(format!("/proc/{pid}/task/{tid}/comm")).unwrap_or_default();
    name.trim_end_matches('\n').to_owned()
}

/// The file of a module that was loaded with this bias; empty where it is gone.
pub(super) fn module_path(pid: u32, bias: u64) -> PathBuf {
    // What is not relocated is the program itself.
    if bias == 0 {
        return fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    }
    let mappings = proc::text(format!("/proc/{pid}/maps")).unwrap_or_default();
    mappings.lines().find_map(|line| path_at(line, bias)).unwrap_or_default()
}

/// The path in a line of the list of mappings, if it holds `address`.
fn path_at(line: &str, address: u64) -> Option<PathBuf> {
    let mapping = memory::head(line).filter(|mapping| (mapping.start..mapping.end).contains(&address))?;
    mapping.name.starts_with('/').then(|| mapping.name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_file_at_an_address_within_it() {
        let line = "7f0c1000-7f0c3000 r--p 00000000 fe:00 1234                       /opt/my libs/libx.so";
        assert_eq!(path_at(line, 0x7f0c_1000), Some("/opt/my libs/libx.so".into()));
        assert_eq!(path_at(line, 0x7f0c_3000), None);
        assert_eq!(path_at("7f0c1000-7f0c3000 rw-p 00000000 00:00 0 ", 0x7f0c_1000), None);
        assert_eq!(path_at("7f0c1000-7f0c3000 rw-p 00000000 00:00 0        [heap]", 0x7f0c_1000), None);
    }

    #[test]
    fn a_process_that_is_gone_has_no_names() {
        assert_eq!(thread_name(u32::MAX, 1), "");
        assert_eq!(module_path(u32::MAX, 0x1000), PathBuf::new());
    }
}
