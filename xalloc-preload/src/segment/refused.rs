//! Telling why the process is not recorded.
//!
//! Nothing is printed where nobody asked. A recorder finds a file whose name is the reason
//! ([`xalloc_core::session::Refusal`]); without one, a line goes to standard error if `XALLOC_VERBOSE` is set to 1.

use core::ffi::c_int;

use xalloc_core::session::{REFUSED_PREFIX, Refusal};

use crate::config::{Config, Output, PATH};
use crate::host;
use crate::text::Text;

/// A reason, and the system's number for it; 0 where the system has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    reason: Refusal,
    errno: c_int,
}

impl Refused {
    /// For what the system has just reported.
    pub(crate) fn by_system(reason: Refusal) -> Refused {
        Refused { reason, errno: host::errno() }
    }

    /// For what was seen without asking the system.
    pub(crate) fn seen(reason: Refusal) -> Refused {
        Refused { reason, errno: 0 }
    }

    /// Tells whoever wants to know.
    #[cold]
    pub(crate) fn tell(self, config: &Config) {
        match config.output {
            Output::Nowhere => {}
            Output::Session => self.leave_note(config),
            Output::File => self.print(config),
        }
    }

    fn leave_note(self, config: &Config) {
        let mut path = config.place;
        path.push(b"/");
        path.push(REFUSED_PREFIX.as_bytes());
        for (number, end) in
            [(u64::from(host::pid()), &b"."[..]), (self.reason.number().into(), b"."), (self.errno.max(0) as u64, b"")]
        {
            path.push_number(number);
            path.push(end);
        }
        if !path.is_cut() {
            host::make_empty_file(path.as_c());
        }
    }

    fn print(self, config: &Config) {
        if !config.is_verbose {
            return;
        }
        let mut line = Text::<{ PATH + 256 }>::of(b"xalloc: process ");
        line.push_number(host::pid().into());
        line.push(b" is not recorded to ");
        line.push(config.place.as_bytes());
        line.push(b": ");
        line.push(self.reason.seen().as_bytes());
        if self.errno > 0 {
            line.push(b" (errno ");
            line.push_number(self.errno as u64);
            line.push(b")");
        }
        line.push(b"\n");
        host::print_error(line.as_bytes());
    }
}
