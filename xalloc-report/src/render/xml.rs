//! Elements, attributes and text of an XML document; what a name holds can break none of it.

use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::escape::printable;

/// Begins a document.
pub(super) struct Document;

impl Document {
    pub(super) fn begin<W: io::Write>(out: W) -> io::Result<Writer<W>> {
        let mut xml = Writer::new_with_indent(out, b' ', 2);
        xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        Ok(xml)
    }
}

/// Writes an element with what `content` writes in it.
pub(super) fn element<W: io::Write>(
    xml: &mut Writer<W>,
    name: &str,
    attributes: &[(&str, String)],
    content: impl FnOnce(&mut Writer<W>) -> io::Result<()>,
) -> io::Result<()> {
    let shown: Vec<_> = attributes.iter().map(|(name, value)| (*name, printable(value))).collect();
    let element = xml.create_element(name).with_attributes(shown.iter().map(|(name, value)| (*name, value.as_ref())));
    element.write_inner_content(content)?;
    Ok(())
}

/// Writes an element with attributes alone.
pub(super) fn empty<W: io::Write>(xml: &mut Writer<W>, name: &str, attributes: &[(&str, String)]) -> io::Result<()> {
    let shown: Vec<_> = attributes.iter().map(|(name, value)| (*name, printable(value))).collect();
    let element = xml.create_element(name).with_attributes(shown.iter().map(|(name, value)| (*name, value.as_ref())));
    element.write_empty()?;
    Ok(())
}

/// Writes text; line breaks stay, and what XML does not allow is shown as its number.
pub(super) fn text<W: io::Write>(xml: &mut Writer<W>, text: &str) -> io::Result<()> {
    let lines: Vec<_> = text.lines().map(printable).collect();
    xml.write_event(Event::Text(BytesText::new(&lines.join("\n"))))
}

/// Writes an element that holds text.
pub(super) fn leaf<W: io::Write>(xml: &mut Writer<W>, name: &str, value: impl ToString) -> io::Result<()> {
    let value = value.to_string();
    xml.create_element(name).write_text_content(BytesText::new(&printable(&value)))?;
    Ok(())
}
