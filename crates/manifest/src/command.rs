//! A command whose tokens, mappings and conditionals are all resolved to argument numbers.

use crate::when::When;

#[derive(Clone, Debug, Default)]
pub(crate) struct Command {
    pub(crate) items: Vec<Item>,
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) conditionals: Vec<Conditional>,
    /// Empty: never inserted.
    pub(crate) end_of_options: String,
}

impl Command {
    /// Empty for a command that was refused.
    pub(crate) fn program(&self) -> &str {
        match self.items.first() {
            Some(Item::Token(token)) => token.fixed().unwrap_or_default(),
            _ => "",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Conditional {
    pub(crate) when: When,
    pub(crate) tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
pub(crate) enum Item {
    Token(Token),
    /// The tokens that belong to the value of the mapping's argument.
    Mapping(usize),
    /// The tokens of the conditional, when it holds.
    Conditional(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) arg: usize,
    pub(crate) values: Vec<(String, Vec<Token>)>,
}

/// One argv element.
#[derive(Clone, Debug, Default)]
pub(crate) struct Token {
    pub(crate) parts: Vec<Part>,
    /// Left out unless all of these have a value.
    pub(crate) needs: Vec<usize>,
    /// Wholly the agent's and no option's value: `--` belongs before the first of these.
    pub(crate) operand: bool,
    /// Ends the options itself.
    pub(crate) terminator: bool,
}

#[derive(Clone, Debug)]
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

    /// Whether it is an option that may take the next token as its value.
    pub(crate) fn is_flag(&self) -> bool {
        self.leads_with_dash() && self.fixed().is_some_and(|t| !t.contains('='))
    }

    /// Whether a program reads it as an option, whatever its arguments are.
    pub(crate) fn leads_with_dash(&self) -> bool {
        let text = match self.parts.first() {
            Some(Part::Text(text)) => text.as_str(),
            _ => "",
        };
        !self.terminator && text.starts_with('-') && (text.len() > 1 || self.parts.len() > 1)
    }

    /// The arguments whose values it may begin with; `empty` says which may be no text at all.
    pub(crate) fn leading_args(
        &self,
        empty: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = usize> {
        let mut open = true;
        self.parts.iter().map_while(move |part| match part {
            Part::Arg(i) if open => {
                open = empty(*i);
                Some(*i)
            }
            _ => None,
        })
    }

    pub(crate) fn args(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().filter_map(|p| match p {
            Part::Arg(i) => Some(*i),
            Part::Text(_) => None,
        })
    }
}
