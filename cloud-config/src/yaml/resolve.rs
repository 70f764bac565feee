//! Which plain scalar means what in YAML 1.1, as PyYAML's resolver has it.
//!
//! Dates stay strings: nothing in a cloud-config wants another type for them.

use super::Value;

/// The value of a plain scalar without a tag.
pub fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => integer(text).map(Value::Int).or_else(|| float(text).map(Value::Float)).unwrap_or_else(|| Value::Str(text.to_owned())),
    }
}

/// `0644`, `0x1f`, `0b1`, `1_000`, `-5` and the sexagesimal `190:20:30`.
pub fn integer(text: &str) -> Option<i64> {
    let (negative, body) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let magnitude = if body == "0" {
        0
    } else if let Some(digits) = body.strip_prefix("0b") {
        radix(digits, 2)?
    } else if let Some(digits) = body.strip_prefix("0x") {
        radix(digits, 16)?
    } else if let Some(digits) = body.strip_prefix('0') {
        radix(digits, 8)?
    } else if !body.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    } else if body.contains(':') {
        sexagesimal(body)?
    } else {
        radix(body, 10)?
    };
    if negative { magnitude.checked_neg() } else { Some(magnitude) }
}

fn radix(digits: &str, radix: u32) -> Option<i64> {
    if digits.is_empty() || !digits.chars().all(|c| c == '_' || c.is_digit(radix)) {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    i64::from_str_radix(&digits, radix).ok()
}

fn sexagesimal(body: &str) -> Option<i64> {
    let mut parts = body.split(':');
    let mut total = radix(parts.next()?, 10)?;
    for part in parts {
        let valid = matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
        let value: i64 = if valid { part.parse().ok()? } else { return None };
        total = total.checked_mul(60)?.checked_add(value)?;
    }
    Some(total)
}

/// A dot is needed and an exponent must be signed: `1e3` is a string in YAML 1.1.
pub fn float(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    match body {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return (body == text).then_some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (body, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let digits = |s: &str| s.chars().all(|c| c == '_' || c.is_ascii_digit());
    let whole_ok =
        if whole.is_empty() { body == text && fraction.starts_with(|c: char| c.is_ascii_digit()) } else { !whole.starts_with('_') };
    if !whole_ok || !digits(whole) || !digits(fraction) {
        return None;
    }
    if let Some(exponent) = exponent {
        let power = exponent.strip_prefix(['-', '+'])?;
        if power.is_empty() || !power.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
    }
    let clean: String = body.chars().filter(|c| *c != '_').collect();
    clean.parse::<f64>().ok().map(|f| sign * f)
}

#[cfg(test)]
mod tests {
    use super::*;

    // As PyYAML 6.0.3's safe_load has it, but for the last one, where Python's numbers have no limit.
    #[test]
    fn plain_scalars_mean_what_pyyaml_says() {
        for (text, value) in [
            ("0644", Value::Int(420)),
            ("644", Value::Int(644)),
            ("0o644", Value::Str("0o644".into())),
            ("09", Value::Str("09".into())),
            ("0", Value::Int(0)),
            ("-0", Value::Int(0)),
            ("0x1F", Value::Int(31)),
            ("0b101", Value::Int(5)),
            ("1_000", Value::Int(1000)),
            ("+12", Value::Int(12)),
            ("80:22", Value::Int(4822)),
            ("190:20:30", Value::Int(685_230)),
            ("8080:80", Value::Str("8080:80".into())),
            ("yes", Value::Bool(true)),
            ("Off", Value::Bool(false)),
            ("y", Value::Str("y".into())),
            ("yEs", Value::Str("yEs".into())),
            ("~", Value::Null),
            ("nULL", Value::Str("nULL".into())),
            ("1.5", Value::Float(1.5)),
            ("1.", Value::Float(1.0)),
            (".5", Value::Float(0.5)),
            ("-.5", Value::Str("-.5".into())),
            ("1e3", Value::Str("1e3".into())),
            ("1.0e3", Value::Str("1.0e3".into())),
            ("1.0e+3", Value::Float(1000.0)),
            ("-.inf", Value::Float(f64::NEG_INFINITY)),
            ("1.2.3", Value::Str("1.2.3".into())),
            ("99999999999999999999", Value::Str("99999999999999999999".into())),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
    }
}
