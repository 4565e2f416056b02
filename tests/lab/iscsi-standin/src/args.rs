//! Command lines as go-iscsi-helper writes them: `--long value` or `-s value`, in any order.

/// The arguments after the program's name.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a>(&'a [String]);

impl<'a> Args<'a> {
    /// Wraps the arguments after the program's name.
    pub fn new(args: &'a [String]) -> Self {
        Self(args)
    }

    /// The value that follows one of these names.
    pub fn value(&self, names: &[&str]) -> Option<&'a str> {
        let at = self.0.iter().position(|arg| names.contains(&arg.as_str()))?;
        self.0.get(at + 1).map(String::as_str)
    }

    /// Whether one of these names is there.
    pub fn has(&self, names: &[&str]) -> bool {
        self.0.iter().any(|arg| names.contains(&arg.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_values_by_either_name() {
        let args: Vec<String> = "-m node --targetname iqn:v --login".split(' ').map(Into::into).collect();
        let args = Args::new(&args);
        assert_eq!(args.value(&["-m", "--mode"]), Some("node"));
        assert_eq!(args.value(&["-T", "--targetname"]), Some("iqn:v"));
        assert_eq!(args.value(&["-p"]), None);
        assert_eq!(args.value(&["--login"]), None, "nothing follows it");
        assert!(args.has(&["-l", "--login"]));
    }
}
