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
    let mut taken: Vec<String> = Vec::new();
    let mut exec = vec![quoted(&binary.replace('{', "{{").replace('}', "}}"))];
    let mut mappings = String::new();
    for flag in flags(help).into_iter().take(MAX_ARGS) {
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

/// Lines that begin with an option and name a long one.
fn flags(help: &str) -> Vec<Flag> {
    let mut found: Vec<Flag> = Vec::new();
    for text in help.lines().map(str::trim).filter(|text| text.starts_with('-')) {
        let (options, description) = text.split_once("  ").unwrap_or((text, ""));
        let Some(at) = options.find("--") else { continue };
        let rest = options.get(at + 2..).unwrap_or_default();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        let (long, after) = rest.split_at(end.unwrap_or(rest.len()));
        let good = long.starts_with(|c: char| c.is_ascii_alphanumeric());
        let known = ["help", "version"].contains(&long) || found.iter().any(|f| f.long == long);
        if good && !known {
            let after = after.trim_start_matches(['[', ' ']);
            let value = after.starts_with(['=', '<'])
                || after.starts_with(|c: char| c.is_ascii_uppercase());
            let text = line(description);
            found.push(Flag { long: long.to_owned(), value, text });
        }
    }
    found
}
