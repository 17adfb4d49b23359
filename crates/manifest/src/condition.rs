//! The conditions of a policy: those of a manifest's `when`, over the arguments of a planned
//! call.

use std::cell::RefCell;
use std::fmt;

use serde_json::Value;

use crate::diagnostic::excerpt;
use crate::manifest::Manifest;
use crate::when::{Var, When, WhenError, ambiguous};

/// A condition on the arguments of a call, in the grammar of a manifest's `when`: comparisons of
/// an argument with fixed text by `==` and `!=`, `and`, which binds before `or`, and
/// parentheses. Text that could be read as more than text, `and`, `or`, `not` or the name of an
/// argument, needs quotes.
///
/// It compares the text that stands in the plan, defaults included; an absent argument is `''`.
///
/// ```
/// use countersign_manifest::Condition;
///
/// let main: Condition = "branch == main and (force == true or remote != origin)".parse()?;
/// let call = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
///     pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
/// };
/// assert!(main.holds(&call(&[("branch", "main"), ("remote", "fork")])));
/// assert!(!main.holds(&call(&[("branch", "main"), ("remote", "origin")])));
/// # Ok::<(), countersign_manifest::ConditionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    text: String,
    names: Vec<String>,
    when: When,
}

/// Why a text is no condition, or none for a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionError {
    /// It does not parse.
    Syntax(String),
    /// The tool declares no such argument.
    UnknownArgument {
        /// The tool.
        tool: String,
        /// As the condition names it.
        argument: String,
    },
    /// Whatever an agent sends, the argument is never this.
    Never {
        /// The tool.
        tool: String,
        /// The argument.
        argument: String,
        /// What it is compared with.
        literal: String,
        /// What the argument's type says.
        why: String,
    },
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => f.write_str(why),
            Self::UnknownArgument { tool, argument } => {
                write!(f, "`{tool}` has no argument `{argument}`")
            }
            Self::Never { tool, argument, literal, why } => {
                write!(f, "`{argument}` of `{tool}` is never `{literal}`: {why}")
            }
        }
    }
}

impl std::error::Error for ConditionError {}

impl std::str::FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let names: RefCell<Vec<String>> = RefCell::default();
        let find = |name: &str| {
            let mut names = names.borrow_mut();
            let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            });
            Some(Var::Arg(at))
        };
        let when = When::parse(text, &find).map_err(|error| match error {
            WhenError::Syntax(why) => ConditionError::Syntax(why),
            WhenError::Unknown(name) => ConditionError::Syntax(format!("`{name}` is no name")),
        })?;
        Ok(Self { text: text.to_owned(), names: names.into_inner(), when })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// Whether a call with these arguments, as [`Planned::args`](crate::Planned) has them, meets
    /// it.
    #[must_use]
    pub fn holds(&self, arguments: &[(String, String)]) -> bool {
        let value = |name: &String| {
            arguments.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
        };
        let values: Vec<_> = self.names.iter().map(value).collect();
        self.when.holds(&values)
    }

    /// Whether the condition makes sense for a tool: every argument is declared, and can be what
    /// it is compared with, and no text without quotes is one's name.
    ///
    /// # Errors
    /// The first comparison that does not.
    pub fn check(&self, manifest: &Manifest) -> Result<(), ConditionError> {
        let declared = |word: &str| manifest.args().any(|arg| arg.name() == word);
        if let Some(word) = self.when.bare_name(&declared) {
            return Err(ConditionError::Syntax(ambiguous(word)));
        }
        self.check_terms(&self.when, manifest)
    }

    fn check_terms(&self, when: &When, manifest: &Manifest) -> Result<(), ConditionError> {
        let (at, literal) = match when {
            When::All(terms) | When::Any(terms) => {
                return terms.iter().try_for_each(|term| self.check_terms(term, manifest));
            }
            When::Is { var: Var::Arg(at), literal, .. } => (*at, &literal.text),
            When::Is { .. } => return Ok(()),
        };
        let argument = self.names.get(at).cloned().unwrap_or_default();
        let tool = manifest.name().to_owned();
        let Some(arg) = manifest.args().find(|arg| arg.name() == argument) else {
            return Err(ConditionError::UnknownArgument { tool, argument });
        };
        let why = match arg.ty.resolve(&Value::String(literal.clone())) {
            Ok(text) if text == *literal => return Ok(()),
            Ok(text) => format!("it is written `{}`", excerpt(&text)),
            Err(_) if literal.is_empty() && arg.may_be_absent() => return Ok(()),
            Err(refusal) => refusal.message,
        };
        Err(ConditionError::Never { tool, argument, literal: literal.clone(), why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: &str = r#"
        [tool]
        name = "push"
        version = "1.0.0"
        description = "Push"
        binary = "git"
        [args.branch]
        type = "string"
        required = true
        [args.depth]
        type = "integer"
        min = 1
        max = 9
        [args.level]
        type = "integer"
        min = 1
        max = 9
        clamp = true
        [args.force]
        type = "boolean"
        default = false
        [args.mode]
        type = "enum"
        allowed = ["fast", "slow"]
        default = "fast"
        [command]
        exec = ["git", "push", "{branch}", "--depth={depth}", "--level={level}", "--force={force}", "--{mode}"]
        [output]
        format = "text"
    "#;

    #[test]
    fn a_condition_is_held_against_what_a_tool_declares() {
        let (manifest, findings) = Manifest::parse("push.clad.toml", TOOL);
        let manifest = manifest.unwrap_or_else(|| panic!("{findings:?}"));
        for (text, error) in [
            ("branch == main", ""),
            ("depth == ''", ""),
            ("depth != 5 and force == true", ""),
            ("mode == slow or mode == fast", ""),
            ("branch = main", "`branch` needs `==` or `!=`"),
            ("branch == 'main", "`branch` is compared with nothing"),
            ("brunch == main", "`push` has no argument `brunch`"),
            ("branch == main or (depth == 5 and brunch == x)", "`push` has no argument `brunch`"),
            ("force == yes", "`force` of `push` is never `yes`: must be true or false"),
            (
                "mode == medium",
                "`mode` of `push` is never `medium`: `medium` is not one of: fast, slow",
            ),
            ("depth == 05", "`depth` of `push` is never `05`: "),
            ("depth != 10", "`depth` of `push` is never `10`: "),
            ("level == 10", "`level` of `push` is never `10`: it is written `9`"),
            ("mode == 'branch'", "`mode` of `push` is never `branch`: "),
            (
                "branch == mode",
                "an argument is compared with fixed text; did you mean the text `'mode'`? quote it",
            ),
            (
                "force == true and (branch != main or branch == branch)",
                "an argument is compared with fixed text; did you mean the text `'branch'`",
            ),
            ("branch == 'mode'", ""),
            (
                "branch == not",
                "an argument is compared with fixed text; did you mean the text `'not'`",
            ),
            ("branch == 'or'", ""),
            ("branch == ''", "`branch` of `push` is never ``: "),
            ("force == ''", "`force` of `push` is never ``: must be true or false"),
        ] {
            let condition = text.parse::<Condition>();
            let found = condition.and_then(|condition| condition.check(&manifest));
            match found {
                Ok(()) => assert_eq!(error, "", "{text}"),
                Err(found) => {
                    let found = found.to_string();
                    assert!(!error.is_empty() && found.starts_with(error), "{text}: {found}");
                }
            }
        }
    }

    #[test]
    fn what_is_compared_is_what_stands_in_the_plan() {
        let (manifest, _) = Manifest::parse("push.clad.toml", TOOL);
        let manifest = manifest.unwrap_or_else(|| panic!("no manifest"));
        for (text, arguments, expected) in [
            ("mode == fast", r#"{"branch": "b"}"#, true),
            ("depth == ''", r#"{"branch": "b"}"#, true),
            ("depth == 5", r#"{"branch": "b", "depth": "5"}"#, true),
            ("depth == 5", r#"{"branch": "b", "depth": 5}"#, true),
            ("force == true", r#"{"branch": "b", "force": true}"#, true),
            ("force == true and branch != b", r#"{"branch": "b", "force": true}"#, false),
        ] {
            let arguments = serde_json::from_str(arguments).unwrap_or_else(|e| panic!("{e}"));
            let planned = manifest.plan(&arguments).unwrap_or_else(|e| panic!("{e:?}"));
            let condition = text.parse::<Condition>().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(condition.holds(&planned.args), expected, "{text}");
        }
    }
}
