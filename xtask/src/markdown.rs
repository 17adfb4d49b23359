//! Finds the links and the anchors of a Markdown text, as GitHub shows it.

use std::collections::{BTreeMap, BTreeSet};

/// Every link target with its line number, counted from 1. Code is skipped.
pub(crate) fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        for (at, _) in line.match_indices("](") {
            let rest = line.get(at + 2..).unwrap_or_default();
            if let Some(target) = inline_target(rest) {
                links.push((number, target));
            }
        }
        if let Some((label, rest)) = line.trim_start().split_once("]:")
            && label.starts_with('[')
            && !label.starts_with("[^")
            && let Some(target) = rest.split_whitespace().next()
        {
            links.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
        for attribute in [" href=\"", " src=\""] {
            for (at, _) in line.match_indices(attribute) {
                let rest = line.get(at + attribute.len()..).unwrap_or_default();
                if let Some((target, _)) = rest.split_once('"') {
                    links.push((number, target.to_owned()));
                }
            }
        }
    }
    links
}

/// The anchors a link may name: those of headings, and explicit ids.
pub(crate) fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut heading = |title: &str, anchors: &mut BTreeSet<String>| {
        let slug = slug(title);
        let times = seen.entry(slug.clone()).or_default();
        anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    };
    let mut before = "";
    for (_, line) in prose(text) {
        let trimmed = line.trim();
        let level = trimmed.bytes().take_while(|byte| *byte == b'#').count();
        let title = trimmed.get(level..).unwrap_or_default();
        let underline = !trimmed.is_empty()
            && (trimmed.bytes().all(|byte| byte == b'=')
                || trimmed.bytes().all(|byte| byte == b'-'));
        if (1..=6).contains(&level) && (title.is_empty() || title.starts_with([' ', '\t'])) {
            heading(title.trim().trim_end_matches('#').trim_end(), &mut anchors);
            before = "";
            continue;
        }
        if underline && !before.is_empty() {
            heading(before, &mut anchors);
        }
        for attribute in [" id=\"", " name=\""] {
            for (at, _) in line.match_indices(attribute) {
                let rest = line.get(at + attribute.len()..).unwrap_or_default();
                if let Some((id, _)) = rest.split_once('"') {
                    anchors.insert(id.to_owned());
                }
            }
        }
        before = if underline { "" } else { trimmed };
    }
    anchors
}

/// The lines outside fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let trimmed = line.trim_start().trim_start_matches("> ").trim_start();
        let mark = ['`', '~'].into_iter().find_map(|mark| {
            let length = trimmed.chars().take_while(|found| *found == mark).count();
            if length >= 3 { trimmed.get(..length) } else { None }
        });
        match (fence, mark) {
            (None, Some(open)) => {
                fence = Some(open);
                None
            }
            (Some(open), Some(close)) => {
                if close.starts_with(open) && trimmed.trim_end() == close {
                    fence = None;
                }
                None
            }
            (Some(_), None) => None,
            (None, None) => Some((index + 1, line)),
        }
    })
}

/// The line with its code spans blanked.
fn without_code(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(open) = rest.find('`') {
        let (before, from) = rest.split_at(open);
        text.push_str(before);
        let ticks: String = from.chars().take_while(|found| *found == '`').collect();
        let body = from.get(ticks.len()..).unwrap_or_default();
        match closing(body, ticks.len()) {
            Some(end) => {
                text.push(' ');
                rest = body.get(end..).unwrap_or_default();
            }
            None => {
                text.push_str(&ticks);
                rest = body;
            }
        }
    }
    text.push_str(rest);
    text
}

/// Where the text after the first run of exactly `length` backticks begins.
fn closing(body: &str, length: usize) -> Option<usize> {
    let mut run = 0;
    for (at, found) in body.char_indices().chain([(body.len(), ' ')]) {
        if found == '`' {
            run += 1;
        } else if run == length {
            return Some(at);
        } else {
            run = 0;
        }
    }
    None
}

/// What stands in the parentheses of `[text](…)`, without a title. `rest` begins after `(`.
fn inline_target(rest: &str) -> Option<String> {
    let rest = rest.trim_start();
    if let Some(pointed) = rest.strip_prefix('<') {
        return pointed.split_once('>').map(|(target, _)| target.to_owned());
    }
    let mut depth = 0_usize;
    for (at, found) in rest.char_indices() {
        match found {
            '(' => depth += 1,
            ')' if depth == 0 => return rest.get(..at).map(str::to_owned),
            ')' => depth -= 1,
            space if space.is_whitespace() => return rest.get(..at).map(str::to_owned),
            _ => {}
        }
    }
    None
}

/// GitHub's anchor for a heading.
fn slug(title: &str) -> String {
    let mut shown = String::new();
    let mut rest = title;
    // A link in a heading counts with its text only.
    while let Some(open) = rest.find("](") {
        let (before, from) = rest.split_at(open);
        shown.push_str(before);
        rest = from.split_once(')').map_or("", |(_, after)| after);
    }
    shown.push_str(rest);

    let mut slug = String::new();
    let mut in_tag = false;
    for letter in shown.chars() {
        match letter {
            '<' => in_tag = true,
            '>' if in_tag => in_tag = false,
            _ if in_tag => {}
            ' ' => slug.push('-'),
            '-' | '_' => slug.push(letter),
            _ if letter.is_alphanumeric() => slug.extend(letter.to_lowercase()),
            _ => {}
        }
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_links(text: &str, expected: &[(usize, &str)]) {
        let found = links(text);
        let found: Vec<(usize, &str)> =
            found.iter().map(|(line, target)| (*line, target.as_str())).collect();
        assert_eq!(found, expected, "in {text:?}");
    }

    #[test]
    fn links_are_found_in_prose() {
        check_links("[a](b.md) and [c](d.md#e \"title\")", &[(1, "b.md"), (1, "d.md#e")]);
        check_links("x\n![picture](p.png)", &[(2, "p.png")]);
        check_links("[a](<b c.md>)", &[(1, "b c.md")]);
        check_links("[a](b(1).md)", &[(1, "b(1).md")]);
        check_links("[`code`](b.md)", &[(1, "b.md")]);
        check_links("[a]: b.md\n[^1]: a note", &[(1, "b.md")]);
        check_links("<img src=\"p.png\" alt=\"\"> <a href=\"q.md\">", &[(1, "q.md"), (1, "p.png")]);
    }

    #[test]
    fn code_has_no_links() {
        check_links("`[a](b)` and ``[a](`b)``", &[]);
        check_links("```text\n[a](b)\n```\n[c](d)", &[(4, "d")]);
        check_links("- list\n  ~~~\n  [a](b)\n  ```\n  ~~~\n[c](d)", &[(6, "d")]);
        check_links("a ` tick [c](d)", &[(1, "d")]);
    }

    fn check_anchors(text: &str, expected: &[&str]) {
        let found = anchors(text);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, expected, "in {text:?}");
    }

    #[test]
    fn headings_become_anchors() {
        check_anchors("# The `fn` of_it: a, b & c", &["the-fn-of_it-a-b--c"]);
        check_anchors("## Twice\n## Twice ##", &["twice", "twice-1"]);
        check_anchors("# See [this](that.md) now", &["see-this-now"]);
        check_anchors("Under\n=====\n\nLine\n---", &["line", "under"]);
        check_anchors("#no heading\n```\n# nor this\n```", &[]);
        check_anchors("<a id=\"here\"></a>", &["here"]);
        check_anchors("# Größe", &["größe"]);
    }
}
