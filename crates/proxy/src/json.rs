//! Payloads of JSON of which only some values are sealed: `docs/reference/proxy.md`, section "Fields".
//!
//! ```text
//! {"id":7, "temp":21.5, "at":[1,2]}   fields: /temp and /at
//!   sealed: {"/temp":21.5,"/at":[1,2]}
//!   goes on: {"id":7, "temp":"AQEA…", "at":null}
//! ```
//!
//! One envelope holds all values that are sealed of a message, so that nobody can put together those of several. What
//! stands around them is not touched.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Steps from a document to a value, at most.
const STEPS_MAX: usize = 32;

/// A value of a JSON document, by the names that lead there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field(Vec<String>);

/// Not a JSON pointer such as `/temp`, or a path such as `$.temp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field is a JSON pointer such as \"/sensor/temp\", or a path such as \"$.sensor.temp\"")]
pub struct FieldError;

/// Why values cannot be taken out of a payload, or put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Odd {
    /// It is not JSON.
    NotJson,
    /// None of the fields is there.
    NoField,
    /// An object names a field twice: who reads it may take either.
    Twice,
    /// No envelope stands in any of the fields.
    NoEnvelope,
    /// What was sealed does not fit what is around it.
    OtherShape,
}

impl Odd {
    /// A stable name for it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NotJson => "json.malformed",
            Self::NoField => "json.no-field",
            Self::Twice => "json.field-twice",
            Self::NoEnvelope => "json.in-clear",
            Self::OtherShape => "json.other-shape",
        }
    }
}

impl Field {
    /// By how much the values of fields grow at most when they are sealed, of a payload that is so long.
    pub(crate) fn growth_of(fields: &[Self], payload_len: usize) -> usize {
        let names = fields.iter().map(|field| 2 * field.to_string().len() + 8);
        // Base64 makes four bytes of three.
        payload_len / 3 + 2 * names.sum::<usize>()
    }

    /// Whether the other is this value or lies in it.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl FromStr for Field {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let steps = match text.strip_prefix('$') {
            Some(path) => steps_of_path(path),
            None => steps_of_pointer(text),
        };
        let steps = steps.filter(|steps| (1..=STEPS_MAX).contains(&steps.len()));
        steps.map(Self).ok_or(FieldError)
    }
}

/// As a JSON pointer.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

fn steps_of_pointer(text: &str) -> Option<Vec<String>> {
    let step = |step: &str| {
        let mut plain = String::new();
        let mut rest = step;
        while let Some((before, behind)) = rest.split_once('~') {
            plain.push_str(before);
            let (code, behind) = behind.split_at_checked(1)?;
            plain.push(match code {
                "0" => '~',
                "1" => '/',
                _ => return None,
            });
            rest = behind;
        }
        Some(plain + rest)
    };
    text.strip_prefix('/')?.split('/').map(step).collect()
}

/// Names behind dots, and numbers in brackets.
fn steps_of_path(mut path: &str) -> Option<Vec<String>> {
    let mut steps = Vec::new();
    while !path.is_empty() {
        let (step, behind) = match path.strip_prefix('.') {
            Some(named) => named.split_at(named.find(['.', '[']).unwrap_or(named.len())),
            None => path.strip_prefix('[')?.split_once(']')?,
        };
        let is_number = step.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = !step.is_empty() && !step.contains(['*', '\'', '"', ']', ' ']);
        if !is_plain || (path.starts_with('[') && !is_number) {
            return None;
        }
        steps.push(step.to_owned());
        path = behind;
    }
    Some(steps)
}

/// A payload without the values of its fields.
#[derive(PartialEq, Eq)]
pub(crate) struct Emptied<'a> {
    payload: &'a str,
    /// Where they were, in the order of the payload.
    places: Vec<Range<usize>>,
    /// What is to be sealed.
    pub(crate) sealed: Vec<u8>,
}

/// Takes the values of some fields out of a payload.
pub(crate) fn take_out<'a>(payload: &'a [u8], fields: &[Field]) -> Result<Emptied<'a>, Odd> {
    let payload = document(payload)?;
    let mut sealed = String::from("{");
    let mut places = Vec::new();
    for field in fields {
        let Some(value) = find(payload, field)? else {
            continue;
        };
        if !places.is_empty() {
            sealed.push(',');
        }
        let name = serde_json::to_string(&field.to_string()).map_err(|_| Odd::NotJson)?;
        sealed.push_str(&name);
        sealed.push(':');
        sealed.push_str(value);
        places.push(place_in(payload, value));
    }
    if places.is_empty() {
        return Err(Odd::NoField);
    }
    sealed.push('}');
    places.sort_by_key(|of| of.start);
    Ok(Emptied {
        payload,
        places,
        sealed: sealed.into_bytes(),
    })
}

/// Shows how many values were taken.
impl fmt::Debug for Emptied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Emptied({} values)", self.places.len())
    }
}

impl Emptied<'_> {
    /// The payload with the envelope in the first of its fields.
    pub(crate) fn with(&self, envelope: &[u8]) -> Vec<u8> {
        let envelope = format!("\"{}\"", STANDARD.encode(envelope));
        let first = std::iter::once(envelope.as_str());
        let values = first.chain(std::iter::repeat("null"));
        replaced(self.payload, self.places.iter().cloned().zip(values))
    }
}

/// The envelope that stands in the first of the fields that a payload has; in the others stands `null`, or they are
/// in clear.
pub(crate) fn envelope_of(payload: &[u8], fields: &[Field]) -> Result<Vec<u8>, Odd> {
    let payload = document(payload)?;
    let present = present(payload, fields)?;
    let mut values = present.iter().map(|(_, value)| *value);
    let first = values.next().ok_or(Odd::NoField)?;
    let text = serde_json::from_str::<Cow<'_, str>>(first).map_err(|_| Odd::NoEnvelope)?;
    let envelope = STANDARD.decode(text.as_bytes());
    let envelope = envelope.map_err(|_| Odd::NoEnvelope)?;
    match !envelope.is_empty() && values.all(|value| value == "null") {
        true => Ok(envelope),
        false => Err(Odd::NoEnvelope),
    }
}

/// Puts the values of fields back into a payload from which they were taken: all that it has, and no others.
pub(crate) fn put_back(payload: &[u8], sealed: &[u8], fields: &[Field]) -> Result<Vec<u8>, Odd> {
    let payload = document(payload)?;
    let present = present(payload, fields)?;
    let sealed = document(sealed).map_err(|_| Odd::OtherShape)?;
    let members: Members<'_> = serde_json::from_str(sealed).map_err(|_| Odd::OtherShape)?;
    if members.0.len() != present.len() {
        return Err(Odd::OtherShape);
    }
    let mut values = Vec::with_capacity(present.len());
    for (field, there) in present {
        let name = field.to_string();
        let mut of_it = members.0.iter().filter(|(of, _)| *of == name);
        let (_, value) = of_it.next().ok_or(Odd::OtherShape)?;
        values.push((place_in(payload, there), value.get()));
    }
    Ok(replaced(payload, values.into_iter()))
}

/// The fields that are there, in the order of the payload.
fn present<'a, 'f>(
    payload: &'a str,
    fields: &'f [Field],
) -> Result<Vec<(&'f Field, &'a str)>, Odd> {
    let mut all = Vec::new();
    for field in fields {
        if let Some(value) = find(payload, field)? {
            all.push((field, value));
        }
    }
    all.sort_by_key(|(_, value)| place_in(payload, value).start);
    Ok(all)
}

/// The text of a payload that is JSON and nothing else.
fn document(payload: &[u8]) -> Result<&str, Odd> {
    let text = std::str::from_utf8(payload).map_err(|_| Odd::NotJson)?;
    let _whole: &RawValue = serde_json::from_str(text).map_err(|_| Odd::NotJson)?;
    Ok(text)
}

/// The value of a field as it stands, if it is there.
fn find<'a>(document: &'a str, field: &Field) -> Result<Option<&'a str>, Odd> {
    // What stands around it is none of its bytes.
    let mut value = document.trim_matches([' ', '\t', '\n', '\r']);
    for step in &field.0 {
        let inner = match value.as_bytes().first() {
            Some(b'{') => member(value, step)?,
            Some(b'[') => element(value, step)?,
            _ => None,
        };
        match inner {
            Some(inner) => value = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

fn member<'a>(object: &'a str, name: &str) -> Result<Option<&'a str>, Odd> {
    let members: Members<'a> = serde_json::from_str(object).map_err(|_| Odd::NotJson)?;
    let mut named = members.0.into_iter().filter(|(of, _)| of == name);
    let first = named.next();
    match named.next() {
        Some(_) => Err(Odd::Twice),
        None => Ok(first.map(|(_, value)| value.get())),
    }
}

fn element<'a>(array: &'a str, number: &str) -> Result<Option<&'a str>, Odd> {
    let is_canonical = number == "0" || !number.starts_with(['0', '+']);
    let number = number.parse::<usize>().ok().filter(|_| is_canonical);
    let elements: Vec<&'a RawValue> = serde_json::from_str(array).map_err(|_| Odd::NotJson)?;
    let element = number.and_then(|number| elements.get(number));
    Ok(element.map(|value| value.get()))
}

/// Where a part of a text lies in it.
fn place_in(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    start..start + part.len()
}

/// A text with other values at some places, which ascend and lie apart.
fn replaced<'v>(text: &str, values: impl Iterator<Item = (Range<usize>, &'v str)>) -> Vec<u8> {
    let (mut out, mut from) = (Vec::new(), 0);
    for (place, value) in values {
        out.extend_from_slice(text.get(from..place.start).unwrap_or_default().as_bytes());
        out.extend_from_slice(value.as_bytes());
        from = place.end;
    }
    out.extend_from_slice(text.get(from..).unwrap_or_default().as_bytes());
    out
}

/// All members of an object, in their order, those of one name too.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    all.push((member.0.0, member.1));
                }
                Ok(Members(all))
            }
        }

        deserializer.deserialize_map(All)
    }
}

/// The name of a member, without its escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(texts: &[&str]) -> Vec<Field> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn values_are_taken_out_and_put_back_and_the_rest_is_as_it_was() {
        let of = fields(&["/temp", "$.at[1]", "/no/such", "/a~1b/~0"]);
        let payload = "{ \"id\" :7,\n\"temp\": 21.50 , \"at\":[1 ,{\"x\":[]}], \"a/b\":{\"~\":\"s\\u00e9\"} }";
        let emptied = take_out(payload.as_bytes(), &of).unwrap();
        let sealed = "{\"/temp\":21.50,\"/at/1\":{\"x\":[]},\"/a~1b/~0\":\"s\\u00e9\"}";
        assert_eq!(text(emptied.sealed.clone()), sealed);
        let gone = text(emptied.with(b"envelope"));
        assert_eq!(
            gone,
            "{ \"id\" :7,\n\"temp\": \"ZW52ZWxvcGU=\" , \"at\":[1 ,null], \"a/b\":{\"~\":null} }"
        );
        assert_eq!(envelope_of(gone.as_bytes(), &of).unwrap(), b"envelope");
        let back = put_back(gone.as_bytes(), &emptied.sealed, &of).unwrap();
        assert_eq!(text(back), payload);
    }

    #[test]
    fn the_envelope_stands_in_whichever_field_comes_first_in_the_payload() {
        let of = fields(&["/b", "/a"]);
        let emptied = take_out(b"{\"a\":1,\"b\":2}", &of).unwrap();
        let gone = emptied.with(&[1, 2, 3]);
        assert_eq!(text(gone.clone()), "{\"a\":\"AQID\",\"b\":null}");
        assert_eq!(envelope_of(&gone, &of).unwrap(), [1, 2, 3]);
        assert_eq!(
            put_back(&gone, &emptied.sealed, &of).unwrap(),
            b"{\"a\":1,\"b\":2}"
        );
    }

    /// A name may be written with escapes, and a field may stand there twice: neither gets past (fault 19).
    #[test]
    fn no_way_of_writing_a_name_gets_a_value_past() {
        let of = fields(&["/temp"]);
        let emptied = take_out(b"{\"\\u0074emp\":1}", &of).unwrap();
        assert_eq!(text(emptied.with(b"e")), "{\"\\u0074emp\":\"ZQ==\"}");
        for twice in ["{\"temp\":1,\"temp\":2}", "{\"temp\":1,\"\\u0074emp\":2}"] {
            assert_eq!(take_out(twice.as_bytes(), &of), Err(Odd::Twice));
        }
    }

    #[test]
    fn what_is_not_json_or_has_none_of_the_fields_is_refused() {
        let of = fields(&["/temp", "/at/0"]);
        for odd in [
            "",
            "{",
            "{\"temp\":1}x",
            "{\"temp\":01}",
            "21.5 C",
            "\u{0}",
            "{\"a\":}",
            "[1,]",
        ] {
            assert_eq!(take_out(odd.as_bytes(), &of), Err(Odd::NotJson), "{odd}");
        }
        assert_eq!(take_out(b"\xff", &of), Err(Odd::NotJson));
        for none in [
            "7",
            "[]",
            "{}",
            "{\"Temp\":1}",
            "{\"at\":[]}",
            "{\"at\":{\"1\":1}}",
            "{\"at\":\"0\"}",
        ] {
            assert_eq!(take_out(none.as_bytes(), &of), Err(Odd::NoField), "{none}");
        }
        assert!(take_out(b"{\"at\":{\"0\":1}}", &of).is_ok());
    }

    /// fault 7
    #[test]
    fn a_value_in_clear_is_no_envelope() {
        let of = fields(&["/temp", "/at"]);
        for clear in [
            "{\"temp\":21.5}",
            "{\"temp\":\"\"}",
            "{\"temp\":\"21.5 C\",\"at\":null}",
        ] {
            assert_eq!(
                envelope_of(clear.as_bytes(), &of),
                Err(Odd::NoEnvelope),
                "{clear}"
            );
        }
        assert_eq!(envelope_of(b"{\"other\":\"AQID\"}", &of), Err(Odd::NoField));
    }

    /// Fault 7: a field in clear beside sealed ones is anybody's.
    #[test]
    fn beside_an_envelope_no_field_is_in_clear() {
        let of = fields(&["/temp", "/at"]);
        for odd in [
            "{\"temp\":\"AQID\",\"at\":0}",
            "{\"temp\":0,\"at\":\"AQID\"}",
            "{\"temp\":null,\"at\":\"AQID\"}",
            "{\"temp\":\"AQID\",\"at\":\"AQID\"}",
        ] {
            assert_eq!(
                envelope_of(odd.as_bytes(), &of),
                Err(Odd::NoEnvelope),
                "{odd}"
            );
        }
        let right = "{\"at\":\"AQID\",\"temp\":null}";
        assert_eq!(envelope_of(right.as_bytes(), &of).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn what_was_sealed_must_be_the_fields_that_are_there() {
        let of = fields(&["/temp", "/at/0"]);
        let around = b" {\"temp\":\"AQID\",\"at\":[null]}\n";
        for odd in [
            "",
            "7",
            "{}",
            "{\"temp\":1,\"at/0\":2}",
            "{\"/temp\":1}",
            "{\"/temp\":1,\"/temp\":1}",
            "{\"/temp\":1,\"/gone\":2}",
            "{\"/temp\":1,\"/at/0\":2,\"/id\":3}",
        ] {
            let put = put_back(around, odd.as_bytes(), &of);
            assert_eq!(put, Err(Odd::OtherShape), "{odd}");
        }
        let put = put_back(around, b"{\"/at/0\":true,\"/temp\":1}", &of).unwrap();
        assert_eq!(text(put), " {\"temp\":1,\"at\":[true]}\n");
    }

    #[test]
    fn fields_are_pointers_or_paths() {
        for (text, pointer) in [
            ("/temp", "/temp"),
            ("$.temp", "/temp"),
            ("$.a.b[0].c", "/a/b/0/c"),
            ("$[3]", "/3"),
            ("/a~1b/~0/", "/a~1b/~0/"),
        ] {
            assert_eq!(text.parse::<Field>().unwrap().to_string(), pointer);
        }
        for odd in [
            "", "temp", "$", "$temp", "$.", "$..a", "$.a[*]", "$.a[", "$['a']", "/a~2", "/~",
            "$.a.[0]",
        ] {
            assert_eq!(odd.parse::<Field>(), Err(FieldError), "{odd}");
        }
        assert!("/a".repeat(STEPS_MAX).parse::<Field>().is_ok());
        assert!("/a".repeat(STEPS_MAX + 1).parse::<Field>().is_err());
        let (outer, inner) = (
            "/a".parse::<Field>().unwrap(),
            "/a/b".parse::<Field>().unwrap(),
        );
        assert!(outer.holds(&inner) && outer.holds(&outer) && !inner.holds(&outer));
    }

    #[test]
    fn what_is_nested_deep_is_refused_or_found_and_no_more() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let of = fields(&["/0/0"]);
        let taken = take_out(deep.as_bytes(), &of);
        assert!(taken.is_ok() || taken == Err(Odd::NotJson));
    }
}
