//! The conditions of a conditional: comparisons with fixed text, `and`, `or`, parentheses.

use crate::diagnostic::excerpt;

/// A condition whose variables are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Is { var: Var, literal: Literal, equal: bool },
    All(Vec<When>),
    Any(Vec<When>),
}

/// What a variable is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    pub(crate) text: String,
    pub(crate) quoted: bool,
}

/// Says of a word without quotes that it could be meant otherwise.
pub(crate) fn ambiguous(word: &str) -> String {
    format!("an argument is compared with fixed text; did you mean the text `'{word}'`? quote it")
}

/// Where a variable's text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Var {
    Arg(usize),
    Fixed(String),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WhenError {
    Syntax(String),
    Unknown(String),
}

impl When {
    /// An absent argument compares as empty text.
    pub(crate) fn holds(&self, values: &[Option<String>]) -> bool {
        match self {
            Self::Is { var, literal, equal } => {
                let value = match var {
                    Var::Fixed(text) => text.as_str(),
                    Var::Arg(i) => values.get(*i).and_then(Option::as_deref).unwrap_or_default(),
                };
                (value == literal.text) == *equal
            }
            Self::All(terms) => terms.iter().all(|t| t.holds(values)),
            Self::Any(terms) => terms.iter().any(|t| t.holds(values)),
        }
    }

    pub(crate) fn args(&self, seen: &mut impl FnMut(usize)) {
        match self {
            Self::Is { var: Var::Arg(i), .. } => seen(*i),
            Self::Is { .. } => {}
            Self::All(terms) | Self::Any(terms) => terms.iter().for_each(|t| t.args(seen)),
        }
    }

    /// A comparison with a text that is written like a name, and what `named` says is one.
    pub(crate) fn bare_name(&self, named: &dyn Fn(&str) -> bool) -> Option<&str> {
        match self {
            Self::Is { literal, .. } => {
                Some(literal.text.as_str()).filter(|text| !literal.quoted && named(text))
            }
            Self::All(terms) | Self::Any(terms) => terms.iter().find_map(|t| t.bare_name(named)),
        }
    }

    /// Reads a condition; `find` says what a name stands for.
    pub(crate) fn parse(text: &str, find: &dyn Fn(&str) -> Option<Var>) -> Result<Self, WhenError> {
        let mut parser = Parser { rest: text, find, depth: 0 };
        let when = parser.any()?;
        match parser.word() {
            "" => Ok(when),
            word => Err(WhenError::Syntax(format!("`{}` is not expected here", excerpt(word)))),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    find: &'a dyn Fn(&str) -> Option<Var>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<When, WhenError> {
        let mut terms = vec![self.all()?];
        while self.eat("or") {
            terms.push(self.all()?);
        }
        Ok(one_or(terms, When::Any))
    }

    fn all(&mut self) -> Result<When, WhenError> {
        let mut terms = vec![self.term()?];
        while self.eat("and") {
            terms.push(self.term()?);
        }
        Ok(one_or(terms, When::All))
    }

    fn term(&mut self) -> Result<When, WhenError> {
        if self.eat("(") {
            self.depth += 1;
            if self.depth > 16 {
                return Err(WhenError::Syntax("nests too deep".to_owned()));
            }
            let when = self.any()?;
            if !self.eat(")") {
                return Err(WhenError::Syntax("`)` is missing".to_owned()));
            }
            self.depth -= 1;
            return Ok(when);
        }
        let name = self.next();
        if !name.starts_with(|c: char| c.is_ascii_lowercase())
            || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            || matches!(name, "and" | "or")
        {
            let found = excerpt(name);
            return Err(WhenError::Syntax(format!("an argument must stand before `{found}`")));
        }
        let equal = match self.next() {
            "==" => true,
            "!=" => false,
            _ => return Err(WhenError::Syntax(format!("`{name}` needs `==` or `!=`"))),
        };
        let literal = self.next();
        let (text, quoted) = match literal.as_bytes().first() {
            Some(b'\'' | b'"') => (literal.get(1..literal.len() - 1).unwrap_or_default(), true),
            Some(b) if b.is_ascii_alphanumeric() || b"_.-".contains(b) => (literal, false),
            _ => {
                return Err(WhenError::Syntax(format!("`{name}` is compared with nothing")));
            }
        };
        let var = (self.find)(name).ok_or_else(|| WhenError::Unknown(name.to_owned()))?;
        // Whoever writes one of these means something else than the text.
        if !quoted && matches!(text, "and" | "or" | "not") {
            return Err(WhenError::Syntax(ambiguous(text)));
        }
        Ok(When::Is { var, literal: Literal { text: text.to_owned(), quoted }, equal })
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.word() == word;
        if found {
            self.next();
        }
        found
    }

    fn next(&mut self) -> &'a str {
        let word = self.word();
        self.rest = self.rest.trim_start().get(word.len()..).unwrap_or_default();
        word
    }

    /// The next word, without taking it; empty at the end. A quote that is never closed
    /// gives a word that no rule takes.
    fn word(&self) -> &'a str {
        let text = self.rest.trim_start();
        let Some(first) = text.chars().next() else {
            return "";
        };
        let len = match first {
            '(' | ')' => 1,
            '=' | '!' if text.get(1..2) == Some("=") => 2,
            '\'' | '"' => match text.get(1..).and_then(|t| t.find(first)) {
                Some(at) => at + 2,
                None => return "`",
            },
            _ => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "_.:/+-".contains(c);
                text.find(|c| !plain(c)).unwrap_or(text.len()).max(first.len_utf8())
            }
        };
        text.get(..len).unwrap_or(text)
    }
}

fn one_or(mut terms: Vec<When>, many: fn(Vec<When>) -> When) -> When {
    match terms.pop() {
        Some(only) if terms.is_empty() => only,
        Some(last) => {
            terms.push(last);
            many(terms)
        }
        None => many(terms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Option<Var> {
        match name {
            "a" => Some(Var::Arg(0)),
            "b" => Some(Var::Arg(1)),
            "c" => Some(Var::Fixed("5".into())),
            _ => None,
        }
    }

    #[test]
    fn conditions_hold() {
        let values = [Some("x".to_owned()), None];
        for (text, expected) in [
            ("a == x", true),
            ("a=='x'", true),
            ("a != \"x\"", false),
            ("b == ''", true),
            ("b != ''", false),
            ("c == 5 and a == x", true),
            ("a == y or c == 5", true),
            // `and` binds first.
            ("a == x or b == q and c == 6", true),
            ("(a == x or b == q) and c == 6", false),
            ("((a == x))", true),
            ("a == 'x and y'", false),
        ] {
            let when = When::parse(text, &find).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!(when.holds(&values), expected, "{text}");
        }
    }

    #[test]
    fn the_grammar_is_closed() {
        for text in [
            "",
            "a",
            "a ==",
            "a = x",
            "== x",
            "a == x and",
            "a == x b == y",
            "(a == x",
            "a == x)",
            "a == 'x",
            "a > 5",
            "not a == x",
            "a == x; b",
            "a == x && b == y",
            "a() == x",
            "a == b == c",
            "a == $x",
            "é == x",
            "a ==é",
            "a == '",
            "!",
            "=",
            "__import__('os')",
            "unknown == x",
        ] {
            assert!(When::parse(text, &find).is_err(), "{text}");
        }
        assert!(When::parse(&"(".repeat(100_000), &find).is_err());
    }
}
