//! Secrets of the run and the search for them, in every form in which they might come back.

use std::collections::BTreeSet;

use base64::Engine as _;

use super::{run::word, sample::Targets};

/// Shorter values would be found by chance.
const SHORTEST: usize = 6;

/// All secrets of a run.
pub(crate) struct Canaries {
    word: String,
    secrets: BTreeSet<Vec<u8>>,
}

impl Canaries {
    pub(crate) fn new(targets: &Targets, run: &str) -> Self {
        let word = format!("canary-{run}-{}", word(16));
        let all = [
            Some(&targets.good),
            targets.wrong_credentials.as_ref(),
            targets.other_credentials.as_ref(),
            targets.refusing.as_ref(),
            targets.silent.as_ref(),
            targets.elsewhere.as_ref(),
        ];
        let mut secrets: BTreeSet<Vec<u8>> = all
            .into_iter()
            .flatten()
            .flat_map(|target| target.to_wire(&word).secrets.into_values())
            .filter(|secret| secret.len() >= SHORTEST)
            .collect();
        secrets.insert(word.clone().into_bytes());
        Self { word, secrets }
    }

    /// A secret for this run, also part of the secrets of sources.
    pub(crate) fn word(&self) -> &str {
        &self.word
    }

    /// Finds the first secret in a text, and says in which form.
    pub(crate) fn find(&self, text: &[u8]) -> Option<&'static str> {
        self.secrets.iter().find_map(|secret| {
            forms(secret)
                .into_iter()
                .find(|(_, form)| contains(text, form))
                .map(|(name, _)| name)
        })
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    !wanted.is_empty()
        && text
            .windows(wanted.len())
            .any(|window| window.eq_ignore_ascii_case(wanted))
}

/// The forms of a secret: raw, hex, URL form, and base64 at each of the three places at which it can begin.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let mut forms = vec![
        ("raw", secret.to_vec()),
        ("hex", hex::encode(secret).into_bytes()),
        (
            "URL form",
            url::form_urlencoded::byte_serialize(secret)
                .collect::<String>()
                .into_bytes(),
        ),
    ];
    for shift in 0..3 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(secret);
        // Letters at both ends depend on the neighbours.
        let (skip, drop) = (
            [0, 2, 3][shift],
            usize::from(!shifted.len().is_multiple_of(3)),
        );
        for text in [
            STANDARD_NO_PAD.encode(&shifted),
            URL_SAFE_NO_PAD.encode(&shifted),
        ] {
            let end = text.len().saturating_sub(drop);
            if let Some(middle) = text.get(skip..end) {
                forms.push(("base64", middle.as_bytes().to_vec()));
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample::Target;

    fn canaries() -> Canaries {
        let targets = Targets {
            good: Target {
                secrets: [
                    ("password".to_owned(), "p/ss wörd".to_owned()),
                    ("short".to_owned(), "a".to_owned()),
                ]
                .into(),
                ..Target::default()
            },
            ..Targets::default()
        };
        Canaries::new(&targets, "run")
    }

    #[test]
    fn secret_is_found_in_every_form() {
        use base64::engine::general_purpose::STANDARD;
        let secret = "p/ss wörd";
        for (form, text) in [
            ("raw", format!("<{secret}>")),
            ("hex", hex::encode(format!("x{secret}y"))),
            ("base64", STANDARD.encode(secret)),
            ("base64", STANDARD.encode(format!("user:{secret}"))),
            ("base64", STANDARD.encode(format!("users:{secret}!"))),
            ("base64", STANDARD.encode(format!("a{secret}bc"))),
            ("URL form", "x=p%2Fss+w%C3%B6rd&y".to_owned()),
        ] {
            assert_eq!(canaries().find(text.as_bytes()), Some(form), "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_is_not_found() {
        assert_eq!(canaries().find(b"a password was refused"), None);
        assert_eq!(canaries().find(b""), None);
    }
}
