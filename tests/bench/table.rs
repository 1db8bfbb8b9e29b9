//! The figures, side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use tests::audit::{Counts, Request};

use crate::Figures;
use crate::measure::Used;

/// Lines that describe all cases, a column each, and what was asked of the API server in each case.
#[expect(clippy::print_stdout, reason = "the result of this program")]
pub fn print(all: &[Figures]) {
    println!("{}", columns(all));
    for figures in all {
        println!("Requests with {}:", figures.case.name());
        println!("  by the operator\n{}", counts(&figures.operator.requests));
        println!("  by the limit\n{}", counts(&figures.limit.requests));
        if let Some(rest) = &figures.rest {
            println!("  by the operator at rest\n{}", counts(&rest.requests));
        }
    }
    println!("Cores: {}", cores());
}

/// The operator's requests in their order, with the milliseconds from the first one's arrival to arrival and answer.
#[expect(clippy::print_stdout, reason = "the result of this program")]
pub fn print_timeline(figures: &Figures) {
    let mut requests: Vec<_> = figures.operator.requests.iter().collect();
    requests.sort_by_key(|request| request.received);
    let Some(first) = requests.first().map(|first| first.received) else {
        return;
    };
    let since = |time: Timestamp| time.duration_since(first).as_millis_f64();
    println!("Requests with {} in time:", figures.case.name());
    for request in requests {
        let (received, answered) = (since(request.received), since(request.answered));
        println!("{received:9.1} {answered:9.1}  {request}");
    }
}

/// A figure of a case; empty where there is none.
type Cell = fn(&Figures) -> String;

/// The lines of the table, with how each figure is taken.
const LINES: [(&str, Cell); 22] = [
    ("", |figures| figures.case.name()),
    ("first made to last Ready", |figures| {
        seconds(figures.operator.wall)
    }),
    ("  to the median one", |figures| seconds(figures.median)),
    ("limit", |figures| seconds(figures.limit.wall)),
    ("ratio", |figures| {
        let (operator, limit) = (figures.operator.wall, figures.limit.wall);
        format!("{:.2}", operator.as_secs_f64() / limit.as_secs_f64())
    }),
    ("CPU: operator", |figures| {
        seconds(figures.operator.operator)
    }),
    ("  its renderers", |figures| {
        seconds(figures.operator.renderers)
    }),
    ("  the limit's renderers", |figures| {
        seconds(figures.limit.renderers)
    }),
    ("  API server", |figures| {
        seconds(figures.operator.api_server)
    }),
    ("  API server, limit", |figures| {
        seconds(figures.limit.api_server)
    }),
    ("peak memory: operator", |figures| {
        mebibytes(figures.operator_peak)
    }),
    ("  its renderers", |figures| {
        let peaks: Vec<_> = figures
            .renderer_peaks
            .iter()
            .map(|peak| mebibytes(*peak))
            .collect();
        peaks.join(", ")
    }),
    ("requests a stack", |figures| {
        a_stack(figures, requests(&figures.operator))
    }),
    ("  limit", |figures| {
        a_stack(figures, requests(&figures.limit))
    }),
    ("  by verb", |figures| verbs(&figures.operator)),
    ("looks at a stack", |figures| {
        a_stack(figures, figures.reconciles.0)
    }),
    ("  at its release", |figures| {
        a_stack(figures, figures.reconciles.1)
    }),
    ("at rest: CPU of one core", |figures| {
        rest(figures, |rest| {
            share(rest.operator + rest.renderers, rest.wall)
        })
    }),
    ("  writes, but the lease", |figures| {
        rest(figures, |rest| {
            let writes = rest.requests.iter().filter(|request| request.is_write());
            writes
                .filter(|request| !is_lease(request))
                .count()
                .to_string()
        })
    }),
    ("  requests", |figures| {
        rest(figures, |rest| {
            format!(
                "{} in {:.0} s",
                rest.requests.len(),
                rest.wall.as_secs_f64()
            )
        })
    }),
    ("others' share of the machine", |figures| {
        foreign(&figures.operator)
    }),
    ("  limit", |figures| foreign(&figures.limit)),
];

fn columns(all: &[Figures]) -> String {
    let rows: Vec<Vec<String>> = LINES
        .iter()
        .map(|(label, cell)| {
            let cells = all.iter().map(cell);
            std::iter::once((*label).to_owned()).chain(cells).collect()
        })
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..=all.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(line, "   {cell:>width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn a_stack(figures: &Figures, count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let each = count as f64 / figures.case.stacks as f64;
    format!("{each:.1}")
}

fn requests(used: &Used) -> u64 {
    let requests = used.requests.iter().filter(|request| !is_lease(request));
    requests.count() as u64
}

fn verbs(used: &Used) -> String {
    let mut verbs: BTreeMap<&str, usize> = BTreeMap::new();
    for request in used.requests.iter().filter(|request| !is_lease(request)) {
        *verbs.entry(&request.verb).or_default() += 1;
    }
    let verbs: Vec<_> = verbs
        .iter()
        .map(|(verb, count)| format!("{count} {verb}"))
        .collect();
    verbs.join(", ")
}

fn is_lease(request: &Request) -> bool {
    request.resource == "leases"
}

fn rest(figures: &Figures, cell: fn(&Used) -> String) -> String {
    figures.rest.as_ref().map(cell).unwrap_or_default()
}

fn share(part: Duration, wall: Duration) -> String {
    format!("{:.2} %", 100.0 * part.as_secs_f64() / wall.as_secs_f64())
}

fn foreign(used: &Used) -> String {
    share(used.foreign, used.wall * cores())
}

fn cores() -> u32 {
    let cores = std::thread::available_parallelism();
    cores.map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

fn counts(requests: &[Request]) -> Counts {
    Counts::of(requests.iter())
}
