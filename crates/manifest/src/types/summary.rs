//! Text that another model may read. Refusing the known markers of an injection is a second
//! line, not the first: a decision belongs into an `enum`.

use super::text::{TextRule, visible};
use super::{Refusal, refuse};

/// Words in a row, after letters are folded and everything else is one space. `a|b` is either, `a?`
/// may be there, `*` is up to three words of any kind, `~` up to five that only link, `$` the end,
/// and a word in capitals one of a list below.
const MARKERS: &[&str] = &[
    "IGNORE * instruction|instructions",
    "IGNORE ~ REFERS ~ RULES",
    "IGNORE ~ BEFORE ~ WORDS",
    "IGNORE ~ above|aforementioned",
    "IGNORE ~ previous|prior",
    "IGNORE everything|anything|all above|before|prior|previously|and|until|so|now|instead|then|$",
    "IGNORE everything|anything|all|what that? i|you|we|was|came|has said|told|were|written|been|before|above|said",
    "OVERRIDE ~ BEFORE ~ RULES|WORDS",
    "override * instructions",
    "override|bypass * safety|safeguards|guardrails",
    "bypass * restrictions",
    "override previous",
    "stop|cease|quit following|obeying|respecting ~ RULES",
    "not|t|never follow|obey ~ BEFORE ~ RULES",
    "do not follow|obey ~ REFERS ~ RULES",
    "don t follow|obey ~ REFERS ~ RULES",
    "never follow|obey ~ REFERS ~ RULES",
    "follow|obey these instructions|new",
    "new|updated|hidden|real|true|secret system prompt|message|instructions",
    "your new|updated|real|true|actual instructions|task|role|goal|purpose|objective",
    "your ~ system prompt|message|instructions",
    "new|updated|hidden instructions follow|are|below|begin|from|$",
    "hidden instructions",
    "REVEAL * prompt|prompts|instructions",
    "SHOW * system prompt",
    "SHOW * your ~ prompt|instructions",
    "begin|end|start ~ system prompt|message|instructions|$",
    "system prompt $",
    "end of prompt|instructions $",
    "begin instructions",
    "im start|end",
    "endoftext",
    "system override",
    "developer message",
    "developer mode",
    "you are|re dan",
    "dan mode",
    "do anything now",
    "from now on you",
    "you must now",
    "pretend to be",
    "pretend that? you are|re",
    "ACT as|like if|though you",
    "ACT as|like * PERSONA",
    "roleplay|roleplaying as",
    "role play|playing as",
    "unrestricted|unfiltered|uncensored|jailbroken ai|mode|model|assistant|chatbot|llm|version",
    "jailbreak",
    "jailbroken",
    "do not|t tell|inform the user",
    "don t tell|inform the user",
    "without telling|informing the user",
];

/// What reads like a marker and is none: a word that is spoken of, not played.
const HARMLESS: &[&str] = &[
    "roleplay|roleplaying as ~ THING $|of|in|for|is|was|request|requests",
    "role play|playing as ~ THING $|of|in|for|is|was|request|requests",
];

const LISTS: &[(&str, &[&str])] = &[
    ("IGNORE", &["ignore", "disregard", "forget", "neglect"]),
    ("OVERRIDE", &["override", "bypass", "overrule", "circumvent", "violate", "discard", "skip"]),
    ("REVEAL", &["reveal", "leak", "disclose", "expose", "recite"]),
    ("SHOW", &["print", "show", "repeat", "output", "display", "share", "tell", "give", "dump"]),
    ("ACT", &["act", "behave", "respond", "answer", "operate"]),
    (
        "REFERS",
        &[
            "all",
            "any",
            "every",
            "the",
            "your",
            "these",
            "those",
            "my",
            "previous",
            "prior",
            "above",
            "earlier",
            "preceding",
            "foregoing",
            "former",
            "original",
            "initial",
            "system",
            "safety",
        ],
    ),
    (
        "BEFORE",
        &[
            "your",
            "previous",
            "prior",
            "above",
            "earlier",
            "preceding",
            "foregoing",
            "former",
            "original",
            "initial",
            "system",
            "safety",
        ],
    ),
    (
        "RULES",
        &[
            "instruction",
            "instructions",
            "direction",
            "directions",
            "directive",
            "directives",
            "prompt",
            "prompts",
            "rule",
            "rules",
            "guideline",
            "guidelines",
        ],
    ),
    (
        "WORDS",
        &[
            "order",
            "orders",
            "command",
            "commands",
            "message",
            "messages",
            "context",
            "constraints",
            "restrictions",
            "limitations",
            "policy",
            "policies",
            "guidance",
            "training",
            "programming",
            "text",
            "input",
            "conversation",
        ],
    ),
    (
        "THING",
        &[
            "category",
            "concept",
            "exercise",
            "feature",
            "features",
            "genre",
            "hobby",
            "method",
            "option",
            "technique",
            "theme",
            "topic",
        ],
    ),
    (
        "PERSONA",
        &[
            "ai",
            "assistant",
            "chatbot",
            "llm",
            "gpt",
            "chatgpt",
            "dan",
            "unrestricted",
            "unfiltered",
            "uncensored",
            "evil",
            "hacker",
        ],
    ),
];

/// What `~` skips.
const LINKS: &[&str] = &[
    "a",
    "above",
    "all",
    "an",
    "any",
    "each",
    "earlier",
    "every",
    "existing",
    "former",
    "given",
    "her",
    "his",
    "initial",
    "its",
    "my",
    "of",
    "original",
    "other",
    "our",
    "preceding",
    "previous",
    "prior",
    "safety",
    "such",
    "system",
    "that",
    "the",
    "their",
    "these",
    "this",
    "those",
    "your",
];

/// After `you are now`, these tell of a state; anything else gives a role.
const STATES: &[&str] = &[
    "able",
    "connected",
    "disconnected",
    "logged",
    "offline",
    "online",
    "ready",
    "registered",
    "signed",
    "subscribed",
    "unsubscribed",
];

/// What a text or a sentence begins with that poses as another speaker. A user is whom the text is
/// for, and is told of.
const SPEAKERS: &[&str] = &[
    "system:",
    "assistant:",
    "developer:",
    "human:",
    "ai:",
    "system prompt:",
    "system message:",
    "system instructions:",
    "new instructions:",
    "updated instructions:",
];

/// With these, `human:` is half of a word and nobody who speaks.
const HUMAN: &[&str] = &["capital", "error", "errors", "factors", "resources", "rights"];

pub(crate) fn check(rule: TextRule, text: &str) -> Result<(), Refusal> {
    visible(text, true)?;
    rule.lead(text)?;
    if let Some(c) = text.chars().find(|c| "|&$`{}[]<>\\".contains(*c)) {
        return refuse("shell_character", format!("holds `{c}`, which is no ordinary punctuation"));
    }
    let words = words(&folded(text));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let marked = |at: &usize| {
        let at = after(&words, *at);
        let any = |markers: &[&str]| markers.iter().any(|marker| begins(at, marker));
        any(MARKERS) && !any(HARMLESS)
    };
    if let Some(at) = (0..words.len()).find(marked) {
        let shown: Vec<_> = after(&words, at).iter().take(4).copied().collect();
        let shown = crate::diagnostic::excerpt(&shown.join(" "));
        return refuse("injection_marker", format!("reads like an instruction: `{shown}`"));
    }
    let role = |at: usize| match after(&words, at) {
        ["you", "are" | "re", "now", next, ..] => !STATES.contains(next),
        ["you", "are" | "re", "now"] => true,
        _ => false,
    };
    if (0..words.len()).any(role) {
        return refuse("injection_marker", "reads like an instruction: `you are now`");
    }
    let lower = text.to_lowercase();
    let poses = |speaker: &&str| {
        lower.split(*speaker).collect::<Vec<_>>().windows(2).enumerate().any(|(nth, around)| {
            let [before, after] = around else { return false };
            let begins = (nth == 0 && before.is_empty())
                || [". ", "! ", "? ", "; "].iter().any(|end| before.ends_with(end));
            let next = after.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty());
            begins && !(*speaker == "human:" && next.is_some_and(|next| HUMAN.contains(&next)))
        })
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

/// The words, with digits that stand for letters as those, and letters that stand alone in a row of
/// four or more as one word.
fn words(text: &str) -> Vec<String> {
    let letter = |c| match c {
        '0' => 'o',
        '1' => 'i',
        '3' => 'e',
        '4' => 'a',
        '5' => 's',
        c => c,
    };
    let spell = |word: &str| -> String {
        let spelled = word.chars().any(char::is_alphabetic);
        word.chars().map(|c| if spelled { letter(c) } else { c }).collect()
    };
    let all: Vec<String> = text.split_whitespace().map(spell).collect();
    let single = |word: &String| word.chars().count() == 1;
    let mut found = Vec::new();
    for run in all.chunk_by(|a, b| single(a) == single(b)) {
        match run {
            [first, _, _, _, ..] if single(first) => found.push(run.concat()),
            _ => found.extend_from_slice(run),
        }
    }
    found
}

fn after<'a, 'b>(words: &'a [&'b str], at: usize) -> &'a [&'b str] {
    words.get(at..).unwrap_or_default()
}

fn begins(words: &[&str], marker: &str) -> bool {
    let (slot, rest) = match marker.split_once(' ') {
        _ if marker.is_empty() => return true,
        Some((slot, rest)) => (slot, rest),
        None => (marker, ""),
    };
    let skips = match slot {
        "*" => 3.min(words.len()),
        "~" => words.iter().take(5).take_while(|word| LINKS.contains(word)).count(),
        _ => {
            if let Some(word) = slot.strip_suffix('?') {
                return begins(words, rest)
                    || (words.first() == Some(&word) && begins(after(words, 1), rest));
            }
            let fits = |slot: &str| match (slot, words.first()) {
                ("$", first) => first.is_none(),
                (_, None) => false,
                (_, Some(word)) if !slot.starts_with(|c: char| c.is_ascii_uppercase()) => {
                    slot == *word
                }
                (_, Some(word)) => {
                    LISTS.iter().any(|(name, list)| *name == slot && list.contains(word))
                }
            };
            return slot.split('|').any(fits) && begins(after(words, 1), rest);
        }
    };
    (0..=skips).any(|skip| begins(after(words, skip), rest))
}
