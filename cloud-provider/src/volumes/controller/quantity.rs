//! Kubernetes' quantities, as far as sizes go.

/// Bytes of a quantity such as `10Gi`, `500M`, `1e9` or `1.5Ti`, rounded up.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let (times, over) = unit(suffix)?;
    let value = digits.checked_mul(times)?.div_ceil(scale.checked_mul(over)?);
    u64::try_from(value).ok()
}

/// What a suffix multiplies and divides by.
fn unit(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1u128 << (10 * power), 1));
    let decimal = |power: u32| Some((10u128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        other => {
            let exponent = other.strip_prefix(['e', 'E'])?;
            match exponent.strip_prefix('-') {
                Some(negative) => Some((1, 10u128.checked_pow(negative.parse().ok()?)?)),
                None => Some((10u128.checked_pow(exponent.trim_start_matches('+').parse().ok()?)?, 1)),
            }
        }
    }
}

/// Whole GiB that hold so many bytes; Cinder knows no smaller unit.
pub(super) fn gib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("1Gi", Some(1 << 30)),
            ("1.5Ti", Some(3 << 39)),
            ("500M", Some(500_000_000)),
            ("1e3", Some(1000)),
            ("12E6", Some(12_000_000)),
            ("1500m", Some(2)),
            ("123", Some(123)),
            (".5Gi", Some(1 << 29)),
            ("", None),
            ("Gi", None),
            ("1GiB", None),
            ("-1", None),
            ("99999999999Ei", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
        assert_eq!([gib(0), gib(1), gib(1 << 30), gib((1 << 30) + 1)], [1, 1, 1, 2]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[0-9.eEkMGTi+-]{0,40}") {
            let _ = bytes(&text);
        }
    }
}
