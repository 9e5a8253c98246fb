//! Moments as they are asked for: by time, by the number of an event, by the name of a mark.

use std::fmt;
use std::str::FromStr;

use super::Failure;
use super::args::TraceArgs;
use crate::analysis::first_mark;
use crate::model::Recorded;
use crate::trace::{Moment, MomentError, ProcessIndex};

/// A moment in the life of any process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Named {
    /// By time or number.
    Moment(Moment),
    /// The first mark of that name.
    Marker(String),
}

impl FromStr for Named {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Named, MomentError> {
        match text.strip_prefix("marker:") {
            Some(name) => Ok(Named::Marker(name.to_owned())),
            None => text.parse().map(Named::Moment),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Named::Moment(moment) => write!(f, "{moment}"),
            Named::Marker(name) => write!(f, "marker:{name}"),
        }
    }
}

/// A process never set the mark of this name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NoMark(pub(super) String);

impl NoMark {
    /// What is said if no process did.
    pub(super) fn failure(&self, what: &str) -> Failure {
        let error = anyhow::anyhow!("no process has that {what}: there is no mark named `{}`", self.0);
        Failure::new(error).hint("events --kind marker lists the marks")
    }
}

impl Named {
    /// The moment in the life of one process.
    pub(super) fn of<R: Recorded>(
        &self,
        args: &TraceArgs,
        trace: &R,
        process: ProcessIndex,
    ) -> Result<Result<Moment, NoMark>, Failure> {
        match self {
            Named::Moment(moment) => Ok(Ok(*moment)),
            Named::Marker(name) => {
                let found = first_mark(trace, process, name).map_err(|error| args.unreadable(error))?;
                Ok(found.map(Moment::Seq).ok_or_else(|| NoMark(name.clone())))
            }
        }
    }
}
