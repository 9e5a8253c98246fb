//! The JSON contract: every report in the same envelope, described by one schema.
//!
//! The schema is generated from the structs and checked in; a test fails when they differ, so that a change of the
//! contract is seen in review. Fields may be added within a major version; a removed or changed field raises it.

use std::io;

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Value, json};

use crate::analysis::fragmentation::Fragmentation;
use crate::analysis::{EventView, Histogram, Leaks, Summary, TimelineView, Top, WhatIf};
use crate::check::Verdict;

/// Version of the contract, major.minor.
pub const SCHEMA_VERSION: &str = "1.0";

/// A struct that is the result of a command.
pub trait Report: Serialize + JsonSchema {
    /// The value of the envelope's `schema`.
    const SCHEMA: &'static str;
}

impl Report for Summary {
    const SCHEMA: &'static str = "xalloc-report/summary";
}
impl Report for Leaks {
    const SCHEMA: &'static str = "xalloc-report/leaks";
}
impl Report for Top {
    const SCHEMA: &'static str = "xalloc-report/top";
}
impl Report for Histogram {
    const SCHEMA: &'static str = "xalloc-report/histogram";
}
impl Report for TimelineView {
    const SCHEMA: &'static str = "xalloc-report/timeline";
}
impl Report for Fragmentation {
    const SCHEMA: &'static str = "xalloc-report/fragmentation";
}
impl Report for Verdict {
    const SCHEMA: &'static str = "xalloc-report/check";
}
impl Report for Events {
    const SCHEMA: &'static str = "xalloc-report/events";
}

impl Report for WhatIf {
    const SCHEMA: &'static str = "xalloc-report/what-if";
}

/// The result of `events`; written as a stream by [`EventStream`], never held.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Events {
    /// The events that were asked for, process by process, in order.
    pub events: Vec<EventView>,
}

#[derive(Serialize)]
struct Envelope<'a, R> {
    schema: &'static str,
    schema_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gaps: Option<&'a [String]>,
    result: &'a R,
}

/// Writes a report with its envelope, indented, with a line break at the end. `gaps` are what is missing from the trace
/// that it was made of ([`super::text::gaps`]).
///
/// # Errors
/// Those of `out`.
pub fn write<R: Report>(report: &R, gaps: &[String], out: &mut impl io::Write) -> io::Result<()> {
    put(report, Some(gaps), out)
}

/// Writes a verdict, which can be on several traces and has what is missing from each among its reasons.
///
/// # Errors
/// Those of `out`.
pub fn write_verdict(verdict: &Verdict, out: &mut impl io::Write) -> io::Result<()> {
    put(verdict, None, out)
}

fn put<R: Report>(report: &R, gaps: Option<&[String]>, out: &mut impl io::Write) -> io::Result<()> {
    let envelope = Envelope { schema: R::SCHEMA, schema_version: SCHEMA_VERSION, gaps, result: report };
    serde_json::to_writer_pretty(&mut *out, &envelope)?;
    out.write_all(b"\n")
}

/// Writes events one by one, one a line, within the same envelope.
#[derive(Debug)]
pub struct EventStream<W> {
    out: W,
    first: bool,
}

impl<W: io::Write> EventStream<W> {
    /// Writes the envelope's beginning; `gaps` as for [`write()`].
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(mut out: W, gaps: &[String]) -> io::Result<EventStream<W>> {
        let schema = Events::SCHEMA;
        write!(out, r#"{{"schema":"{schema}","schema_version":"{SCHEMA_VERSION}","gaps":"#)?;
        serde_json::to_writer(&mut out, gaps)?;
        write!(out, r#","result":{{"events":["#)?;
        Ok(EventStream { out, first: true })
    }

    /// Writes one event.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn event(&mut self, event: &EventView) -> io::Result<()> {
        self.out.write_all(if self.first { b"\n" } else { b",\n" })?;
        self.first = false;
        Ok(serde_json::to_writer(&mut self.out, event)?)
    }

    /// Writes the envelope's end.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn end(mut self) -> io::Result<()> {
        self.out.write_all(b"\n]}}\n")?;
        self.out.flush()
    }
}

/// The JSON Schema of all reports.
#[must_use]
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let reports = [
        (Summary::SCHEMA, generator.subschema_for::<Summary>()),
        (Leaks::SCHEMA, generator.subschema_for::<Leaks>()),
        (Top::SCHEMA, generator.subschema_for::<Top>()),
        (Histogram::SCHEMA, generator.subschema_for::<Histogram>()),
        (TimelineView::SCHEMA, generator.subschema_for::<TimelineView>()),
        (Fragmentation::SCHEMA, generator.subschema_for::<Fragmentation>()),
        (Verdict::SCHEMA, generator.subschema_for::<Verdict>()),
        (WhatIf::SCHEMA, generator.subschema_for::<WhatIf>()),
        (Events::SCHEMA, generator.subschema_for::<Events>()),
    ];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Output of xalloc-report --format json",
        "type": "object",
        "required": ["schema", "schema_version", "result"],
        "properties": {
            "schema": { "description": "Which report this is.", "type": "string" },
            "schema_version": { "description": "Version of this contract, major.minor.", "const": SCHEMA_VERSION },
            "gaps": {
                "description": "What is missing from the trace, each a sentence: what was cut off, events that were lost. \
                                Every report but a verdict has it, which has the same among its reasons.",
                "type": "array",
                "items": { "type": "string" },
            },
        },
        "oneOf": reports.map(|(name, result): (_, Schema)| {
            let required = if name == Verdict::SCHEMA { vec![] } else { vec!["gaps"] };
            json!({ "required": required, "properties": { "schema": { "const": name }, "result": result } })
        }),
        "$defs": generator.take_definitions(true),
    })
}
