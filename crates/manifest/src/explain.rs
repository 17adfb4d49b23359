//! Why a value is taken or refused.

use serde::Serialize;
use serde_json::Value;

use crate::manifest::{Arg, Manifest};
use crate::plan::ArgProblem;
use crate::types::{ArgType, Kind, MAX_LITERAL, MAX_TEXT};

/// What an argument asks of a value, and whether one has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The argument.
    pub arg: String,
    /// Its built-in type.
    #[serde(rename = "type")]
    pub type_name: &'static str,
    /// One fragment each, in the order in which they are checked.
    pub rules: Vec<String>,
    /// The text that stands in a plan, if the value is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Why it is refused, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<ArgProblem>,
}

impl Manifest {
    /// Holds one value against one argument, as a call would. `None` if there is no such
    /// argument.
    #[must_use]
    pub fn explain(&self, arg: &str, value: &Value) -> Option<Explanation> {
        let arg: &Arg = self.args.get(*self.index.get(arg)?)?;
        let checked = arg.ty.resolve(value).and_then(|text| {
            arg.ty.in_scope(&text, self.scopes.iter().map(AsRef::as_ref))?;
            Ok(text)
        });
        let (value, problem) = match checked {
            Ok(text) => (Some(text), None),
            Err(refusal) => (None, Some(ArgProblem::new(&arg.name, refusal))),
        };
        Some(Explanation {
            arg: arg.name.clone(),
            type_name: arg.ty.name,
            rules: rules(&arg.ty),
            value,
            problem,
        })
    }
}

fn rules(ty: &ArgType) -> Vec<String> {
    let mut rules = vec!["no NUL character".to_owned()];
    let mut say = |text: &str| rules.push(text.to_owned());
    let plain = "no control, invisible or reordering characters";
    let shell = "none of ; | & $ ` ( ) { } [ ] < > ! ' \" \\";
    let length = format!("1 to {MAX_TEXT} bytes");
    match &ty.kind {
        Kind::Literal => say(&format!("at most {MAX_LITERAL} bytes, kept as they are")),
        Kind::Text(rule) | Kind::Path(rule) | Kind::Credential(rule) | Kind::Summary(rule) => {
            say(&length);
            say(plain);
            say(match (rule.whitespace, &ty.kind) {
                (_, Kind::Summary(_)) => "spaces and ordinary punctuation",
                (true, _) => "spaces inside, no other white space",
                (false, _) => "no white space",
            });
            if !rule.leading_dash {
                say("does not begin with - or +");
            }
            if !rule.at {
                say("does not begin with @");
            }
            match &ty.kind {
                Kind::Summary(_) => {
                    say("none of | & $ ` { } [ ] < > \\");
                    say("no known marker of a prompt injection");
                }
                _ => say(shell),
            }
            if matches!(&ty.kind, Kind::Path(_) | Kind::Credential(_)) {
                say("relative, without `..`, drive, scheme, or a dot or slash in disguise");
            }
            if matches!(&ty.kind, Kind::Credential(_)) {
                say("when used: a regular file that not everybody can read");
            }
        }
        Kind::Integer(rule) => {
            say("0, or digits that do not begin with 0");
            bounds(rule.min, rule.max, rule.clamp, rule.negative(), &mut say);
        }
        Kind::Number(rule) => {
            say("decimal or with exponent, finite, not so small that it becomes zero");
            bounds(rule.min, rule.max, rule.clamp, rule.negative(), &mut say);
        }
        Kind::Port => say("1 to 65535, in digits that do not begin with 0"),
        Kind::Boolean => say("true or false"),
        Kind::Enum(allowed) => say(&format!("one of: {}", allowed.join(", "))),
        Kind::Target(_) => {
            say("a canonical address, a range without host bits, or a plain host name");
        }
        Kind::Url(rule) => {
            say(&format!("an absolute URL in canonical form of {}", rule.schemes.join(", ")));
            say("no user or password; a plain host name or canonical address");
        }
        Kind::Ip(_) => say("one canonical IPv4 or IPv6 address"),
        Kind::Cidr(_) => say("a canonical address range without host bits"),
        Kind::Duration => say("seconds, or such as 1h30m15s500ms: more than 0, at most ten years"),
        Kind::Options => say("`KEY VALUE` or `set KEY VALUE`, several separated by `;`"),
    }
    let host = match &ty.kind {
        Kind::Target(rule) | Kind::Ip(rule) | Kind::Cidr(rule) => Some(rule),
        Kind::Url(rule) => Some(&rule.host),
        _ => None,
    };
    if let Some(rule) = host {
        say("no link-local or cloud metadata address or name");
        if !rule.any {
            say("not every address there is");
        }
        if rule.block_internal {
            say("no internal address or name, nor one that holds such");
        } else if !rule.allow_internal {
            say("none of localhost, *.localhost, *.local, *.internal");
        }
    }
    for pattern in &ty.patterns {
        say(&format!("the whole value matches {}", pattern.source));
    }
    if ty.scoped {
        say("within the scope");
    }
    rules
}

fn bounds<T: std::fmt::Display>(
    min: Option<T>,
    max: Option<T>,
    clamp: bool,
    negative: bool,
    say: &mut impl FnMut(&str),
) {
    if !negative {
        say("not negative");
    }
    let what = if clamp { "made" } else { "is" };
    if let Some(min) = min {
        say(&format!("{what} at least {min}"));
    }
    if let Some(max) = max {
        say(&format!("{what} at most {max}"));
    }
}
