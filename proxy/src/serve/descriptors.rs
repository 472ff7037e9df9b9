//! How many connections the system's limit on descriptors allows: each call needs one on its other
//! side too, unless calls share it, and what is not a call needs some as well.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for all but calls: store, log, operators, servers of tools. Of few, a quarter.
const OTHERS: u64 = 256;
/// Connections that operators have however few there are: a browser opens six.
const FEWEST: usize = 8;

/// Raises the limit as far as the process may: the lower one is for programs that know no better.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on descriptors stays as it is");
    }
}

/// How many of `wanted` connections may be open at once, of calls that `share` the connections to their
/// endpoints or do not.
pub(super) fn allowed(wanted: usize, share: bool) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return wanted;
    };
    let allowed = for_calls(limit, share);
    if allowed < wanted {
        tracing::warn!(
            descriptors = limit,
            connections = allowed,
            "limits.connections is more than descriptors allow; raise their limit (ulimit -n, LimitNOFILE)"
        );
    }
    wanted.min(allowed)
}

/// How many connections of operators may be open at once: half of the descriptors that are not for calls.
pub(super) fn for_operators() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(for_others(limit) / 2).map_or(FEWEST, |half| half.max(FEWEST))
}

fn for_others(limit: u64) -> u64 {
    OTHERS.min(limit / 4)
}

fn for_calls(limit: u64, share: bool) -> usize {
    let left = limit - for_others(limit);
    // A tenth is far more than connections that a hundred calls share.
    let others = if share { left / 10 } else { left.div_ceil(2) };
    usize::try_from(left - others).unwrap_or(usize::MAX).max(1)
}

/// Whether the process, or the whole system, has no descriptor left: which is nobody else's fault.
pub(crate) fn are_short(error: &std::io::Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|it| ours.contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_needs_two_and_others_keep_theirs() {
        let limits = [1, 64, 256, 1_024, 20_000];
        let allowed = limits.map(|limit| for_calls(limit, false));
        assert_eq!(allowed, [1, 24, 96, 384, 9_872]);
        let allowed = limits.map(|limit| for_calls(limit, true));
        assert_eq!(allowed, [1, 44, 173, 692, 17_770]);
    }
}
