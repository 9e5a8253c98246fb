//! Columns of text that line up, whatever styles they carry.

use std::fmt::Write;

use anstyle::Style;

/// One cell: text, its style, and the side to which it is aligned.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

/// A cell of text, aligned to the left.
pub(super) fn left(text: impl Into<String>, style: Style) -> Cell {
    Cell { text: text.into(), style, right: false }
}

/// A cell of figures, aligned to the right.
pub(super) fn right(text: impl Into<String>, style: Style) -> Cell {
    Cell { text: text.into(), style, right: true }
}

/// Rows of cells.
#[derive(Default, Debug)]
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Writes the rows with two blanks between columns and no blanks at line ends.
    pub(super) fn write(&self, out: &mut String, indent: usize) {
        for line in self.lines(indent) {
            out.push_str(&line);
            out.push('\n');
        }
    }

    /// The rows as lines.
    pub(super) fn lines(&self, indent: usize) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        self.rows.iter().map(|row| line(row, &widths, indent)).collect()
    }
}

fn line(row: &[Cell], widths: &[usize], indent: usize) -> String {
    let mut line = String::new();
    // Blanks are written only in front of text, so that none is left at the end.
    let mut blanks = indent;
    for (cell, width) in row.iter().zip(widths) {
        let fill = width - cell.text.chars().count();
        if cell.right {
            blanks += fill;
        }
        if !cell.text.is_empty() {
            let style = cell.style;
            // Writing to a String does not fail.
            let _ = write!(line, "{:blanks$}{style}{}{style:#}", "", cell.text);
            blanks = 0;
        }
        blanks += if cell.right { 2 } else { fill + 2 };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::style::{FIGURE, PLAIN};

    #[test]
    fn styles_do_not_shift_columns_and_lines_end_without_blanks() {
        let mut table = Table::default();
        table.row([left("a", FIGURE), right("1", PLAIN), left("end", PLAIN)]);
        table.row([left("long", PLAIN), right("1,000", FIGURE), left("", PLAIN)]);
        let lines: Vec<_> = table.lines(2).iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(lines, ["  a         1  end", "  long  1,000"]);
    }
}
