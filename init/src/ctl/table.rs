//! Columns.

/// Lines up rows under a heading. The last column is not padded.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>], legend: bool) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|title| if legend { title.chars().count() } else { 0 }).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    if legend {
        push_row(&mut out, &heading.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>(), &widths);
    }
    for row in rows {
        push_row(&mut out, row, &widths);
    }
    out
}

fn push_row(out: &mut String, row: &[String], widths: &[usize]) {
    let start = out.len();
    for (cell, width) in row.iter().zip(widths) {
        out.push_str(cell);
        out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 1));
    }
    let end = out.get(start..).map_or(start, |line| start + line.trim_end().len());
    out.truncate(end);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "long".into()], vec!["bbb".into(), "x".into()]];
        assert_eq!(table(&["ID", "W"], &rows, true), "ID  W\na   long\nbbb x\n");
        assert_eq!(table(&["IDENTIFIER", "W"], &rows, false), "a   long\nbbb x\n");
    }
}
