"""Results as files that people pass on: named by a template, converted, on a contact sheet, in a table."""
