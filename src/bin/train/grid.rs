//! Tables for a terminal, and as Markdown.

use std::fmt;

/// Columns as wide as what stands in them; the first to the left, the others to the right.
pub(crate) fn grid(
    f: &mut impl fmt::Write,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    for row in aligned(head, rows) {
        writeln!(f, "{}", row.join("  ").trim_end())?;
    }
    Ok(())
}

/// The same as a table of Markdown.
pub(crate) fn markdown(
    f: &mut impl fmt::Write,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    for (nth, row) in aligned(head, rows).iter().enumerate() {
        writeln!(f, "| {} |", row.join(" | "))?;
        if nth == 0 {
            let rule = |(column, text): (usize, &String)| {
                let dashes = "-".repeat(text.chars().count() + 1);
                match column {
                    0 => format!(":{dashes}"),
                    _ => format!("{dashes}:"),
                }
            };
            let rules: Vec<String> = row.iter().enumerate().map(rule).collect();
            writeln!(f, "|{}|", rules.join("|"))?;
        }
    }
    Ok(())
}

/// The head and the rows, each column filled up to one width.
fn aligned(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let head = head.iter().map(|&name| name.to_owned()).collect();
    let mut rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    for column in 0..rows[0].len() {
        let widths = rows.iter().map(|row| row[column].chars().count());
        let width = widths.max().unwrap_or(0);
        for row in &mut rows {
            row[column] = match column {
                0 => format!("{:<width$}", row[0]),
                _ => format!("{:>width$}", row[column]),
            };
        }
    }
    rows
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

    #[test]
    fn markdown_tells_which_way_columns_go() {
        let mut text = String::new();
        let rows = [["a", "1"], ["long", "22"]].map(|row| row.map(str::to_owned).into());
        markdown(&mut text, &["x", "y"], rows.into_iter()).expect("a string takes all");
        let wanted = "| x    |  y |\n|:-----|---:|\n| a    |  1 |\n| long | 22 |\n";
        assert_eq!(text, wanted);
    }
}
