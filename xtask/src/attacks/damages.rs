//! What somebody without the key can do to a bundle.

pub(super) type Damage = (&'static str, &'static str, &'static str, fn(&str) -> String);

/// The line with this number, from 0, changed.
pub(super) fn line(text: &str, at: usize, change: impl Fn(&str) -> Vec<String>) -> String {
    let lines = text.lines().enumerate();
    let changed =
        lines.flat_map(|(i, line)| if i == at { change(line) } else { vec![line.to_owned()] });
    changed.map(|line| line + "\n").collect()
}

pub(super) fn swapped(text: &str, a: usize, b: usize) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    if a < lines.len() && b < lines.len() {
        lines.swap(a, b);
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Changes to a bundle by somebody without the key. Line 0 is the header, 5, 10, 15, 20 and
/// 23 are checkpoints, 24 is the end.
pub(super) fn damages() -> Vec<Damage> {
    vec![
        ("a byte of a record", "One character is another.", "root_mismatch", |t| {
            t.replacen("execute tool make", "execute tool mage", 1)
        }),
        ("a space in a record", "Bytes are hashed as they are stored.", "root_mismatch", |t| {
            line(t, 2, |l| vec![l.replacen("\":", "\": ", 1)])
        }),
        (
            "a record written again with its keys in another order",
            "The same JSON, other bytes.",
            "root_mismatch",
            |t| {
                line(t, 2, |l| {
                    vec![l.replacen("{\"journal_schema_version\":1,", "{", 1).replacen(
                        ",\"payload\"",
                        ",\"journal_schema_version\":1,\"payload\"",
                        1,
                    )]
                })
            },
        ),
        ("a record dropped", "One is missing.", "record_missing", |t| line(t, 2, |_| Vec::new())),
        ("a record repeated", "One stands there twice.", "record_misfiled", |t| {
            line(t, 2, |l| vec![l.to_owned(), l.to_owned()])
        }),
        ("two records swapped", "The order is signed.", "record_missing", |t| swapped(t, 2, 3)),
        ("a record put in", "One is new.", "record_unreadable", |t| {
            line(t, 2, |l| vec![l.to_owned(), "{\"journal_seq\":3}".to_owned()])
        }),
        ("an empty line", "It is a record without bytes.", "record_unreadable", |t| {
            line(t, 2, |l| vec![l.to_owned(), String::new()])
        }),
        (
            "a checkpoint and the next record swapped",
            "It stands behind other records.",
            "record_missing",
            |t| swapped(t, 5, 6),
        ),
        ("the root of a checkpoint", "The signature is over another.", "checkpoint_invalid", |t| {
            line(t, 5, |l| {
                let at = l.find("\\n4\\n").map_or(0, |at| at + 5);
                let mut l = l.to_owned();
                if l.get(at..=at).is_some() {
                    let c = if l.get(at..=at) == Some("A") { "B" } else { "A" };
                    l.replace_range(at..=at, c);
                }
                vec![l]
            })
        }),
        ("the size of a checkpoint", "The signature is over another.", "checkpoint_invalid", |t| {
            line(t, 5, |l| vec![l.replacen("\\n4\\n", "\\n3\\n", 1)])
        }),
        ("a size with a zero before it", "A number has one spelling.", "checkpoint_invalid", |t| {
            line(t, 5, |l| vec![l.replacen("\\n4\\n", "\\n04\\n", 1)])
        }),
        ("the origin of a checkpoint", "It is of another log.", "checkpoint_invalid", |t| {
            line(t, 5, |l| vec![l.replacen("example", "exemple", 1)])
        }),
        ("a checkpoint without a signature", "Nobody vouches for it.", "checkpoint_invalid", |t| {
            line(t, 5, |l| {
                vec![
                    l.split_once("\\n\\n")
                        .map_or(String::new(), |(text, _)| format!("{text}\\n\\n\"}}")),
                ]
            })
        }),
        (
            "a checkpoint signed twice",
            "Which signature counts is nobody's to choose.",
            "checkpoint_invalid",
            |t| {
                line(t, 5, |l| {
                    vec![l.split_once("\\n\\n").map_or(String::new(), |(text, lines)| {
                        let one = lines.trim_end_matches("\"}");
                        format!("{text}\\n\\n{one}{one}\"}}")
                    })]
                })
            },
        ),
        (
            "an old checkpoint in the place of the last",
            "It covers fewer records.",
            "record_missing",
            |t| {
                let old = t.lines().nth(15).unwrap_or_default().to_owned();
                line(t, 23, move |_| vec![old.clone()])
            },
        ),
        (
            "the last checkpoint dropped",
            "Records stand behind the one before.",
            "not_covered",
            |t| line(t, 23, |_| Vec::new()).replace("\"checkpoints\":5", "\"checkpoints\":4"),
        ),
        ("all checkpoints dropped", "Nobody vouches for anything.", "not_covered", |t| {
            t.lines()
                .filter(|l| !l.starts_with("{\"bundle_checkpoint"))
                .map(|l| l.replace("\"checkpoints\":5", "\"checkpoints\":0") + "\n")
                .collect()
        }),
        ("the end cut off", "The last line says how much there is.", "bundle_damaged", |t| {
            t.lines().take(18).map(|l| format!("{l}\n")).collect()
        }),
        ("cut within a line", "The file ends in the middle of a record.", "bundle_damaged", |t| {
            t.get(..t.len() - 4000).unwrap_or_default().to_owned()
        }),
        ("an end that counts wrong", "It says more than there is.", "bundle_damaged", |t| {
            t.replace("\"records\":18", "\"records\":19")
        }),
        ("a second header", "There is one.", "bundle_damaged", |t| {
            line(t, 2, |l| vec![t.lines().next().unwrap_or_default().to_owned(), l.to_owned()])
        }),
        ("something behind the end", "The last line is the last.", "bundle_damaged", |t| {
            format!("{t}{{\"bundle_end\":{{\"records\":18,\"checkpoints\":5}}}}\n")
        }),
        (
            "a line that is no line of a bundle",
            "It begins as one and is none.",
            "bundle_damaged",
            |t| line(t, 2, |l| vec![l.to_owned(), "{\"bundle_other\":1}".to_owned()]),
        ),
    ]
}
