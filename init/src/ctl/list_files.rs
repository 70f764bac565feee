//! `list-unit-files`.

use unit_files::UnitName;

use super::args::Options;
use super::files::FileView;
use super::table::table;
use super::{Outcome, human};

/// `list-unit-files`.
pub(super) fn unit_files(options: &Options, operands: &[String]) -> Outcome {
    let view = FileView::new(options);
    let names: Vec<UnitName> = view.loader().names().filter(|name| wanted(name, options, operands)).cloned().collect();
    let mut rows: Vec<(String, &'static str, &'static str)> = Vec::new();
    for name in names {
        let state = view.state(&name).unwrap_or("bad");
        if !options.states.is_empty() && !options.states.iter().any(|wanted| wanted == state) {
            continue;
        }
        let preset = match view.installer().preset_enables(&name) {
            _ if matches!(state, "static" | "alias" | "masked" | "masked-runtime") => "-",
            Ok(true) => "enabled",
            Ok(false) => "disabled",
            Err(_) => "-",
        };
        rows.push((name.to_string(), state, preset));
    }
    if options.json {
        let objects: Vec<_> =
            rows.iter().map(|(unit, state, preset)| serde_json::json!({"unit_file": unit, "state": state, "preset": preset})).collect();
        return human::emit_json(&objects);
    }
    let legend = !options.no_legend && !options.quiet;
    let cells: Vec<Vec<String>> = rows.into_iter().map(|(unit, state, preset)| vec![unit, state.to_owned(), preset.to_owned()]).collect();
    plain_output::print(&table(&["UNIT FILE", "STATE", "PRESET"], &cells, legend));
    if legend {
        plain_output::print(&format!("\n{} unit files listed.\n", cells.len()));
    }
    Ok(0)
}

fn wanted(name: &UnitName, options: &Options, operands: &[String]) -> bool {
    let fits = |operand: &String| {
        unit_files::glob::matches(operand, name.as_str())
            || UnitName::mangle(operand, unit_files::UnitKind::Service).is_ok_and(|typed| typed == *name)
    };
    (options.types.is_empty() || options.types.iter().any(|wanted| wanted == name.kind().suffix()))
        && (operands.is_empty() || operands.iter().any(fits))
}
