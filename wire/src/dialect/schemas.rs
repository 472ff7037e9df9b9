//! What dialects say alike of schemas, in a tool's declaration and for the answer, as the scan takes it.

use crate::Scan;
use crate::json::{JsonError, Kind, Scanner, Str};
use crate::scan::schema::Asks;
use crate::scan::word;

/// Takes a tool whose schema is called `schema`: what its parameters ask for, and whether its type begins
/// like one of `run_there`, which the provider runs itself.
pub(super) fn tool(
    scanner: &mut Scanner<'_>,
    (schema, run_there): (&str, &[&str]),
    scan: &mut Scan,
) -> Result<(), JsonError> {
    scan.shape.tools += 1;
    if scanner.peek()? != Kind::Object {
        return Ok(());
    }
    let mut found = false;
    scanner.object(|scanner, key| {
        if key.is("type")
            && let Some(kind) = word(scanner)?
        {
            found |= run_there.iter().any(|name| kind.text().starts_with(name));
            return Ok(());
        }
        declared(scanner, key, schema, scan)
    })?;
    scan.shape.server_tools += u32::from(found);
    Ok(())
}

/// Takes a field of a tool's declaration, whose schema is called `schema`.
pub(super) fn declared(
    scanner: &mut Scanner<'_>,
    key: &Str<'_>,
    schema: &str,
    scan: &mut Scan,
) -> Result<(), JsonError> {
    match (key.raw, scanner.peek()?) {
        ("strict", Kind::Bool) => scan.shape.tool_strict += u32::from(scanner.boolean()?),
        (name, Kind::Object) if name == schema => {
            let mut asks = Asks::default();
            asks.read(scanner)?;
            asks.of_tool(&mut scan.shape);
        }
        _ => {}
    }
    Ok(())
}

/// Takes the schema of the answer, where `key` is its name.
pub(super) fn answer_schema(
    scanner: &mut Scanner<'_>,
    key: &Str<'_>,
    scan: &mut Scan,
) -> Result<(), JsonError> {
    if key.is("schema") && scanner.peek()? == Kind::Object {
        let mut asks = Asks::default();
        asks.read(scanner)?;
        asks.of_answer(&mut scan.shape);
    }
    Ok(())
}
