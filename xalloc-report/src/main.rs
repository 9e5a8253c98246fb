//! The `xalloc-report` command.

fn main() {}
