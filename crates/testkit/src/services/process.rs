use std::fs;

use rustix::process::Pid;

/// The processes that `parent` started and that still run, where the system tells (Linux does).
pub(super) fn children(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// Whether the process runs no more; perhaps nobody asked yet how it ended.
pub(super) fn has_ended(pid: Pid) -> bool {
    stat(pid).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
}

fn parent_of(pid: Pid) -> Option<Pid> {
    Pid::from_raw(stat(pid)?.parent)
}

struct Stat {
    state: char,
    parent: i32,
}

fn stat(pid: Pid) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// `pid (name) state parent ...`, where the name may hold anything, parentheses too.
fn parse(stat: &str) -> Option<Stat> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Stat { state, parent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_past_any_name() {
        let stat = parse("17 (a) b (c) S 4 17 17 0 -1").unwrap();
        assert_eq!((stat.state, stat.parent), ('S', 4));
        assert!(parse("nonsense").is_none());
    }

    #[test]
    fn a_child_is_seen_until_it_ended() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(children(rustix::process::getpid()).contains(&pid));
        assert!(!has_ended(pid));

        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(rustix::process::getpid()).contains(&pid));
        assert!(has_ended(pid));
    }
}
