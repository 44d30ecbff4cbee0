//! What a name with other letters is in ASCII: advice for whoever wrote it.

/// The name in punycode (RFC 3492, with the parameters of RFC 5891), label by label. It is not normalised: where a person's
/// letters are composed of several characters, a registry may have them otherwise.
pub(super) fn to_ascii(name: &str) -> String {
    let label = |label: &str| {
        let label = label.to_lowercase();
        match label.is_ascii() {
            true => label,
            false => encode(&label).map_or(label, |encoded| format!("xn--{encoded}")),
        }
    };
    name.split('.').map(label).collect::<Vec<_>>().join(".")
}

const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;

fn encode(label: &str) -> Option<String> {
    let mut out: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(out.len()).ok()?;
    if basic > 0 {
        out.push('-');
    }
    let (mut next, mut delta, mut bias, mut done) = (128_u32, 0_u32, 72_u32, basic);
    let all = u32::try_from(label.chars().count()).ok()?;
    while done < all {
        let smallest = label.chars().map(u32::from).filter(|c| *c >= next).min()?;
        delta = delta.checked_add((smallest - next).checked_mul(done + 1)?)?;
        next = smallest;
        for c in label.chars().map(u32::from) {
            if c < next {
                delta = delta.checked_add(1)?;
            }
            if c == next {
                let mut rest = delta;
                for k in (BASE..).step_by(36) {
                    let threshold = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
                    if rest < threshold {
                        break;
                    }
                    out.push(digit(threshold + (rest - threshold) % (BASE - threshold))?);
                    rest = (rest - threshold) / (BASE - threshold);
                }
                out.push(digit(rest)?);
                bias = adapt(delta, done + 1, done == basic);
                delta = 0;
                done += 1;
            }
        }
        delta = delta.checked_add(1)?;
        next += 1;
    }
    Some(out)
}

fn adapt(delta: u32, points: u32, is_first: bool) -> u32 {
    let mut delta = if is_first { delta / 700 } else { delta / 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > ((BASE - T_MIN) * T_MAX) / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + 38)
}

fn digit(value: u32) -> Option<char> {
    match value {
        0..26 => char::from_u32(u32::from(b'a') + value),
        26..36 => char::from_u32(u32::from(b'0') + value - 26),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that are known, and those of RFC 3492 §7.1.
    #[test]
    fn names_are_as_registries_have_them() {
        for (name, ascii) in [
            ("münchen.example", "xn--mnchen-3ya.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("ليهمابتكلموشعربي؟", "xn--egbpdaj6bu4bxfgehfvwxn"),
            ("他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye"),
            ("plain.example", "plain.example"),
        ] {
            assert_eq!(to_ascii(name), ascii);
        }
    }
}
