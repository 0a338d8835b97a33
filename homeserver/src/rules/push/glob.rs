//! Decides whether a pattern of a push rule matches a text. Linear in the text, whatever the pattern.
//!
//! `*` stands for any number of characters, `?` for one. Case does not count.

/// Whether the pattern matches the whole text.
pub(super) fn matches_whole(pattern: &str, text: &str) -> bool {
    if !has_wildcard(pattern) {
        return equal(pattern, text);
    }
    run(pattern, &text.to_lowercase(), Anchor::Whole)
}

/// Whether the pattern matches a part of the text, given in lower case, that begins and ends at word boundaries.
pub(super) fn contains_words(pattern: &str, text: &str) -> bool {
    if has_wildcard(pattern) { run(pattern, text, Anchor::Words) } else { contains_literal_words(pattern, text) }
}

/// As [`contains_words`], with `*` and `?` standing for themselves.
pub(super) fn contains_literal_words(words: &str, text: &str) -> bool {
    if words.is_empty() {
        return false;
    }
    let words = words.to_lowercase();
    let mut from = 0;
    while let Some(found) = text.get(from..).and_then(|rest| rest.find(&words)) {
        let start = from + found;
        let (before, rest) = text.split_at(start);
        let (found, after) = rest.split_at(words.len());
        if boundary(before.chars().next_back(), found.chars().next())
            && boundary(found.chars().next_back(), after.chars().next())
        {
            return true;
        }
        from = start + found.chars().next().map_or(1, char::len_utf8);
    }
    false
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

fn equal(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && a.to_lowercase() == b.to_lowercase())
}

/// Whether a word may begin or end between two characters: unless both belong to a word.
fn boundary(before: Option<char>, after: Option<char>) -> bool {
    let is_word = |char: Option<char>| char.is_some_and(|char| char.is_ascii_alphanumeric() || char == '_');
    !(is_word(before) && is_word(after))
}

/// Where a match may begin and end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Whole,
    Words,
}

/// Follows all ways through the pattern at once, one step per character of the text, so that no pattern is slow.
fn run(pattern: &str, text: &str, anchor: Anchor) -> bool {
    let pattern = Compiled::new(pattern);
    // Bit i: the first i tokens match what ends here.
    let mut reached = vec![0_u64; pattern.words()];
    let mut before = None;
    let mut rest = text.chars();
    loop {
        let here = rest.clone().next();
        let (begins, ends) = match anchor {
            Anchor::Whole => (before.is_none(), here.is_none()),
            Anchor::Words => (boundary(before, here), boundary(before, here)),
        };
        if begins && let Some(first) = reached.first_mut() {
            *first |= 1;
        }
        pattern.skip_stars(&mut reached);
        if ends && pattern.is_complete(&reached) {
            return true;
        }
        let Some(here) = rest.next() else { return false };
        pattern.step(&mut reached, here);
        before = Some(here);
    }
}

/// A pattern as bit sets over its tokens, 64 to a word.
struct Compiled {
    tokens: usize,
    /// Which tokens are `*`.
    stars: Vec<u64>,
    /// Which tokens are `?`, and hence take any character.
    any_one: Vec<u64>,
    /// For each character of the pattern, in order, which tokens take it, `?` included.
    literals: Vec<(char, Vec<u64>)>,
}

impl Compiled {
    fn new(pattern: &str) -> Self {
        let mut tokens: Vec<char> = pattern.to_lowercase().chars().collect();
        tokens.dedup_by(|next, last| *next == '*' && *last == '*');
        // One bit more than tokens, for having matched them all.
        let words = tokens.len() / 64 + 1;
        let positions = |wanted: &dyn Fn(char) -> bool| {
            let mut bits = vec![0_u64; words];
            for (index, _) in tokens.iter().enumerate().filter(|(_, token)| wanted(**token)) {
                set(&mut bits, index);
            }
            bits
        };
        let mut distinct: Vec<char> = tokens.iter().copied().filter(|token| !matches!(token, '*' | '?')).collect();
        distinct.sort_unstable();
        distinct.dedup();
        let literals =
            distinct.into_iter().map(|char| (char, positions(&|token| token == char || token == '?'))).collect();
        Self {
            stars: positions(&|token| token == '*'),
            any_one: positions(&|token| token == '?'),
            literals,
            tokens: tokens.len(),
        }
    }

    fn words(&self) -> usize {
        self.stars.len()
    }

    fn is_complete(&self, reached: &[u64]) -> bool {
        reached.get(self.tokens / 64).is_some_and(|word| (word >> (self.tokens % 64)) & 1 == 1)
    }

    /// A `*` may match nothing. No two of them follow each other.
    fn skip_stars(&self, reached: &mut [u64]) {
        let mut carry = 0;
        for (word, stars) in reached.iter_mut().zip(&self.stars) {
            let through = *word & stars;
            *word |= (through << 1) | carry;
            carry = through >> 63;
        }
    }

    /// Goes on by one character.
    fn step(&self, reached: &mut [u64], char: char) {
        let takes = match self.literals.binary_search_by_key(&char, |(char, _)| *char) {
            Ok(index) => self.literals.get(index).map_or(&self.any_one, |(_, takes)| takes),
            Err(_) => &self.any_one,
        };
        let mut carry = 0;
        for ((word, takes), stars) in reached.iter_mut().zip(takes).zip(&self.stars) {
            let through = *word & takes;
            *word = (through << 1) | carry | (*word & stars);
            carry = through >> 63;
        }
    }
}

fn set(bits: &mut [u64], index: usize) {
    if let Some(word) = bits.get_mut(index / 64) {
        *word |= 1 << (index % 64);
    }
}
