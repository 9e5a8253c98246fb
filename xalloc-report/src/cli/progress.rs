//! Progress on the terminal, after the program has ended: while it runs, the terminal is the program's.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::record::Phase;

/// A line that says what takes time. Shows nothing where standard error is no terminal.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let bar = ProgressBar::new_spinner();
        bar.set_draw_target(ProgressDrawTarget::hidden());
        Progress { bar }
    }

    pub(super) fn show(&mut self, phase: Phase) {
        const REDRAW: Duration = Duration::from_millis(100);
        let message = match phase {
            Phase::Naming { frames } => format!("naming {frames} code locations"),
            Phase::Writing => "writing the end of the trace".into(),
            Phase::Done => return self.end(),
        };
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
        if self.bar.is_hidden() {
            // No thread for a line that nobody sees.
            return;
        }
        self.bar.set_message(message);
        self.bar.enable_steady_tick(REDRAW);
    }

    pub(super) fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
