"""Opens what a task has made with the libraries that people use, and says what is in it as JSON."""

import json
import sys

import docx
import openpyxl

folder = sys.argv[1]
document = docx.Document(f"{folder}/report.docx")
book = openpyxl.load_workbook(f"{folder}/table.xlsx")
print(json.dumps({
    "title": document.core_properties.title,
    "paragraphs": [[it.style.name, it.text] for it in document.paragraphs if it.text],
    "bold": [run.text for it in document.paragraphs for run in it.runs if run.bold],
    "links": [link.address for it in document.paragraphs for link in it.hyperlinks],
    "tables": [[[cell.text for cell in row.cells] for row in table.rows] for table in document.tables],
    "sheets": {page.title: [list(row) for row in page.iter_rows(values_only=True)] for page in book},
}))
