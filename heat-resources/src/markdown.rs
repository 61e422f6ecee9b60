//! The reference page of the resource types.

use std::fmt::Write;

use crate::schema::{Change, Constraint, Property, Reference, ResourceType};

/// All types, as one page.
#[must_use]
pub fn page(types: &[ResourceType]) -> String {
    let mut page = String::from(
        "# Heat resources\n\nWritten by `ake-heat schema --markdown`. A property that is not said to be updatable \
         cannot be changed: an update that tries is refused.\n",
    );
    for kind in types {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## {}\n\n{}\n", kind.name, kind.description);
        let reference = match kind.reference {
            Reference::RootStack => "the cluster's id",
            Reference::Own => "an id of the resource's own",
        };
        let _ = write!(page, "\n`get_resource` gives {reference}.\n");
        page.push_str("\n| property | type | | meaning |\n|---|---|---|---|\n");
        for property in &kind.properties {
            rows(&mut page, "", property);
        }
        if !kind.attributes.is_empty() {
            page.push_str("\n| attribute | type | meaning |\n|---|---|---|\n");
        }
        for attribute in &kind.attributes {
            let _ = writeln!(
                page,
                "| `{}` | {:?} | {} |",
                attribute.name,
                attribute.kind,
                cell(attribute.description)
            );
        }
    }
    page
}

fn rows(page: &mut String, parent: &str, property: &Property) {
    let path =
        if parent.is_empty() { property.name.to_owned() } else { format!("{parent}.{}", property.name) };
    let mut notes = Vec::new();
    if property.required {
        notes.push("required".to_owned());
    }
    if let Some(default) = &property.default {
        notes.push(format!("default `{default}`"));
    }
    if property.change == Change::Updates {
        notes.push("updatable".to_owned());
    }
    if property.hidden_parameter {
        notes.push("names a hidden parameter".to_owned());
    }
    notes.extend(property.constraints.iter().map(constraint));
    let _ = writeln!(
        page,
        "| `{path}` | {:?} | {} | {} |",
        property.kind,
        cell(&notes.join("; ")),
        cell(property.description),
    );
    for field in &property.fields {
        rows(page, &path, field);
    }
    if let Some(items) = &property.items {
        rows(page, &path, &Property { name: "*", ..(**items).clone() });
    }
}

fn constraint(constraint: &Constraint) -> String {
    let argument = |name: &str| constraint.arguments.get(name).map(ToString::to_string).unwrap_or_default();
    match constraint.class {
        "Range" => format!("{} to {}", argument("min"), argument("max")),
        "Length" => format!("length {} to {}", argument("min"), argument("max")),
        "AllowedValues" => format!("one of `{}`", argument("allowed")),
        "AllowedPattern" => {
            format!("matches `{}`", argument("pattern").trim_matches('"').replace("\\\\", "\\"))
        }
        _ => format!("checked as `{}`", argument("name").trim_matches('"')),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
