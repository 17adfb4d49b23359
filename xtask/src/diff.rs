//! A readable difference between an expected and an actual text.

/// Lines that surround a change.
const CONTEXT: usize = 2;
/// Lines shown before the rest is only counted.
const SHOWN: usize = 80;
/// Above this many comparisons the middle is shown as removed and added as a whole.
const COMPARISONS: usize = 4_000_000;

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Same,
    Removed,
    Added,
}

/// The difference between the bytes on disk and those that should be there: lines when both
/// are text, otherwise the sizes and the first byte that differs.
pub(crate) fn bytes(on_disk: &[u8], wanted: &[u8]) -> String {
    if let (Ok(old), Ok(new)) = (std::str::from_utf8(on_disk), std::str::from_utf8(wanted)) {
        return lines(old, new);
    }
    let at = on_disk.iter().zip(wanted).take_while(|(old, new)| old == new).count();
    format!(
        "    {} bytes on disk, {} wanted; the first difference is at byte {at}\n",
        on_disk.len(),
        wanted.len()
    )
}

/// `-` lines are on disk and should not be, `+` lines should be and are not. The number is
/// the line's in its own text.
pub(crate) fn lines(on_disk: &str, wanted: &str) -> String {
    // Line endings stay on the lines, so that a missing last newline is a difference.
    let old: Vec<&str> = on_disk.split_inclusive('\n').collect();
    let new: Vec<&str> = wanted.split_inclusive('\n').collect();
    let marked = mark(&old, &new);

    let changed: Vec<usize> =
        (0..marked.len()).filter(|at| marked.get(*at).is_some_and(is_change)).collect();
    let near = |at: usize| {
        let next = changed.partition_point(|change| change + CONTEXT < at);
        changed.get(next).is_some_and(|change| *change <= at + CONTEXT)
    };

    let mut text = String::new();
    let mut shown = 0;
    let mut gap = false;
    for (at, (mark, number, line)) in marked.iter().enumerate() {
        if !near(at) {
            gap = true;
            continue;
        }
        if shown == SHOWN {
            text.push_str(&format!("    … {} changed lines in all\n", changed.len()));
            break;
        }
        if gap && shown > 0 {
            text.push_str("    …\n");
        }
        gap = false;
        shown += 1;
        let sign = match mark {
            Mark::Same => ' ',
            Mark::Removed => '-',
            Mark::Added => '+',
        };
        let body = line.strip_suffix('\n').unwrap_or(line);
        text.push_str(format!("    {number:>5} {sign} {body}").trim_end());
        text.push('\n');
        if !line.ends_with('\n') {
            text.push_str("            (no newline at the end)\n");
        }
    }
    text
}

fn is_change(line: &(Mark, usize, &str)) -> bool {
    line.0 != Mark::Same
}

/// Each line with its mark and its number, by a longest common subsequence of what is left
/// after the equal start and end.
fn mark<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Mark, usize, &'a str)> {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - start;
    let end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let middle_old = old.get(start..old.len() - end).unwrap_or_default();
    let middle_new = new.get(start..new.len() - end).unwrap_or_default();

    let mut marked = Vec::with_capacity(old.len() + new.len());
    for (at, line) in new.iter().take(start).enumerate() {
        marked.push((Mark::Same, at + 1, *line));
    }
    let lengths = common_lengths(middle_old, middle_new);
    let length = |a: usize, b: usize| {
        lengths.get(a * (middle_new.len() + 1) + b).copied().unwrap_or_default()
    };
    let (mut a, mut b) = (0, 0);
    loop {
        match (middle_old.get(a), middle_new.get(b)) {
            (None, None) => break,
            (Some(x), Some(y)) if x == y => {
                marked.push((Mark::Same, start + b + 1, *y));
                a += 1;
                b += 1;
            }
            (Some(x), y) if y.is_none() || length(a + 1, b) >= length(a, b + 1) => {
                marked.push((Mark::Removed, start + a + 1, *x));
                a += 1;
            }
            (_, Some(y)) => {
                marked.push((Mark::Added, start + b + 1, *y));
                b += 1;
            }
            (Some(_), None) => break,
        }
    }
    for (at, line) in new.iter().enumerate().skip(new.len() - end) {
        marked.push((Mark::Same, at + 1, *line));
    }
    marked
}

/// For each pair of tails, the length of their longest common subsequence; empty when that
/// would be too many pairs.
fn common_lengths(old: &[&str], new: &[&str]) -> Vec<u32> {
    let width = new.len() + 1;
    if old.len().saturating_mul(width) > COMPARISONS {
        return Vec::new();
    }
    let mut table = vec![0_u32; (old.len() + 1) * width];
    for (a, x) in old.iter().enumerate().rev() {
        for (b, y) in new.iter().enumerate().rev() {
            let at = |a: usize, b: usize| table.get(a * width + b).copied().unwrap_or_default();
            let value = if x == y { at(a + 1, b + 1) + 1 } else { at(a + 1, b).max(at(a, b + 1)) };
            if let Some(cell) = table.get_mut(a * width + b) {
                *cell = value;
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str, expected: &str) {
        assert_eq!(lines(old, new), expected, "from {old:?} to {new:?}");
    }

    #[test]
    fn shows_what_changed_and_little_else() {
        check("a\n", "a\n", "");
        check("a\nc\n", "a\nb\nc\n", "        1   a\n        2 + b\n        3   c\n");
        check("a\nb\n", "a\n", "        1   a\n        2 - b\n");
        check("a\n", "b\n", "        1 - a\n        1 + b\n");
        check(
            "1\n2\n3\n4\nx\n5\n",
            "1\n2\n3\n4\n5\n",
            "        3   3\n        4   4\n        5 - x\n        5   5\n",
        );
        check(
            "a\n1\n2\n3\n4\n5\n6\nb\n",
            "A\n1\n2\n3\n4\n5\n6\nB\n",
            "        1 - a\n        1 + A\n        2   1\n        3   2\n    …\n        6   5\n        7   6\n        8 - b\n        8 + B\n",
        );
    }

    #[test]
    fn a_missing_last_newline_is_a_difference() {
        check("a", "a\n", "        1 - a\n            (no newline at the end)\n        1 + a\n");
    }

    #[test]
    fn a_long_difference_is_cut() {
        let old: String = (0..3000).map(|n| format!("old {n}\n")).collect();
        let new: String = (0..3000).map(|n| format!("new {n}\n")).collect();
        let text = lines(&old, &new);
        assert_eq!(text.lines().count(), SHOWN + 1);
        assert!(text.ends_with("6000 changed lines in all\n"), "{text}");
    }

    #[test]
    fn bytes_that_are_not_text_are_located() {
        let text = bytes(&[1, 2, 0xff], &[1, 3]);
        assert!(text.contains("3 bytes on disk, 2 wanted; the first difference is at byte 1"));
    }
}
