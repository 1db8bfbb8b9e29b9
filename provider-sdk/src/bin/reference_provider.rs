//! `reference-provider`: a provider whose backend is a folder. For tests and for trying things out.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use provider_sdk::serve::ServeOptions;
use provider_sdk::testing::{Directory, Fault, PROJECT, Reference};

/// A provider whose backend is a folder: it keeps all rules of the contract, downloads for real, and may be killed.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Folder of the backend; made if need be.
    #[arg(
        long,
        env = "REFERENCE_STATE",
        global = true,
        default_value = "reference-provider"
    )]
    state: PathBuf,
    /// What goes wrong from the start: down, full, reject, hang or panic. May be given several times.
    #[arg(long = "fault", env = "REFERENCE_FAULTS", value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Transfers that may run at once.
    #[arg(long, env = "REFERENCE_SLOTS", default_value_t = 4)]
    slots: u32,
    #[command(flatten)]
    serve: ServeOptions,
    #[command(subcommand)]
    hook: Option<Hook>,
}

/// Things done to the backend behind the provider's back, as the conformance suite wants them from its hooks.
#[derive(Debug, Subcommand)]
enum Hook {
    /// Makes an object that carries no marker, and prints its id.
    PutForeign {
        /// Its name.
        #[arg(env = "CONFORMANCE_NAME")]
        name: String,
        /// Its bytes.
        #[arg(env = "CONFORMANCE_FILE")]
        file: PathBuf,
        /// Its format, as in the proto files.
        #[arg(env = "CONFORMANCE_DISK_FORMAT")]
        disk_format: String,
        /// The project that it belongs to.
        #[arg(long, default_value = PROJECT)]
        project: String,
    },
    /// Changes the bytes of an object.
    Tamper {
        /// The object.
        #[arg(env = "CONFORMANCE_ID")]
        id: String,
    },
    /// Removes an object.
    Remove {
        /// The object.
        #[arg(env = "CONFORMANCE_ID")]
        id: String,
    },
    /// Prints id and name of all objects.
    Names,
    /// Puts an object in use, and prints all that is known of it.
    Use {
        /// The object.
        #[arg(env = "CONFORMANCE_ID")]
        id: String,
    },
    /// Ends the use of an object.
    Free {
        /// The object.
        #[arg(env = "CONFORMANCE_ID")]
        id: String,
    },
    /// Makes something go wrong.
    Break {
        /// What.
        fault: Fault,
    },
    /// Ends what goes wrong.
    Mend {
        /// What.
        fault: Fault,
    },
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let backend = Directory::open(&args.state)?;
    if let Some(hook) = args.hook {
        return run(&backend, hook);
    }
    for fault in args.faults {
        backend.set_fault(fault, true)?;
    }
    let provider = Reference::new(backend).with_slots(args.slots);
    provider_sdk::serve(provider, args.serve).await?;
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "the answers of hooks are read from there"
)]
fn run(backend: &Directory, hook: Hook) -> Result<(), Box<dyn std::error::Error>> {
    match hook {
        Hook::PutForeign {
            name,
            file,
            disk_format,
            project,
        } => println!("{}", backend.put(&project, &name, &disk_format, &file)?.id),
        Hook::Tamper { id } => backend.tamper(&id)?,
        Hook::Remove { id } => backend.remove(&id)?,
        Hook::Names => {
            for object in backend.objects()? {
                println!("{}\t{}", object.id, object.name);
            }
        }
        Hook::Use { id } => println!("{:?}", backend.change(&id, |record| record.in_use = true)?),
        Hook::Free { id } => drop(backend.change(&id, |record| record.in_use = false)?),
        Hook::Break { fault } => backend.set_fault(fault, true)?,
        Hook::Mend { fault } => backend.set_fault(fault, false)?,
    }
    Ok(())
}
