//! How a record is printed: as a block of text, or as one JSON object per line.

use std::io;
use std::io::Write;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::consumer::Record;
use super::options::Form;
use super::options::Options;

pub(super) struct Show<'w> {
    form: Form,
    is_colored: bool,
    out: &'w mut dyn Write,
    notes: &'w mut dyn Write,
    records: usize,
}

impl<'w> Show<'w> {
    pub(super) fn new(options: Options, out: &'w mut dyn Write, notes: &'w mut dyn Write) -> Self {
        let is_colored = options.is_watched && options.form == Form::Human;
        Self { form: options.form, is_colored, out, notes, records: 0 }
    }

    pub(super) const fn records(&self) -> usize {
        self.records
    }

    /// Prints a step of the demo.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.notes, "{}", self.paint("2", &format!("* {text}")))
    }

    pub(super) fn record(&mut self, record: &Record) -> io::Result<()> {
        self.records += 1;
        match self.form {
            Form::Json => {
                let headers: Map<String, Value> =
                    record.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
                let line = json!({
                    "topic": record.topic, "partition": record.partition, "offset": record.offset,
                    "key": record.key, "headers": headers, "value": record.value,
                });
                writeln!(self.out, "{line}")?;
            }
            Form::Human => self.block(record)?,
        }
        self.out.flush()
    }

    fn block(&mut self, record: &Record) -> io::Result<()> {
        let place = format!("{}[{}]@{}", record.topic, record.partition, record.offset);
        let key = record.key.as_deref().unwrap_or("(no key)");
        writeln!(self.out, "{}  key {}", self.paint("1;36", &place), self.paint("1", key))?;
        for (name, value) in &record.headers {
            writeln!(self.out, "  {} {value}", self.paint("33", &format!("{name}:")))?;
        }
        writeln!(self.out, "  {}", record.value.as_deref().unwrap_or("(tombstone)"))
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.is_colored { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
