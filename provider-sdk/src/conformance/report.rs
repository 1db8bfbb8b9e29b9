//! Results: for people, as JSON and as JUnit XML.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

use super::{
    check::{Duty, Finding, NotRun},
    options::Level,
    table::wordings,
};

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As the contract says.
    Passed,
    /// Not as the contract says.
    Failed(Finding),
    /// Not tried.
    NotRun(NotRun),
}

/// The result of one check.
#[derive(Clone, Debug)]
pub struct CheckResult {
    /// Id in the contract.
    pub id: &'static str,
    /// The level to which it belongs.
    pub level: Level,
    /// Whether it has to pass.
    pub duty: Duty,
    /// Paragraphs of the contract.
    pub paragraph: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What may be said about the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check of the level that must pass has passed.
    Conformant,
    /// A check that must pass has failed.
    NotConformant,
    /// A check that must pass was not run.
    Incomplete,
}

impl Verdict {
    /// As written in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conformant => "conformant",
            Self::NotConformant => "not conformant",
            Self::Incomplete => "incomplete",
        }
    }

    /// The exit code of the program.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Conformant => 0,
            Self::NotConformant => 1,
            Self::Incomplete => 3,
        }
    }
}

/// Results of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The level that was asked for.
    pub level: Level,
    /// The package of the contract.
    pub contract: &'static str,
    /// As the provider says.
    pub provider_name: String,
    /// As the provider says.
    pub provider_version: String,
    /// Names, unknown ones as numbers.
    pub capabilities: Vec<String>,
    /// One for each check of the level, in the contract's order.
    pub checks: Vec<CheckResult>,
    /// Images that could not be removed.
    pub left_behind: Vec<String>,
    /// How long the run took.
    pub took: Duration,
}

impl Report {
    /// What may be said about the provider.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let counted = || {
            self.checks
                .iter()
                .filter(|check| check.duty != Duty::Should)
        };
        if counted().any(|check| matches!(check.outcome, Outcome::Failed(_))) {
            Verdict::NotConformant
        } else if counted().any(|check| {
            matches!(
                check.outcome,
                Outcome::NotRun(NotRun::Missing(_) | NotRun::LeftOut)
            )
        }) {
            Verdict::Incomplete
        } else {
            Verdict::Conformant
        }
    }

    /// The result of one check.
    #[must_use]
    pub fn check(&self, id: &str) -> Option<&CheckResult> {
        self.checks.iter().find(|check| check.id == id)
    }

    /// Ids of the checks that failed.
    #[must_use]
    pub fn failures(&self) -> Vec<&'static str> {
        self.checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Failed(_)))
            .map(|check| check.id)
            .collect()
    }

    /// For people: what failed with all that is known about it, what was not run, and the verdict.
    #[must_use]
    pub fn text(&self) -> String {
        let wordings = wordings();
        let mut text = format!(
            "provider {} {}, contract {}, level {}\ncapabilities {}\n\n",
            self.provider_name,
            self.provider_version,
            self.contract,
            self.level,
            self.capabilities.join(", ")
        );
        for check in &self.checks {
            let wording = wordings.iter().find(|wording| wording.id == check.id);
            let (steps, expected) =
                wording.map_or(("", ""), |wording| (wording.steps, wording.expected));
            let should = if check.duty == Duty::Should {
                " (should)"
            } else {
                ""
            };
            let _ = match &check.outcome {
                // A run of one check need not tell of all others.
                Outcome::NotRun(NotRun::LeftOut) => Ok(()),
                Outcome::Passed => writeln!(text, "pass     {}  {steps}", check.id),
                Outcome::NotRun(NotRun::NotApplicable(reason)) => {
                    writeln!(text, "-        {}  {steps}: {reason}", check.id)
                }
                Outcome::NotRun(NotRun::Missing(reason)) => {
                    writeln!(text, "not run  {}{should}  {steps}: {reason}", check.id)
                }
                Outcome::Failed(finding) => writeln!(
                    text,
                    "FAIL     {}{should}  {steps}\n           docs/contract.md ({}) says: {expected}\n           sent:     {}\n           expected: {}\n           came:     {}",
                    check.id,
                    check.paragraph,
                    indent(&finding.sent),
                    indent(&finding.expected),
                    indent(&finding.came),
                ),
            };
        }
        for left in &self.left_behind {
            let _ = writeln!(text, "left behind: {left}");
        }
        let count = |wanted: fn(&Outcome) -> bool| {
            self.checks
                .iter()
                .filter(|check| wanted(&check.outcome))
                .count()
        };
        let _ = writeln!(
            text,
            "\n{} passed, {} failed, {} not run, {} not applicable in {:.1} s: {}",
            count(|outcome| matches!(outcome, Outcome::Passed)),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| matches!(
                outcome,
                Outcome::NotRun(NotRun::Missing(_) | NotRun::LeftOut)
            )),
            count(|outcome| matches!(outcome, Outcome::NotRun(NotRun::NotApplicable(_)))),
            self.took.as_secs_f64(),
            self.verdict().as_str()
        );
        text
    }

    /// The same as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Json<'a> {
            suite: &'a str,
            contract: &'a str,
            provider: &'a str,
            provider_version: &'a str,
            capabilities: &'a [String],
            level: &'a str,
            verdict: &'a str,
            seconds: f64,
            checks: Vec<JsonCheck<'a>>,
            left_behind: &'a [String],
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct JsonCheck<'a> {
            id: &'a str,
            level: &'a str,
            duty: &'a str,
            result: &'a str,
            counts: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<String>,
            seconds: f64,
        }
        let checks = self
            .checks
            .iter()
            .map(|check| {
                let (result, counts, reason) = match &check.outcome {
                    Outcome::Passed => ("pass", true, None),
                    Outcome::Failed(finding) => ("fail", true, Some(one_text(check, finding))),
                    Outcome::NotRun(NotRun::NotApplicable(reason)) => {
                        ("not-run", false, Some(reason.clone()))
                    }
                    Outcome::NotRun(NotRun::Missing(reason)) => {
                        ("not-run", true, Some(reason.clone()))
                    }
                    Outcome::NotRun(NotRun::LeftOut) => {
                        ("not-run", true, Some(LEFT_OUT.to_owned()))
                    }
                };
                JsonCheck {
                    id: check.id,
                    level: check.level.as_str(),
                    duty: match check.duty {
                        Duty::Must => "must",
                        Duty::Should => "should",
                        Duty::Conditional => "conditional",
                    },
                    result,
                    counts: counts && check.duty != Duty::Should,
                    reason,
                    seconds: check.took.as_secs_f64(),
                }
            })
            .collect();
        let json = Json {
            suite: env!("CARGO_PKG_VERSION"),
            contract: self.contract,
            provider: &self.provider_name,
            provider_version: &self.provider_version,
            capabilities: &self.capabilities,
            level: self.level.as_str(),
            verdict: self.verdict().as_str(),
            seconds: self.took.as_secs_f64(),
            checks,
            left_behind: &self.left_behind,
        };
        // Strings, numbers and lists always serialize.
        serde_json::to_string_pretty(&json).unwrap_or_default() + "\n"
    }

    /// The same for tools that show tests.
    #[must_use]
    pub fn junit(&self) -> String {
        let failures = self.failures().len();
        let skipped = self
            .checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::NotRun(_)))
            .count();
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" skipped=\"{skipped}\" time=\"{:.3}\">\n    <properties>\n",
            escape(&format!("{} level {}", self.contract, self.level)),
            self.checks.len(),
            self.took.as_secs_f64(),
        );
        for (name, value) in [
            ("suite", env!("CARGO_PKG_VERSION")),
            ("provider", &self.provider_name),
            ("providerVersion", &self.provider_version),
            ("capabilities", &self.capabilities.join(" ")),
            ("verdict", self.verdict().as_str()),
        ] {
            let _ = writeln!(
                xml,
                "      <property name=\"{name}\" value=\"{}\"/>",
                escape(value)
            );
        }
        xml.push_str("    </properties>\n");
        for check in &self.checks {
            let _ = write!(
                xml,
                "    <testcase classname=\"conformance.{}\" name=\"{}\" time=\"{:.3}\"",
                check.level,
                check.id,
                check.took.as_secs_f64()
            );
            match &check.outcome {
                Outcome::Passed => xml.push_str("/>\n"),
                Outcome::Failed(finding) => {
                    let _ = writeln!(
                        xml,
                        ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                        escape(&finding.came),
                        escape(&one_text(check, finding))
                    );
                }
                Outcome::NotRun(reason) => {
                    let reason = match reason {
                        NotRun::NotApplicable(reason) | NotRun::Missing(reason) => reason,
                        NotRun::LeftOut => LEFT_OUT,
                    };
                    let _ = writeln!(
                        xml,
                        ">\n      <skipped message=\"{}\"/>\n    </testcase>",
                        escape(reason)
                    );
                }
            }
        }
        xml.push_str("  </testsuite>\n</testsuites>\n");
        xml
    }
}

/// Why a check was not run that nobody asked for.
const LEFT_OUT: &str = "left out by the filter";

fn one_text(check: &CheckResult, finding: &Finding) -> String {
    format!(
        "docs/contract.md, {}\nsent: {}\nexpected: {}\ncame: {}",
        check.paragraph, finding.sent, finding.expected, finding.came
    )
}

fn indent(text: &str) -> String {
    text.replace('\n', "\n                     ")
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(letter),
            // XML has no way to write these.
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(results: &[(&'static str, Duty, Outcome)]) -> Report {
        Report {
            level: Level::Basic,
            contract: "p",
            provider_name: "n".into(),
            provider_version: "1.0.0".into(),
            capabilities: vec!["LIST".into()],
            checks: results
                .iter()
                .map(|(id, duty, outcome)| CheckResult {
                    id,
                    level: Level::Basic,
                    duty: *duty,
                    paragraph: "section 4",
                    outcome: outcome.clone(),
                    took: Duration::from_millis(1),
                })
                .collect(),
            left_behind: Vec::new(),
            took: Duration::from_secs(1),
        }
    }

    fn failed() -> Outcome {
        Outcome::Failed(Finding {
            sent: "a <request>".into(),
            expected: "b".into(),
            came: "c\u{1}".into(),
        })
    }

    fn missing() -> Outcome {
        Outcome::NotRun(NotRun::Missing("no hook".into()))
    }

    #[test]
    fn check_that_must_pass_and_was_not_run_makes_incomplete() {
        let not_applicable = Outcome::NotRun(NotRun::NotApplicable("not advertised".into()));
        for (results, verdict) in [
            (
                vec![("ID-01", Duty::Must, Outcome::Passed)],
                Verdict::Conformant,
            ),
            (
                vec![("LI-01", Duty::Conditional, not_applicable)],
                Verdict::Conformant,
            ),
            (vec![("ID-07", Duty::Must, missing())], Verdict::Incomplete),
            (
                vec![("TA-06", Duty::Should, missing())],
                Verdict::Conformant,
            ),
            (vec![("TA-06", Duty::Should, failed())], Verdict::Conformant),
            (
                vec![
                    ("ID-07", Duty::Must, missing()),
                    ("ID-01", Duty::Must, failed()),
                ],
                Verdict::NotConformant,
            ),
        ] {
            assert_eq!(report(&results).verdict(), verdict, "{results:?}");
        }
    }

    #[test]
    fn reports_say_what_was_sent_expected_and_came() {
        let report = report(&[
            ("ID-01", Duty::Must, failed()),
            ("ID-07", Duty::Must, missing()),
        ]);
        let text = report.text();
        for part in [
            "FAIL     ID-01",
            "sent:     a <request>",
            "contract.md (section 4)",
            "no hook",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["verdict"], "not conformant");
        assert_eq!(json["checks"][0]["result"], "fail");
        assert_eq!(json["checks"][1]["result"], "not-run");
        let junit = report.junit();
        assert!(junit.contains("a &lt;request&gt;"), "{junit}");
        assert!(!junit.contains('\u{1}'), "{junit}");
        assert!(junit.contains("failures=\"1\" skipped=\"1\""), "{junit}");
    }
}
