//! Columns that line up.

use std::fmt;

/// Writes rows in columns as wide as what stands in them, the first to the left, the others to the right.
/// A row may have fewer cells than the first one.
pub(super) fn write(f: &mut impl fmt::Write, rows: &[Vec<String>]) -> fmt::Result {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Cells of a row.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut text = String::new();
        let rows = [
            row(["", "ms"]),
            row(["gate", "1.25"]),
            row(["°C", "9", "x"]),
        ];
        write(&mut text, &rows).expect("a string takes all");
        assert_eq!(text, "        ms\ngate  1.25\n°C       9  x\n");
    }
}
