//! Kubernetes quantities (`10Gi`, `500M`, `1e9`, `1.5Ti`) as whole numbers, rounded up.
//! Grammar: apimachinery `pkg/api/resource/quantity.go`.

/// The number, rounded up; `None` when the text is no quantity or the number does not fit.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let mantissa = format!("{whole}{fraction}").parse::<u128>().ok()?;
    let down = i32::try_from(fraction.len()).ok()?;
    let (factor, tens) = unit(suffix)?;
    let scaled = mantissa.checked_mul(factor)?;
    let tens = tens - down;
    let power = 10_u128.checked_pow(tens.unsigned_abs())?;
    let value = if tens < 0 { scaled.div_ceil(power) } else { scaled.checked_mul(power)? };
    u64::try_from(value).ok()
}

/// A factor and a power of ten.
fn unit(suffix: &str) -> Option<(u128, i32)> {
    let binary = |power: u32| (1_u128 << (10 * power), 0);
    Some(match suffix {
        "" => (1, 0),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok().filter(|e| e.abs() < 64)?),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn quantities() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("10Gi", Some(10 << 30)),
            ("1.5Ti", Some(3 << 39)),
            ("500M", Some(500_000_000)),
            ("1e9", Some(1_000_000_000)),
            ("1E3", Some(1000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("1k", Some(1000)),
            ("1m", Some(1)),
            ("1500m", Some(2)),
            ("+5", Some(5)),
            (".5Gi", Some(1 << 29)),
            ("5.", Some(5)),
            ("15Ei", Some(15 << 60)),
            ("16Ei", None),
            ("", None),
            (".", None),
            ("Gi", None),
            ("-1", None),
            ("1.2.3", None),
            ("1 Gi", None),
            ("1gi", None),
            ("1e99", None),
            ("99999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }
}
