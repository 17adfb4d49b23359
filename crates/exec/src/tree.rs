//! Finds and kills everything a supervisor is answerable for, from `/proc`.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process_group, pidfd_open, pidfd_send_signal,
};

struct Stat {
    dead: bool,
    parent: i32,
    group: i32,
    session: i32,
    threads: usize,
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
        group: fields.next()?.parse().ok()?,
        session: fields.next()?.parse().ok()?,
        threads: fields.nth(13)?.parse().ok()?,
        start: fields.nth(1)?.parse().ok()?,
    })
}

/// Every process below `root`, and every member of the session that `root` leads together with
/// what is below them, from the top; never `root`.
fn below(root: i32) -> Vec<(i32, Stat)> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let mut stats = HashMap::new();
    let mut next = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Some(stat) = stat(pid) else { continue };
        children.entry(stat.parent).or_default().push(pid);
        if stat.session == root && pid != root {
            next.push(pid);
        }
        stats.insert(pid, stat);
    }
    stats.remove(&root);
    next.push(root);
    let mut found = Vec::new();
    while let Some(pid) = next.pop() {
        next.extend(children.remove(&pid).unwrap_or_default());
        found.extend(stats.remove(&pid).map(|stat| (pid, stat)));
    }
    found
}

/// How many processes and threads there are below `root` and in its session, without `root`.
pub(crate) fn tasks_below(root: i32) -> usize {
    below(root).iter().filter(|(_, stat)| !stat.dead).map(|(_, stat)| stat.threads).sum()
}

/// Sends SIGKILL once to every process below `root`, and to every member of the session that
/// `root` leads together with what is below them; never to `root`. Returns how many of them
/// still ran: call again until none do, since processes fork while they are being counted.
///
/// The caller keeps `root` unreaped meanwhile, so that its id cannot name something else.
pub(crate) fn kill_below(root: i32) -> usize {
    // From the top: whoever outlived a child for a moment would go on behind it.
    let found = below(root);
    let mut groups = BTreeSet::from([root]);
    // Who has not left the caller's session may be in its group.
    let ours = stat(getpid().as_raw_pid()).map(|stat| stat.session);
    for (pid, seen) in &found {
        kill(*pid, seen.start, |now: &Stat| {
            let left = now.session == root || ours.is_some_and(|ours| now.session != ours);
            // By that name, group 1 would be everybody.
            left && now.group > 1 && groups.insert(now.group)
        });
    }
    found.iter().filter(|(_, seen)| !seen.dead).count()
}

/// Kills the process that had this id and start time, and no later owner of the id; first its
/// whole process group, if that is `whole`.
///
/// A group gets a signal at once, and a fork that is under way then gets it too: what forks
/// faster than its processes can be killed one by one ends all the same. All of a group are in
/// one session. That is the one that `root` leads, or was made by one of those to be killed, so
/// that nobody else is in it. The id of a group names no other one while it has a member.
fn kill(pid: i32, start: u64, whole: impl FnOnce(&Stat) -> bool) {
    // A "dead" leader may still have living threads, so the dead are signalled too.
    if let Some(name) = Pid::from_raw(pid)
        && let Ok(handle) = pidfd_open(name, PidfdFlags::empty())
        && let Some(now) = stat(pid)
        && now.start == start
    {
        if whole(&now)
            && let Some(group) = Pid::from_raw(now.group)
        {
            kill_process_group(group, Signal::KILL).ok();
        }
        // Failure means that it is gone, or that it is not ours to signal.
        pidfd_send_signal(&handle, Signal::KILL).ok();
    }
}
