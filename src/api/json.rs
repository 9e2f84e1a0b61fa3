//! JSON that is written a piece at a time: objects whose members come one by one, each value whole.
//!
//! serde writes a value from its beginning to its end in one call, which is of no use where the end is far away.

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Writes nested objects, compact or indented as the formatter has it.
pub(super) struct Objects<F> {
    form: F,
    /// For each object that is open, whether it has a member.
    open: Vec<bool>,
    written: Vec<u8>,
}

/// Writing to memory fails only for want of it, and our own types have string keys and finite numbers, which is all that can
/// go wrong in serde.
fn cannot_fail<E>(_: Result<(), E>) {}

impl<F: Formatter + Clone> Objects<F> {
    pub(super) fn new(form: F) -> Self {
        Self { form, open: Vec::new(), written: Vec::new() }
    }

    /// Begins an object: the outermost, or as the value of the member that [`Objects::key`] has begun.
    pub(super) fn open(&mut self) {
        cannot_fail(self.form.begin_object(&mut self.written));
        self.open.push(false);
    }

    /// Begins a member of the object.
    pub(super) fn key(&mut self, key: &str) {
        let has_member = self.open.last_mut().map(|has_member| std::mem::replace(has_member, true));
        cannot_fail(self.form.begin_object_key(&mut self.written, has_member != Some(true)));
        cannot_fail(serde_json::to_writer(&mut self.written, key));
        cannot_fail(self.form.end_object_key(&mut self.written));
        cannot_fail(self.form.begin_object_value(&mut self.written));
    }

    /// A member with its value.
    pub(super) fn member(&mut self, key: &str, value: &impl Serialize) {
        self.key(key);
        // A copy is at the same depth, and its own objects end where they have begun.
        cannot_fail(value.serialize(&mut Serializer::with_formatter(&mut self.written, self.form.clone())));
        cannot_fail(self.form.end_object_value(&mut self.written));
    }

    /// A member that is an object, which is open now.
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

    /// Text that is no JSON.
    pub(super) fn around(&mut self, text: &str) {
        self.written.extend_from_slice(text.as_bytes());
    }

    /// How much is written and not taken (octets).
    pub(super) fn len(&self) -> usize {
        self.written.len()
    }

    /// What is written.
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
