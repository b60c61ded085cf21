//! What must hold, beside what was measured.

use crate::report::Page;

/// A figure and its bound.
pub(crate) struct Floor {
    pub(crate) name: String,
    pub(crate) measured: f64,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Everything that was promised and measured in one run.
#[derive(Default)]
pub(crate) struct Floors(pub(crate) Vec<Floor>);

impl Floors {
    pub(crate) fn at_least(&mut self, name: &str, bound: f64, measured: f64) {
        self.push(name, measured, Bound::AtLeast(bound));
    }

    pub(crate) fn at_most(&mut self, name: &str, bound: f64, measured: f64) {
        self.push(name, measured, Bound::AtMost(bound));
    }

    fn push(&mut self, name: &str, measured: f64, bound: Bound) {
        let name = name.to_owned();
        self.0.push(Floor {
            name,
            measured,
            bound,
        });
    }

    pub(crate) fn all_hold(&self) -> bool {
        self.0.iter().all(Floor::holds)
    }

    /// The table that the page of results begins with.
    pub(crate) fn table(&self) -> String {
        let mut page = Page::default();
        page.heading("What is promised, and what was measured");
        page.head(&["", "promised", "measured", "holds"]);
        for floor in &self.0 {
            let promised = match floor.bound {
                Bound::AtLeast(bound) => format!("at least {bound}"),
                Bound::AtMost(bound) => format!("at most {bound}"),
            };
            let holds = if floor.holds() { "yes" } else { "**no**" };
            page.row(&[&floor.name, &promised, &number(floor.measured), &holds]);
        }
        page.text().to_owned()
    }
}

impl Floor {
    /// How far on the good side of its bound; 1 is just there.
    pub(crate) fn margin(&self) -> f64 {
        match self.bound {
            Bound::AtLeast(bound) => self.measured / bound,
            Bound::AtMost(0.0) if self.measured == 0.0 => 1.0,
            Bound::AtMost(bound) if self.measured > 0.0 => bound / self.measured,
            Bound::AtMost(_) => f64::INFINITY,
        }
    }

    pub(crate) fn holds(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.measured >= bound,
            Bound::AtMost(bound) => self.measured <= bound,
        }
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_that_is_missed_is_shown_and_told() {
        let mut floors = Floors::default();
        floors.at_least("speed", 0.5, 0.6);
        floors.at_most("bytes", 4.0, 4.0);
        assert!(floors.all_hold());
        floors.at_least("more speed", 2.0, 1.0);
        floors.at_most("not a number", 2.0, f64::NAN);
        assert!(!floors.all_hold());
        let table = floors.table();
        assert!(
            table.contains("| speed | at least 0.5 | 0.60 | yes |"),
            "{table}"
        );
        assert!(
            table.contains("| more speed | at least 2 | 1.00 | **no** |"),
            "{table}"
        );
        assert_eq!(floors.0[2].margin(), 0.5);
        floors.at_most("nothing", 0.0, 0.0);
        floors.at_most("less than before", 8.0, -1.0);
        assert_eq!(floors.0[4].margin(), 1.0);
        assert_eq!(floors.0[5].margin(), f64::INFINITY);
    }
}
