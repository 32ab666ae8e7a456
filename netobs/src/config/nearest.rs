//! What somebody probably meant to type.

/// The known word nearest to `typed`, if one is near: at most a third of its letters wrong.
pub(super) fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |word: &&str| strsim::osa_distance(&simplified(typed), &simplified(word));
    let (word, distance) = known
        .iter()
        .map(|word| (*word, distance(word)))
        .min_by_key(|(_, d)| *d)?;
    (distance <= (word.chars().count() / 3).max(1)).then_some(word)
}

/// Flags are written with dashes and file keys with underscores; mixing them up is no distance.
/// Long input is cut, since no known word is near it.
fn simplified(word: &str) -> String {
    word.chars()
        .take(64)
        .map(|c| {
            if c == '-' {
                '_'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect()
}

/// How a message ends that has named an unknown word: the nearest known one, or all of them.
pub(super) fn suggestion(typed: &str, known: &[&str]) -> String {
    match nearest(typed, known) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None if known.is_empty() => "there are none in this build".to_owned(),
        None => format!("known are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        let known = ["listen_address", "telemetry_path", "btf"];
        let table = [
            ("listen_addres", Some("listen_address")),
            ("listen-address", Some("listen_address")),
            ("Telemetry_Path", Some("telemetry_path")),
            ("telemtry_paht", Some("telemetry_path")),
            ("bft", Some("btf")),
            ("port", None),
            ("", None),
        ];
        for (typed, expected) in table {
            assert_eq!(nearest(typed, &known), expected, "{typed}");
        }
        assert_eq!(nearest("x", &[]), None);
        assert_eq!(nearest(&"x".repeat(1_000_000), &known), None);
    }
}
