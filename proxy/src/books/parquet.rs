//! Rows as a Parquet file: one row group a page, columns of integers and text, any of them absent.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use meter::books::Cell;
use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

/// A file that is being written.
pub(super) struct ParquetFile<W: Write + Send> {
    file: SerializedFileWriter<W>,
    numbers: Vec<bool>,
}

impl<W: Write + Send> ParquetFile<W> {
    /// Begins a file with these columns: their names, and whether they are numbers.
    pub(super) fn begin(out: W, columns: &[(&str, bool)]) -> anyhow::Result<Self> {
        let mut fields = Vec::with_capacity(columns.len());
        for (name, number) in columns {
            let field = if *number {
                Type::primitive_type_builder(name, Physical::INT64)
            } else {
                Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
                    .with_converted_type(ConvertedType::UTF8)
            };
            let field = field.with_repetition(Repetition::OPTIONAL).build()?;
            fields.push(Arc::new(field));
        }
        let schema = Type::group_type_builder("entry")
            .with_fields(fields)
            .build()?;
        let properties = Arc::new(WriterProperties::builder().build());
        Ok(Self {
            file: SerializedFileWriter::new(out, Arc::new(schema), properties)?,
            numbers: columns.iter().map(|(_, number)| *number).collect(),
        })
    }

    /// Writes some rows.
    pub(super) fn write(&mut self, rows: &[Vec<Cell>]) -> anyhow::Result<()> {
        let mut group = self.file.next_row_group()?;
        for (place, number) in self.numbers.iter().enumerate() {
            let mut column = group.next_column()?.context("a column is missing")?;
            let cells = || rows.iter().map(|row| row.get(place).unwrap_or(&Cell::Null));
            if *number {
                let value = |cell: &Cell| match cell {
                    Cell::Int(int) => Some(*int),
                    _ => None,
                };
                let levels: Vec<i16> = cells().map(|it| i16::from(value(it).is_some())).collect();
                let values: Vec<i64> = cells().filter_map(value).collect();
                let typed = column.typed::<Int64Type>();
                typed.write_batch(&values, Some(&levels), None)?;
            } else {
                let value = |cell: &Cell| match cell {
                    Cell::Text(text) => Some(ByteArray::from(text.as_str())),
                    _ => None,
                };
                let levels: Vec<i16> = cells().map(|it| i16::from(value(it).is_some())).collect();
                let values: Vec<ByteArray> = cells().filter_map(value).collect();
                let typed = column.typed::<ByteArrayType>();
                typed.write_batch(&values, Some(&levels), None)?;
            }
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Writes the footer, without which nobody can read the rest.
    pub(super) fn end(self) -> anyhow::Result<()> {
        self.file.close().map(|_| ()).context("ending the file")
    }
}
