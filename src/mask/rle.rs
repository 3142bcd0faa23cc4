//! Run lengths as the Airbus Ship Detection challenge writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Mask;

/// The set pixels of a mask as `(start, length)` runs.
///
/// Pixels are numbered from 1 down the first column, then down the second: the pixel in column `x`
/// and row `y` of a grid with `H` rows is `x * H + y + 1`. Runs cross column ends, increase, and are
/// canonical: runs that touch are one run. The text form is `start length start length ...`; the
/// empty text is the empty mask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Rle(Vec<(u64, u64)>);

/// Why run lengths were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RleError {
    /// A token is not a number that fits.
    #[error("`{0}` is not a pixel number")]
    NotANumber(String),
    /// The last start has no length.
    #[error("odd count of numbers: the last start has no length")]
    OddCount,
    /// Pixels are numbered from 1.
    #[error("a run starts at 0, but pixels are numbered from 1")]
    ZeroStart,
    /// A run without a pixel.
    #[error("the run at {0} has no length")]
    ZeroLength(u64),
    /// A run starts within or before the one ahead of it.
    #[error(
        "the run at {start} does not lie after pixel {previous}, where the run ahead of it ends"
    )]
    NotIncreasing {
        /// First pixel of the run.
        start: u64,
        /// Last pixel of the run ahead of it.
        previous: u64,
    },
    /// A run leaves the grid.
    #[error("the run at {start} ends at pixel {end} of a grid with {pixels}")]
    OutOfRange {
        /// First pixel of the run.
        start: u64,
        /// Last pixel of the run.
        end: u64,
        /// Pixels of the grid.
        pixels: u64,
    },
}

impl Rle {
    /// Checks runs and joins those that touch.
    ///
    /// # Errors
    /// Any [`RleError`] but those of text and grid.
    pub fn new(runs: impl IntoIterator<Item = (u64, u64)>) -> Result<Self, RleError> {
        let mut rle = Self::default();
        for (start, length) in runs {
            rle.push(start, length)?;
        }
        Ok(rle)
    }

    /// Joins 0-based, strictly increasing column-major pixel indices into runs.
    pub(super) fn from_indices(indices: impl IntoIterator<Item = u64>) -> Self {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for index in indices {
            match runs.last_mut() {
                Some((start, length)) if *start + *length == index + 1 => *length += 1,
                _ => runs.push((index + 1, 1)),
            }
        }
        Self(runs)
    }

    /// The runs as `(start, length)`, increasing.
    pub fn runs(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Whether no pixel is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of set pixels.
    pub fn area(&self) -> u64 {
        self.0.iter().map(|&(_, length)| length).sum()
    }

    /// The set pixels as `(x, y)` of a grid with `height` rows, column after column.
    ///
    /// # Panics
    /// If `height` is zero, or a pixel's column does not fit `u32`; [`Rle::to_mask`] checks instead.
    pub fn pixels(&self, height: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let rows = u64::from(height);
        self.0
            .iter()
            .flat_map(|&(start, length)| start - 1..start - 1 + length)
            .map(move |index| {
                let column = u32::try_from(index / rows).expect("column fits u32");
                (column, (index % rows) as u32)
            })
    }

    /// Draws the runs onto an empty grid.
    ///
    /// # Errors
    /// [`RleError::OutOfRange`] if a run leaves the grid.
    pub fn to_mask(&self, width: u32, height: u32) -> Result<Mask, RleError> {
        let pixels = u64::from(width) * u64::from(height);
        let mut mask = Mask::new(width, height);
        // Runs increase, so the last one ends last.
        if let Some(&(start, length)) = self.0.last() {
            let end = start + length - 1;
            if end > pixels {
                return Err(RleError::OutOfRange { start, end, pixels });
            }
            for (x, y) in self.pixels(height) {
                mask.set(x, y, true);
            }
        }
        Ok(mask)
    }

    fn push(&mut self, start: u64, length: u64) -> Result<(), RleError> {
        if start == 0 {
            return Err(RleError::ZeroStart);
        }
        if length == 0 {
            return Err(RleError::ZeroLength(start));
        }
        if start.checked_add(length).is_none() {
            return Err(RleError::NotANumber(format!("{start} + {length}")));
        }
        match self.0.last_mut() {
            Some((last, run)) if start < *last + *run => Err(RleError::NotIncreasing {
                start,
                previous: *last + *run - 1,
            }),
            Some((last, run)) if start == *last + *run => {
                *run += length;
                Ok(())
            }
            _ => {
                self.0.push((start, length));
                Ok(())
            }
        }
    }
}

impl fmt::Display for Rle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (start, length)) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{start} {length}")?;
        }
        Ok(())
    }
}

impl FromStr for Rle {
    type Err = RleError;

    fn from_str(text: &str) -> Result<Self, RleError> {
        let number = |token: &str| {
            token
                .parse::<u64>()
                .map_err(|_| RleError::NotANumber(token.to_owned()))
        };
        let mut rle = Self::default();
        let mut tokens = text.split_ascii_whitespace();
        while let Some(start) = tokens.next() {
            let start = number(start)?;
            let length = number(tokens.next().ok_or(RleError::OddCount)?)?;
            rle.push(start, length)?;
        }
        Ok(rle)
    }
}

impl Serialize for Rle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `#` is set; rows from top to bottom.
    fn mask(rows: &[&str]) -> Mask {
        let mut mask = Mask::new(rows[0].len() as u32, rows.len() as u32);
        for (y, row) in rows.iter().enumerate() {
            for (x, c) in row.bytes().enumerate() {
                mask.set(x as u32, y as u32, c == b'#');
            }
        }
        mask
    }

    #[test]
    fn writes_and_reads_the_challenge_vectors() {
        let vectors: [([&str; 4], &str); 7] = [
            (["....", "....", "....", "...."], ""),
            (["#...", "....", "....", "...."], "1 1"),
            (["....", "....", "....", "#..."], "4 1"),
            ([".#..", "....", "....", "...."], "5 1"),
            (["####", "####", "####", "####"], "1 16"),
            (["##..", "#...", "#...", "#..."], "1 5"),
            (["#..#", "....", ".##.", "...."], "1 1 7 1 11 1 13 1"),
        ];
        for (rows, text) in vectors {
            let mask = mask(&rows);
            assert_eq!(mask.to_rle().to_string(), text);
            let parsed: Rle = text.parse().expect(text);
            assert_eq!(parsed.to_mask(4, 4), Ok(mask), "{text}");
        }
    }

    #[test]
    fn counts_down_the_columns_of_a_grid_that_is_not_square() {
        // Three rows: column 1 holds pixels 4 to 6.
        assert_eq!(
            mask(&[".....", ".#...", ".#.#."]).to_rle().to_string(),
            "5 2 12 1"
        );
    }

    #[test]
    fn joins_runs_that_touch() {
        let rle: Rle = " 3 2  5 1 9 1 ".parse().expect("touching runs are fine");
        assert_eq!(rle.to_string(), "3 3 9 1");
        assert_eq!(rle.area(), 4);
    }

    #[test]
    fn names_what_is_wrong() {
        let refused = |text: &str| text.parse::<Rle>().expect_err(text);
        assert_eq!(refused("1"), RleError::OddCount);
        assert_eq!(refused("1 2 9"), RleError::OddCount);
        assert_eq!(refused("0 1"), RleError::ZeroStart);
        assert_eq!(refused("7 0"), RleError::ZeroLength(7));
        assert_eq!(refused("a 1"), RleError::NotANumber("a".into()));
        assert_eq!(refused("-1 1"), RleError::NotANumber("-1".into()));
        assert_eq!(refused("1.5 1"), RleError::NotANumber("1.5".into()));
        assert_eq!(
            refused("5 3 7 1"),
            RleError::NotIncreasing {
                start: 7,
                previous: 7
            }
        );
        assert_eq!(
            refused("5 3 1 1"),
            RleError::NotIncreasing {
                start: 1,
                previous: 7
            }
        );
        assert!(matches!(
            refused("2 18446744073709551615"),
            RleError::NotANumber(_)
        ));
    }

    #[test]
    fn a_run_may_end_at_the_last_pixel_but_not_after_it() {
        let fits: Rle = "15 2".parse().expect("good runs");
        assert_eq!(fits.to_mask(4, 4).expect("fits").area(), 2);
        let leaves: Rle = "15 3".parse().expect("good runs");
        let error = RleError::OutOfRange {
            start: 15,
            end: 17,
            pixels: 16,
        };
        assert_eq!(leaves.to_mask(4, 4), Err(error.clone()));
        assert_eq!(
            leaves.to_mask(0, 4),
            Err(RleError::OutOfRange {
                start: 15,
                end: 17,
                pixels: 0
            })
        );
    }

    #[test]
    fn travels_as_a_string() {
        let rle: Rle = "1 5 9 1".parse().expect("good runs");
        let json = serde_json::to_string(&rle).expect("serialises");
        assert_eq!(json, "\"1 5 9 1\"");
        assert_eq!(serde_json::from_str::<Rle>(&json).expect("parses"), rle);
        assert!(serde_json::from_str::<Rle>("\"9 1 1 5\"").is_err());
    }

    proptest! {
        #[test]
        fn any_mask_survives_the_round_trip(
            (width, height, pixels) in (1u32..20, 1u32..20).prop_flat_map(|(w, h)| {
                (Just(w), Just(h), prop::collection::vec(any::<bool>(), (w * h) as usize))
            })
        ) {
            let mut mask = Mask::new(width, height);
            for (i, &set) in pixels.iter().enumerate() {
                mask.set(i as u32 % width, i as u32 / width, set);
            }
            let rle = mask.to_rle();
            prop_assert_eq!(rle.area(), mask.area());
            // Canonical: between two runs lies at least one pixel.
            prop_assert!(rle.runs().windows(2).all(|w| w[0].0 + w[0].1 < w[1].0));
            let parsed: Rle = rle.to_string().parse().expect("reads what it wrote");
            prop_assert_eq!(&parsed, &rle);
            prop_assert_eq!(parsed.to_mask(width, height), Ok(mask));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9 a-]{0,30}") {
            let _ = text.parse::<Rle>();
        }
    }
}
