//! How far a call is, in few words. Pure.

use rmcp::model::ProgressNotificationParam;

use super::failure::Seal;

/// A report as it is shown: `3 of 10: reading`, `50 %`.
pub(super) fn words(report: &ProgressNotificationParam, seal: &Seal) -> String {
    let said = report.message.as_deref().map(|words| seal.quote(words)).unwrap_or_default();
    let so_far = so_far(report.progress, report.total);
    if said.is_empty() { so_far } else { format!("{so_far}: {said}") }
}

fn so_far(done: f64, total: Option<f64>) -> String {
    let is_sound = |number: f64| number.is_finite() && (0.0..1e15).contains(&number);
    let whole = |number: f64| number.fract() == 0.0;
    match total.filter(|total| is_sound(*total) && *total > 0.0) {
        _ if !is_sound(done) => "at work".to_owned(),
        Some(total) if whole(done) && whole(total) && total > 1.0 => format!("{done} of {total}"),
        Some(total) => format!("{:.0} %", (done / total * 100.0).min(100.0)),
        None if whole(done) => format!("{done}"),
        None => format!("{done:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_every_kind() {
        for (done, total, expected) in [
            (3.0, Some(10.0), "3 of 10"),
            (0.5, Some(1.0), "50 %"),
            (1.0, Some(1.0), "100 %"),
            (12.5, Some(50.0), "25 %"),
            (70.0, Some(50.5), "100 %"),
            (7.0, None, "7"),
            (0.333, None, "0.33"),
            (7.0, Some(0.0), "7"),
            (f64::NAN, Some(1.0), "at work"),
            (-1.0, None, "at work"),
            (1e300, None, "at work"),
        ] {
            assert_eq!(so_far(done, total), expected, "{done} {total:?}");
        }
    }
}
