//! Numbers as people say them.

pub(super) use crate::event::millis_between;

/// `12ms`, `1.2s`, `2m 05s`, `1h 02m`.
pub(super) fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match millis {
        0..100 => format!("{millis}ms"),
        100..60_000 => format!("{seconds}.{}s", millis % 1000 / 100),
        60_000..3_600_000 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// `950`, `31.2k`, `1.2M`: never more than what was counted.
pub(super) fn count(n: u64) -> String {
    match n {
        0..1000 => n.to_string(),
        1000..1_000_000 => format!("{}.{}k", n / 1000, n % 1000 / 100),
        _ => format!("{}.{}M", n / 1_000_000, n % 1_000_000 / 100_000),
    }
}

/// `1 line`, `2 lines`.
pub(in crate::cli) fn plural(n: usize, thing: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {thing}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |millis, expected: &str| assert_eq!(duration(millis), expected);
        check(0, "0ms");
        check(99, "99ms");
        check(840, "0.8s");
        check(1_299, "1.2s");
        check(59_999, "59.9s");
        check(65_000, "1m 05s");
        check(3_725_000, "1h 02m");
    }

    #[test]
    fn counts() {
        let check = |n, expected: &str| assert_eq!(count(n), expected);
        check(0, "0");
        check(999, "999");
        check(31_299, "31.2k");
        check(999_999, "999.9k");
        check(1_250_000, "1.2M");
        assert_eq!(plural(1, "line"), "1 line");
        assert_eq!(plural(0, "line"), "0 lines");
    }
}
