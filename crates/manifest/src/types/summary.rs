//! Text that another model may read. Refusing the known markers of an injection is a second
//! line, not the first: a decision belongs into an `enum`.

use super::text::{TextRule, visible};
use super::{Refusal, refuse};

/// Words in a row, after letters are folded and everything else is one space. A `*` is one to
/// three words of any kind, or none.
const MARKERS: &[&str] = &[
    "ignore * instructions",
    "ignore * instruction",
    "ignore * prompt",
    "ignore * prompts",
    "ignore * rules",
    "ignore * guidelines",
    "ignore everything",
    "ignore all of the above",
    "ignore the above",
    "ignore previous",
    "ignore all previous",
    "disregard * instructions",
    "disregard * prompt",
    "disregard * rules",
    "disregard previous",
    "disregard all previous",
    "disregard the above",
    "disregard everything",
    "forget * instructions",
    "forget everything",
    "forget all previous",
    "forget previous",
    "forget * rules",
    "override * instructions",
    "override * rules",
    "override * safety",
    "bypass * safety",
    "bypass * restrictions",
    "new instructions",
    "new system prompt",
    "updated instructions",
    "system prompt",
    "system message",
    "system override",
    "developer message",
    "developer mode",
    "hidden instructions",
    "you are now",
    "from now on you",
    "you must now",
    "pretend to be",
    "pretend you are",
    "act as if you",
    "roleplay as",
    "do anything now",
    "jailbreak",
    "jailbroken",
    "prompt injection",
    "reveal * prompt",
    "reveal * instructions",
    "print * system prompt",
    "repeat * system prompt",
    "do not tell the user",
    "don t tell the user",
    "without telling the user",
    "do not inform the user",
    "end of prompt",
    "end of instructions",
    "begin instructions",
    "begin system",
    "end system",
    "im start",
    "im end",
    "endoftext",
    "override previous",
    "follow these instructions",
    "follow these new",
    "your new task",
    "your real task",
    "your new instructions",
];

/// What a text begins with that poses as another speaker.
const SPEAKERS: &[&str] = &["system:", "assistant:", "user:", "developer:", "human:", "ai:"];

pub(crate) fn check(rule: TextRule, text: &str) -> Result<(), Refusal> {
    visible(text, true)?;
    rule.lead(text)?;
    if let Some(c) = text.chars().find(|c| "|&$`{}[]<>\\".contains(*c)) {
        return refuse("shell_character", format!("holds `{c}`, which is no ordinary punctuation"));
    }
    let words = folded(text);
    let words: Vec<&str> = words.split_whitespace().collect();
    if let Some(marker) = MARKERS.iter().find(|marker| holds(&words, marker)) {
        return refuse("injection_marker", format!("reads like an instruction: `{marker}`"));
    }
    let lower = text.to_lowercase();
    let poses = |speaker: &&str| {
        lower.starts_with(*speaker)
            || [". ", "! ", "? ", "; "].iter().any(|end| lower.contains(&format!("{end}{speaker}")))
    };
    if let Some(speaker) = SPEAKERS.iter().find(|s| poses(s)) {
        return refuse("injection_marker", format!("poses as another speaker: `{speaker}`"));
    }
    if lower.contains("###") {
        return refuse("injection_marker", "holds `###`, which begins a section of a prompt");
    }
    Ok(())
}

/// Letters and digits in lower case, look-alikes of the Latin alphabet as Latin, everything else
/// a space.
fn folded(text: &str) -> String {
    let fold = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        'а' | 'А' => 'a',
        'е' | 'Е' => 'e',
        'о' | 'О' | 'ο' => 'o',
        'р' | 'Р' => 'p',
        'с' | 'С' => 'c',
        'х' | 'Х' => 'x',
        'у' | 'У' => 'y',
        'і' | 'І' => 'i',
        'ѕ' | 'Ѕ' => 's',
        c => c,
    };
    text.chars()
        .map(fold)
        .flat_map(char::to_lowercase)
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect()
}

fn holds(words: &[&str], marker: &str) -> bool {
    let marker: Vec<&str> = marker.split(' ').collect();
    (0..words.len()).any(|at| begins(words.get(at..).unwrap_or_default(), &marker))
}

fn begins(words: &[&str], marker: &[&str]) -> bool {
    match (marker, words) {
        ([], _) => true,
        (["*", rest @ ..], _) => {
            (0..=3).any(|skip| words.get(skip..).is_some_and(|words| begins(words, rest)))
        }
        ([first, rest @ ..], [word, more @ ..]) => first == word && begins(more, rest),
        (_, []) => false,
    }
}
