//! Which programs a command may start.

use std::ops::Range;

use crate::diagnostic::{Report, excerpt};
use crate::fields::At;

/// What `[tool]` says about the program.
#[derive(Clone, Copy)]
pub(crate) struct Program<'a> {
    pub(crate) binary: Option<&'a At<&'a str>>,
    pub(crate) allow_interpreter: bool,
}

/// Programs that run text, or start whatever they are told to.
#[rustfmt::skip]
const INTERPRETERS: &[&str] = &[
    // Shells.
    "sh", "bash", "rbash", "dash", "ash", "sash", "zsh", "ksh", "mksh", "oksh", "yash", "fish",
    "csh", "tcsh", "elvish", "nu", "xonsh", "osh", "busybox", "toybox", "pwsh", "powershell", "cmd",
    "wscript", "cscript", "osascript",
    // Languages.
    "python", "pypy", "ipython", "perl", "ruby", "jruby", "irb", "node", "nodejs", "deno", "bun",
    "tsx", "ts-node", "npx", "bunx", "uvx", "pipx", "php", "lua", "luajit", "awk", "gawk", "mawk",
    "nawk", "tclsh", "wish", "expect", "rscript", "julia", "guile", "racket", "sbcl", "clojure",
    "groovy", "scala", "jshell", "ghci", "runghc", "elixir", "iex", "erl", "escript", "ocaml",
    "swipl", "octave", "raku", "gdb", "lldb", "r", "java", "kotlin", "mono", "dotnet", "wine",
    "pry", "zx", "gosh", "janet", "rust-script", "nix-shell",
    // What starts another program.
    "env", "xargs", "sudo", "doas", "pkexec", "su", "runuser", "setpriv", "capsh", "chroot",
    "unshare", "nsenter", "bwrap", "firejail", "fakeroot", "proot", "ssh", "nohup", "setsid",
    "timeout", "nice", "ionice", "chrt", "taskset", "prlimit", "flock", "stdbuf", "unbuffer",
    "rlwrap", "time", "watch", "entr", "script", "screen", "tmux", "parallel", "strace", "ltrace",
    "systemd-run", "start-stop-daemon", "at", "batch", "command", "eval", "gosu", "su-exec", "sg",
    "newgrp", "runcon", "run0", "run-parts", "torsocks", "proxychains", "numactl", "cpulimit",
    "faketime", "valgrind", "dbus-run-session", "sshpass", "mosh", "pipenv", "poetry", "uv",
    "ld.so",
    // Editors that do.
    "vim", "vi", "nvim", "ex", "ed", "emacs",
];

/// What packages put behind the name of a program for another build of it.
#[rustfmt::skip]
const VARIANTS: &[&str] = &[
    "athena", "basic", "bin", "cgi", "cli", "dbg", "debug", "distrib", "fpm", "full", "gtk",
    "gtk2", "gtk3", "huge", "lucid", "minimal", "motif", "multiarch", "musl", "nox", "orig",
    "pgtk", "real", "rs", "static", "suid", "tiny", "wrapped",
];

/// Endings of scripts, which are programs of their own whatever stands before.
const SCRIPTS: &[&str] = &["sh", "bash", "py", "pl", "rb", "js", "mjs", "ts", "php", "lua", "awk"];

/// `program` is the first element of the command, if it is fixed text.
pub(crate) fn check(
    program: Option<&str>,
    span: &Range<usize>,
    declared: Program<'_>,
    report: &mut Report,
) {
    let Some(program) = program else {
        let message = "the program must be fixed text, without placeholders";
        report.error("program_not_fixed", span, message);
        return;
    };
    let base = base_name(program);
    if let Some(binary) = declared.binary
        && base_name(binary.value) != base
    {
        let (program, binary) = (excerpt(program), excerpt(binary.value));
        let message = format!("the command starts `{program}`, but `binary` is `{binary}`");
        report.error("program_not_binary", span, message);
    }
    interpreter(program, span, declared, report);
}

/// The program of the escape hatch. It stands for `binary`, and need not have its name.
pub(crate) fn executor(executor: &At<&str>, declared: Program<'_>, report: &mut Report) -> String {
    let text = executor.value;
    if text.trim().is_empty() {
        report.error("empty_value", &executor.span, "`executor` must not be empty");
    } else if text.contains(['{', '}', '\0']) {
        let message = "the program must be fixed text, without placeholders";
        report.error("program_not_fixed", &executor.span, message);
    } else {
        interpreter(text, &executor.span, declared, report);
    }
    text.to_owned()
}

fn interpreter(program: &str, span: &Range<usize>, declared: Program<'_>, report: &mut Report) {
    let base = base_name(program);
    if is_interpreter(base) && !declared.allow_interpreter {
        let message = format!("`{}` runs what it is given", excerpt(base));
        report
            .error("interpreter", span, message)
            .fix("start the program itself, or write `allow_interpreter = true`");
    }
    if program.contains('/') && !program.starts_with('/') {
        let message = "a program beneath the tool's root may be replaced by other tools";
        report.warn("relative_program", span, message).fix("write an absolute path");
    }
}

fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Also `python3.12`, `Rscript`, `bash.exe`.
fn is_interpreter(base: &str) -> bool {
    let name = base.to_ascii_lowercase();
    let name = name.strip_suffix(".exe").unwrap_or(&name);
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    // The loader of shared libraries starts the program it is given.
    let loader = ["ld-linux", "ld-musl"].iter().any(|loader| name.starts_with(loader));
    loader || INTERPRETERS.contains(&name) || INTERPRETERS.contains(&bare) || is_variant(name)
}

/// Also `busybox.static`, `vim.tiny`, `python3.12-dbg`, `sudo-rs`: an interpreter as packages and
/// distributions call its builds. `script.sh` and `ssh-keygen` are programs of their own.
fn is_variant(name: &str) -> bool {
    let name = name.trim_start_matches('.');
    let Some(at) = name.find(['.', '-']) else { return false };
    let (head, tail) = name.split_at(at);
    let head = head.trim_end_matches(|c: char| c.is_ascii_digit());
    // A single letter begins too many names.
    if head.len() < 2 || !INTERPRETERS.contains(&head) {
        return false;
    }
    let part = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) || VARIANTS.contains(&part);
    match tail.strip_prefix('.') {
        Some(suffix) => !SCRIPTS.contains(&suffix),
        None => tail.split(['.', '-']).all(part),
    }
}

#[cfg(test)]
mod tests {
    use super::is_interpreter;

    #[test]
    fn builds_of_interpreters_are_interpreters_and_their_namesakes_are_not() {
        for name in [
            "bash",
            "Rscript",
            "bash.exe",
            "python3.12",
            "busybox.static",
            "vim.tiny",
            "vim.basic",
            "env.real",
            "python3-dbg",
            "python3.12-dbg",
            "sudo-rs",
            "su-rs",
            "bash-static",
            "bash-5.2",
            "zsh5-static",
            "php-cgi",
            "php8.2-fpm",
            "emacs-nox",
            "gdb-multiarch",
            "perl5.36-x86_64-linux-gnu",
            ".bash-wrapped",
            "timeout.coreutils",
            "SUDO.REAL",
        ] {
            assert!(is_interpreter(name), "{name}");
        }
        for name in [
            "git",
            "git-lfs",
            "ssh-keygen",
            "ssh-keyscan",
            "ssh-add",
            "node-gyp",
            "php-config",
            "python3-config",
            "time-sync",
            "script.sh",
            "watch.py",
            "batch.sh",
            "at-spi2",
            "r.slope.aspect",
            "r-base",
            "command-not-found",
            "screenfetch",
            "envsubst",
            "nicotine",
            "nginx",
            "jq-1.7",
            "ffmpeg.real",
            "curl-minimal",
            ".hidden",
            "-",
            ".",
            "",
        ] {
            assert!(!is_interpreter(name), "{name}");
        }
    }
}
