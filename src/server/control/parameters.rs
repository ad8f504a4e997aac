//! The parameters of a call: what stands behind the `?`, and in the path.
//!
//! Comes in: texts. Goes out: values, or a sentence that names the parameter that is wrong and what it may be.
//!
//! Invariant: nothing is ignored. A parameter that a call does not know, or that is given twice, is an error.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use axum::extract::Query;
use axum::http::Uri;

use crate::service::NAME_BYTES_MAX;
use crate::shard::FlowId;

use super::failure::Failure;

/// See the module.
#[derive(Debug)]
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    /// Reads what stands behind the `?`, of which a call knows the `known`.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Parameters, Failure> {
        let Query(pairs): Query<Vec<(String, String)>> =
            Query::try_from_uri(uri).map_err(|error| Failure::bad(format!("the query cannot be read: {error}")))?;
        let mut values = HashMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                let knows = if known.is_empty() { "it has none".to_owned() } else { known.join(", ") };
                return Err(Failure::bad(format!("`{name}` is no parameter of {}; there is: {knows}", uri.path())));
            }
            if values.insert(name.clone(), value).is_some() {
                return Err(Failure::bad(format!("the parameter `{name}` is given twice")));
            }
        }
        Ok(Parameters(values))
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A whole number within a range.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let is_plain = !text.starts_with('+');
        match text.parse().ok().filter(|number| is_plain && range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (first, last) = range.into_inner();
                Err(Failure::bad(format!("{name}={text} is not a whole number from {first} to {last}")))
            }
        }
    }

    /// The same as 32 bits, 0 where it is not given.
    pub(super) fn number_or_zero(&self, name: &str) -> Result<u32, Failure> {
        let number = self.number(name, 1..=u64::from(u32::MAX))?.unwrap_or(0);
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// One of several words.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(Failure::bad(format!("{name}={text} is none of: {}", known.join(", "))))
            }
        }
    }
}

/// The id of a connection, in a path or a parameter.
pub(super) fn flow_id(text: &str) -> Result<FlowId, Failure> {
    text.parse().map_err(|error| Failure::bad(format!("`{text}` is no id: {error}")))
}

/// A name, or the beginning of one.
pub(super) fn name(text: &str) -> Result<&str, Failure> {
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    let text = text.escape_debug();
    Err(Failure::bad(format!("`{text}` is no name: a name has 1 to {NAME_BYTES_MAX} bytes and no control characters")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Parameters, Failure> {
        let uri: Uri = format!("/flows?{query}").parse().expect("a URI");
        Parameters::read(&uri, &["limit", "how"])
    }

    fn sentence(failure: Failure) -> String {
        failure.into_body()["error"].as_str().expect("a sentence").to_owned()
    }

    #[test]
    fn what_is_known_is_read() {
        let parameters = read("limit=12&how=ABORT").expect("both are known");
        assert_eq!(parameters.number("limit", 1..=20).expect("in range"), Some(12));
        assert_eq!(parameters.word("how", &[("close", 1), ("abort", 2)]).expect("a word"), Some(2));
        assert_eq!(read("").expect("none").number_or_zero("limit").expect("none"), 0);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(sentence(read("limt=1").expect_err("unknown")).contains("`limt` is no parameter of /flows"));
        assert!(sentence(read("limit=1&limit=2").expect_err("twice")).contains("`limit` is given twice"));
        for wrong in
            ["limit=", "limit=0", "limit=21", "limit=+5", "limit=-5", "limit=1.5", "limit=99999999999999999999"]
        {
            let error = read(wrong).expect("known").number("limit", 1..=20).expect_err(wrong);
            assert!(sentence(error).contains("limit="), "{wrong}");
        }
        let error = read("how=shut").expect("known").word("how", &[("close", 1), ("abort", 2)]).expect_err("no word");
        assert_eq!(sentence(error), "how=shut is none of: close, abort");
    }

    #[test]
    fn names_and_ids_are_checked() {
        assert!(name("alice").is_ok() && name(&"x".repeat(64)).is_ok() && name("Ärger").is_ok());
        for wrong in ["", "a\nb", &"x".repeat(65)] {
            assert!(sentence(name(wrong).expect_err("no name")).contains("is no name"));
        }
        assert!(flow_id("0000000100000002").is_ok());
        assert!(sentence(flow_id("12").expect_err("no id")).contains("`12` is no id"));
    }
}
