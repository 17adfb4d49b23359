//! A command whose tokens, mappings and conditionals are all resolved to argument numbers.

use crate::when::When;

#[derive(Debug, Default)]
pub(crate) struct Command {
    pub(crate) items: Vec<Item>,
    pub(crate) conditionals: Vec<Conditional>,
    /// Empty: never inserted.
    pub(crate) end_of_options: String,
}

#[derive(Debug)]
pub(crate) struct Conditional {
    pub(crate) when: When,
    pub(crate) tokens: Vec<Token>,
}

#[derive(Debug)]
pub(crate) enum Item {
    Token(Token),
    /// The tokens that belong to the argument's value.
    Mapping { arg: usize, values: Vec<(String, Vec<Token>)> },
    /// The tokens of the conditional, when it holds.
    Conditional(usize),
}

/// One argv element.
#[derive(Debug, Default)]
pub(crate) struct Token {
    pub(crate) parts: Vec<Part>,
    /// Left out unless all of these have a value.
    pub(crate) needs: Vec<usize>,
    /// Wholly the agent's and no option's value: `--` belongs before the first of these.
    pub(crate) operand: bool,
    /// Ends the options itself.
    pub(crate) terminator: bool,
}

#[derive(Debug)]
pub(crate) enum Part {
    Text(String),
    Arg(usize),
}

impl Token {
    /// The text, if no argument is in it.
    pub(crate) fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_flag(&self) -> bool {
        !self.terminator && self.fixed().is_some_and(|t| t.len() > 1 && t.starts_with('-'))
    }

    pub(crate) fn args(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().filter_map(|p| match p {
            Part::Arg(i) => Some(*i),
            Part::Text(_) => None,
        })
    }
}
