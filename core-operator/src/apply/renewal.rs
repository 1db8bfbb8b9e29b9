//! When a generated certificate has to be made anew: at 80 % of its life.
//!
//! A chart that generates certificates gives others at each render, so what is in the cluster stays as long as it is good.
//! How long that is stands as an annotation on each object with a certificate in it ([`RENEW_AFTER_ANNOTATION`]), written
//! when the object is applied: metadata that is watched anyway, so nobody ever has to read Secrets back. Certificates of one
//! chart sign each other, so all of them are made anew together.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use x509_parser::pem::Pem;

use super::plan::Decision;
use crate::api::RENEW_AFTER_ANNOTATION;

/// Shortest time between two renewals: a chart may make certificates that are as good as over.
const SHORTEST: SignedDuration = SignedDuration::from_hours(1);

/// What a certificate in PEM form begins with.
const PEM: &str = "-----BEGIN CERTIFICATE-----";

/// The beginning of any PEM text in base64, as in the data of a Secret and in CA bundles.
const ENCODED_PEM: &str = "LS0tLS1CRUdJT";

/// When the first of the certificates in an object reaches 80 % of its life; absent if there is none in it.
#[must_use]
pub fn due(object: &Value) -> Option<Timestamp> {
    match object {
        Value::String(text) => due_in_text(text),
        Value::Array(values) => values.iter().filter_map(due).min(),
        Value::Object(fields) => fields.values().filter_map(due).min(),
        _ => None,
    }
}

fn due_in_text(text: &str) -> Option<Timestamp> {
    if text.trim_start().starts_with(ENCODED_PEM) {
        // Line breaks are no part of it, and allowed.
        let compact: String = text.split_ascii_whitespace().collect();
        return due_in_pem(&STANDARD.decode(compact).ok()?);
    }
    text.contains(PEM).then(|| due_in_pem(text.as_bytes()))?
}

fn due_in_pem(pem: &[u8]) -> Option<Timestamp> {
    Pem::iter_from_buffer(pem)
        .filter_map(Result::ok)
        .filter(|block| block.label == "CERTIFICATE")
        .filter_map(|block| {
            let validity = block.parse_x509().ok()?.validity().clone();
            let begin = validity.not_before.timestamp();
            let life = validity.not_after.timestamp().checked_sub(begin)?;
            Timestamp::from_second(begin.checked_add(life / 5 * 4)?).ok()
        })
        .min()
}

/// What is written on an object whose certificates are due at `due`, when it is applied now.
#[must_use]
pub fn mark(due: Timestamp, now: Timestamp) -> Timestamp {
    let earliest = now.checked_add(SHORTEST).unwrap_or(now);
    due.max(earliest)
}

/// What stands on an object; absent too if somebody wrote nonsense there.
#[must_use]
pub fn marked(annotations: &std::collections::BTreeMap<String, String>) -> Option<Timestamp> {
    annotations.get(RENEW_AFTER_ANNOTATION)?.parse().ok()
}

/// Makes the certificates of a chart go together: if one object with such a certificate is applied, all are. `certified`
/// tells for each decision whether its object has one.
pub fn together(decisions: &mut [Decision], certified: &[bool]) {
    let applied = decisions
        .iter()
        .zip(certified)
        .filter(|(_, certified)| **certified);
    let drifts = applied.filter_map(|(decision, _)| match decision {
        Decision::Apply { drifted, .. } => Some(*drifted),
        _ => None,
    });
    // What follows on a drift only is corrected no more often than that.
    let Some(drifted) = drifts.min() else {
        return;
    };
    for (decision, certified) in decisions.iter_mut().zip(certified) {
        if *certified && *decision == Decision::Keep {
            *decision = Decision::Apply {
                drifted,
                adopt: false,
                force: true,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use serde_json::json;

    use super::*;

    fn certificate(from: i32, to: i32) -> String {
        let mut params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn certificates_are_found_plain_and_encoded_and_the_first_counts() {
        let (short, long) = (certificate(2020, 2025), certificate(2020, 2030));
        // 80 % of the 1827 days from 2020 to 2025.
        let expected = Some(at("2024-01-01T14:24:00Z"));
        let plain = json!({"data": {"a": long, "b": [{"c": short}], "n": 3, "none": null}});
        assert_eq!(due(&plain), expected);
        let mut encoded = STANDARD.encode(format!("{long}{short}"));
        encoded.insert(76, '\n');
        assert_eq!(due(&json!({"caBundle": encoded})), expected);
    }

    #[test]
    fn objects_without_certificates_are_never_due() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        for text in [
            "",
            "plain",
            PEM,
            "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n",
            "LS0tLS1CRUdJTiBub25zZW5zZQ",
            &key,
        ] {
            assert_eq!(due(&json!({"a": text})), None, "{text}");
        }
    }

    #[test]
    fn certificates_that_are_as_good_as_over_are_renewed_once_an_hour() {
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(
            mark(at("2025-01-01T00:00:00Z"), now),
            at("2026-01-01T01:00:00Z")
        );
        let later = at("2027-01-01T00:00:00Z");
        assert_eq!(mark(later, now), later);
    }

    #[test]
    fn certificates_of_a_chart_are_made_anew_together() {
        let apply = Decision::Apply {
            drifted: false,
            adopt: false,
            force: false,
        };
        let forced = Decision::Apply {
            drifted: false,
            adopt: false,
            force: true,
        };
        let mut decisions = [
            apply.clone(),
            Decision::Keep,
            Decision::Keep,
            Decision::Leave,
        ];
        together(&mut decisions, &[true, true, false, true]);
        assert_eq!(
            decisions,
            [apply.clone(), forced, Decision::Keep, Decision::Leave]
        );
        let mut others = [apply.clone(), Decision::Keep];
        together(&mut others, &[false, true]);
        assert_eq!(others, [apply, Decision::Keep]);
    }
}
