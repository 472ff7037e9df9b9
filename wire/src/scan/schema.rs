//! What a JSON schema asks for, in counts: it is walked where the scan would have passed over it.

use crate::json::{JsonError, Kind, Scanner};
use crate::scan::Shape;

/// Counts of one or more schemas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    /// Required properties of the outermost objects.
    pub(crate) required: u32,
    /// Properties on all levels.
    pub(crate) properties: u32,
    /// Values of enumerations on all levels.
    pub(crate) enums: u32,
    /// The most objects inside one another.
    pub(crate) depth: u32,
}

impl Asks {
    /// Takes a schema in; what is no object is left for the scanner to skip.
    pub(crate) fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        self.walk(scanner, 0)
    }

    fn walk(&mut self, scanner: &mut Scanner<'_>, level: u32) -> Result<(), JsonError> {
        match scanner.peek()? {
            Kind::Object => scanner.object(|scanner, key| match (key.raw, scanner.peek()?) {
                ("required", Kind::Array) if level == 0 => tally(scanner, &mut self.required),
                ("enum", Kind::Array) => tally(scanner, &mut self.enums),
                ("properties", Kind::Object) => {
                    self.depth = self.depth.max(level + 1);
                    // Names of properties are the author's, whatever they mean elsewhere.
                    scanner.object(|scanner, _| {
                        self.properties = self.properties.saturating_add(1);
                        self.walk(scanner, level + 1)
                    })
                }
                (_, Kind::Object | Kind::Array) => self.walk(scanner, level),
                _ => Ok(()),
            }),
            Kind::Array => scanner.array(|scanner| self.walk(scanner, level)),
            _ => Ok(()),
        }
    }

    /// Counts them as those of a tool.
    pub(crate) fn of_tool(self, shape: &mut Shape) {
        shape.tool_required = shape.tool_required.saturating_add(self.required);
        shape.tool_enums = shape.tool_enums.saturating_add(self.enums);
        shape.tool_depth = shape.tool_depth.max(self.depth);
    }

    /// Counts them as those of the answer.
    pub(crate) fn of_answer(self, shape: &mut Shape) {
        shape.schema_properties = self.properties;
        shape.schema_enums = self.enums;
        shape.schema_depth = self.depth;
    }
}

fn tally(scanner: &mut Scanner<'_>, count: &mut u32) -> Result<(), JsonError> {
    scanner.array(|_| {
        *count = count.saturating_add(1);
        Ok(())
    })
}
