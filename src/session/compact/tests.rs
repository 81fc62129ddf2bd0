//! What counts as a summary.

use super::check;

#[test]
fn a_summary_says_something_under_one_of_its_headings() {
    let good = "We fix the parser in src/a.rs and then run the tests again.";
    for heading in
        ["## Task", "Task:", "**State**", "# Open questions", "- Decisions", "CONSTRAINTS"]
    {
        assert_eq!(check(&format!("{heading}\n{good}")), Ok(()), "{heading}");
    }
    for (text, wrong) in [
        ("", "it is empty"),
        (" \n\t", "it is empty"),
        ("## Task\nNone.", "it says next to nothing"),
        (good, "it has none of the sections that were asked for"),
    ] {
        assert_eq!(check(text), Err(wrong), "{text}");
    }
    let stuck = format!("## Task\n{}", "a b c d e f g h ".repeat(20));
    assert_eq!(check(&stuck), Err("it says next to nothing"));
}
