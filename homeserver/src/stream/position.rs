//! The vector of lane positions: how far a reader has read.

use std::{fmt, str::FromStr};

/// How many lanes a token may name; far above any number of shards, and a bound on what a stranger can make us read.
const MAX_LANES: usize = 1024;

/// How far each lane was read; a lane that is not named was not read at all. As text, `l1.57_l3.9` is lane 1 up to
/// 57 and lane 3 up to 9, and `l` alone is the very beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Positions {
    /// Sorted by lane, each lane once.
    lanes: Vec<(i64, i64)>,
}

impl Positions {
    /// Whether what `lane` committed at `seq` has been read.
    pub fn covers(&self, lane: i64, seq: i64) -> bool {
        seq <= self.seq(lane)
    }

    /// Whether everything that `other` covers is covered here too.
    pub fn includes(&self, other: &Self) -> bool {
        other.lanes.iter().all(|(lane, seq)| self.covers(*lane, *seq))
    }

    /// How far `lane` was read; 0 when not at all.
    pub fn seq(&self, lane: i64) -> i64 {
        match self.lanes.binary_search_by_key(&lane, |entry| entry.0) {
            Ok(index) => self.lanes[index].1,
            Err(_) => 0,
        }
    }

    /// Moves `lane` up to `seq`; never back.
    pub fn raise(&mut self, lane: i64, seq: i64) {
        match self.lanes.binary_search_by_key(&lane, |entry| entry.0) {
            Ok(index) => self.lanes[index].1 = self.lanes[index].1.max(seq),
            Err(index) => self.lanes.insert(index, (lane, seq)),
        }
    }

    /// Each lane with its position, by lane.
    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.lanes.iter().copied()
    }

    /// The number of positions between `since` and here.
    pub(super) fn distance_from(&self, since: &Self) -> i64 {
        self.lanes.iter().map(|(lane, seq)| seq.saturating_sub(since.seq(*lane)).max(0)).sum()
    }

    /// The position of lane n at place n, for statements that take the vector as a JSON array.
    pub fn by_lane_number(&self) -> Vec<i64> {
        let length = self.lanes.last().map_or(0, |(lane, _)| usize::try_from(*lane).map_or(0, |lane| lane + 1));
        let mut list = vec![0; length];
        for (lane, seq) in &self.lanes {
            if let Some(place) = usize::try_from(*lane).ok().and_then(|lane| list.get_mut(lane)) {
                *place = *seq;
            }
        }
        list
    }
}

impl FromIterator<(i64, i64)> for Positions {
    fn from_iter<I: IntoIterator<Item = (i64, i64)>>(lanes: I) -> Self {
        let mut positions = Self::default();
        lanes.into_iter().for_each(|(lane, seq)| positions.raise(lane, seq));
        positions
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lanes.is_empty() {
            return formatter.write_str("l");
        }
        for (index, (lane, seq)) in self.lanes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "_" };
            write!(formatter, "{separator}l{lane}.{seq}")?;
        }
        Ok(())
    }
}

/// The text is no position of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sync token of this server")]
pub struct ParsePositionsError;

impl FromStr for Positions {
    type Err = ParsePositionsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "l" {
            return Ok(Self::default());
        }
        let mut positions = Self::default();
        for (count, part) in text.split('_').enumerate() {
            let (lane, seq) =
                part.strip_prefix('l').and_then(|part| part.split_once('.')).ok_or(ParsePositionsError)?;
            let lane: u32 = lane.parse().map_err(|_| ParsePositionsError)?;
            let seq: u64 = seq.parse().map_err(|_| ParsePositionsError)?;
            if count >= MAX_LANES || lane as usize > MAX_LANES {
                return Err(ParsePositionsError);
            }
            positions.raise(lane.into(), i64::try_from(seq).map_err(|_| ParsePositionsError)?);
        }
        Ok(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["l", "l1.57", "l1.57_l3.9"] {
            assert_eq!(text.parse::<Positions>().map(|positions| positions.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn strangers_texts_are_refused() {
        for text in ["", "s72594_4483_1934", "l1", "l1.-4", "l99999999999.1", "l1.99999999999999999999", "_", "l2000.1"]
        {
            assert_eq!(text.parse::<Positions>(), Err(ParsePositionsError), "{text}");
        }
    }

    #[test]
    fn a_lane_that_is_not_named_was_not_read() {
        let positions: Positions = [(1, 5)].into_iter().collect();
        assert!(positions.covers(1, 5) && !positions.covers(1, 6) && !positions.covers(2, 1));
        assert!(positions.includes(&Positions::default()));
        assert!(!Positions::default().includes(&positions));
    }

    #[test]
    fn places_are_lane_numbers() {
        let positions: Positions = [(3, 9), (1, 5)].into_iter().collect();
        assert_eq!(positions.by_lane_number(), [0, 5, 0, 9]);
    }
}
