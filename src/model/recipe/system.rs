//! The system that a recipe's scripts are made for, as the base of its container says. A rented host comes with the same;
//! a machine of your own has what it has.

use super::Container;

/// Debian's releases by name, from the oldest that hosts come with.
const RELEASES: [(&str, u32); 3] = [("bookworm", 12), ("trixie", 13), ("forky", 14)];

impl Container {
    /// The release of Debian that the base is; `None` where it is another system, or does not say.
    pub fn debian(&self) -> Option<u32> {
        let tag = self.base.rsplit('/').next()?.strip_prefix("debian:")?;
        let word = tag.split(['-', '.', '@']).next()?;
        let named = RELEASES.iter().find(|(name, _)| *name == word).map(|(_, release)| *release);
        named.or_else(|| word.parse().ok())
    }

    /// What to say where a script has failed on a system with this `/etc/os-release`, if that is another.
    pub fn made_for_another(&self, os_release: &str) -> Option<String> {
        let value = |key: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(|text| text.trim().trim_matches(['"', '\''])).filter(|text| !text.is_empty())
        };
        let (wanted, id) = (self.debian()?, value("ID")?);
        let version = value("VERSION_ID").unwrap_or("of an unknown version");
        if id == "debian" && version.split('.').next() == Some(wanted.to_string().as_str()) {
            return None;
        }
        let name = value("NAME").unwrap_or(id).trim_end_matches(" GNU/Linux");
        Some(format!("This recipe is made for Debian {wanted}; this system is {name} {version}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(name: &str) -> Container {
        Container { base: name.to_owned() }
    }

    #[test]
    fn a_base_says_which_debian_it_is_or_nothing() {
        for (name, release) in [
            ("debian:bookworm-slim", Some(12)),
            ("docker.io/library/debian:trixie", Some(13)),
            ("registry.example:5000/debian:trixie-20260101-slim@sha256:00", Some(13)),
            ("debian:12.9-slim", Some(12)),
            ("debian", None),
            ("debian:stable-slim", None),
            ("debian@sha256:00", None),
            ("ubuntu:24.04", None),
            ("not-debian:12", None),
        ] {
            assert_eq!(base(name).debian(), release, "{name}");
        }
    }

    #[test]
    fn who_runs_a_recipe_on_another_system_than_it_is_made_for_hears_so() {
        let debian =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        let ubuntu = "NAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n";
        let testing = "NAME=\"Debian GNU/Linux\"\nID=debian\n";
        let said = |name: &str, os_release: &str| base(name).made_for_another(os_release).unwrap_or_default();
        assert_eq!(said("debian:bookworm-slim", debian), "");
        assert_eq!(said("debian:trixie-slim", debian), "This recipe is made for Debian 13; this system is Debian 12.");
        assert_eq!(
            said("debian:bookworm-slim", ubuntu),
            "This recipe is made for Debian 12; this system is Ubuntu 24.04."
        );
        assert!(said("debian:bookworm-slim", testing).ends_with("this system is Debian of an unknown version."));
        assert_eq!(said("ubuntu:22.04", ubuntu), "", "nobody knows what that one needs");
        assert_eq!(said("debian:bookworm-slim", ""), "");
    }
}
