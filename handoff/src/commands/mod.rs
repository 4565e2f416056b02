//! The tools that look at an installation and give it orders: one command per file. Each reads what it needs, makes a
//! report of it by a function without I/O, and prints that as a table, JSON or YAML.

pub mod blockers;
pub mod connection;
pub mod cordon_check;
pub mod doctor;
pub mod estimate;
pub mod explain;
pub mod explain_node;
pub mod history;
pub mod installation;
pub mod look;
pub mod orders;
pub mod output;
pub mod plan;
pub mod reference;
pub mod release;
pub mod simulate;
pub mod status;
pub mod subject;
pub mod uninstall;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

/// How a command ended that could do what it was asked. 1 is an error and 2 a command line that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Done; or the answer is yes.
    Yes,
    /// The answer is no. For `cordon-check`: not now, wait.
    No,
    /// The answer is no until somebody does something.
    Blocked,
}

impl End {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 3,
            Self::Blocked => 4,
        }
    }
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(end.code())
    }
}
