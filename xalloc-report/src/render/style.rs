//! The few styles of the text reports.

use anstyle::{AnsiColor, Style};

/// What a report or a table is about.
pub(super) const HEADING: Style = Style::new().bold();
/// The figures one came for.
pub(super) const FIGURE: Style = Style::new().bold();
/// What is said for completeness.
pub(super) const ASIDE: Style = Style::new().dimmed();
/// Functions.
pub(super) const FUNCTION: Style = AnsiColor::Cyan.on_default();
/// What can be typed.
pub(super) const COMMAND: Style = AnsiColor::Green.on_default();
/// Kept budgets.
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Exceeded budgets.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What is missing or in doubt.
pub(super) const DOUBT: Style = AnsiColor::Yellow.on_default();
/// Bars and plots.
pub(super) const BAR: Style = AnsiColor::Blue.on_default();
/// No style.
pub(super) const PLAIN: Style = Style::new();
