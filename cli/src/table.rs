//! Tables for people: columns aligned, three spaces between, no lines.

use std::fmt::{self, Write};

/// A table with a heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Empty cells show as `-`; control characters of what others wrote do not reach the terminal.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cell = |c: String| if c.is_empty() { "-".to_owned() } else { printable(&c) };
        self.rows.push(cells.into_iter().map(cell).collect());
    }
}

/// The text without characters that would steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// So many of these: `1 node`, `3 nodes`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths: Vec<usize> = self.heading.iter().map(|h| h.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (cell, width) in cells.zip(&widths) {
                write!(text, "{cell:<width$}   ")?;
            }
            writeln!(f, "{}", text.trim_end())
        };
        line(&mut self.heading.iter().copied())?;
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_cells_show() {
        let mut table = Table::new(&["NAME", "STAGE"]);
        table.row(["workers".to_owned(), "canary".to_owned()]);
        table.row(["a\u{1b}[31m".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME      STAGE\nworkers   canary\na [31m    -\n");
    }
}
