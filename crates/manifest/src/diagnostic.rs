//! What is wrong with a manifest, and where.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// Whether a finding keeps the manifest from existing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The manifest is refused.
    Error,
    /// The manifest loads, but probably does not say what its author means.
    Warning,
}

/// One finding in one manifest text. The crate documentation lists every code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable: a code never changes its meaning, so it may be matched on.
    pub code: &'static str,
    /// Decides whether the manifest loads.
    pub severity: Severity,
    /// Byte offsets into the text, always on character boundaries of it.
    pub span: Range<usize>,
    /// One sentence fragment, without the file name or position.
    pub message: String,
    /// What to write instead, where that is plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)?;
        self.fix.as_ref().map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}

/// The line and column of a byte offset, both from 1, columns in characters. An offset past
/// the end is the end; one inside a character is that character.
#[must_use]
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = text.get(..offset).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// [`line_column`] for one place after the other, in the time it takes to read the text once if
/// the places are in order.
pub(crate) struct Places<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    column: usize,
}

impl<'a> Places<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, column: 1 }
    }

    pub(crate) fn find(&mut self, offset: usize) -> (usize, usize) {
        let between = self.text.get(self.at..offset.min(self.text.len()));
        // Back, or inside a character.
        let Some(between) = between else { return line_column(self.text, offset) };
        for c in between.chars() {
            (self.line, self.column) =
                if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.at += between.len();
        (self.line, self.column)
    }
}

/// Collects the findings of one file.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) all: Vec<Diagnostic>,
    errors: usize,
}

impl Report {
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.push(code, Severity::Error, span, message.into())
    }

    pub(crate) fn warn(
        &mut self,
        code: &'static str,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.push(code, Severity::Warning, span, message.into())
    }

    pub(crate) fn failed(&self) -> bool {
        self.errors > 0
    }

    /// How many errors there are so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    fn push(
        &mut self,
        code: &'static str,
        severity: Severity,
        span: &Range<usize>,
        message: String,
    ) -> &mut Diagnostic {
        self.errors += usize::from(severity == Severity::Error);
        self.all.push(Diagnostic { code, severity, span: span.clone(), message, fix: None });
        #[expect(clippy::indexing_slicing, reason = "an element was pushed on the line above")]
        {
            let last = self.all.len() - 1;
            &mut self.all[last]
        }
    }
}

impl Diagnostic {
    pub(crate) fn fix(&mut self, fix: impl Into<String>) {
        self.fix = Some(fix.into());
    }

    /// Suggests the nearest of the known words, if one is near enough to be a slip. Of very many
    /// words the first are looked at, and none is longer than a name: a hostile file must not
    /// make this take long.
    pub(crate) fn nearest<'a>(&mut self, word: &str, known: impl IntoIterator<Item = &'a str>) {
        if word.len() > LONGEST_NAME {
            return;
        }
        let near = known
            .into_iter()
            .filter(|k| k.len() <= LONGEST_NAME)
            .take(MOST_SUGGESTED)
            .map(|k| (strsim::jaro_winkler(word, k), k))
            .filter(|(score, _)| *score > 0.82)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((_, known)) = near {
            self.fix = Some(format!("write `{known}`"));
        }
    }
}

/// Bytes of a name.
const LONGEST_NAME: usize = 64;
/// Words that one is compared with.
const MOST_SUGGESTED: usize = 256;

/// A short piece of a foreign text, made safe to look at.
pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(SHOWN).collect();
    let mut shown = countersign_core::text::visible(&head).into_owned();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}
