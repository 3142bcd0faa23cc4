//! Tables for a terminal.

use std::fmt;

/// Columns as wide as what stands in them; the first to the left, the others to the right.
pub(crate) fn grid(
    f: &mut impl fmt::Write,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    let head = head.iter().map(|&name| name.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = rows[0].len();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (text, width) in row.iter().zip(&widths).skip(1) {
            line += &format!("  {text:>width$}");
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut text = String::new();
        let rows = [["a", "1"], ["long", "22"]].map(|row| row.map(str::to_owned).into());
        grid(&mut text, &["x", "y"], rows.into_iter()).expect("a string takes all");
        assert_eq!(text, "x      y\na      1\nlong  22\n");
    }
}
