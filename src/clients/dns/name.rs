//! The name of a host, checked once: lower case, no dot at its end, never a wildcard. What a zone keeps or a person
//! types becomes this before anything is compared.

use super::DnsError;
use std::fmt;

/// RFC 1035: 255 octets on the wire, which is 253 characters.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// Takes any case and a dot at the end, which mean nothing in DNS.
    pub fn parse(text: &str) -> Result<HostName, DnsError> {
        let lower = text.trim().to_ascii_lowercase();
        let bare = lower.strip_suffix('.').unwrap_or(&lower);
        let refused = |why: String| Err(DnsError::Refused(why));
        if bare.len() > LONGEST_NAME {
            return refused(format!(
                "A name in DNS has at most {LONGEST_NAME} characters; this one has {}.",
                bare.len()
            ));
        }
        for label in bare.split('.') {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if label.is_empty() || label.starts_with('-') || label.ends_with('-') || !label.chars().all(inner) {
                return refused(format!(
                    "“{}” is no name of a host: each part of it is letters, digits and inner dashes, for instance \
                     friday.example.org. A name with other letters is written in its xn-- form.",
                    shown(text)
                ));
            }
            if label.len() > LONGEST_LABEL {
                return refused(format!(
                    "A part of a name in DNS has at most {LONGEST_LABEL} characters; “{}…” has {}.",
                    &label[..20],
                    label.len()
                ));
            }
        }
        Ok(HostName(bare.to_owned()))
    }

    /// `friday` below `example.org`. The label may have several parts, and the zone's own name is not below itself.
    pub fn below(label: &str, zone: &HostName) -> Result<HostName, DnsError> {
        let label = HostName::parse(label)?;
        HostName::parse(&format!("{label}.{zone}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_below(&self, zone: &HostName) -> bool {
        self.0.strip_suffix(&zone.0).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// # Errors
    /// Says so when this name is not inside of the zone, or is the zone's own.
    pub(super) fn admitted_to(&self, zone: &HostName) -> Result<(), DnsError> {
        match self.is_below(zone) {
            true => Ok(()),
            false => Err(DnsError::Refused(format!("The name {self} is not inside of the zone {zone}."))),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A wrong name as it may be repeated to its writer: short, and with nothing that a message would act on.
fn shown(text: &str) -> String {
    const LONGEST: usize = 64;
    let harmless = |c: &char| !c.is_control() && !matches!(c, '`' | '@' | '<' | '>' | '|');
    text.trim().chars().filter(harmless).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_a_last_dot_mean_nothing() {
        for text in ["friday.example.org", "Friday.Example.ORG", "friday.example.org.", " friday.example.org "] {
            assert_eq!(HostName::parse(text).unwrap().as_str(), "friday.example.org");
        }
    }

    #[test]
    fn what_is_no_name_of_a_host_is_refused() {
        let long_label = format!("{}.example.org", "a".repeat(64));
        let long_name = format!("{}org", "abcdefg.".repeat(32));
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.b..",
            "*",
            "*.example.org",
            "-a.example.org",
            "a-.example.org",
            "_srv.example.org",
            "a b.example.org",
            "münchen.example.org",
            "a\\046b.example.org",
            "a\n.example.org",
            &long_label,
            &long_name,
        ] {
            assert!(matches!(HostName::parse(text), Err(DnsError::Refused(_))), "{text:?}");
        }
        assert!(HostName::parse(&format!("{}.org", "a".repeat(63))).is_ok());
    }

    #[test]
    fn inside_of_a_zone_is_below_it_at_a_dot() {
        let zone = HostName::parse("example.org").unwrap();
        let cases = [
            ("friday.example.org", true),
            ("a.b.example.org", true),
            ("example.org", false),
            ("notexample.org", false),
            ("friday.example.com", false),
            ("example.org.evil.net", false),
            ("org", false),
        ];
        for (name, inside) in cases {
            assert_eq!(HostName::parse(name).unwrap().is_below(&zone), inside, "{name}");
        }
        assert_eq!(HostName::below("Friday", &zone).unwrap().as_str(), "friday.example.org");
        // A name that is fine alone may be too long below the zone.
        assert!(HostName::below(&format!("{}abcdefghij", "abcdefghi.".repeat(24)), &zone).is_err());
    }
}
