//! How values get into fields: one function per shape of value.

use std::time::Duration;

use crate::exec::{AllowDenyList, ExecCommand};
use crate::name::UnitName;
use crate::resources::Limit;
use crate::value::{self, ValueError, expected};
use crate::words::{Escapes, split};

use super::{Effect, Input, Outcome};

/// The value with specifiers replaced.
pub(super) fn expand(input: &Input<'_>) -> Result<String, ValueError> {
    Ok(input.context.expand(input.value)?)
}

pub(super) fn boolean(slot: &mut bool, input: &Input<'_>) -> Outcome {
    *slot = value::parse_bool(input.value)?;
    Ok(Effect::from(*slot))
}

pub(super) fn text(slot: &mut String, input: &Input<'_>) -> Outcome {
    *slot = expand(input)?;
    Ok(Effect::from(!slot.is_empty()))
}

pub(super) fn optional_text(slot: &mut Option<String>, input: &Input<'_>) -> Outcome {
    *slot = Some(expand(input)?).filter(|text| !text.is_empty());
    Ok(Effect::from(slot.is_some()))
}

/// An absolute path, trailing and doubled slashes dropped.
pub(super) fn clean_path(path: &str) -> Result<String, ValueError> {
    if !path.starts_with('/') {
        return Err(expected(path, "an absolute path"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(expected(path, "a path without '..'"));
    }
    Ok(format!("/{}", parts.join("/")))
}

pub(super) fn path(slot: &mut String, input: &Input<'_>) -> Outcome {
    *slot = clean_path(&expand(input)?)?;
    Ok(Effect::Active)
}

pub(super) fn optional_path(slot: &mut Option<String>, input: &Input<'_>) -> Outcome {
    let text = expand(input)?;
    *slot = if text.is_empty() { None } else { Some(clean_path(&text)?) };
    Ok(Effect::from(slot.is_some()))
}

/// A list of words; an empty value resets it.
pub(super) fn list(slot: &mut Vec<String>, input: &Input<'_>) -> Outcome {
    list_with(slot, input, Escapes::C, |word| Ok(word.to_owned()))
}

/// A list, each word through `parse`; a bad word is noted and passed over.
pub(super) fn list_with<T>(
    slot: &mut Vec<T>,
    input: &Input<'_>,
    escapes: Escapes,
    parse: impl Fn(&str) -> Result<T, ValueError>,
) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    for word in split(input.value, escapes)? {
        match input.context.expand(&word).map_err(ValueError::from).and_then(|word| parse(&word)) {
            Ok(item) => slot.push(item),
            Err(error) => input.note(format!("{error}, so this word is ignored")),
        }
    }
    Ok(Effect::from(!slot.is_empty()))
}

/// One of several fixed words.
pub(super) fn choice<T: Copy + Default + PartialEq>(slot: &mut T, input: &Input<'_>, choices: &[(&str, T)], what: &'static str) -> Outcome {
    if input.value.is_empty() {
        *slot = T::default();
        return Ok(Effect::None);
    }
    let found = choices.iter().find(|(name, _)| *name == input.value);
    *slot = found.map(|(_, choice)| *choice).ok_or_else(|| expected(input.value, what))?;
    Ok(Effect::from(*slot != T::default()))
}

/// A boolean, or one of several fixed words; `[no, yes]` come first in the list.
pub(super) fn boolean_or_choice<T: Copy + Default + PartialEq>(
    slot: &mut T,
    input: &Input<'_>,
    no_yes: [T; 2],
    choices: &[(&str, T)],
    what: &'static str,
) -> Outcome {
    let [no, yes] = no_yes;
    if let Ok(on) = value::parse_bool(input.value) {
        *slot = if on { yes } else { no };
        return Ok(Effect::from(*slot != T::default()));
    }
    choice(slot, input, choices, what)
}

pub(super) fn span(slot: &mut Duration, input: &Input<'_>) -> Outcome {
    *slot = value::parse_finite_span(input.value)?;
    Ok(Effect::Active)
}

/// A span; `infinity` and an empty value are `None`.
pub(super) fn optional_span(slot: &mut Option<Duration>, input: &Input<'_>) -> Outcome {
    *slot = if input.value.is_empty() { None } else { value::parse_time_span(input.value)? };
    Ok(Effect::from(slot.is_some()))
}

/// A timeout in which zero is infinity.
pub(super) fn timeout(slot: &mut Option<Duration>, input: &Input<'_>) -> Outcome {
    *slot = value::parse_timeout(input.value)?;
    Ok(Effect::Active)
}

pub(super) fn mode(slot: &mut u32, input: &Input<'_>) -> Outcome {
    *slot = value::parse_mode(input.value)?;
    Ok(Effect::Active)
}

pub(super) fn signal(slot: &mut i32, input: &Input<'_>) -> Outcome {
    *slot = value::parse_signal(input.value)?;
    Ok(Effect::Active)
}

/// A number within bounds.
pub(super) fn number<T>(input: &Input<'_>, bounds: std::ops::RangeInclusive<T>, what: &'static str) -> Result<T, ValueError>
where
    T: std::str::FromStr + PartialOrd,
{
    input.value.parse().ok().filter(|number| bounds.contains(number)).ok_or_else(|| expected(input.value, what))
}

pub(super) fn optional_number<T>(
    slot: &mut Option<T>,
    input: &Input<'_>,
    bounds: std::ops::RangeInclusive<T>,
    what: &'static str,
) -> Outcome
where
    T: std::str::FromStr + PartialOrd,
{
    *slot = if input.value.is_empty() { None } else { Some(number(input, bounds, what)?) };
    Ok(Effect::from(slot.is_some()))
}

pub(super) fn unsigned(slot: &mut u32, input: &Input<'_>) -> Outcome {
    *slot = number(input, 0..=u32::MAX, "a number")?;
    Ok(Effect::Active)
}

pub(super) fn optional_size(slot: &mut Option<u64>, input: &Input<'_>) -> Outcome {
    *slot = if input.value.is_empty() { None } else { Some(value::parse_size(input.value, 1024)?) };
    Ok(Effect::from(slot.is_some()))
}

/// Bytes, a percentage of what there is, or `infinity`.
pub(super) fn limit(slot: &mut Option<Limit>, input: &Input<'_>) -> Outcome {
    *slot = match input.value {
        "" => None,
        "infinity" => Some(Limit::Infinity),
        text if text.ends_with('%') => Some(Limit::PerMyriad(value::parse_per_myriad(text)?)),
        text => Some(Limit::Absolute(value::parse_size(text, 1024)?)),
    };
    Ok(Effect::from(slot.is_some()))
}

/// Commands are added; an empty value resets them.
pub(super) fn commands(slot: &mut Vec<ExecCommand>, input: &Input<'_>) -> Outcome {
    if input.value.is_empty() {
        slot.clear();
        return Ok(Effect::None);
    }
    let (commands, unknown_escape) = crate::command::parse_commands(input.value, &input.context)?;
    if unknown_escape {
        input.note("an escape that means nothing is kept as it is");
    }
    slot.extend(commands);
    Ok(Effect::Active)
}

/// The name of one unit of certain kinds.
pub(super) fn optional_unit(slot: &mut Option<UnitName>, input: &Input<'_>) -> Outcome {
    let text = expand(input)?;
    *slot = if text.is_empty() { None } else { Some(UnitName::parse(&text)?) };
    Ok(Effect::from(slot.is_some()))
}

/// Allow and deny lists of names (`~` denies); an empty value resets.
pub(super) fn allow_deny(slot: &mut Option<AllowDenyList>, input: &Input<'_>) -> Outcome {
    let text = expand(input)?;
    if text.is_empty() {
        *slot = None;
        return Ok(Effect::None);
    }
    if text == "none" {
        *slot = Some(AllowDenyList { allow: true, names: Vec::new() });
        return Ok(Effect::Active);
    }
    let (deny, text) = text.strip_prefix('~').map_or((false, text.as_str()), |rest| (true, rest));
    let list = slot.get_or_insert(AllowDenyList { allow: !deny, names: Vec::new() });
    for word in split(text, Escapes::Keep)? {
        if deny == list.allow {
            // The other sense than the first line: takes names out again.
            list.names.retain(|name| *name != word);
        } else if !list.names.contains(&word) {
            list.names.push(word);
        }
    }
    Ok(Effect::Active)
}
