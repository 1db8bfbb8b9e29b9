//! Takes the values of secrets out of whatever leaves the process.
//!
//! An author's message may repeat what a backend said, and backends repeat what they were sent. So texts are searched for
//! each value as it is and in the forms that HTTP gives it. This is the last line, no licence to print secrets.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proto::{Observation, ProviderError, Secrets};
use zeroize::Zeroizing;

/// Shorter values are parts of ordinary words.
const SHORTEST: usize = 4;

/// Stands in place of a secret.
const REDACTED: &str = "<redacted>";

/// Words in the names of settings whose values are secret, in files that are secrets as a whole.
const SECRET_WORDS: [&str; 4] = ["password", "secret", "token", "key"];

/// The forms of secret values that must not get out.
#[derive(Default)]
pub(crate) struct Redactor(Vec<Zeroizing<String>>);

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} forms)", self.0.len())
    }
}

impl Redactor {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secrets>) -> Self {
        let mut forms = Self::default();
        for secrets in secrets {
            for (_, value) in secrets.iter() {
                forms.add(value);
                let text = std::str::from_utf8(value).unwrap_or_default();
                for part in text.lines().filter_map(secret_of_line) {
                    forms.add(part.as_bytes());
                }
            }
            if let (Some(user), Some(password)) =
                (secrets.text("username"), secrets.text("password"))
            {
                let pair = Zeroizing::new(format!("{user}:{password}"));
                forms.add(pair.as_bytes());
            }
        }
        // A form that holds another one goes first, else a part of it would stay.
        forms
            .0
            .sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.0.dedup();
        forms
    }

    fn add(&mut self, value: &[u8]) {
        let value = value.trim_ascii();
        if value.len() < SHORTEST {
            return;
        }
        let mut add = |form: String| self.0.push(Zeroizing::new(form));
        for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
            add(engine.encode(value));
        }
        add(hex::encode(value));
        add(hex::encode_upper(value));
        add(url::form_urlencoded::byte_serialize(value).collect());
        if let Ok(text) = std::str::from_utf8(value) {
            add(text.replace('\n', "\\n"));
            add(text.to_owned());
        }
    }

    pub(crate) fn text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, form| {
            if text.contains(form.as_str()) {
                text.replace(form.as_str(), REDACTED)
            } else {
                text
            }
        })
    }

    pub(crate) fn error(&self, error: ProviderError) -> ProviderError {
        error.edited(|text| self.text(text))
    }

    pub(crate) fn observation(&self, mut seen: Observation) -> Observation {
        seen.provider_image_id = self.text(&seen.provider_image_id);
        seen.backend_status = self.text(&seen.backend_status);
        for value in seen.outputs.values_mut() {
            *value = self.text(value);
        }
        seen.error = seen.error.map(|error| self.error(error));
        seen
    }
}

/// The value in a line such as `password: "…"`.
fn secret_of_line(line: &str) -> Option<&str> {
    let (name, value) = line.split_once([':', '='])?;
    let name = name.to_ascii_lowercase();
    SECRET_WORDS
        .iter()
        .any(|word| name.contains(word))
        .then(|| value.trim().trim_matches(['"', '\'', ',']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(entries: &[(&str, &str)]) -> Secrets {
        entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn secrets_are_found_in_every_form_that_http_gives_them() {
        let secrets = secrets(&[("username", "robot"), ("password", "ca/na+ry é")]);
        let redactor = Redactor::new([&secrets]);
        for leak in [
            "ca/na+ry é",
            &STANDARD.encode("ca/na+ry é"),
            &STANDARD.encode("robot:ca/na+ry é"),
            &hex::encode("ca/na+ry é"),
            "ca%2Fna%2Bry+%C3%A9",
        ] {
            let text = redactor.text(&format!("backend said {leak}, sorry"));
            assert_eq!(text, "backend said <redacted>, sorry");
        }
    }

    #[test]
    fn a_password_inside_of_a_secret_file_is_found() {
        let file = "clouds:\n  one:\n    auth:\n      username: robot\n      password: 'canary'\n";
        let redactor = Redactor::new([&secrets(&[("clouds.yaml", file)])]);
        assert_eq!(
            redactor.text("401 for robot/canary"),
            "401 for robot/<redacted>"
        );
    }

    #[test]
    fn errors_are_redacted_as_a_whole() {
        let redactor = Redactor::new([&secrets(&[("token", "canary-1")])]);
        let error = ProviderError::backend_auth_failed("canary-1 is wrong")
            .with_field("target.secrets", "canary-1")
            .with_metadata("sent", "canary-1");
        assert!(!format!("{:?}", redactor.error(error)).contains("canary-1"));
    }
}
