"""Every law on every method on every host; and what is refused is refused with its reason, changing nothing."""

from __future__ import annotations

import pytest

from tests.laws import LAWS, Law, holds_on, image
from tests.support.cases import CASES, REFUSED, Case
from tests.support.hosts import HOSTS, Host

pytestmark = pytest.mark.law
BY_NAME = {"cases": {c.name: c for c in CASES}, "hosts": {h.name: h for h in HOSTS}}
MATRIX = [
    pytest.param(law, case, host, id=f"{law.__name__}-{case.name}-{host.name}")
    for law in LAWS
    for case in CASES
    for host in HOSTS
    if (case.name, host.name) not in REFUSED and holds_on(law, host)
]


@pytest.mark.parametrize(("law", "case", "host"), MATRIX)
def test_law(law: Law, case: Case, host: Host) -> None:
    law(case, host)


@pytest.mark.parametrize(("case", "host"), REFUSED)
def test_refused(case: str, host: str) -> None:
    error, reason = REFUSED[case, host]
    it, on = BY_NAME["cases"][case], BY_NAME["hosts"][host]
    model = on.model()
    before = image(model)
    with pytest.raises(error, match=reason):
        it.inject(on, model)
    assert image(model) == before
