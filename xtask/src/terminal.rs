//! How things are printed: plain and aligned, coloured only on a terminal.

use std::error::Error;
use std::io::IsTerminal;
use std::time::Duration;

#[derive(Clone, Copy)]
pub(crate) enum Colour {
    Bold,
    Green,
    Red,
}

/// `text`, coloured when standard output is a terminal and `NO_COLOR` is not set.
pub(crate) fn paint(colour: Colour, text: &str) -> String {
    wrap(colour, text, std::io::stdout().is_terminal())
}

/// Prints an error and its sources to standard error.
pub(crate) fn error(error: &dyn Error) {
    let label = wrap(Colour::Red, "error:", std::io::stderr().is_terminal());
    eprintln!("{label} {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("  because: {cause}");
        source = cause.source();
    }
}

/// One error from a list of problems, one per line, with how many there are.
pub(crate) fn problems(command: &str, list: &[String]) -> crate::Outcome {
    if list.is_empty() {
        return Ok(());
    }
    for problem in list {
        println!("{problem}");
    }
    Err(format!("{command}: {} (listed above)", count(list.len(), "problem")).into())
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// `0.4s`, `41.0s`, `2m 03s`.
pub(crate) fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1}s", time.as_secs_f64())
    } else {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    }
}

fn wrap(colour: Colour, text: &str, terminal: bool) -> String {
    if !terminal || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Bold => "1",
        Colour::Green => "32",
        Colour::Red => "31",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_is_short() {
        assert_eq!(elapsed(Duration::from_millis(440)), "0.4s");
        assert_eq!(elapsed(Duration::from_secs(123)), "2m 03s");
    }

    #[test]
    fn count_agrees_with_its_noun() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
    }
}
