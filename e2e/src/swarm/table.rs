//! What was measured, as lines of a table.

/// The lines, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<(String, String)>);

impl Table {
    /// One line, told at once too.
    pub(super) fn add(&mut self, figure: impl Into<String>, measured: impl Into<String>) {
        let (figure, measured) = (figure.into(), measured.into());
        println!("lab:   {figure}: {measured}");
        self.0.push((figure, measured));
    }

    /// All of them.
    pub(super) fn print(&self) {
        println!("\n| figure | measured |\n| --- | --- |");
        for (figure, measured) in &self.0 {
            println!("| {figure} | {measured} |");
        }
    }
}
