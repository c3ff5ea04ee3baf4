"""Rules by which a provider misbehaves: what happens to the next requests that match.

Whatever a rule makes a provider say is held against its description like any other answer. `proxy` alone is outside of
it: something in front of the provider answers, with a status and a body that the API never has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

KINDS = frozenset(
    "slow late status proxy drop_before drop_after capacity quota denied pending half_delete stale_list".split()
)


@dataclass
class Rule:
    kind: str
    provider: str | None = None
    method: str | None = None
    path_regex: str = ""
    # How often it strikes; None: always.
    times: int | None = 1
    # How many matching requests pass unharmed first.
    after: int = 0
    seconds: float = 0.0
    # status, proxy: what is answered, and for status other words than the provider's usual ones.
    code: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    # half_delete: how many more looks show the host; None: all.
    polls: int | None = None

    @classmethod
    def parse(cls, asked: dict[str, Any]) -> Rule:
        rule = cls(**asked)
        if rule.kind not in KINDS:
            raise ValueError(f"there is no failure {rule.kind!r}; there are {', '.join(sorted(KINDS))}")
        if rule.kind == "status" and rule.code < 400:
            raise ValueError(f"{rule.code} is no failure that a provider tells; a proxy in front of it may answer so")
        re.compile(rule.path_regex)
        return rule

    def matches(self, provider: str, method: str, path: str) -> bool:
        if self.provider not in (None, provider) or (self.method or method).upper() != method.upper():
            return False
        return re.search(self.path_regex, path) is not None


class Rules:
    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def strike(self, provider: str, method: str, path: str) -> Rule | None:
        """The first rule that applies, once less from now on."""
        for rule in self.rules:
            if not rule.matches(provider, method, path):
                continue
            if rule.after > 0:
                rule.after -= 1
                continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times <= 0:
                    self.rules.remove(rule)
            return rule
        return None
