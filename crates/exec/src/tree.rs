//! Finds and kills everything a supervisor is answerable for, from `/proc`.

use std::collections::HashMap;
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

struct Stat {
    dead: bool,
    parent: i32,
    session: i32,
    /// Ticks from boot to start: with the id, it names one process for ever.
    start: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name in parentheses may hold anything, so the fields count from the last one.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    Some(Stat {
        dead: matches!(fields.next()?, "Z" | "X"),
        parent: fields.next()?.parse().ok()?,
        session: fields.nth(1)?.parse().ok()?,
        start: fields.nth(15)?.parse().ok()?,
    })
}

/// Sends SIGKILL once to every process below `root`, and to every member of the session that
/// `root` leads together with what is below them; never to `root`. Returns how many of them
/// still ran: call again until none do, since processes fork while they are being counted.
///
/// The caller keeps `root` unreaped meanwhile, so that its id cannot name something else.
pub(crate) fn kill_below(root: i32) -> usize {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let mut stats = HashMap::new();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Some(stat) = stat(pid) else { continue };
        children.entry(stat.parent).or_default().push(pid);
        if stat.session == root && pid != root {
            found.push(pid);
        }
        stats.insert(pid, stat);
    }
    // From the top: whoever outlived a child for a moment would go on behind it.
    found.push(root);
    let mut running = 0;
    while let Some(pid) = found.pop() {
        found.extend(children.remove(&pid).unwrap_or_default());
        if pid != root
            && let Some(seen) = stats.remove(&pid)
        {
            kill(pid, seen.start);
            running += usize::from(!seen.dead);
        }
    }
    running
}

/// Kills the process that had this id and start time, and no later owner of the id.
fn kill(pid: i32, start: u64) {
    // A "dead" leader may still have living threads, so the dead are signalled too.
    if let Some(name) = Pid::from_raw(pid)
        && let Ok(handle) = pidfd_open(name, PidfdFlags::empty())
        && stat(pid).is_some_and(|now| now.start == start)
    {
        // Failure means that it is gone, or that it is not ours to signal.
        pidfd_send_signal(&handle, Signal::KILL).ok();
    }
}
