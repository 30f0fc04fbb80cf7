//! Which certificate is for a name (RFC 6125 section 6.4).

/// The names of several certificates, by the certificate's index.
#[derive(Clone, Debug)]
pub(in crate::tls) struct Names {
    names: Vec<Vec<String>>,
}

/// How well a certificate fits a name; the less the better.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Exact,
    Wildcard,
    No,
}

impl Names {
    /// The index of the certificate for a client that asks for `wanted`: one that
    /// is usable before one that is not, then an exact name, then a wildcard, then
    /// the first of all.
    pub(in crate::tls) fn choose(
        &self,
        wanted: Option<&str>,
        usable: impl Fn(usize) -> bool,
    ) -> usize {
        let wanted = wanted.map(normalised);
        let fit = |index: usize| {
            let names = self.names[index].iter();
            wanted.as_deref().map_or(Fit::No, |wanted| {
                names.map(|name| fit_of(name, wanted)).min().unwrap_or(Fit::No)
            })
        };
        let all = 0..self.names.len();
        all.min_by_key(|index| (!usable(*index), fit(*index), *index)).unwrap_or_default()
    }
}

impl<'a> FromIterator<&'a [String]> for Names {
    fn from_iter<T: IntoIterator<Item = &'a [String]>>(certificates: T) -> Self {
        let all = |names: &[String]| names.iter().map(|name| normalised(name)).collect();
        Self { names: certificates.into_iter().map(all).collect() }
    }
}

/// Lower case, without the dot of the root.
pub(super) fn normalised(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A wildcard is a whole leftmost label and stands for exactly one label.
fn fit_of(name: &str, wanted: &str) -> Fit {
    if name == wanted {
        return Fit::Exact;
    }
    let parent = wanted.split_once('.').filter(|(label, _)| !label.is_empty());
    match (name.strip_prefix("*."), parent) {
        (Some(of_name), Some((_, of_wanted))) if of_name == of_wanted => Fit::Wildcard,
        _ => Fit::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_then_wildcards_then_the_first() {
        let certificates: [&[&str]; 4] = [
            &["default.example"],
            &["*.example.org"],
            &["turn.example.org", "stun.example.org"],
            &["*.turn.example.org"],
        ];
        let certificates = certificates.map(|names| names.map_to_strings());
        let names: Names = certificates.iter().map(Vec::as_slice).collect();
        for (wanted, expected) in [
            ("turn.example.org", 2),
            ("STUN.example.ORG.", 2),
            ("other.example.org", 1),
            ("a.turn.example.org", 3),
            ("a.b.example.org", 0),
            ("example.org", 0),
            (".example.org", 0),
            ("*.example.org", 1),
            ("unknown", 0),
            ("", 0),
        ] {
            assert_eq!(names.choose(Some(wanted), |_| true), expected, "{wanted}");
        }
        assert_eq!(names.choose(None, |_| true), 0);
        assert_eq!(names.choose(Some("turn.example.org"), |index| index != 2), 1);
        assert_eq!(names.choose(Some("turn.example.org"), |_| false), 2);
    }

    trait MapToStrings {
        fn map_to_strings(&self) -> Vec<String>;
    }

    impl MapToStrings for &[&str] {
        fn map_to_strings(&self) -> Vec<String> {
            self.iter().map(|name| (*name).to_owned()).collect()
        }
    }
}
