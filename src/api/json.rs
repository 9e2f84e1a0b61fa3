//! Incremental JSON writer: nested objects whose members are written one at a time.
//!
//! serde writes a value from beginning to end in one call. A long listing must be sent before all of it is known.

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Writes nested objects, compact or indented as the formatter has it.
pub(super) struct Objects<F> {
    form: F,
    /// For each open object, true if it already has a member.
    open: Vec<bool>,
    written: Vec<u8>,
}

/// Discards a result that is never an error: writing to memory does not fail, and serde fails only for keys that are
/// not strings and numbers that are not finite, which our types do not have.
fn cannot_fail<E>(_: Result<(), E>) {}

impl<F: Formatter + Clone> Objects<F> {
    pub(super) fn new(form: F) -> Self {
        Self { form, open: Vec::new(), written: Vec::new() }
    }

    /// Begins an object: the outermost one, or the value of the member begun by [`Objects::key`].
    pub(super) fn open(&mut self) {
        cannot_fail(self.form.begin_object(&mut self.written));
        self.open.push(false);
    }

    /// Begins a member of the innermost object.
    pub(super) fn key(&mut self, key: &str) {
        let has_member = self.open.last_mut().map(|has_member| std::mem::replace(has_member, true));
        cannot_fail(self.form.begin_object_key(&mut self.written, has_member != Some(true)));
        cannot_fail(serde_json::to_writer(&mut self.written, key));
        cannot_fail(self.form.end_object_key(&mut self.written));
        cannot_fail(self.form.begin_object_value(&mut self.written));
    }

    /// Writes a member with its value.
    pub(super) fn member(&mut self, key: &str, value: &impl Serialize) {
        self.key(key);
        // The cloned formatter has the current indentation; the value closes every object that it opens.
        cannot_fail(value.serialize(&mut Serializer::with_formatter(&mut self.written, self.form.clone())));
        cannot_fail(self.form.end_object_value(&mut self.written));
    }

    /// Begins a member whose value is an object, and opens that object.
    pub(super) fn open_member(&mut self, key: &str) {
        self.key(key);
        self.open();
    }

    /// Ends the innermost object.
    pub(super) fn close(&mut self) {
        cannot_fail(self.form.end_object(&mut self.written));
        self.open.pop();
        if !self.open.is_empty() {
            cannot_fail(self.form.end_object_value(&mut self.written));
        }
    }

    /// Writes text outside the JSON, such as the JSONP callback.
    pub(super) fn around(&mut self, text: &str) {
        self.written.extend_from_slice(text.as_bytes());
    }

    /// Number of octets written and not yet taken.
    pub(super) fn len(&self) -> usize {
        self.written.len()
    }

    /// Takes the octets written so far.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.written)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::ser::{CompactFormatter, PrettyFormatter};

    use super::*;

    fn written<F: Formatter + Clone>(form: F) -> String {
        let mut objects = Objects::new(form);
        objects.open();
        objects.member("a", &json!({ "b": [1, {}], "\"": null }));
        objects.open_member("c");
        objects.open_member("d");
        objects.member("e", &"é\n");
        objects.close();
        objects.open_member("f");
        objects.close();
        objects.close();
        objects.member("g", &1);
        objects.close();
        String::from_utf8(objects.take()).unwrap()
    }

    #[test]
    fn it_is_what_serde_writes() {
        let whole = json!({ "a": { "b": [1, {}], "\"": null }, "c": { "d": { "e": "é\n" }, "f": {} }, "g": 1 });
        assert_eq!(written(CompactFormatter), whole.to_string());
        assert_eq!(written(PrettyFormatter::new()), serde_json::to_string_pretty(&whole).unwrap());
    }
}
