//! The `xalloc-report` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    xalloc_report::cli::main()
}
