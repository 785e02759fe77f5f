"""Findings of safety checks, and the policy that decides which of them stop the work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from espwire.errors import SafetyStop, check_consents
from espwire.record import Record
from espwire.sizes import Ranges


class Policy(Record):
    """What the caller wants.

    ``compress`` None: where the loader can and it is shorter; True: encrypted blobs, too; False: never.
    ``verify`` None: where the loader can; True: refuse to write where it cannot; False: never.
    ``consents`` allow fatal findings by name; ``force`` allows all of them except those that need their name.
    ``rewrites``: how often a blob may be tried again.
    ``ignore_flash_enc_efuse``: do not check the eFuses for a flash encryption key.
    ``skip_flashed``: leave out blobs that the flash holds already, by its MD5.
    ``erase``: half-open flash ranges, whole sectors, to erase first.
    ``diff``: write only the sectors that differ from the flash, where the loader can find them.
    ``keep``: keep what shares a sector with a blob; False: it is erased.
    ``trust_flash_content``: do not even check a blob that equals its ``previous``.
    """

    compress: bool | None = None
    verify: bool | None = None
    erase_all: bool = False
    erase: Ranges = ()
    force: bool = False
    consents: frozenset[str] = frozenset()
    rewrites: int = 1
    ignore_flash_enc_efuse: bool = False
    diff: bool = True
    keep: bool = True
    skip_flashed: bool = False
    trust_flash_content: bool = False

    def erases(self, start: int, end: int) -> bool:
        """Whether something in this range is erased first, so that what the flash holds there now does not count."""
        return self.erase_all or any(low < end and start < high for low, high in self.erase)


class Finding(NamedTuple):
    """Something to know before acting. ``fatal``: it stops the work without ``consent`` (a name).

    ``remedy``: what to do instead of giving consent, a sentence. ``by_name_only``: ``force`` does not replace the consent.
    """

    code: str
    text: str
    fatal: bool = False
    consent: str = ""
    by_name_only: bool = False
    remedy: str = ""


def build_fatal(
    code: str, text: str, *, consent: str = "", by_name_only: bool = False, remedy: str = ""
) -> Finding:
    """A fatal finding; ``consent`` defaults to ``code``."""
    return Finding(code, text, True, consent or code, by_name_only, remedy)


def stop_if_fatal(findings: Iterable[Finding], policy: Policy, *, code: str | None = None) -> None:
    """Raise if the consent to a fatal finding is missing.

    :raises SafetyStop: all such findings, with the consents that would allow them
    :raises UsageError: code ``unknown-consent``: the policy names a consent that does not exist
    """
    allowed = check_consents(policy.consents)
    stopping = [
        f
        for f in findings
        if f.fatal and f.consent not in allowed and (f.by_name_only or not policy.force)
    ]
    if not stopping:
        return
    others = len(stopping) - 1
    more = f" (and {others} more reason{'s' if others > 1 else ''})" if others else ""
    consents = tuple(dict.fromkeys(f.consent for f in stopping))
    raise SafetyStop(
        stopping[0].text + more,
        hint=_build_hint(stopping),
        code=code or stopping[0].code,
        consents=consents,
        findings=[{"code": f.code, "text": f.text, "consent": f.consent} for f in stopping],
    )


def _build_hint(findings: list[Finding]) -> str:
    names = " ".join(f"--allow {name}" for name in dict.fromkeys(f.consent for f in findings))
    remedy = f"{findings[0].remedy} " if findings[0].remedy else ""
    if any(finding.by_name_only for finding in findings):
        return (
            f"{remedy}If you are sure, repeat with {names}; --force does not override this check."
        )
    return f"{remedy}If you are sure, repeat with {names}, or with --force."
