//! Blocks whose owner was still at work when the program called `exit`.
//!
//! `exit` does not return, so a compiler may drop what its caller still holds: nothing points to a block then that was
//! never given up. Such a block was allocated by a function that is still active. Its stack and that of the call of
//! `exit` are the same up to that function's callers, and both go on in that function.
//!
//! It is told from names, so it waits until the frames have some; of code without symbols nothing is excused.

use rustc_hash::FxHashSet;

use crate::trace::{Contents, LeakClass, ScanOutcome, StackIndex};

/// Gives [`LeakClass::OwnerActive`] to what it belongs to, and to what hangs on that.
pub(crate) fn settle(contents: &mut Contents) {
    let mut scans = std::mem::take(&mut contents.scans);
    for scan in &mut scans {
        let ScanOutcome::Checked(checked) = &mut scan.outcome else { continue };
        let active = Active::at(contents, checked.exit_stack);
        let definite = checked.findings.iter().filter(|finding| finding.class == LeakClass::Definite);
        let owned: FxHashSet<StackIndex> =
            definite.map(|finding| finding.stack).filter(|&stack| active.owns(contents, stack)).collect();
        for finding in &mut checked.findings {
            let is_owned = match finding.class {
                LeakClass::Definite => owned.contains(&finding.stack),
                LeakClass::Indirect => owned.contains(&finding.leader),
                LeakClass::Cycle
                | LeakClass::Possible
                | LeakClass::Reachable
                | LeakClass::Runtime
                | LeakClass::Inherited
                | LeakClass::OwnerActive => false,
            };
            if is_owned {
                finding.class = LeakClass::OwnerActive;
            }
        }
    }
    contents.scans = scans;
}

/// The functions on a stack, each with the stack of its callers.
struct Active<'a>(FxHashSet<(StackIndex, &'a str)>);

impl<'a> Active<'a> {
    fn at(contents: &'a Contents, stack: StackIndex) -> Active<'a> {
        let mut active = FxHashSet::default();
        let mut at = stack;
        while let Some(node) = contents.stacks.get(at.0 as usize).filter(|node| node.parent < at) {
            active.extend(function(contents, at).map(|name| (node.parent, name)));
            at = node.parent;
        }
        Active(active)
    }

    /// Whether a function on the stack allocated there.
    fn owns(&self, contents: &Contents, stack: StackIndex) -> bool {
        let node = contents.stacks.get(stack.0 as usize);
        let owner = node.zip(function(contents, stack));
        owner.is_some_and(|(node, name)| self.0.contains(&(node.parent, name)))
    }
}

/// The function whose frame is the innermost of `stack`.
fn function(contents: &Contents, stack: StackIndex) -> Option<&str> {
    let frame = contents.stacks.get(stack.0 as usize)?.frame?;
    let outermost = contents.frames.get(frame.0 as usize)?.functions.last()?;
    Some(outermost.name.as_str())
}
