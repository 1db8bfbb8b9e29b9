//! All checks, in the contract's order. Ids are never reused.

use super::{
    case::Case,
    check::{Check, Duty, Load, Running, Steps},
    checks::{
        adoption as ad, delete as de, ensure as en, errors as er, get as ge, health as hl,
        identity as id, integrity as inn, limits as lm, list as li, publish as pu, required as rq,
        resolve as ri, secrets as se, states as st, transport as ta, validate_target as vt,
        validation as va,
    },
    hooks::Hook,
    options::Level,
};
use Duty::{Conditional, Must, Should};
use Hook::{
    AwaitExit, BackendDown, BackendNames, BackendPutForeign, BackendRemove, BackendTamper,
    BackendUp, BackendUse, Logs, Restart, RotateCerts, Terminate,
};
use Level::{Basic, Core, Extended};
use Load::{Alone, Light, Transfers};

macro_rules! steps {
    ($steps:path) => {{
        fn run(case: &Case) -> Running<'_> {
            Box::pin($steps(case))
        }
        Some(run as Steps)
    }};
}

/// A check with steps.
macro_rules! case {
    ($id:literal, $level:ident, $duty:ident, [$($hook:ident),*], $load:expr, $paragraph:literal, $steps:path) => {
        Check {
            id: $id,
            level: $level,
            duty: $duty,
            hooks: &[$($hook),*],
            load: $load,
            paragraph: $paragraph,
            steps: steps!($steps),
            look: None,
        }
    };
}

/// A check that looks at the whole run.
macro_rules! look {
    ($id:literal, $level:ident, $paragraph:literal, $look:path) => {
        Check {
            id: $id,
            level: $level,
            duty: Must,
            hooks: &[],
            load: Light,
            paragraph: $paragraph,
            steps: None,
            look: Some($look),
        }
    };
}

/// All checks of the contract.
#[rustfmt::skip]
pub(crate) static CHECKS: [Check; 126] = [
    case!("ID-01", Basic, Must, [], Light, "section 1, GetProviderInfoResponse", id::id_01),
    case!("ID-02", Basic, Must, [], Light, "section 1", id::id_02),
    case!("ID-03", Basic, Must, [], Light, "section 12", id::id_03),
    case!("ID-04", Basic, Must, [], Light, "section 2, Capability", id::id_04),
    case!("ID-05", Basic, Must, [], Light, "sections 1 and 4", id::id_05),
    case!("ID-06", Basic, Must, [], Light, "section 2, config_schema_json", id::id_06),
    case!("ID-07", Extended, Must, [BackendDown, BackendUp], Alone, "section 1", id::id_07),
    case!("ID-08", Extended, Must, [Restart], Alone, "section 1, instance_id", id::id_08),
    case!("HL-01", Core, Must, [], Light, "sections 1 and 10", hl::hl_01),
    case!("HL-02", Core, Must, [], Light, "section 1", hl::hl_02),
    case!("HL-03", Core, Must, [], Light, "section 10", hl::hl_03),
    case!("HL-04", Extended, Must, [BackendDown, BackendUp], Alone, "section 10", hl::hl_04),
    case!("HL-05", Extended, Should, [Terminate, AwaitExit, Restart], Alone, "section 8", hl::hl_05),
    case!("TA-01", Core, Must, [], Light, "section 10", ta::ta_01),
    case!("TA-02", Core, Must, [], Light, "section 10", ta::ta_02),
    case!("TA-03", Core, Must, [], Light, "section 10", ta::ta_03),
    case!("TA-04", Core, Must, [], Light, "section 10", ta::ta_04),
    case!("TA-05", Core, Must, [], Light, "section 10", ta::ta_05),
    case!("TA-06", Extended, Should, [RotateCerts], Alone, "section 10", ta::ta_06),
    case!("TA-07", Core, Must, [], Light, "section 8", ta::ta_07),
    case!("TA-08", Core, Must, [], Alone, "section 8", ta::ta_08),
    case!("TA-09", Extended, Should, [], Light, "section 8", ta::ta_09),
    look!("TA-10", Core, "section 8", ta::ta_10),
    look!("ER-01", Basic, "section 4, master rule", er::er_01),
    look!("ER-02", Basic, "section 4", er::er_02),
    look!("ER-03", Core, "section 4, text", er::er_03),
    case!("ER-04", Core, Must, [], Light, "section 4, text", er::er_04),
    look!("ER-05", Core, "section 4", er::er_05),
    look!("ER-06", Core, "section 4", er::er_06),
    look!("ER-07", Core, "section 4", er::er_07),
    case!("VA-01", Basic, Must, [], Light, "section 2", rq::va_01),
    case!("VA-02", Basic, Must, [], Light, "section 2, ImageKey", va::va_02),
    case!("VA-03", Basic, Must, [], Light, "section 2, Artifact", va::va_03),
    case!("VA-04", Core, Must, [], Light, "section 2, HttpSource", va::va_04),
    case!("VA-05", Basic, Must, [], Light, "section 2, Artifact", va::va_05),
    case!("VA-06", Core, Must, [], Light, "sections 2 and 4", va::va_06),
    case!("VA-07", Core, Must, [], Light, "section 2, SecretKey", va::va_07),
    case!("VA-08", Core, Must, [], Transfers(1), "section 2", va::va_08),
    case!("VA-09", Basic, Must, [], Light, "sections 4 and 12", va::va_09),
    case!("VA-10", Core, Must, [], Transfers(1), "section 12", va::va_10),
    case!("VA-11", Core, Must, [], Light, "section 2", va::va_11),
    case!("VA-12", Core, Must, [], Light, "section 2, ImageSpec", va::va_12),
    case!("VT-01", Basic, Must, [], Light, "section 5, place", vt::vt_01),
    case!("VT-02", Basic, Must, [], Light, "section 4", vt::vt_02),
    case!("VT-03", Core, Must, [], Light, "section 4", vt::vt_03),
    case!("VT-04", Core, Must, [], Light, "section 1", vt::vt_04),
    case!("VT-05", Extended, Should, [], Light, "section 1", vt::vt_05),
    case!("VT-06", Extended, Must, [Restart], Alone, "section 5, place", vt::vt_06),
    case!("RI-01", Basic, Must, [], Light, "section 1", ri::ri_01),
    case!("RI-02", Core, Conditional, [], Light, "section 1, ResolveImages", ri::ri_02),
    case!("RI-03", Core, Must, [], Light, "section 4", ri::ri_03),
    case!("RI-04", Core, Must, [], Light, "section 1, ResolveImages", ri::ri_04),
    case!("RI-05", Core, Conditional, [], Light, "section 1, ResolveImages", ri::ri_05),
    case!("EN-01", Basic, Must, [], Transfers(1), "section 3", en::en_01),
    case!("EN-02", Basic, Must, [], Transfers(1), "sections 1 and 3", en::en_02),
    case!("EN-03", Basic, Must, [], Transfers(1), "section 5 rule 9", en::en_03),
    case!("EN-04", Core, Must, [], Transfers(1), "sections 3 rule 8 and 5 rule 9", en::en_04),
    case!("EN-05", Basic, Must, [], Transfers(1), "section 5 rule 5", en::en_05),
    case!("EN-06", Basic, Must, [], Transfers(1), "section 5 rule 5", en::en_06),
    case!("EN-07", Core, Must, [], Transfers(1), "section 5 rules 2 and 5", en::en_07),
    case!("EN-08", Core, Must, [], Transfers(1), "section 5 rule 3", en::en_08),
    case!("EN-09", Core, Must, [], Transfers(1), "section 5 rule 3", en::en_09),
    case!("EN-10", Basic, Must, [], Transfers(1), "section 6", en::en_10),
    case!("EN-11", Core, Must, [], Transfers(1), "section 6", en::en_11),
    case!("EN-12", Extended, Must, [Restart], Alone, "sections 3 rule 1 and 6", en::en_12),
    case!("EN-13", Extended, Must, [Restart], Alone, "sections 3 rules 1 and 8 and 6", en::en_13),
    look!("EN-16", Core, "section 3", st::en_16),
    look!("EN-17", Core, "Progress", st::en_17),
    case!("EN-18", Core, Must, [], Transfers(1), "section 3 rule 9", lm::en_18),
    case!("EN-19", Core, Must, [], Transfers(1), "sections 2 and 3 rule 5", lm::en_19),
    case!("EN-20", Core, Must, [], Transfers(1), "section 3, WorkPolicy", lm::en_20),
    case!("EN-22", Extended, Should, [], Transfers(1), "section 9", lm::en_22),
    case!("EN-23", Core, Conditional, [], Transfers(1), "Capability RESUME", lm::en_23),
    case!("EN-24", Core, Conditional, [], Alone, "ProviderLimits", lm::en_24),
    case!("IN-01", Basic, Must, [], Transfers(1), "section 3 rule 3", inn::in_01),
    case!("IN-02", Basic, Must, [], Transfers(1), "section 3 rule 5", inn::in_02),
    case!("IN-03", Core, Must, [], Transfers(1), "section 3 rule 4", inn::in_03),
    case!("IN-04", Core, Must, [], Transfers(1), "HttpSource", inn::in_04),
    case!("IN-05", Core, Must, [], Transfers(1), "section 4", inn::in_05),
    case!("IN-06", Core, Must, [], Transfers(1), "sections 2 and 4", inn::in_06),
    case!("IN-07", Core, Must, [], Transfers(1), "section 9, Artifact.source_secrets", inn::in_07),
    case!("IN-08", Core, Must, [], Transfers(1), "section 3 rule 4", inn::in_08),
    case!("IN-09", Core, Must, [], Transfers(1), "ProviderLimits", inn::in_09),
    case!("IN-10", Extended, Must, [BackendTamper], Transfers(1), "section 3", inn::in_10),
    case!("IN-11", Core, Must, [], Transfers(1), "section 3, WorkPolicy.verified_since", inn::in_11),
    case!("IN-12", Core, Must, [], Transfers(1), "sections 2 and 3 rule 4", inn::in_12),
    case!("IN-13", Core, Must, [], Transfers(1), "section 2, HttpSource", inn::in_13),
    case!("IN-14", Core, Must, [], Transfers(1), "section 3 rule 4", inn::in_14),
    case!("GE-01", Basic, Must, [], Light, "section 4", ge::ge_01),
    case!("GE-02", Basic, Must, [], Transfers(1), "section 3 rule 2", ge::ge_02),
    case!("GE-03", Basic, Must, [], Transfers(1), "section 3", ge::ge_03),
    case!("GE-04", Extended, Must, [BackendRemove], Transfers(1), "section 3", ge::ge_04),
    case!("PU-01", Basic, Must, [], Transfers(1), "section 7 rule 2", pu::pu_01),
    case!("PU-02", Core, Must, [], Transfers(1), "section 7 rules 1 and 4", pu::pu_02),
    case!("PU-03", Core, Must, [], Transfers(1), "section 7 rule 2", pu::pu_03),
    case!("PU-04", Core, Must, [], Transfers(1), "section 7 rule 2", pu::pu_04),
    case!("PU-05", Core, Must, [], Transfers(1), "section 7 rules 1 and 4", pu::pu_05),
    case!("PU-06", Extended, Must, [BackendNames], Transfers(1), "section 7 rule 4", pu::pu_06),
    case!("PU-07", Extended, Must, [Restart], Alone, "section 7 rule 4", pu::pu_07),
    case!("PU-08", Extended, Must, [BackendPutForeign, BackendRemove, BackendNames], Transfers(1), "section 7 rules 4 and 5", pu::pu_08),
    case!("PU-09", Core, Must, [], Transfers(1), "section 7 rule 5", pu::pu_09),
    case!("PU-10", Core, Must, [], Transfers(1), "section 7 rule 2", pu::pu_10),
    case!("AD-01", Extended, Conditional, [BackendPutForeign, BackendRemove], Transfers(1), "section 7 rule 6", ad::ad_01),
    case!("AD-02", Extended, Conditional, [BackendPutForeign, BackendRemove, BackendNames], Transfers(1), "section 7 rule 6", ad::ad_02),
    case!("AD-03", Extended, Conditional, [BackendPutForeign, BackendRemove, BackendNames], Transfers(1), "section 7 rule 6", ad::ad_03),
    case!("AD-04", Core, Conditional, [], Transfers(1), "section 7 rule 6", ad::ad_04),
    case!("AD-05", Core, Must, [], Light, "section 2", ad::ad_05),
    case!("DE-01", Basic, Must, [], Transfers(1), "section 5 rule 8", de::de_01),
    case!("DE-02", Basic, Must, [], Light, "section 5 rule 8", de::de_02),
    case!("DE-03", Core, Must, [], Transfers(1), "section 5 rules 8 and 9", de::de_03),
    case!("DE-04", Core, Must, [], Transfers(1), "sections 1 and 3", de::de_04),
    case!("DE-05", Core, Must, [], Transfers(1), "section 3", de::de_05),
    case!("DE-06", Core, Must, [], Transfers(1), "section 5 rule 9", de::de_06),
    case!("DE-07", Extended, Must, [BackendPutForeign, BackendRemove, BackendNames], Transfers(1), "section 5 rule 8", de::de_07),
    case!("DE-08", Extended, Must, [BackendUse], Transfers(1), "section 4", de::de_08),
    case!("DE-09", Extended, Must, [Restart], Alone, "section 5 rules 7 and 8", de::de_09),
    case!("DE-10", Basic, Must, [], Transfers(1), "section 5 rule 8", de::de_10),
    case!("DE-11", Core, Must, [], Transfers(1), "section 3, burnt ids", de::de_11),
    case!("LI-01", Core, Conditional, [], Transfers(2), "ListImages", li::li_01),
    case!("LI-02", Core, Conditional, [], Transfers(1), "ListImages", li::li_02),
    case!("LI-03", Core, Conditional, [], Light, "ListImages", li::li_03),
    Check { look: Some(se::se_01_look), ..case!("SE-01", Basic, Must, [], Transfers(1), "section 9", se::se_01) },
    case!("SE-02", Extended, Must, [Logs], Alone, "section 9", se::se_02),
    case!("SE-03", Extended, Should, [], Alone, "section 9", se::se_03),
    case!("SE-04", Extended, Should, [BackendUse], Transfers(1), "section 9", se::se_04),
    case!("SE-05", Core, Must, [], Transfers(1), "section 9", se::se_05),
];

/// Steps and expectation of a check, as the contract words them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wording {
    pub(crate) id: &'static str,
    /// Level and duty, as in the table's second column.
    pub(crate) mark: &'static str,
    pub(crate) steps: &'static str,
    pub(crate) expected: &'static str,
}

/// The table of the documentation.
pub(crate) fn wordings() -> Vec<Wording> {
    include_str!("../../../docs/conformance.md")
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line
                .strip_prefix('|')?
                .strip_suffix('|')?
                .split('|')
                .collect();
            match cells.as_slice() {
                [id, mark, steps, expected] if id.len() == 5 && id.as_bytes()[2] == b'-' => {
                    Some(Wording {
                        id,
                        mark,
                        steps,
                        expected,
                    })
                }
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn table_is_the_one_of_the_contract() {
        let wordings = wordings();
        assert_eq!(wordings.len(), CHECKS.len());
        for (check, wording) in CHECKS.iter().zip(&wordings) {
            assert_eq!(check.id, wording.id);
            let level = match check.level {
                Basic => "b",
                Core => "c",
                Extended => "e",
            };
            let duty = match check.duty {
                Must => "",
                Should => "S",
                Conditional => "C",
            };
            assert_eq!(format!("{level}{duty}"), wording.mark, "{}", check.id);
            for hook in check.hooks {
                // Hooks that only come back from another one, or that tell, are not in the contract's table.
                let implied = [BackendUp, BackendRemove, BackendNames, AwaitExit, Restart];
                assert!(
                    implied.contains(hook) || wording.steps.contains(&format!("[{}]", hook.name())),
                    "{} {}",
                    check.id,
                    hook.name()
                );
            }
            let named = wording.steps.contains('[');
            assert_eq!(named, !check.hooks.is_empty(), "{}", check.id);
        }
    }

    #[test]
    fn levels_hold_as_many_checks_as_the_contract_says() {
        let count = |level| CHECKS.iter().filter(|check| check.level <= level).count();
        assert_eq!((count(Basic), count(Core), count(Extended)), (32, 101, 126));
        let ids: BTreeSet<_> = CHECKS.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), 126);
        assert!(
            CHECKS
                .iter()
                .all(|check| check.steps.is_some() || check.look.is_some())
        );
    }
}
