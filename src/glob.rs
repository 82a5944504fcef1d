//! Patterns for names, as in KEYS, SCAN, PSUBSCRIBE and CONFIG GET.
//!
//! ```text
//! *       any bytes, or none       h*llo      hllo, hello, heeeello
//! ?       any one byte             h?llo      hello, hallo
//! [ab]    one of these             h[ae]llo   hello, hallo
//! [^a]    none of these            h[^e]llo   hallo, hbllo
//! [a-z]   a range                  h[a-c]llo  hallo, hbllo, hcllo
//! \x      x itself                 h\*llo     h*llo
//! ```
//!
//! **One star back.** Everything except a star stands for exactly one byte. So the only choice is how many
//! bytes a star takes. We begin with none. If the match fails later, the *last* star takes one byte more,
//! and we go on behind it. The stars before it need not change: if one of them were longer, the last star
//! would begin later, and it reaches every such place by growing itself. So the work is at most the length
//! of the pattern times that of the text. The obvious recursion tries every length of every star, and does
//! not end in our lifetime for many stars. Predict before you look at the tests: does `*` match the empty
//! string?
//!
//! **How Redis does it**: util.c, `stringmatchlen`. It is that recursion. Since 7.0 a star that has tried
//! all lengths stops the stars before it, which has the same effect as here. A limit on stars protects
//! Redis's stack. We keep what is odd, because clients see it: a bracket that is not closed ends with the
//! pattern; a range may be the wrong way round, and its ends are *signed* bytes; an escaped byte in a
//! bracket keeps its case even where case is ignored.

/// A pattern with more stars than this before its last one matches nothing. Only Redis's stack needs the
/// limit, but the answers must agree.
const MAX_STARS: usize = 1_000;

/// Whether `pattern` matches all of `text`. Both may hold any bytes. Only ASCII letters have a case.
///
/// The empty text is matched only by the empty pattern, not even by `*`. (KEYS and SCAN must find an empty
/// key, so they do not call this if the pattern is `*`.)
pub fn matches(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut rest, mut left) = (pattern, text);
    // What follows the last star, and the text that this star has not taken.
    let mut retry: Option<(&[u8], &[u8])> = None;
    let mut stars = 0;
    loop {
        let Some((&byte, after_byte)) = left.split_first() else {
            return rest.iter().all(|&byte| byte == b'*');
        };
        if rest.first() == Some(&b'*') {
            let run = rest.iter().take_while(|&&byte| byte == b'*').count();
            rest = &rest[run..];
            stars += 1;
            if rest.is_empty() || stars > MAX_STARS {
                return rest.is_empty();
            }
            retry = Some((rest, left));
            continue;
        }
        match (element(rest, byte, ignore_case), &mut retry) {
            (Some(after_element), _) => (rest, left) = (after_element, after_byte),
            (None, Some((after_star, untaken))) => {
                *untaken = &untaken[1..];
                (rest, left) = (after_star, untaken);
            }
            (None, None) => return false,
        }
    }
}

/// If the first element of `pattern` matches `byte`: the rest of the pattern. The element is no star.
fn element(pattern: &[u8], byte: u8, ignore_case: bool) -> Option<&[u8]> {
    let (fits, after) = match pattern {
        [b'?', after @ ..] => (true, after),
        [b'[', after @ ..] => bracket(after, byte, ignore_case),
        [b'\\', escaped, after @ ..] => (same(*escaped, byte, ignore_case), after),
        [literal, after @ ..] => (same(*literal, byte, ignore_case), after),
        [] => return None,
    };
    fits.then_some(after)
}

/// Whether `byte` is in the set at the beginning of `pattern`, behind its `[`; and the rest of the pattern.
/// The order of the arms is Redis's. It decides what `[a-]` and `[\]` mean.
fn bracket(pattern: &[u8], byte: u8, ignore_case: bool) -> (bool, &[u8]) {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [b'\\', escaped, after @ ..] => {
                found |= *escaped == byte;
                after
            }
            [b']', after @ ..] => return (found != negated, after),
            [] => return (found != negated, rest),
            [one_end, b'-', other_end, after @ ..] => {
                found |= in_range(*one_end, *other_end, byte, ignore_case);
                after
            }
            [member, after @ ..] => {
                found |= same(*member, byte, ignore_case);
                after
            }
        }
    }
}

fn same(a: u8, b: u8, ignore_case: bool) -> bool {
    a == b || ignore_case && a.eq_ignore_ascii_case(&b)
}

fn in_range(one_end: u8, other_end: u8, byte: u8, ignore_case: bool) -> bool {
    // C's `char` is signed on x86.
    let fold = |byte: u8| match ignore_case {
        true => byte.to_ascii_lowercase() as i8,
        false => byte as i8,
    };
    // As in Redis the ends are sorted before the case is removed, so `[Z-a]` is empty if case is ignored.
    let low = (one_end as i8).min(other_end as i8) as u8;
    let high = (one_end as i8).max(other_end as i8) as u8;
    (fold(low)..=fold(high)).contains(&fold(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_alone_does_not_match_the_empty_text() {
        assert!(!matches(b"*", b"", false));
        assert!(matches(b"", b"", false));
        assert!(matches(b"a*", b"a", false));
    }

    #[test]
    fn odd_brackets_mean_what_they_mean_to_redis() {
        for (pattern, text, expected) in [
            (&b"[ab"[..], &b"b"[..], true),
            (b"[", b"[", false),
            (b"[^", b"x", true),
            (b"[]", b"]", false),
            (b"[\\]", b"]", true),
            (b"[z-a]", b"m", true),
            // A range up to `]`, which then closes nothing.
            (b"[a-]", b"^", true),
            (b"[a-]x", b"ax", false),
            (b"[a-\xff]", b"\x05", true),
            (b"[a-\xff]", b"b", false),
            (b"a\\", b"a\\", true),
        ] {
            assert_eq!(matches(pattern, text, false), expected, "{pattern:?}");
        }
    }

    #[test]
    fn case_is_ignored_on_demand_but_not_for_what_is_escaped_in_a_bracket() {
        assert!(!matches(b"MAX*", b"maxmemory", false));
        assert!(matches(b"MAX*", b"maxmemory", true));
        assert!(matches(b"[M][A-C]\\X", b"max", true));
        assert!(!matches(b"[\\M]", b"m", true));
        assert!(!matches(b"[Z-a]", b"z", true));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let text = [b'a'; 10_000];
        assert!(!matches(&b"a*".repeat(40), &b"b".repeat(100), false));
        assert!(!matches(&[&b"a*".repeat(40)[..], b"b"].concat(), &text, false));
        assert!(matches(&b"*a".repeat(MAX_STARS), &text, false));
        assert!(!matches(&b"*a".repeat(MAX_STARS + 1), &text, false));
    }

    /// The obvious recursion: it tries every length of every star.
    fn naive(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
        match (pattern, text) {
            ([b'*', b'*', ..], [_, ..]) => naive(&pattern[1..], text, ignore_case),
            ([b'*'], [_, ..]) => true,
            ([b'*', after @ ..], [_, ..]) => {
                (0..text.len()).any(|length| naive(after, &text[length..], ignore_case))
            }
            (_, [byte, left @ ..]) => {
                element(pattern, *byte, ignore_case).is_some_and(|rest| match left {
                    [] => rest.iter().all(|&byte| byte == b'*'),
                    left => naive(rest, left, ignore_case),
                })
            }
            (pattern, []) => pattern.is_empty(),
        }
    }

    #[test]
    fn the_loop_agrees_with_the_naive_recursion() {
        let mut seed: u64 = 1;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        let mut matched = 0;
        for _ in 0..300_000 {
            let mut word = |letters: &[u8], longest: usize| -> Vec<u8> {
                let length = random(longest + 1);
                (0..length).map(|_| letters[random(letters.len())]).collect()
            };
            let pattern = word(b"aab***?[]^-\\A\xff", 9);
            let text = word(b"aaabbA]\\-\xff", 7);
            for ignore_case in [false, true] {
                let expected = naive(&pattern, &text, ignore_case);
                matched += u32::from(expected);
                assert_eq!(
                    matches(&pattern, &text, ignore_case),
                    expected,
                    "{} on {}",
                    pattern.escape_ascii(),
                    text.escape_ascii()
                );
            }
        }
        assert!(matched > 10_000, "only {matched} cases matched");
    }
}
