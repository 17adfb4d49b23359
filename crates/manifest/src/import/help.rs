//! What a program prints for `--help`.

use super::{Imported, MAX_ARGS, described, line, loads, name, quoted};

struct Flag {
    long: String,
    value: bool,
    text: String,
}

/// Makes a manifest of the options a program lists. It is a beginning: help is written for
/// people, and what is not understood is left out.
///
/// # Errors
/// Says so when `binary` is no name of a program, or of one that no manifest starts unasked, such as an
/// interpreter.
pub fn import_help(help: &str, binary: &str) -> Result<Imported, String> {
    let base = binary.rsplit('/').next().unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.+-".contains(&b);
    if base.is_empty() || base.starts_with('-') || !base.bytes().all(plain) {
        return Err("that is no name of a program".to_owned());
    }
    let tool = name(base, &[], "tool");
    let first = help.lines().map(str::trim).find(|text| {
        !text.is_empty()
            && !text.to_ascii_lowercase().starts_with("usage")
            && !text.starts_with('-')
    });
    let mut out = format!(
        "# Made from --help: read every line. Options the agent should not have are best deleted.\n\n\
         [tool]\nname = {}\nversion = \"0.1.0\"\ndescription = {}\nbinary = {}\n\
         risk_tier = \"medium\"\nhuman_approval = true\n",
        quoted(&tool),
        quoted(&described(first, base)),
        quoted(binary),
    );
    let (found, mut lacking) = flags(help);
    lacking.extend(
        found.iter().skip(MAX_ARGS).map(|flag| format!("--{}, one of too many", flag.long)),
    );
    lacking.extend(operands(help, base).map(|words| format!("what is no option: {words}")));
    for what in lacking {
        out.push_str(&format!("# Left out: {}\n", line(&what)));
    }
    let mut taken: Vec<String> = Vec::new();
    let mut exec = vec![quoted(&binary.replace('{', "{{").replace('}', "}}"))];
    let mut mappings = String::new();
    for flag in found.into_iter().take(MAX_ARGS) {
        let arg = name(&flag.long, &taken, "option");
        if flag.value {
            out.push_str(&format!("\n[args.{arg}]\ntype = \"string\"\n"));
            exec.push(quoted(&format!("--{}={{{arg}}}", flag.long)));
        } else {
            out.push_str(&format!("\n[args.{arg}]\ntype = \"boolean\"\ndefault = false\n"));
            exec.push(quoted(&format!("{{_{arg}_flags}}")));
            mappings.push_str(&format!(
                "\n[command.mappings.{arg}]\ntrue = {}\nfalse = \"\"\n",
                quoted(&format!("--{}", flag.long))
            ));
        }
        if !flag.text.is_empty() {
            out.push_str(&format!("description = {}\n", quoted(&flag.text)));
        }
        taken.push(arg);
    }
    out.push_str(&format!("\n[command]\nexec = [\n  {},\n]\n{mappings}", exec.join(",\n  ")));
    out.push_str("\n[output]\nformat = \"text\"\n\n[output.schema]\ntype = \"object\"\n");
    loads(&tool, out, binary)
}

/// Lines that begin with an option and name a long one; then the options of the others.
fn flags(help: &str) -> (Vec<Flag>, Vec<String>) {
    let mut found: Vec<Flag> = Vec::new();
    let mut short = Vec::new();
    for text in help.lines().map(str::trim).filter(|text| text.starts_with('-')) {
        let (options, description) = text.split_once("  ").unwrap_or((text, ""));
        let rest = options.split_once("--").map_or("", |(_, rest)| rest);
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let (long, after) = rest.split_at(end.unwrap_or(rest.len()));
        if !long.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            short.push(options.to_owned());
            continue;
        }
        if !["help", "version"].contains(&long) && !found.iter().any(|f| f.long == long) {
            let after = after.trim_start_matches(['[', ' ']);
            let value = after.starts_with(['=', '<'])
                || after.starts_with(|c: char| c.is_ascii_uppercase());
            let text = line(description);
            found.push(Flag { long: long.to_owned(), value, text });
        }
    }
    (found, short)
}

/// What the usage of a program names that is no option, nor within the brackets of one.
fn operands(help: &str, base: &str) -> Option<String> {
    let usage = |text: &str| text.get(..6).is_some_and(|head| head.eq_ignore_ascii_case("usage:"));
    let lines = help.lines().skip_while(|text| !usage(text.trim()));
    let lines = lines.take_while(|text| !text.trim().is_empty());
    let mut found: Vec<&str> = Vec::new();
    for (number, text) in lines.enumerate() {
        // The usage goes on in lines that are indented; the options follow it.
        let goes_on = text.starts_with(char::is_whitespace) && !text.trim().starts_with('-');
        if number > 0 && !goes_on {
            break;
        }
        // Brackets that are open, from that of an option on.
        let mut inside = 0_usize;
        for word in text.split_whitespace() {
            let open = word.matches(['[', '<', '{']).count();
            let closed = word.matches([']', '>', '}']).count();
            let bare = word.trim_matches(|c: char| !(c.is_alphanumeric() || c == '-'));
            let option = bare.starts_with('-') || bare.to_ascii_lowercase().starts_with("option");
            if inside > 0 || option {
                inside = (inside + open).saturating_sub(closed);
            } else if !bare.is_empty()
                && bare != base
                && !word.ends_with(':')
                && !found.contains(&word)
            {
                found.push(word);
            }
        }
    }
    (!found.is_empty()).then(|| found.join(" "))
}
