//! The chart of the page: acknowledged events per second, as SVG within the page.

use std::fmt::Write;

use super::history::MAX_RATES;

/// The width of one interval, and the height of the chart, in units of the drawing.
const STEP: usize = 5;
const HEIGHT: f64 = 100.0;

/// Writes the chart of these rates, the oldest first. The newest one stands at the right edge.
pub(super) fn write(html: &mut String, rates: &[f64]) {
    let (Some(now), width) = (rates.last(), STEP * (MAX_RATES - 1)) else {
        html.push_str("<figure><figcaption>Events per second: no sample yet</figcaption></figure>");
        return;
    };
    let highest = rates.iter().copied().fold(0.0, f64::max);
    let first = width - STEP * (rates.len() - 1);
    let mut line = String::new();
    for (index, rate) in rates.iter().enumerate() {
        let height = if highest > 0.0 { HEIGHT * rate / highest } else { 0.0 };
        let _ = write!(line, "{}{} {:.1}", if index == 0 { "M" } else { "L" }, first + STEP * index, HEIGHT - height);
    }
    let caption = format!("Acknowledged events per second: {} now, {} at most", rounded(*now), rounded(highest));
    let area = format!("{line}L{width} {HEIGHT}L{first} {HEIGHT}Z");
    let _ = write!(
        html,
        "<figure><svg viewBox=\"0 -4 {width} 108\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{caption}\">\
         <path class=\"area\" d=\"{area}\"/><path class=\"line\" d=\"{line}\"/></svg>\
         <div class=\"axis\"><span>10 min ago</span><span>now</span></div><figcaption>{caption}</figcaption></figure>"
    );
}

/// Gives three digits of a small rate, and all of a large one.
fn rounded(rate: f64) -> String {
    if rate < 10.0 && rate > 0.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_rate_stands_at_the_right_edge_and_the_highest_at_the_top() {
        let mut html = String::new();
        write(&mut html, &[0.0, 200.0, 50.0]);
        assert!(html.contains("d=\"M585 100.0L590 0.0L595 75.0\""), "{html}");
        assert!(html.contains("50 now, 200 at most"), "{html}");
    }

    #[test]
    fn nothing_yet_and_nothing_at_all_are_drawn_without_a_division_by_zero() {
        let mut html = String::new();
        write(&mut html, &[]);
        assert!(html.contains("no sample yet"), "{html}");
        html.clear();
        write(&mut html, &[0.0; MAX_RATES]);
        assert!(html.contains("M0 100.0L5 100.0") && html.contains("0 now, 0 at most"), "{html}");
    }
}
